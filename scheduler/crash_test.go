// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
)

// quick are options under which the tier works within seconds.
func quick() Options {
	return Options{
		FlushInterval: time.Second, MinWait: 2 * time.Second, Horizon: 30 * time.Second,
		DropLag: 2 * time.Second, HotWindow: 5 * time.Second,
	}
}

// drainQueue pulls and acks until nothing comes for a while, and returns how often each id came.
func (w *world) drainQueue(idle time.Duration) map[delay.ID]int {
	w.t.Helper()
	seen := make(map[delay.ID]int)
	for {
		got := w.pull(1000, idle)
		if len(got) == 0 {
			return seen
		}
		for _, l := range got {
			require.GreaterOrEqual(w.t, w.Now(), l.Due, "early")
			seen[l.ID]++
		}
		w.ack(got...)
	}
}

// What was accepted survives a crash, and what was acked does not come back.
func TestCrashKeepsAccepted(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		want := make(map[delay.ID]bool)
		for i := range 100 {
			want[w.send(w.draft("pull:q", time.Duration(i)*100*time.Millisecond, "x")).ID] = true
		}
		w.pass(4 * time.Second)
		first := w.pull(20, time.Second)
		require.Len(t, first, 20)
		w.ack(first[:10]...)
		for _, l := range first[:10] {
			delete(want, l.ID)
		}
		w.crash()
		w.open()
		// Ten are still leased: they come back only after their lease is over (S7).
		leased := make(map[delay.ID]bool)
		for _, l := range first[10:] {
			leased[l.ID] = true
			require.Equal(t, delay.Claimed, w.get(l.ID).State)
		}
		seen := w.drainQueue(15 * time.Second)
		for id := range seen {
			require.False(t, leased[id], "a leased message was given to another consumer")
			require.True(t, want[id])
			delete(want, id)
		}
		require.Equal(t, []SettleResult{Acked}, w.ack(first[10]), "a receipt survives a restart")
		delete(want, first[10].ID)
		for id, n := range w.drainQueue(time.Minute) {
			require.Equal(t, 1, n)
			require.True(t, leased[id])
			delete(want, id)
		}
		require.Empty(t, want)
		require.EqualValues(t, 100, w.books().Delivered)
	})
}

// After the disk is lost everything uploaded comes back from the bucket: cold messages, parked
// ones, dead letters, ids and cancels.
func TestRestoreFromBucket(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		var ids []delay.ID
		for i := range 200 {
			d := w.draft("pull:q", 40*time.Second+time.Duration(i)*time.Second, fmt.Sprint(i))
			if i%10 == 0 {
				d.ID = delay.ID(fmt.Sprint("order-", i))
			}
			ids = append(ids, w.send(d).ID)
		}
		overdue := w.send(w.draft("pull:q", time.Second, "nobody pulls me")).ID
		require.Equal(t, Cancelled, w.change(ids[3], Cancel, 0).Verdict)
		require.Equal(t, Cancelled, w.change(ids[10], Cancel, 0).Verdict)
		require.Equal(t, Rescheduled,
			w.change(ids[5], Reschedule, w.Now().Add(100*time.Second)).Verdict)
		w.pass(25 * time.Second)
		w.crash()
		w.loseDisk()
		w.open()
		require.Equal(t, delay.Cancelled, w.get(ids[3]).State)
		w.pass(5 * time.Second)
		require.Equal(t, delay.Cancelled, w.get(ids[10]).State)
		again := w.draft("pull:q", time.Hour, "other")
		again.ID = ids[20]
		require.ErrorIs(t, w.trySend(again).Err, delay.ErrExists)
		seen := w.drainQueue(3 * time.Minute)
		require.Equal(t, 1, seen[overdue], "a parked message must come back")
		require.Zero(t, seen[ids[3]])
		require.Zero(t, seen[ids[10]])
		for i, id := range ids {
			if i != 3 && i != 10 {
				require.Equal(t, 1, seen[id], "message %d", i)
			}
		}
		b := w.books()
		require.Zero(t, b.LostWithDisk)
		require.EqualValues(t, 199, b.Delivered)
		require.EqualValues(t, 2, b.Cancelled)
		require.Zero(t, b.Pending)
	})
}

// A message of durability tier is in the bucket when it is answered.
func TestTierDurability(t *testing.T) {
	inWorld(t, Options{FlushInterval: 5 * time.Minute}, func(w *world) {
		d := w.draft("pull:q", 30*time.Second, "x")
		d.Durability = delay.Tier
		start := time.Now()
		r := w.send(d)
		require.Less(t, time.Since(start), time.Second)
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(16 * time.Minute)
		require.Equal(t, map[delay.ID]int{r.ID: 1}, w.drainQueue(time.Second))
	})
}

// A failing sink is retried with growing pauses, attempts are counted across a crash, and the
// last failure makes a dead letter that can be retried.
func TestRetryAndDead(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sink = sink.New(sink.Options{Now: time.Now, Script: func(int, broker.Delivery) sink.Answer {
			return sink.Answer{Result: broker.Result{Outcome: broker.Retry, Reason: "503"}}
		}})
		d := w.draft("log:", time.Second, "x")
		d.MaxAttempts = 4
		r := w.send(d)
		w.pass(2 * time.Second)
		require.Equal(t, delay.Claimed, w.get(r.ID).State)
		require.Equal(t, TooLate, w.change(r.ID, Cancel, 0).Verdict)
		w.crash()
		w.open()
		require.Equal(t, TooLate, w.change(r.ID, Cancel, 0).Verdict)
		w.pass(time.Minute)
		info := w.get(r.ID)
		require.Equal(t, delay.Dead, info.State)
		require.EqualValues(t, 4, info.Attempts)
		require.Equal(t, "max_attempts", info.Reason)
		list, _, err := w.DeadLetters(w.t.Context(), Filter{}, 10, "")
		require.NoError(t, err)
		require.Len(t, list, 1)
		w.sink = sink.New(sink.Options{Now: time.Now})
		_, err = w.RetryDead(w.t.Context(), r.ID)
		require.NoError(t, err)
		w.pass(5 * time.Second)
		require.Equal(t, delay.Delivered, w.get(r.ID).State)
		require.Equal(t, delay.Books{Accepted: 1, Delivered: 1}, w.books())
	})
}

// A paused target keeps its messages cancellable, across a crash, and delivers them all when it is
// resumed; the watermark moves on meanwhile.
func TestPausedLane(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		require.NoError(t, w.SetPaused(w.t.Context(), "log:", true))
		var ids []delay.ID
		for i := range 3000 {
			ids = append(ids, w.send(w.draft("log:", time.Duration(i)*time.Millisecond, "x")).ID)
		}
		w.pass(30 * time.Second)
		require.Greater(t, w.Status().Watermark.Due, w.Now().Add(-12*time.Second))
		require.Equal(t, Cancelled, w.change(ids[0], Cancel, 0).Verdict)
		w.crash()
		w.open()
		require.Equal(t, Cancelled, w.change(ids[1], Cancel, 0).Verdict)
		require.Equal(t, delay.Scheduled, w.get(ids[2]).State)
		require.Zero(t, w.sink.Reached())
		require.NoError(t, w.SetPaused(w.t.Context(), "log:", false))
		w.pass(5 * time.Second)
		taken := w.sink.Taken()
		require.Len(t, taken, 2998)
		for id, n := range taken {
			require.Equal(t, 1, n, id)
		}
		require.EqualValues(t, 2998, w.books().Delivered)
	})
}

// ttl and not_after end a message that nobody took in time, and it is listed with its reason.
func TestExpiry(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", time.Second, "x")
		d.TTL = 3 * time.Second
		r := w.send(d)
		w.pass(3 * time.Second)
		require.Equal(t, delay.Scheduled, w.get(r.ID).State)
		w.pass(2 * time.Second)
		require.Equal(t, delay.Expired, w.get(r.ID).State)
		require.Empty(t, w.pull(1, time.Second))
		require.Equal(t, TooLate, w.change(r.ID, Cancel, 0).Verdict)
		require.Equal(t, delay.Books{Accepted: 1, Expired: 1}, w.books())
	})
}

// The same id and content is answered as the first time; other content is refused, or replaces it.
func TestClientIDs(t *testing.T) {
	inWorld(t, Options{DedupeWindow: 10 * time.Minute}, func(w *world) {
		d := w.draft("pull:q", time.Hour, "x")
		d.ID = "order-1"
		first := w.send(d)
		again := w.trySend(d)
		require.NoError(t, again.Err)
		require.True(t, again.Duplicate)
		require.Equal(t, first.Due, again.Due)
		require.Equal(t, delay.Scheduled, again.State)
		other := d
		other.Body = []byte("y")
		require.ErrorIs(t, w.trySend(other).Err, delay.ErrExists)
		other.Replace = true
		r := w.send(other)
		require.EqualValues(t, 2, r.Generation)
		require.Equal(t, "y", string(w.get("order-1").Body))
		w.crash()
		w.open()
		require.True(t, w.trySend(other).Duplicate)
		require.Equal(t, Cancelled, w.change("order-1", Cancel, 0).Verdict)
		require.Equal(t, Cancelled, w.change("order-1", Cancel, 0).Verdict)
		require.Equal(t, NotFound, w.change("order-2", Cancel, 0).Verdict)
		require.Equal(t, delay.Books{Accepted: 1, Cancelled: 1}, w.books())
		w.pass(11 * time.Minute)
		require.Equal(t, NotFound, w.change("order-1", Cancel, 0).Verdict)
	})
}

// Reserved ids are accepted once; other ids that look like the server's are refused.
func TestReservedIDs(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		ids, err := w.Reserve(w.t.Context(), 3)
		require.NoError(t, err)
		d := w.draft("pull:q", time.Hour, "x")
		made := w.send(d).ID
		d.ID = ids[0]
		require.NoError(t, w.trySend(d).Err)
		require.True(t, w.trySend(d).Duplicate)
		d.ID = made
		require.ErrorIs(t, w.trySend(d).Err, delay.ErrInvalid)
		w.crash()
		w.open()
		d.ID = ids[1]
		require.NoError(t, w.trySend(d).Err)
	})
}

// A lease that is not settled comes back with the next attempt, and the old receipt is superseded.
func TestLeaseExpiry(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		r := w.send(w.draft("pull:q", time.Second, "x"))
		one := w.pull(1, 2*time.Second)
		require.Len(t, one, 1)
		require.Equal(t, []SettleResult{Extended},
			w.settle(SettleRequest{Settlement: Extend, Lease: time.Minute}, one...))
		require.Empty(t, w.pull(1, 45*time.Second))
		two := w.pull(1, time.Minute)
		require.Len(t, two, 1)
		require.EqualValues(t, 2, two[0].Attempt)
		require.Equal(t, []SettleResult{Superseded}, w.ack(one...))
		require.Equal(t, []SettleResult{Nacked},
			w.settle(SettleRequest{Settlement: Nack, Delay: 5 * time.Second, HasDelay: true}, two...))
		require.Empty(t, w.pull(1, 4*time.Second))
		three := w.pull(1, 2*time.Second)
		require.Len(t, three, 1)
		require.Equal(t, []SettleResult{Acked}, w.ack(three...))
		require.Equal(t, []SettleResult{Superseded}, w.ack(one...))
		require.Equal(t, delay.Delivered, w.get(r.ID).State)
	})
}

// At most once: a crash while the message is with its receiver does not bring it back.
func TestAtMostOnce(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", time.Second, "x")
		d.Mode = delay.AtMostOnce
		r := w.send(d)
		got := w.pull(1, 2*time.Second)
		require.Len(t, got, 1)
		w.crash()
		w.open()
		require.Equal(t, delay.Delivered, w.get(r.ID).State)
		require.Empty(t, w.pull(1, 5*time.Minute))
		require.Equal(t, delay.Books{Accepted: 1, Delivered: 1}, w.books())
	})
}

// What was delivered before a crash is known by the absence of its row alone. The first flush after
// the crash must mark it: or the loss of the disk would bring back what was delivered long before
// the last commit (S6). Dead letters and parked messages have no row either, and must stay.
func TestDeliveredBeforeCrashIsMarked(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sendAll(1, "pull:q", 3*time.Second)
		w.sendAll(50, "pull:q", 4*time.Second)
		parked := w.sendAll(1, "pull:other", 4*time.Second)
		d := w.draft("pull:q", 4*time.Second, "dies")
		d.MaxAttempts = 1
		dead := w.send(d).ID
		w.pass(3 * time.Second)
		held := w.pullFor(1, 40*time.Second) // holds the watermark back
		require.Len(t, held, 1)
		w.pass(time.Second)
		got := w.pull(1000, time.Second)
		require.Len(t, got, 51)
		w.settle(SettleRequest{Settlement: Nack}, leaseOf(got, dead))
		require.Equal(t, delay.Dead, w.get(dead).State)
		for _, l := range got {
			if l.ID != dead {
				w.ack(l)
			}
		}
		w.crash()
		w.open()
		w.pass(1500 * time.Millisecond) // a flush
		w.crash()
		w.loseDisk()
		w.open()
		require.Equal(t, map[delay.ID]int{held[0].ID: 1}, w.drainQueue(time.Minute))
		require.Equal(t, delay.Dead, w.get(dead).State)
		out, err := w.Pull(w.t.Context(), "other", 10, time.Second, time.Minute)
		require.NoError(t, err)
		require.Equal(t, parked, idsOf(out))
	})
}

// A paused target is paused because its receiver must get nothing now: the loss of the disk must not
// resume it. What an operator resumed stays so.
func TestPauseSurvivesDiskLoss(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		pause := func(target delay.Target, paused bool) {
			require.NoError(t, w.SetPaused(w.t.Context(), target, paused))
		}
		for _, target := range []delay.Target{"log:", "pull:q", "http://a/"} {
			pause(target, true)
		}
		near, far := w.sendAll(10, "log:", 5*time.Second), w.sendAll(10, "log:", time.Minute)
		other := w.sendAll(10, "http://a/", 5*time.Second)
		w.pass(2 * time.Second)
		pause("http://a/", false)
		w.pass(2 * time.Second)
		for range 2 { // what was restored is in the next manifest too
			w.crash()
			w.loseDisk()
			w.open()
			w.pass(30 * time.Second)
		}
		exactly(t, w.sink, other)
		require.Equal(t, Cancelled, w.change(far[0], Cancel, 0).Verdict)
		pause("log:", false)
		w.pass(time.Minute)
		exactly(t, w.sink, slices.Concat(near, far[1:], other))
		w.sendAll(1, "pull:q", 0)
		require.Empty(t, w.pull(1, time.Minute))
		pause("pull:q", false)
		require.Len(t, w.pull(1, time.Minute), 1)
	})
}
