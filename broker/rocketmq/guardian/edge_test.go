// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// What the index cannot tell is released after three graces and counted, not before (G3).
func TestUncertain(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		due := w.now().Add(10 * time.Second)
		w.send(0, 1, "level", level(3))
		w.pass(5 * time.Second)
		w.cluster.Broker(0).Skip(3, 1)
		w.pass(6 * time.Second)
		w.expire(0) // and with it all that could have told of a delivery
		w.pass(30 * time.Second)
		got := w.copies("level")
		require.Len(t, got, 1)
		require.Greater(t, got[0].Stored, due.Add((1+undecidedGraces)*all().Grace-time.Second))
		require.EqualValues(t, 1, w.g.Stats().Uncertain)
		require.EqualValues(t, 1, w.g.Stats().Rescued)
	})
}

// While a broker is away it may have delivered, or may still: nothing is decided, however long (G3).
func TestBrokerAway(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "lost", level(3))
		w.send(0, 1, "late", timerAt(w.now().Add(15*time.Second)))
		w.pass(5 * time.Second)
		w.cluster.Broker(0).Skip(3, 1)
		w.cluster.Broker(0).Stop()
		w.pass(2 * time.Minute)
		require.Len(t, w.shard.pending(), 2)
		require.NoError(t, w.cluster.Broker(0).Start(t.Context()))
		w.pass(30 * time.Second)
		require.Len(t, w.copies("lost"), 1)
		require.Len(t, w.copies("late"), 1)
		require.Equal(t, map[broker.Fate]int{broker.Released: 1, broker.Suppressed: 1}, w.shard.fates())
		require.Zero(t, w.g.Stats().Uncertain)
	})
}

// What a broker held that will not come back would wait for ever, and nobody could cancel it. Who
// says so has it released, each copy counted as uncertain; a broker that is there all the same is
// not taken for retired, and neither is one of which nothing was said.
func TestRetired(t *testing.T) {
	o := all()
	o.Retired = []string{"a"}
	two := fakebroker.Options{Brokers: []string{"a", "b"}}
	inWorld(t, two, o, func(t *testing.T, w *world) {
		w.send(0, 1, "of-a", level(4))
		w.send(0, 1, "again", timerAt(w.now().Add(50*time.Second)))
		w.send(1, 1, "of-b", level(4))
		w.pass(5 * time.Second)
		guards := w.shard.guards()
		require.Len(t, guards, 3)
		require.Equal(t, []bool{false, false, false}, w.g.Lost(t.Context(), guards), "it is there")
		w.cluster.Broker(0).Stop()
		lost := w.g.Lost(t.Context(), guards)
		for i, g := range guards {
			require.Equal(t, g.Lane == "guard:rmq/a", lost[i], g.Lane)
		}
		w.pass(30*time.Second + 2*o.Grace - 6*time.Second)
		require.Empty(t, w.copies("of-a"), "before due and three graces")
		w.pass(time.Minute)
		for _, key := range []string{"of-a", "again"} {
			require.Len(t, w.copies(key), 1)
			require.NotEmpty(t, w.copies(key)[0].Properties.Value(PropertyRescued))
		}
		require.EqualValues(t, 2, w.g.Stats().Uncertain)
		require.Equal(t, map[broker.Fate]int{broker.Released: 2, broker.Suppressed: 1}, w.shard.fates())
	})
}

// A broker that was killed has forgotten a part of its index: what it delivered before must be found
// all the same (G2).
func TestForgottenIndex(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(3))
		w.send(0, 2, "timer", timerAt(w.now().Add(10*time.Second)))
		w.pass(11200 * time.Millisecond)
		require.Len(t, w.copies("level"), 1)
		require.Len(t, w.copies("timer"), 1)
		w.cluster.Broker(0).Reboot()
		w.pass(time.Minute)
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 2}, w.shard.fates())
		require.Len(t, w.copies("level"), 1)
		require.Len(t, w.copies("timer"), 1)
	})
}

// Time in which the broker was away does not count as time in which it could not be decided (G3).
func TestUndecidedWhileAway(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 2, "timer", timerAt(w.now().Add(10*time.Second)))
		w.pass(5 * time.Second)
		w.cluster.Broker(0).DropTimers()
		for range 200 {
			if w.g.marks.count() == 0 {
				w.pass(100 * time.Millisecond)
			}
		}
		w.cluster.Broker(0).Stop()
		w.pass(time.Minute)
		require.NoError(t, w.cluster.Broker(0).Start(t.Context()))
		back := w.now()
		w.pass(time.Minute)
		got := w.copies("timer")
		require.Len(t, got, 1)
		require.GreaterOrEqual(t, got[0].Stored, back.Add(undecidedGraces*all().Grace))
	})
}

// A broker that goes between the look and the question for the key says nothing of the key (G3).
func TestKeyWithoutAnswer(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(3))
		w.pass(5 * time.Second)
		w.cluster.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
			return fakebroker.Fault{Lose: c.Code == remoting.RequestQuery}
		})
		w.pass(time.Minute)
		require.Len(t, w.copies("level"), 1)
		w.cluster.Broker(0).OnRequest(nil)
		w.pass(10 * time.Second)
		require.Len(t, w.copies("level"), 1)
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 1}, w.shard.fates())
	})
}

// Where the mirror began holds for a process that comes later, though nothing was read yet: what
// came meanwhile must not be taken for what was there before.
func TestBeginningIsKept(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		gate := w.shard.close()
		w.send(0, 1, "level", level(3))
		w.pass(time.Second)
		w.cluster.Broker(0).Skip(3, 1)
		w.crash()
		close(gate)
		w.pass(30 * time.Second)
		require.Len(t, w.copies("level"), 1)
	})
}

// The commit log goes first, its queues are cleaned later: what has no body is lost.
func TestBodiesGoFirst(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(4))
		w.send(0, 2, "timer", timerAt(w.now().Add(30*time.Second)))
		w.pass(5 * time.Second)
		_, high := w.cluster.Broker(0).CommitLog()
		w.cluster.Broker(0).ExpireBodies(high)
		w.pass(time.Second)
		require.Equal(t, []bool{true, true}, w.g.Lost(t.Context(), w.shard.guards()))
		w.pass(time.Minute)
		require.Len(t, w.copies("level"), 1)
		require.Len(t, w.copies("timer"), 1)
		require.Zero(t, w.g.Stats().Uncertain)
	})
}

// A wheel that lost a timer whose body is there never says so (G3).
func TestWheelThatForgot(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 2, "timer", timerAt(w.now().Add(10*time.Second)))
		w.pass(5 * time.Second)
		w.cluster.Broker(0).DropTimers()
		w.pass(time.Minute)
		require.Len(t, w.copies("timer"), 1)
		require.EqualValues(t, 1, w.g.Stats().Uncertain)
	})
}

// A wheel that is late delivers: nobody else may, however late it is (R19).
func TestLateWheel(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 2, "timer", timerAt(w.now().Add(10*time.Second)))
		w.send(0, 2, "level", level(3))
		w.pass(5 * time.Second)
		w.held = true
		w.pass(5 * time.Minute)
		require.Len(t, w.shard.pending(), 2)
		w.held = false
		w.pass(30 * time.Second)
		require.Len(t, w.copies("timer"), 1)
		require.Len(t, w.copies("level"), 1)
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 2}, w.shard.fates())
	})
}

// What a user or a producer recalls is not delivered by anybody: not when its broker then loses it,
// and not when its broker goes on to write it anew, as some do, before and after a restart.
func TestRecalled(t *testing.T) {
	o := fakebroker.Options{RollWindow: 20 * time.Second}
	inWorld(t, o, all(), func(t *testing.T, w *world) {
		w.send(0, 2, "near", timerAt(w.now().Add(15*time.Second)))
		w.send(0, 2, "far", timerAt(w.now().Add(50*time.Second)))
		w.send(0, 2, "level", level(3))
		w.pass(5 * time.Second)
		recalled := 0
		for _, id := range w.shard.pending() {
			d := &broker.Delivery{ID: id, Guard: w.shard.guard(id)}
			if err := w.g.Recall(t.Context(), d); err == nil {
				recalled++
			} else {
				require.ErrorIs(t, err, delay.ErrUnimplemented)
			}
		}
		require.Equal(t, 2, recalled)
		w.pass(time.Second)
		require.Len(t, w.shard.pending(), 1)
		require.EqualValues(t, 2, w.g.Stats().Recalled)
		w.pass(10 * time.Second)
		w.crash()                // what was recalled is not in memory now
		w.pass(20 * time.Second) // the far one is written anew
		w.held = true
		w.expire(0)
		w.pass(time.Minute)
		require.Empty(t, w.copies("near"))
		require.Empty(t, w.copies("far"))
		require.Empty(t, w.shard.pending())
	})
}

// Retries of consumers are guarded when that is wanted, and what POP keeps in timers never is.
func TestRetries(t *testing.T) {
	retry := func(w *world) {
		w.cluster.CreateTopic("%RETRY%g", 1)
		w.cluster.CreateTopic("rmq_sys_REVIVE_LOG_x", 1)
		for _, topic := range []string{"%RETRY%g", "rmq_sys_REVIVE_LOG_x"} {
			w.cluster.Broker(0).Put(&remoting.Message{
				Topic: remoting.TopicSchedule, Queue: 2, Reconsumed: 3, Body: []byte("b"),
				Properties: remoting.Properties{
					{Name: remoting.PropertyUniqueKey, Value: "k" + topic},
					{Name: remoting.PropertyRealTopic, Value: topic},
					{Name: remoting.PropertyRealQueue, Value: "0"},
					{Name: remoting.PropertyRetryTopic, Value: orders},
				},
			})
		}
		w.pass(5 * time.Second)
	}
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		retry(w)
		require.Empty(t, w.shard.pending())
		require.Zero(t, w.g.Stats().Unguarded)
	})
	o := all()
	o.ConsumerRetries = true
	inWorld(t, fakebroker.Options{}, o, func(t *testing.T, w *world) {
		retry(w)
		require.Len(t, w.shard.pending(), 1)
		w.expire(0)
		w.pass(30 * time.Second)
		got := w.copies("k%RETRY%g")
		require.Len(t, got, 1)
		require.EqualValues(t, 3, got[0].Reconsumed)
		require.Equal(t, orders, got[0].Properties.Value(remoting.PropertyRetryTopic))
	})
}

// What cannot be guarded, what is at risk and what is about to be missed must be told.
func TestStats(t *testing.T) {
	inWorld(t, fakebroker.Options{FileSize: 4096}, all(), func(t *testing.T, w *world) {
		w.cluster.Broker(0).Put(&remoting.Message{
			Topic: remoting.TopicSchedule, Queue: 5, Properties: remoting.Properties{
				{Name: remoting.PropertyRealTopic, Value: orders},
			},
		})
		w.send(0, 1, "first", level(10))
		w.pass(time.Second)
		require.EqualValues(t, 1, w.g.Stats().Unguarded)
		require.EqualValues(t, 1, w.g.Stats().AtRisk, "it is in the oldest file")
		require.Zero(t, w.g.Stats().Behind)
		gate := w.shard.close()
		for range 40 {
			w.send(0, 1, "later", level(10))
		}
		w.pass(15 * time.Second)
		require.Greater(t, w.g.Stats().Behind, uint64(30))
		require.GreaterOrEqual(t, w.g.Stats().Lag, 14*time.Second)
		close(gate)
		w.pass(5 * time.Second)
		require.Zero(t, w.g.Stats().Lag)
		_, high := w.cluster.Broker(0).CommitLog()
		w.cluster.Broker(0).Expire(high)
		w.pass(15 * time.Second)
		require.EqualValues(t, 41, w.g.Stats().AtRisk, "all of them are lost")
	})
}

// Mistakes in the configuration must be named before anything is read.
func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Grace: time.Millisecond, Timers: true}, {Grace: time.Second},
	} {
		_, err := New((&world{}).configOf("n:1"), o)
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
	_, err := New((&world{}).configOf(), all())
	require.ErrorIs(t, err, delay.ErrInvalid)
}
