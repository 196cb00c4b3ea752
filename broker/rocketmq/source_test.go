// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/queue"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

const (
	requests = "requests"
	rejects  = "rejects"
)

// produce adds records to a queue of a broker.
func produce(
	t *testing.T, c *remoting.Client, addr, topic string, queue int, records ...brokertest.Sent,
) {
	t.Helper()
	for len(records) > 0 {
		n := min(len(records), 500)
		batch := make([]remoting.Outgoing, n)
		for i, r := range records[:n] {
			batch[i].Body = r.Value
			for _, h := range r.Headers {
				batch[i].Properties = append(batch[i].Properties, remoting.Property(h))
			}
		}
		_, err := c.SendBatch(t.Context(), addr, topic, int32(queue), batch)
		require.NoError(t, err)
		records = records[n:]
	}
}

func client(t *testing.T, nameServer string) *remoting.Client {
	t.Helper()
	c, err := remoting.New(remoting.Config{NameServers: []string{nameServer}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestSourceConforms(t *testing.T) {
	brokertest.RunSource(t, func(t *testing.T, tier bool) brokertest.SourceSubject {
		c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
		c.CreateTopic(requests, 1)
		c.CreateTopic(rejects, 2)
		own := client(t, c.NameServer())
		return brokertest.SourceSubject{
			Partitions: 2,
			Open: func(t *testing.T) broker.Source {
				s, err := NewSource(config(c), SourceConfig{
					Topic: requests, Group: "g", Tier: tier, RejectTopic: rejects,
				})
				require.NoError(t, err)
				return s
			},
			Append: func(t *testing.T, p int, records ...brokertest.Sent) {
				require.Eventually(t, func() bool { // the broker may be in its pause
					_, err := own.MaxOffset(t.Context(), c.Broker(p).Addr(), requests, 0)
					return err == nil
				}, 20*time.Second, 10*time.Millisecond)
				produce(t, own, c.Broker(p).Addr(), requests, 0, records...)
			},
			Acknowledged: func(_ *testing.T, p int) int64 {
				return max(0, c.Broker(p).GroupOffset("g", requests, 0))
			},
			Rejected: func(*testing.T) (out []brokertest.Reject) {
				for _, m := range c.Messages(rejects) {
					out = append(out, brokertest.Reject{
						Value: m.Body, Error: m.Properties.Value(intake.HeaderError),
					})
				}
				return out
			},
			Restart: func(t *testing.T) {
				for i := range 2 {
					c.Broker(i).Stop()
				}
				for i := range 2 {
					require.NoError(t, c.Broker(i).Start(t.Context()))
				}
			},
		}
	})
}

// reading runs a source until the test ends.
func reading(
	t *testing.T, c *fakebroker.Cluster, in broker.Intake, sc SourceConfig,
) *Source {
	t.Helper()
	sc.Topic, sc.Group = requests, "g"
	s, err := NewSource(config(c), sc)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, in) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, s.Close())
	})
	return s
}

func request(id string, more ...delay.Header) brokertest.Sent {
	return brokertest.Sent{Value: []byte("body of " + id), Headers: append(more,
		delay.Header{Name: "cicada-id", Value: id}, delay.Header{Name: "cicada-delay", Value: "1h"},
		delay.Header{Name: "cicada-target", Value: "pull:q"})}
}

func awaitTaken(t *testing.T, in *brokertest.Intake, n int) []brokertest.Taken {
	t.Helper()
	require.Eventually(t, func() bool { return len(in.Taken()) >= n }, 20*time.Second,
		5*time.Millisecond)
	require.Len(t, in.Taken(), n)
	require.Empty(t, in.Breaches())
	return in.Taken()
}

// A partition's name is in cursors and ids for ever (R17).
func TestPartitionNames(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 2)
	in := brokertest.NewIntake()
	reading(t, c, in, SourceConfig{Target: "rocketmq:rmq/orders"})
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 1, brokertest.Sent{
		Value: []byte("b"), Headers: []delay.Header{
			{Name: "__STARTDELIVERTIME", Value: "1900000000000"}, {Name: "TAGS", Value: "t"},
			{Name: remoting.PropertyUniqueKey, Value: "7F0001"}, {Name: "WAIT", Value: "true"},
		},
	})
	k := awaitTaken(t, in, 1)[0]
	require.Equal(t, broker.Partition("rocketmq:rmq/broker-a/requests/1"), k.Partition)
	require.Equal(t, delay.ID("rocketmq:rmq/broker-a/requests/1/0"), k.Draft.ID)
	require.Equal(t, delay.Target("rocketmq:rmq/orders"), k.Draft.Target)
	require.Equal(t, delay.Due(1_900_000_000_000), k.Draft.Due)
	require.ElementsMatch(t, []delay.Header{
		{Name: "TAGS", Value: "t"}, {Name: remoting.PropertyUniqueKey, Value: "7F0001"},
	}, k.Draft.Headers)
}

// A producer that sends again with the same id makes another unique key: it must look the same, or
// the repetition is refused as other content (S4).
func TestRepeatedRequestsLookTheSame(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	in := brokertest.NewIntake()
	reading(t, c, in, SourceConfig{})
	unique := func(v string) delay.Header {
		return delay.Header{Name: remoting.PropertyUniqueKey, Value: v}
	}
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 0,
		request("one", unique("U1")), request("one", unique("U2")))
	got := awaitTaken(t, in, 2)
	require.Equal(t, delay.Digest(&got[0].Draft.Message), delay.Digest(&got[1].Draft.Message))
}

// Records that expired before they were read are gone: that must be counted, and reading go on.
func TestRecordsTheBrokerLost(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	own, b := client(t, c.NameServer()), c.Broker(0)
	produce(t, own, b.Addr(), requests, 0, request("lost 1"), request("lost 2"))
	_, high := b.CommitLog()
	produce(t, own, b.Addr(), requests, 0, request("kept"))
	in := brokertest.NewIntake()
	name := broker.Partition("rocketmq:rmq/broker-a/requests/0")
	require.NoError(t, in.Take(t.Context(), &broker.Batch{Partition: name, Next: 0}))
	b.Expire(high)
	s := reading(t, c, in, SourceConfig{})
	got := awaitTaken(t, in, 1)
	require.Equal(t, delay.ID("kept"), got[0].Draft.ID)
	require.EqualValues(t, 2, s.Stats().Missed)
	require.Eventually(t, func() bool { // counted when the shard has answered
		return s.Stats().Taken == 1 && s.Stats().Lag == 0
	}, 20*time.Second, time.Millisecond)
}

// A queue that ends before the cursor holds other messages under the same offsets: taking them for
// known ones would lose them, and taking them again would repeat others (Q7).
func TestQueueThatEndsBeforeTheCursor(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	own, b := client(t, c.NameServer()), c.Broker(0)
	in := brokertest.NewIntake()
	reading(t, c, in, SourceConfig{})
	for i := range 3 {
		produce(t, own, b.Addr(), requests, 0, request(fmt.Sprint("id ", i)))
	}
	awaitTaken(t, in, 3)
	var pulls atomic.Int64
	b.OnRequest(func(c *remoting.Command) fakebroker.Fault {
		if c.Code == remoting.RequestPull {
			pulls.Add(1)
		}
		return fakebroker.Fault{}
	})
	b.Truncate(requests, 0, 2)
	produce(t, own, b.Addr(), requests, 0, request("after"))
	require.Eventually(t, func() bool { return pulls.Load() > 0 }, 20*time.Second, time.Millisecond)
	require.Never(t, func() bool { return len(in.Taken()) > 3 }, 300*time.Millisecond,
		10*time.Millisecond)
	require.Less(t, pulls.Load(), int64(10), "it is asked after pauses")
	produce(t, own, b.Addr(), requests, 0, request("next"), request("beyond"))
	got := awaitTaken(t, in, 4)
	require.Equal(t, delay.ID("beyond"), got[3].Draft.ID)
}

// A shard that takes its time must not make the source read a whole topic into memory (Q6).
func TestReadingAheadIsBounded(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	var pulls atomic.Int64
	c.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
		if c.Code == remoting.RequestPull {
			pulls.Add(1)
		}
		return fakebroker.Fault{}
	})
	const all = 4 * (queue.PullsAhead + 4) * remoting.MaxPull
	records := make([]brokertest.Sent, all)
	for i := range records {
		records[i] = request(fmt.Sprint("id ", i))
	}
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 0, records...)
	in := brokertest.NewIntake()
	in.Hold()
	reading(t, c, in, SourceConfig{})
	most := int64(queue.PullsAhead + 2 + broker.MaxBatch/remoting.MaxPull)
	require.Eventually(t, func() bool { return pulls.Load() > queue.PullsAhead }, 20*time.Second,
		time.Millisecond)
	require.Never(t, func() bool { return pulls.Load() > most }, 200*time.Millisecond,
		10*time.Millisecond)
	in.Release()
	awaitTaken(t, in, all)
}

// New queues and new brokers come while the source runs, and a topic may come after it.
func TestTopicThatComesLater(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	in := brokertest.NewIntake()
	s := reading(t, c, in, SourceConfig{})
	require.Never(t, func() bool { return s.Stats().Queues > 0 }, 50*time.Millisecond,
		10*time.Millisecond)
	c.CreateTopic(requests, 3)
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 2, request("a"))
	awaitTaken(t, in, 1)
	require.Equal(t, 3, s.Stats().Queues)
}

// What cannot be read, what is too large for the reject topic, and a reject topic that is not there
// must not stop the others (B6); one that is away must not lose the record.
func TestRejectTopics(t *testing.T) {
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	c.Broker(0).CreateTopic(requests, 1)
	own := client(t, c.NameServer())
	bad := request("bad", delay.Header{Name: "cicada-nonsense", Value: "\u0085"})
	in := brokertest.NewIntake()
	s := reading(t, c, in, SourceConfig{RejectTopic: rejects})
	produce(t, own, c.Broker(0).Addr(), requests, 0, bad, request("good"))
	awaitTaken(t, in, 1)
	require.EqualValues(t, 1, s.Stats().Refused)
	require.Zero(t, s.Stats().Rejected, "there is no such topic")

	c.Broker(1).CreateTopic(rejects, 1)
	c.Broker(1).OnRequest(func(*remoting.Command) fakebroker.Fault {
		return fakebroker.Fault{Refuse: remoting.SystemBusy}
	})
	large := bad
	large.Headers = append([]delay.Header{{Name: "x", Value: strings.Repeat("x", 31_000)}},
		bad.Headers...)
	produce(t, own, c.Broker(0).Addr(), requests, 0, large, request("second"))
	require.Never(t, func() bool { return len(in.Taken()) > 1 }, 300*time.Millisecond,
		10*time.Millisecond, "the record is not rejected yet")
	c.Broker(1).OnRequest(nil)
	awaitTaken(t, in, 2)
	got := c.Messages(rejects)
	require.Len(t, got, 1)
	require.Contains(t, got[0].Properties.Value(intake.HeaderError), "cicada-nonsense")
	require.Equal(t, "rocketmq:rmq/a/requests/0/2", got[0].Properties.Value(intake.HeaderSource))
	require.Equal(t, "body of bad", string(got[0].Body))
}

// A broker forgets all but one of a new group's offsets that come at the same time, 21 of 1,000 pairs
// in a run with 5.3.3, and says that they are set: each queue's must be there.
func TestFirstOffsetsOneByOne(t *testing.T) {
	const queues = 8
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, queues)
	own, in := client(t, c.NameServer()), brokertest.NewIntake()
	for q := range queues {
		produce(t, own, c.Broker(0).Addr(), requests, q, request(fmt.Sprint("m", q)))
	}
	reading(t, c, in, SourceConfig{})
	awaitTaken(t, in, queues)
	require.Eventually(t, func() bool {
		for q := range int32(queues) {
			if c.Broker(0).GroupOffset("g", requests, q) != 1 {
				return false
			}
		}
		return true
	}, 20*time.Second, 10*time.Millisecond)
}

// What the shard refuses must not be passed while the reject topic is away: once the cursor is behind
// it nothing brings it back (B4, B6).
func TestRefusedByTheShard(t *testing.T) {
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	c.Broker(0).CreateTopic(requests, 1)
	c.Broker(1).CreateTopic(rejects, 1)
	c.Broker(1).OnRequest(func(*remoting.Command) fakebroker.Fault {
		return fakebroker.Fault{Refuse: remoting.SystemBusy}
	})
	own, in := client(t, c.NameServer()), brokertest.NewIntake()
	s := reading(t, c, in, SourceConfig{RejectTopic: rejects})
	produce(t, own, c.Broker(0).Addr(), requests, 0, request(brokertest.RefusedPrefix+"1"))
	require.Eventually(t, func() bool { return in.Calls() > 0 }, 20*time.Second, time.Millisecond)
	require.Never(t, func() bool { return c.Broker(0).GroupOffset("g", requests, 0) > 0 },
		3*ackEvery/2, 10*time.Millisecond)
	require.Empty(t, in.Parts(), "the cursor has passed it")
	c.Broker(1).OnRequest(nil)
	require.Eventually(t, func() bool { return c.Broker(0).GroupOffset("g", requests, 0) == 1 },
		20*time.Second, 10*time.Millisecond)
	require.Len(t, c.Messages(rejects), 1)
	require.Eventually(t, func() bool { // the cursor moves before the shard answers
		return s.Stats() == Stats{Taken: 1, Refused: 1, Rejected: 1, Queues: 1}
	}, 20*time.Second, time.Millisecond)
}

// A shard that is full for long has the same records brought again and again: what of them was
// rejected must not be copied each time.
func TestRejectedOnce(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	c.CreateTopic(rejects, 1)
	in := brokertest.NewIntake()
	in.Script(func(call int, _ *broker.Batch) brokertest.Fault {
		if call < 4 {
			return brokertest.Fault{Err: delay.ErrOverloaded}
		}
		return brokertest.Fault{}
	})
	bad := request("bad")
	bad.Headers = append(bad.Headers, delay.Header{Name: "cicada-nonsense", Value: "1"})
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 0, bad,
		request(brokertest.RefusedPrefix+"1"), request("a"))
	reading(t, c, in, SourceConfig{RejectTopic: rejects})
	awaitTaken(t, in, 1)
	require.Len(t, c.Messages(rejects), 2)
}

// A shard without room must be asked after pauses that grow.
func TestPausesOfAFullShard(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.CreateTopic(requests, 1)
	in := brokertest.NewIntake()
	in.Script(func(int, *broker.Batch) brokertest.Fault {
		return brokertest.Fault{Err: delay.ErrOverloaded}
	})
	reading(t, c, in, SourceConfig{})
	produce(t, client(t, c.NameServer()), c.Broker(0).Addr(), requests, 0, request("a"))
	require.Eventually(t, func() bool { return in.Calls() > 0 }, 20*time.Second, time.Millisecond)
	require.Never(t, func() bool { return in.Calls() > 3 }, 250*time.Millisecond,
		10*time.Millisecond)
	in.Script(nil)
	awaitTaken(t, in, 1)
}

// Mistakes in the configuration must be named before anything is read.
func TestSourceConfigIsChecked(t *testing.T) {
	cfg := Config{Broker: "rmq", NameServers: []string{"x:1"}}
	for field, sc := range map[string]SourceConfig{
		"brokers.rmq.sources.topic":        {Topic: "SCHEDULE_TOPIC_XXXX"},
		"brokers.rmq.sources.group":        {Topic: "t", Group: "a b"},
		"brokers.rmq.sources.reject_topic": {Topic: "t", RejectTopic: "t"},
	} {
		_, err := NewSource(cfg, sc)
		var e *delay.FieldError
		require.ErrorAs(t, err, &e)
		require.Equal(t, field, e.Field)
	}
	_, err := NewSource(Config{Broker: "rmq"}, SourceConfig{Topic: "t"})
	require.ErrorIs(t, err, delay.ErrInvalid)
}
