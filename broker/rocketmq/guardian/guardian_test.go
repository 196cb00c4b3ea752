// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
)

func all() Options { return Options{Grace: 2 * time.Second, DelayLevels: true, Timers: true} }

// Without faults the broker delivers everything and the guardian nothing: each once, and none is
// left pending.
func TestTheBrokerDelivers(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(3))
		w.send(0, 2, "timer", timerAt(w.now().Add(12*time.Second)))
		w.pass(5 * time.Second)
		require.Len(t, w.shard.pending(), 2)
		w.pass(20 * time.Second)
		require.Len(t, w.copies("level"), 1)
		require.Len(t, w.copies("timer"), 1)
		require.Empty(t, w.shard.pending())
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 2}, w.shard.fates())
		st := w.g.Stats()
		require.EqualValues(t, 2, st.Delivered)
		require.Zero(t, st.Rescued)
		require.Equal(t, 19, st.Queues)
	})
}

// What the broker lost must be delivered, after its due, once, and as it was sent (G5).
func TestLostIsDelivered(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		sent := w.now()
		due := sent.Add(30 * time.Second)
		w.send(0, 1, "level", level(4))
		w.send(0, 2, "timer", timerAt(due))
		w.pass(5 * time.Second)
		w.expire(0)
		w.pass(60 * time.Second)
		require.Equal(t, map[broker.Fate]int{broker.Released: 2}, w.shard.fates())
		require.EqualValues(t, 2, w.g.Stats().Rescued)
		require.Zero(t, w.g.Stats().Uncertain)
		for key, queue := range map[string]int32{"level": 1, "timer": 2} {
			got := w.copies(key)
			require.Len(t, got, 1, key)
			m := got[0]
			require.GreaterOrEqual(t, m.Stored, due)
			require.Less(t, m.Stored, due.Add(2*all().Grace+2*time.Second))
			require.Equal(t, orders, m.Topic)
			require.Equal(t, queue, m.Queue)
			require.Equal(t, "body of "+key, string(m.Body))
			require.EqualValues(t, 5, m.Flag)
			require.Equal(t, sent, m.Born)
			p := m.Properties
			require.Equal(t, "k-"+key, p.Value(remoting.PropertyKeys))
			require.Equal(t, "t", p.Value(remoting.PropertyTags))
			require.Equal(t, "ä "+key, p.Value("user"))
			require.NotEmpty(t, p.Value(PropertyRescued))
			for _, one := range p {
				require.False(t, control(one.Name), one.Name)
			}
		}
	})
}

// expire loses everything that is in the commit log of a broker.
func (w *world) expire(b int) {
	_, high := w.cluster.Broker(b).CommitLog()
	w.send(b, 0, "filler "+w.now().String())
	w.cluster.Broker(b).Expire(high)
}

// A broker whose answers were wrong for a moment, as while it starts, must not have its message
// delivered by another: one look is not enough (G1).
func TestTwoLooks(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 0, "m", level(3))
		w.pass(5 * time.Second)
		w.held = true // the broker's own delivery is late
		w.pass(6 * time.Second)
		for range 2 { // for one look it says that it has delivered it
			w.cluster.Broker(0).Skip(3, 1)
			before := w.shard.asked
			for range 50 {
				if w.shard.asked == before {
					w.pass(100 * time.Millisecond)
				}
			}
			require.Empty(t, w.copies("m"))
			w.cluster.Broker(0).Skip(3, -1)
			w.pass(5 * time.Second)
		}
		w.held = false
		w.pass(20 * time.Second)
		require.Len(t, w.copies("m"), 1)
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 1}, w.shard.fates())
	})
}

// What was there under the key before the due is no delivery: a producer that repeated itself
// without the delay, or an earlier retry.
func TestEarlierCopies(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 0, "m")
		w.send(0, 0, "m", level(4))
		w.pass(5 * time.Second)
		low := w.copies("m")[0].Physical
		w.cluster.Broker(0).Expire(low) // nothing yet
		w.cluster.Broker(0).Skip(4, 1)
		w.pass(60 * time.Second)
		require.Len(t, w.copies("m"), 2)
		require.Equal(t, map[broker.Fate]int{broker.Released: 1}, w.shard.fates())
	})
}

// Between the first look and a mirror that is behind lies what moves a timer: nothing may be
// released before the mirror has passed it.
func TestMirrorIsAwaited(t *testing.T) {
	o := fakebroker.Options{RollWindow: 20 * time.Second}
	inWorld(t, o, all(), func(t *testing.T, w *world) {
		w.send(0, 0, "m", timerAt(w.now().Add(30*time.Second)))
		w.pass(5 * time.Second)
		gate := w.shard.close()
		w.pass(20 * time.Second) // it is written anew, unseen
		w.held = true
		w.expireOld(0, "m")
		w.pass(12 * time.Second)
		require.Empty(t, w.copies("m"))
		close(gate)
		w.held = false
		w.pass(20 * time.Second)
		require.Len(t, w.copies("m"), 1)
		require.Empty(t, w.copies("m")[0].Properties.Value(PropertyRescued))
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 1}, w.shard.fates())
	})
}

// A timer that its broker writes anew is one message (G4).
func TestRolls(t *testing.T) {
	o := fakebroker.Options{RollWindow: 10 * time.Second}
	inWorld(t, o, all(), func(t *testing.T, w *world) {
		w.send(0, 0, "m", timerAt(w.now().Add(45*time.Second)))
		w.pass(30 * time.Second)
		require.Len(t, w.shard.pending(), 1)
		e, err := parseEntry(w.shard.rows[w.shard.pending()[0]].draft.Guard.Entry)
		require.NoError(t, err)
		require.Positive(t, e.Rolls)
		w.pass(30 * time.Second)
		require.Len(t, w.copies("m"), 1)
		require.Empty(t, w.copies("m")[0].Properties.Value(PropertyRescued))
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 1}, w.shard.fates())
	})
}

// A key that is asked for before it is looked where the copy is tells nothing of what happens in
// between (G2).
func TestLocatorFirst(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 0, "m", level(3))
		w.pass(5 * time.Second)
		var order []int
		w.cluster.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code == remoting.RequestQuery || c.Code == remoting.RequestMinOffset {
				w.mu.Lock()
				order = append(order, c.Code)
				w.mu.Unlock()
			}
			return fakebroker.Fault{}
		})
		w.pass(20 * time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		require.Equal(t, []int{remoting.RequestMinOffset, remoting.RequestQuery}, order)
	})
}

// Reading a busy queue must cost its broker little: entries that come one by one are read in a few
// answers, none of them later than a moment, and a long queue is read without a pause.
func TestMirrorIsEasyOnTheBroker(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		var pulls atomic.Int64
		b := w.cluster.Broker(0)
		b.OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code == remoting.RequestPull && c.Fields["topic"] == remoting.TopicSchedule {
				pulls.Add(1)
			}
			return fakebroker.Fault{}
		})
		const n = 200
		for i := range n {
			w.send(0, 0, fmt.Sprint("slow", i), level(18))
			w.idle(5 * time.Millisecond)
		}
		w.idle(linger)
		require.Len(t, w.shard.pending(), n)
		require.LessOrEqual(t, pulls.Load(), int64(2*n*5*time.Millisecond/linger))
		w.stop()
		for i := range 20 * remoting.MaxPull {
			w.send(0, 0, fmt.Sprint("more", i), level(18))
		}
		w.open()
		w.idle(linger)
		require.Len(t, w.shard.pending(), n+20*remoting.MaxPull)
		b.OnRequest(nil)
	})
}
