// SPDX-License-Identifier: Apache-2.0

package remoting_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

func now() delay.Due { return delay.Due(time.Now().UnixMilli()) }

// testBroker is a broker, real or not, and a client of it.
type testBroker struct {
	*remoting.Client
	addr, topic string
	stop, start func(t *testing.T)
}

// opener connects to a broker.
type opener func(t *testing.T, e remoting.Encoding) testBroker

// The fake broker stands for the real one in the tests of whatever uses this package: both must
// pass the same tests.
func TestFakeBroker(t *testing.T) {
	agree(t, func(t *testing.T, e remoting.Encoding) testBroker {
		c, err := fakebroker.Start(t.Context(), fakebroker.Options{})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		b := connect(t, c.NameServer(), e)
		b.stop = func(*testing.T) { c.Broker(0).Stop() }
		b.start = func(t *testing.T) { require.NoError(t, c.Broker(0).Start(t.Context())) }
		return b
	})
}

// The protocol is written down nowhere, so a real broker must be asked.
func TestRealBroker(t *testing.T) {
	agree(t, func(t *testing.T, e remoting.Encoding) testBroker {
		ns, broker := realtest.RocketMQ(t)
		b := connect(t, ns.Addr, e)
		b.stop, b.start = func(t *testing.T) { broker.Kill(t) }, func(t *testing.T) { broker.Start(t) }
		return b
	})
}

func agree(t *testing.T, open opener) {
	t.Run("send and read", func(t *testing.T) { sendAndRead(t, open) })
	t.Run("offsets", func(t *testing.T) { offsets(t, open) })
	t.Run("new topic", func(t *testing.T) { newTopic(t, open) })
	t.Run("long poll", func(t *testing.T) { longPoll(t, open) })
	t.Run("delays", func(t *testing.T) { delays(t, open) })
	t.Run("refusals", func(t *testing.T) { refusals(t, open) })
	t.Run("restart", func(t *testing.T) { restart(t, open) })
}

func connect(t *testing.T, nameServer string, e remoting.Encoding) testBroker {
	t.Helper()
	c, err := remoting.New(remoting.Config{
		NameServers: []string{"127.0.0.1:1", nameServer}, Encoding: e,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	b := testBroker{Client: c, topic: realtest.Name(t)}
	r, err := c.Route(t.Context(), remoting.TopicSchedule)
	require.NoError(t, err)
	require.Len(t, r.Brokers, 1)
	require.Len(t, r.Readable(), 18)
	b.addr = r.Master(r.Brokers[0].Name)
	return b
}

func (b testBroker) send(t *testing.T, key string, more ...remoting.Property) remoting.Sent {
	t.Helper()
	p := append(remoting.Properties{
		{Name: remoting.PropertyUniqueKey, Value: key}, {Name: remoting.PropertyKeys, Value: "k1 k2"},
		{Name: "note", Value: "ä\"<>&\\"},
	}, more...)
	s, err := b.Send(t.Context(), b.addr, b.topic, 1, &remoting.Outgoing{
		Born: now(), Flag: 7, Properties: p, Body: []byte("body of " + key),
	})
	require.NoError(t, err)
	return s
}

// pullAll reads a queue to its end.
func (b testBroker) pullAll(t *testing.T, topic string, queue int32) (all []remoting.Message) {
	t.Helper()
	at, err := b.MinOffset(t.Context(), b.addr, topic, queue)
	require.NoError(t, err)
	for {
		p, err := b.Pull(t.Context(), b.addr, remoting.Pull{
			Group: "remoting", Topic: topic, Queue: queue, Offset: at,
		})
		require.NoError(t, err)
		if p.Status != remoting.PullFound {
			return all
		}
		all, at = append(all, p.Messages...), p.Next
	}
}

// The protocol is written down nowhere: what is sent, one by one or as a batch, must come back as
// it was by every way of reading, in both encodings.
func sendAndRead(t *testing.T, open opener) {
	for _, e := range []remoting.Encoding{remoting.JSON, remoting.Binary} {
		t.Run(fmt.Sprint(e), func(t *testing.T) {
			b := open(t, e)
			began := now()
			sent := b.send(t, "U1")
			batch, err := b.SendBatch(t.Context(), b.addr, b.topic, 1, []remoting.Outgoing{
				{Born: began, Body: []byte("two"), Properties: remoting.Properties{
					{Name: remoting.PropertyUniqueKey, Value: "U2"},
				}},
				{Born: began, Flag: 9, Properties: remoting.Properties{
					{Name: remoting.PropertyUniqueKey, Value: "U3"},
				}},
			})
			require.NoError(t, err)
			require.Len(t, batch.MessageIDs, 2)
			require.Equal(t, sent.Offset+1, batch.Offset)

			all := b.pullAll(t, b.topic, 1)
			require.Len(t, all, 3)
			for _, m := range all {
				require.NoError(t, m.Err)
				require.GreaterOrEqual(t, m.Stored, began)
			}
			require.Equal(t, "body of U1", string(all[0].Body))
			require.Equal(t, "ä\"<>&\\", all[0].Properties.Value("note"))
			require.EqualValues(t, 7, all[0].Flag)
			require.Equal(t, "two", string(all[1].Body))
			require.Empty(t, all[2].Body)
			require.EqualValues(t, 9, all[2].Flag)

			_, physical, err := remoting.ParseMessageID(batch.MessageIDs[0])
			require.NoError(t, err)
			viewed, err := b.View(t.Context(), b.addr, physical)
			require.NoError(t, err)
			require.Equal(t, all[1], *viewed)
			_, err = b.View(t.Context(), b.addr, physical+1<<40)
			require.ErrorIs(t, err, delay.ErrNotFound)
			_, err = b.View(t.Context(), b.addr, physical+1) // a real broker may give what lies there
			require.Error(t, err)

			query := remoting.Query{Topic: b.topic, Key: "U3", Unique: true, End: now() + 60_000}
			require.Eventually(t, func() bool {
				found, err := b.Query(t.Context(), b.addr, query)
				return err == nil && len(found) == 1
			}, 10*time.Second, 10*time.Millisecond)
			query.Key = "U"
			found, err := b.Query(t.Context(), b.addr, query)
			require.NoError(t, err)
			require.Empty(t, found)
		})
	}
}

// Positions decide what is read again and what never.
func offsets(t *testing.T, open opener) {
	b := open(t, remoting.JSON)
	began := now()
	for i := range 3 {
		b.send(t, fmt.Sprint("U", i))
	}
	low, err := b.MinOffset(t.Context(), b.addr, b.topic, 1)
	require.NoError(t, err)
	high, err := b.MaxOffset(t.Context(), b.addr, b.topic, 1)
	require.NoError(t, err)
	require.EqualValues(t, 3, high-low)
	at, err := b.OffsetAt(t.Context(), b.addr, b.topic, 1, began)
	require.NoError(t, err)
	require.Equal(t, low, at)
	pull := remoting.Pull{Group: b.topic, Topic: b.topic, Queue: 1, Offset: high + 1000}
	p, err := b.Pull(t.Context(), b.addr, pull)
	require.NoError(t, err)
	require.Equal(t, remoting.PullMoved, p.Status)
	require.Equal(t, []int64{low, high, high}, []int64{p.Min, p.Max, p.Next})
	pull.Offset = high
	p, err = b.Pull(t.Context(), b.addr, pull)
	require.NoError(t, err)
	require.Equal(t, remoting.PullEmpty, p.Status)

	_, err = b.GroupOffset(t.Context(), b.addr, b.topic, b.topic, 1)
	require.ErrorIs(t, err, delay.ErrNotFound)
	require.NoError(t, b.CommitOffset(t.Context(), b.addr, b.topic, b.topic, 1, 2))
	at, err = b.GroupOffset(t.Context(), b.addr, b.topic, b.topic, 1)
	require.NoError(t, err)
	require.EqualValues(t, 2, at)
	require.NoError(t, b.Heartbeat(t.Context(), b.addr, "us@1", b.topic, []string{b.topic}))
}

// A topic that was just made must be where it was made, with its queues.
func newTopic(t *testing.T, open opener) {
	b := open(t, remoting.JSON)
	require.NoError(t, b.CreateTopic(t.Context(), b.addr, b.topic, 3))
	require.Eventually(t, func() bool {
		r, err := b.Refresh(t.Context(), b.topic)
		return err == nil && len(r.Writable()) == 3
	}, 30*time.Second, 50*time.Millisecond)
}

// A long poll must return with the message, not with the end of its wait.
func longPoll(t *testing.T, open opener) {
	b := open(t, remoting.Binary)
	first := b.send(t, "first")
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		p, err := b.Pull(t.Context(), b.addr, remoting.Pull{
			Group: b.topic, Topic: b.topic, Queue: 1, Offset: first.Offset + 1, Wait: 15 * time.Second,
		})
		if err == nil && len(p.Messages) != 1 {
			err = fmt.Errorf("%d messages", len(p.Messages))
		}
		done <- err
	}()
	b.send(t, "second")
	require.NoError(t, <-done)
	require.Less(t, time.Since(began), 10*time.Second)
}

// Delays and timers are what this is about: their entries in the broker's own topics, how far they
// were delivered, and a recall.
func delays(t *testing.T, open opener) {
	b := open(t, remoting.JSON)
	level := b.send(t, "L1", remoting.Property{Name: remoting.PropertyDelayLevel, Value: "5"})
	require.Empty(t, level.Recall)
	due := now() + 60_000
	timer := b.send(t, "T1", remoting.Property{
		Name: remoting.PropertyDeliverAt, Value: fmt.Sprint(int64(due)),
	})
	h, err := remoting.ParseRecallHandle(timer.Recall)
	require.NoError(t, err)
	require.Equal(t, b.topic, h.Topic)
	require.Equal(t, "T1", h.UniqueKey)
	require.Equal(t, timer.Recall, h.String())
	require.NoError(t, b.Recall(t.Context(), b.addr, h))

	mine := func(topic string, queue int32) (all []remoting.Message) {
		for _, m := range b.pullAll(t, topic, queue) {
			if m.Properties.Value(remoting.PropertyRealTopic) == b.topic {
				all = append(all, m)
			}
		}
		return all
	}
	levels := mine(remoting.TopicSchedule, 4)
	require.Len(t, levels, 1)
	require.Equal(t, "L1", levels[0].Properties.Value(remoting.PropertyUniqueKey))
	require.Equal(t, "1", levels[0].Properties.Value(remoting.PropertyRealQueue))
	timers := mine(remoting.TopicTimer, 0)
	require.Len(t, timers, 2)
	require.Equal(t, "body of T1", string(timers[0].Body))
	require.Equal(t, b.topic+"+T1", timers[1].Properties.Value(remoting.PropertyTimerDelete))

	info, err := b.RuntimeInfo(t.Context(), b.addr)
	require.NoError(t, err)
	low, high, err := info.CommitLog()
	require.NoError(t, err)
	require.Less(t, low, high)
	require.Eventually(t, func() bool { // a real broker begins with a level when it is used first
		info, err := b.RuntimeInfo(t.Context(), b.addr)
		require.NoError(t, err)
		_, _, ok := info.Level(5)
		return ok
	}, 20*time.Second, 50*time.Millisecond)
	_, err = b.DelayOffsets(t.Context(), b.addr)
	require.NoError(t, err)
	point, err := b.TimerCheckpoint(t.Context(), b.addr)
	require.NoError(t, err)
	require.InDelta(t, float64(now()), float64(point.ReadAt), 60_000)
	require.Eventually(t, func() bool {
		counts, err := b.TimerMetrics(t.Context(), b.addr)
		_, ok := counts[b.topic]
		return err == nil && ok
	}, 20*time.Second, 50*time.Millisecond)
	config, err := b.BrokerConfig(t.Context(), b.addr)
	require.NoError(t, err)
	require.NotEmpty(t, config["messageDelayLevel"])
}

// Refusals must be told from failures: what will never be taken must not be tried for ever, and
// what was not taken must not be given up.
func refusals(t *testing.T, open opener) {
	b := open(t, remoting.JSON)
	b.send(t, "first")
	for name, c := range map[string]struct {
		topic      string
		body       int
		properties remoting.Properties
		want       remoting.Outcome
	}{
		"system topic": {remoting.TopicSchedule, 1, nil, remoting.No},
		"too large":    {b.topic, 8 << 20, nil, remoting.Never},
		"far timer": {b.topic, 1, remoting.Properties{{
			Name: remoting.PropertyDeliverAt, Value: fmt.Sprint(int64(now()) + 1e9),
		}}, remoting.Never},
	} {
		m := remoting.Outgoing{Born: now(), Body: make([]byte, c.body), Properties: c.properties}
		_, err := b.Send(t.Context(), b.addr, c.topic, 0, &m)
		var e *remoting.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, c.want, e.Outcome, "%s: %v", name, err)
	}
	_, err := b.SendBatch(t.Context(), b.addr, b.topic, 0, []remoting.Outgoing{
		{Body: make([]byte, 5<<20)}, {Body: []byte("small")},
	})
	var e *remoting.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, remoting.Never, e.Outcome, "%v", err)
	_, err = b.Pull(t.Context(), b.addr, remoting.Pull{
		Group: b.topic, Topic: remoting.TopicSchedule, Queue: 18,
	})
	require.ErrorIs(t, err, delay.ErrInvalid)
	_, err = b.Route(t.Context(), "nowhere-"+b.topic)
	require.ErrorIs(t, err, delay.ErrNotFound)
}

// A broker that is killed must be found again without a new client.
func restart(t *testing.T, open opener) {
	b := open(t, remoting.JSON)
	b.send(t, "before")
	b.stop(t)
	_, err := b.MaxOffset(t.Context(), b.addr, b.topic, 1)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	b.start(t)
	require.Eventually(t, func() bool {
		_, err := b.MaxOffset(t.Context(), b.addr, b.topic, 1)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	b.send(t, "after")
}
