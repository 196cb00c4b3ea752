// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // package realtest asks over HTTP and keeps its connection
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const topic = "orders"

func fake(t *testing.T, opts fakebroker.Options) *fakebroker.Cluster {
	t.Helper()
	c, err := fakebroker.Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	c.CreateTopic(topic, 4)
	return c
}

func config(c *fakebroker.Cluster) Config {
	return Config{Broker: "rmq", NameServers: []string{c.NameServer()}}
}

func newSink(t *testing.T, cfg Config) *Sink {
	t.Helper()
	s, err := NewSink(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// answers makes a fake broker answer messages as brokertest.AnswerTo says. A batch that holds one
// it does not take is refused as a whole.
func answers(c *remoting.Command) fakebroker.Fault {
	if c.Code != remoting.RequestSendBatch {
		return fakebroker.Fault{}
	}
	batch, err := remoting.DecodeBatch(c.Body)
	if err != nil {
		return fakebroker.Fault{Refuse: remoting.SystemError}
	}
	for _, m := range batch {
		switch a := brokertest.AnswerTo(delay.ID(m.Properties.Value(propertyID))); {
		case a == brokertest.Silent:
			return fakebroker.Fault{Lose: true}
		case a != brokertest.Take && len(batch) > 1, a == brokertest.Never:
			return fakebroker.Fault{Refuse: remoting.MessageIllegal, Remark: "illegal"}
		case a == brokertest.Later:
			return fakebroker.Fault{Refuse: remoting.SystemBusy, Remark: "busy"}
		}
	}
	return fakebroker.Fault{}
}

func received(all []remoting.Message) (out []brokertest.Received) {
	for _, m := range all {
		n, _ := strconv.ParseUint(m.Properties.Value(propertyAttempt), 10, 32)
		r := brokertest.Received{
			ID: delay.ID(m.Properties.Value(propertyID)), Attempt: uint32(n), Body: m.Body,
			Key: m.Properties.Value(propertyKey),
		}
		for _, p := range m.Properties {
			if !ours(p.Name) && users(p.Name) && p.Name != remoting.PropertyKeys {
				r.Headers = append(r.Headers, delay.Header(p))
			}
		}
		out = append(out, r)
	}
	return out
}

func TestSinkConforms(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
		for i := range 2 {
			c.Broker(i).OnRequest(answers)
		}
		s, err := NewSink(config(c))
		require.NoError(t, err)
		return brokertest.Subject{
			Sink: s, Target: "rocketmq:rmq/" + topic,
			Refuses: true, Hangs: true, Carries: true, Ordered: true,
			Received: func() []brokertest.Received { return received(c.Messages(topic)) },
		}
	})
}

func deliveries(n int, change func(i int, d *broker.Delivery)) []broker.Delivery {
	batch := make([]broker.Delivery, n)
	for i := range batch {
		batch[i] = broker.Delivery{
			ID: delay.ID(fmt.Sprintf("id-%d", i)), Generation: 1, Target: "rocketmq:rmq/" + topic,
			Due: delay.DueOf(time.Now().Add(time.Minute)), Attempt: 1, Body: fmt.Appendf(nil, "body %d", i),
		}
		if change != nil {
			change(i, &batch[i])
		}
	}
	return batch
}

func deliver(t *testing.T, s *Sink, batch []broker.Delivery) []broker.Result {
	t.Helper()
	results := make([]broker.Result, len(batch))
	s.Deliver(t.Context(), batch, results)
	return results
}

func bodies(all []remoting.Message) (out []string) {
	for _, m := range all {
		out = append(out, string(m.Body))
	}
	slices.Sort(out)
	return out
}

// One message that a broker will not have must not take its neighbours along (Q2).
func TestRefusedBatchIsSentOneByOne(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.Broker(0).OnRequest(answers)
	s := newSink(t, config(c))
	batch := deliveries(12, func(i int, d *broker.Delivery) {
		if i%4 == 1 {
			d.ID = "never-" + d.ID
		}
	})
	for i, r := range deliver(t, s, batch) {
		want := broker.Delivered
		if i%4 == 1 {
			want = broker.Rejected
			require.NotEmpty(t, r.Reason)
			require.NotContains(t, r.Reason, "body")
		}
		require.Equal(t, want, r.Outcome, "%d: %s", i, r.Reason)
	}
	require.Len(t, c.Messages(topic), 9)
}

// What a broker takes is smaller than what the sink puts into one batch, or than one message.
func TestBrokersThatTakeLess(t *testing.T) {
	c := fake(t, fakebroker.Options{MaxMessage: 1000})
	s := newSink(t, config(c))
	batch := deliveries(10, func(i int, d *broker.Delivery) {
		d.Body = []byte(strings.Repeat("x", 300+200*(i%2)))
		if i == 7 {
			d.Body = []byte(strings.Repeat("x", 2000))
		}
	})
	for i, r := range deliver(t, s, batch) {
		want := broker.Delivered
		if i == 7 {
			want = broker.Rejected
		}
		require.Equal(t, want, r.Outcome, "%d: %s", i, r.Reason)
	}
	require.Len(t, c.Messages(topic), 9)
}

// An answer that got lost must not make a second message of the next attempt (Q1).
func TestDoubtfulIsAskedForFirst(t *testing.T) {
	for name, fault := range map[string]fakebroker.Fault{
		"lost":         {Lose: true},
		"cut":          {Cut: 3},
		"not flushed":  {Answer: remoting.FlushDiskTimeout},
		"no slave":     {Answer: remoting.SlaveNotAvailable},
		"not at slave": {Answer: remoting.FlushSlaveTimeout},
		"error":        {Answer: remoting.SystemError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := fake(t, fakebroker.Options{})
			b := c.Broker(0)
			b.OnRequest(func(c *remoting.Command) fakebroker.Fault {
				if c.Code == remoting.RequestSendBatch {
					return fault
				}
				return fakebroker.Fault{}
			})
			cfg := config(c)
			cfg.Timeout = 2 * time.Second // for what is answered, too
			s := newSink(t, cfg)
			batch := deliveries(8, nil)
			for _, r := range deliver(t, s, batch) {
				// When the connection ends, what another queue was to get has not left.
				require.Contains(t, []broker.Outcome{broker.Unknown, broker.Retry}, r.Outcome)
				require.NotEmpty(t, r.Reason)
			}
			stored := len(c.Messages(topic))
			require.Positive(t, stored)
			b.OnRequest(nil)
			again := deliveries(8, func(_ int, d *broker.Delivery) { d.Attempt = 2 })
			require.Eventually(t, func() bool { // the connection may be in its pause
				for i, r := range deliver(t, s, again) {
					again[i].Attempt++
					if r.Outcome != broker.Delivered {
						return false
					}
				}
				return true
			}, time.Minute, 50*time.Millisecond)
			require.Len(t, c.Messages(topic), 8, "each is there once")
			require.Empty(t, s.doubtful)
		})
	}
}

// The doubts of an earlier process are not known: what was due before this one began and is
// attempted again is asked for as well. What is refused for sure is not.
func TestDoubtsOfAnEarlierProcess(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	var asked atomic.Int64
	c.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
		if c.Code == remoting.RequestQuery {
			asked.Add(1)
		}
		return fakebroker.Fault{}
	})
	past := func(attempt uint32) func(int, *broker.Delivery) {
		return func(_ int, d *broker.Delivery) {
			d.Attempt, d.Due = attempt, delay.DueOf(time.Now().Add(-time.Second))
		}
	}
	first := newSink(t, config(c))
	deliver(t, first, deliveries(3, past(1)))
	require.Zero(t, asked.Load(), "a first attempt is no doubt")
	second := newSink(t, config(c))
	for _, r := range deliver(t, second, deliveries(3, past(2))) {
		require.Equal(t, broker.Delivered, r.Outcome)
	}
	require.EqualValues(t, 3, asked.Load())
	require.Len(t, c.Messages(topic), 3)
	deliver(t, second, deliveries(2, func(_ int, d *broker.Delivery) { d.Attempt, d.ID = 2, d.ID+"x" }))
	require.EqualValues(t, 3, asked.Load(), "it was not taken before, and that was known")
}

// A message found under the key must be this one: callers bring keys along, and a generation is
// not the one before (Q1).
func TestOtherMessagesUnderTheKey(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	s := newSink(t, config(c))
	key := []delay.Header{{Name: remoting.PropertyUniqueKey, Value: "7F00000100002A9F18B4AAC20000"}}
	deliver(t, s, deliveries(1, func(_ int, d *broker.Delivery) { d.Headers = key }))
	other := deliveries(1, func(_ int, d *broker.Delivery) {
		d.ID, d.Headers, d.Attempt, d.Due = "other", key, 2, 1
	})
	require.Equal(t, broker.Delivered, deliver(t, s, other)[0].Outcome)
	require.Len(t, c.Messages(topic), 2, "it was taken for the first one")
	require.NotEqual(t, UniqueKey("a", 1), UniqueKey("a", 2))
	require.Equal(t, UniqueKey("a", 0), UniqueKey("a", 1))
	require.Len(t, UniqueKey("a", 1), 32)
	require.Equal(t, "00000000", UniqueKey("a", 1)[20:28])
	require.Equal(t, "72FF6B02949DAD95006C00000000343E", UniqueKey("a", 1), "it is for ever")
}

// A broker that cannot be asked must hold a doubtful message up, but not for ever.
func TestDoubtsThatCannotBeSettled(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	c.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
		if c.Code == remoting.RequestQuery {
			return fakebroker.Fault{Refuse: remoting.SystemError}
		}
		return fakebroker.Fault{}
	})
	s := newSink(t, config(c))
	for attempt := uint32(2); attempt <= verifyAttempts; attempt++ {
		batch := deliveries(1, func(_ int, d *broker.Delivery) { d.Attempt, d.Due = attempt, 1 })
		require.Equal(t, broker.Unknown, deliver(t, s, batch)[0].Outcome)
	}
	require.Empty(t, c.Messages(topic))
	batch := deliveries(1, func(_ int, d *broker.Delivery) { d.Attempt, d.Due = verifyAttempts+1, 1 })
	require.Equal(t, broker.Delivered, deliver(t, s, batch)[0].Outcome)
}

// Messages of one key must lie in one queue in their order, also when there are several batches;
// those without one should use all queues (Q3).
func TestQueuesAndOrder(t *testing.T) {
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	s := newSink(t, config(c))
	big := strings.Repeat("x", maxBatchBytes/3)
	batch := deliveries(40, func(i int, d *broker.Delivery) {
		if i%2 == 0 {
			d.RoutingKey = "k" + strconv.Itoa(i%4)
			d.Body = fmt.Appendf(nil, "%03d%s", i, big)
		}
	})
	for _, r := range deliver(t, s, batch) {
		require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
	}
	used, last, home := map[string]bool{}, map[string]int{}, map[string]string{}
	for i := range 2 {
		for _, m := range c.Broker(i).Messages(topic) {
			queue := fmt.Sprint(i, "/", m.Queue)
			key := m.Properties.Value(propertyKey)
			if key == "" {
				used[queue] = true
				continue
			}
			n, err := strconv.Atoi(string(m.Body[:3]))
			require.NoError(t, err)
			require.Greater(t, n+1, last[key])
			last[key] = n + 1
			if home[key] == "" {
				home[key] = queue
			}
			require.Equal(t, home[key], queue)
		}
	}
	require.GreaterOrEqual(t, len(used), 7)
	require.Len(t, home, 2)
}

// Behind a missing answer nothing more is waited for, or a Deliver would take as many timeouts as it
// has batches (Q3).
func TestNothingFollowsAMissingAnswer(t *testing.T) {
	t.Parallel()
	c := fake(t, fakebroker.Options{})
	var sends atomic.Int64
	c.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
		if c.Code == remoting.RequestSendBatch && sends.Add(1) == 2 {
			return fakebroker.Fault{Lose: true}
		}
		return fakebroker.Fault{}
	})
	cfg := config(c)
	cfg.Timeout = 3 * time.Second // for the first answer, too
	s := newSink(t, cfg)
	batch := deliveries(6, func(_ int, d *broker.Delivery) {
		d.RoutingKey, d.Body = "k", make([]byte, maxBatchBytes)
	})
	results := deliver(t, s, batch)
	require.Equal(t, broker.Delivered, results[0].Outcome)
	require.Equal(t, broker.Unknown, results[1].Outcome)
	for _, r := range results[2:] {
		require.Equal(t, broker.Retry, r.Outcome)
		require.NotEmpty(t, r.Reason)
	}
	require.EqualValues(t, 2, sends.Load())
}

// What the consumer sees, and what a caller may not set (Q4).
func TestProperties(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	s := newSink(t, config(c))
	one := func(headers ...delay.Header) (broker.Result, remoting.Properties) {
		before := len(c.Messages(topic))
		r := deliver(t, s, deliveries(1, func(_ int, d *broker.Delivery) {
			d.ID, d.Generation, d.Due, d.FiredAt, d.Attempt = "größe", 3, 1_800_000_000_000, 1_800_000_000_007, 2
			d.Headers, d.RoutingKey = headers, "key"
		}))[0]
		all := c.Messages(topic)
		if len(all) == before {
			return r, nil
		}
		return r, all[len(all)-1].Properties
	}
	r, p := one(delay.Header{Name: "x", Value: "1"}, delay.Header{Name: "x", Value: "2"},
		delay.Header{Name: "TAGS", Value: "t"}, delay.Header{Name: "KEYS", Value: "a b"},
		delay.Header{Name: "Cicada-Id", Value: "forged"},
		delay.Header{Name: delay.HeaderScheduleID, Value: "s"})
	require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
	for name, want := range map[string]string{
		"x": "1,2", "TAGS": "t", "KEYS": "a b größe", propertyID: "größe", propertyGeneration: "3",
		propertyDue: "2027-01-15T08:00:00.000Z", propertyFiredAt: "2027-01-15T08:00:00.007Z",
		propertyAttempt: "2", propertyKey: "key", delay.HeaderScheduleID: "s", "Cicada-Id": "",
		remoting.PropertyUniqueKey: UniqueKey("größe", 3),
	} {
		require.Equal(t, want, p.Value(name), name)
	}
	for _, h := range []delay.Header{
		{Name: "DELAY", Value: "3"}, {Name: "TIMER_DELIVER_MS", Value: "1"},
		{Name: "TRAN_MSG", Value: "true"}, {Name: "a", Value: "\x02DELAY\x013"}, {Name: "a", Value: "\xff"},
		{Name: "", Value: "x"}, {Name: "a", Value: strings.Repeat("x", 40_000)},
	} {
		r, p := one(h)
		require.Equal(t, broker.Rejected, r.Outcome, "%.20s", h.Name)
		require.Contains(t, r.Reason, "headers: ")
		require.LessOrEqual(t, len(r.Reason), 200)
		require.Nil(t, p)
	}
}

// What can never work must be refused when the message is accepted.
func TestTargets(t *testing.T) {
	c := fake(t, fakebroker.Options{})
	s := newSink(t, config(c))
	for target, ok := range map[delay.Target]bool{
		"rocketmq:rmq/orders": true, "rocketmq:rmq/a_b-C|9": true,
		"rocketmq:rmq/": false, "rocketmq:rmq": false, "rocketmq:other/orders": false,
		"kafka:rmq/orders": false, "rocketmq:rmq/a b": false, "rocketmq:rmq/%RETRY%g": false,
		"rocketmq:rmq/SCHEDULE_TOPIC_XXXX": false, "rocketmq:rmq/rmq_sys_wheel_timer": false,
		"rocketmq:rmq/TBW102": false, delay.Target("rocketmq:rmq/" + strings.Repeat("x", 128)): false,
	} {
		err := s.Check(target)
		require.Equal(t, ok, err == nil, "%s: %v", target, err)
		if err != nil {
			var e *delay.FieldError
			require.ErrorAs(t, err, &e)
			require.Equal(t, "target", e.Field)
		}
	}
	for _, cfg := range []Config{
		{}, {Broker: "a"}, {Broker: "a/b", NameServers: []string{"x:1"}},
		{Broker: "a", NameServers: []string{"x"}},
		{Broker: "a", NameServers: []string{"x:1"}, AccessKey: "k"},
	} {
		_, err := NewSink(cfg)
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
}

// A topic may come later, a broker go and come back: until then it is Retry, and nothing is lost.
func TestTopicsAndBrokersComeAndGo(t *testing.T) {
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	s := newSink(t, config(c))
	late := deliveries(1, func(_ int, d *broker.Delivery) { d.Target = "rocketmq:rmq/late" })
	r := deliver(t, s, late)[0]
	require.Equal(t, broker.Retry, r.Outcome)
	require.Contains(t, r.Reason, "does not exist")
	c.CreateTopic("late", 1)
	require.Equal(t, broker.Delivered, deliver(t, s, late)[0].Outcome)

	deliver(t, s, deliveries(1, nil)) // the route is known
	c.Broker(0).Stop()
	batch := deliveries(8, nil)
	left := map[delay.ID]bool{}
	for i, r := range deliver(t, s, batch) {
		if r.Outcome != broker.Delivered {
			left[batch[i].ID] = true
		}
	}
	require.NotEmpty(t, left)
	for _, r := range deliver(t, s, deliveries(4, func(i int, d *broker.Delivery) {
		d.ID = delay.ID(fmt.Sprint("later-", i))
	})) {
		require.Equal(t, broker.Delivered, r.Outcome, "the route without the broker is used: %s", r.Reason)
	}
	c.Broker(1).SetPermission(topic, remoting.PermissionRead)
	require.Equal(t, broker.Retry, deliver(t, s, deliveries(1, nil))[0].Outcome)
	r = deliver(t, s, deliveries(1, nil))[0]
	require.Equal(t, broker.Retry, r.Outcome)
	require.Contains(t, r.Reason, "no queue")
	c.StopNameServer()
	fresh := newSink(t, config(c))
	require.Equal(t, broker.Retry, deliver(t, fresh, deliveries(1, nil))[0].Outcome)
}

// Lanes deliver at the same time while answers get lost: every message must be there, and once
// unless it was sent again unasked.
func TestManyLanesAndFaults(t *testing.T) {
	const lanes, each = 4, 50
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	var n atomic.Int64
	for i := range 2 {
		c.Broker(i).OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code != remoting.RequestSendBatch {
				return fakebroker.Fault{}
			}
			return []fakebroker.Fault{
				{}, {Refuse: remoting.SystemBusy}, {Answer: remoting.SystemError}, {},
			}[n.Add(1)%4]
		})
	}
	s := newSink(t, config(c))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			batch := deliveries(each, func(i int, d *broker.Delivery) {
				d.ID = delay.ID(fmt.Sprintf("%d/%d", lane, i))
				d.Body = []byte(d.ID)
			})
			for len(batch) > 0 && ctx.Err() == nil {
				results := make([]broker.Result, len(batch))
				s.Deliver(ctx, batch, results)
				var rest []broker.Delivery
				for i, r := range results {
					if r.Outcome != broker.Delivered {
						batch[i].Attempt++
						rest = append(rest, batch[i])
					}
				}
				batch = rest
			}
		})
	}
	wg.Wait()
	require.NoError(t, ctx.Err())
	got := bodies(c.Messages(topic))
	require.Len(t, got, lanes*each)
	require.Len(t, slices.Compact(got), lanes*each)
}
