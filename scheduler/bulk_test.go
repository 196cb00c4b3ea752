// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
)

// sendCold sends n messages due around in, every other one with an id of the client's, and waits
// until they are only in the bucket.
func (w *world) sendCold(target delay.Target, prefix string, n int, in time.Duration) []delay.ID {
	w.t.Helper()
	before := w.Status().Cold.Messages
	ids := make([]delay.ID, n)
	for i := range ids {
		d := w.draft(target, in+time.Duration(i)*time.Second, fmt.Sprint(prefix, i))
		if i%2 == 0 {
			d.ID = delay.ID(fmt.Sprint(prefix, i))
		}
		ids[i] = w.send(d).ID
	}
	w.pass(30 * time.Second)
	require.EqualValues(w.t, before+int64(n), w.Status().Cold.Messages)
	return ids
}

func (w *world) purge(f Filter) PurgeResult {
	w.t.Helper()
	r, err := w.Purge(w.t.Context(), f, false)
	require.NoError(w.t, err)
	return r
}

func (w *world) count(f Filter) int64 {
	w.t.Helper()
	n, err := w.Count(w.t.Context(), f)
	require.NoError(w.t, err)
	return n
}

// bulk is the bulk cancels that are stored.
func (w *world) bulkCancels() []delay.Predicate {
	w.t.Helper()
	list, err := w.store.Predicates()
	require.NoError(w.t, err)
	return list
}

// What a purge cancels in the bucket must be cancelled for everybody who asks from then on, must
// never be delivered, and must be counted once. What it does not match must not notice. Keeps R6.
func TestBulkCancel(t *testing.T) {
	opts := quick()
	opts.DedupeWindow = 2 * time.Minute
	inWorld(t, opts, func(w *world) {
		others := w.sendCold("pull:other", "o", 4, 5*time.Minute)
		ids := w.sendCold("pull:q", "q", 20, 4*time.Minute)
		near := w.send(w.draft("pull:q", time.Minute, "near")).ID
		require.Equal(t, Cancelled, w.change(ids[0], Cancel, 0).Verdict)
		require.Equal(t, Rescheduled, w.change(ids[1], Reschedule, w.Now().Add(6*time.Minute)).Verdict)

		done := w.purge(Filter{Target: "pull:q"})
		require.Equal(t, PurgeResult{Count: 20, Durability: delay.Tier}, done)
		require.Len(t, w.bulkCancels(), 1)
		require.Len(t, w.tier.State().Predicates, 1, "it is in the bucket before the answer")
		require.EqualValues(t, 4, w.Status().Cold.Messages)
		require.Equal(t, delay.Books{Accepted: 25, Pending: 4, Cancelled: 21}, w.books())
		later := w.send(w.draft("pull:q", 3*time.Minute, "later")).ID

		for _, id := range append(ids, near) {
			require.Equal(t, delay.Cancelled, w.get(id).State, id)
			require.Equal(t, Cancelled, w.change(id, Cancel, 0).Verdict, id)
			require.Equal(t, ChangeResult{Verdict: TooLate, State: delay.Cancelled},
				w.change(id, Reschedule, w.Now().Add(time.Hour)), id)
			require.Equal(t, TooLate, w.change(id, Fire, 0).Verdict, id)
		}
		again := w.draft("pull:q", 0, "q2")
		again.ID, again.Due = ids[2], w.get(ids[2]).Due
		r := w.trySend(again)
		require.True(t, r.Duplicate)
		require.Equal(t, delay.Cancelled, r.State)
		other := w.draft("pull:q", 3*time.Minute, "new content")
		other.ID, other.Replace = ids[4], true
		require.EqualValues(t, 2, w.send(other).Generation)
		require.EqualValues(t, 2, w.count(Filter{Target: "pull:q"}))
		require.Zero(t, w.purge(Filter{Target: "pull:q", DueFrom: w.Now().Add(100 * time.Hour)}).Count)

		seen := w.drainQueue(5 * time.Minute)
		require.Equal(t, map[delay.ID]int{later: 1, ids[4]: 1}, seen)
		require.Equal(t, delay.Books{Accepted: 27, Pending: 4, Delivered: 2, Cancelled: 21}, w.books())
		require.Zero(t, w.Status().Cold.Messages)
		require.Equal(t, delay.Scheduled, w.get(others[0]).State)
		require.Empty(t, w.bulkCancels(), "nothing can hold its keys any more")
		require.Empty(t, w.tier.State().Predicates)
	})
}

// The end of what was cancelled in bulk must be known for the dedupe window, also when the
// boundary of what is local has passed it, and not longer.
func TestBulkCancelIsRemembered(t *testing.T) {
	opts := quick()
	opts.DedupeWindow = 4 * time.Minute
	for _, lose := range []bool{false, true} {
		inWorld(t, opts, func(w *world) {
			ids := w.sendCold("pull:q", "q", 6, 2*time.Minute)
			w.purge(Filter{Target: "pull:q"})
			w.pass(150 * time.Second)
			if lose {
				w.crash()
				w.loseDisk()
				w.open()
				w.pass(10 * time.Second)
			}
			for i, id := range ids {
				require.Equal(t, delay.Cancelled, w.get(id).State, id)
				require.Equal(t, Cancelled, w.change(id, Cancel, 0).Verdict, id)
				if i%2 == 0 {
					d := w.draft("pull:q", time.Hour, "other content")
					d.ID = id
					require.ErrorIs(t, w.trySend(d).Err, delay.ErrExists)
				}
			}
			w.pass(2 * time.Minute)
			for i := 0; i < len(ids); i += 2 {
				d := w.draft("pull:q", time.Hour, "other content")
				d.ID = ids[i]
				require.NoError(t, w.trySend(d).Err, "the window is over")
			}
			require.Equal(t, delay.Books{Accepted: 9, Pending: 3, Cancelled: 6}, w.books())
		})
	}
}

// With the disk gone, predicate, count and books come from one manifest: nothing comes back, and
// nothing is counted twice. Keeps R6 and R15.
func TestBulkCancelSurvivesLossOfDisk(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		ids := w.sendCold("pull:q", "q", 10, 4*time.Minute)
		split := w.Now().Add(4 * time.Minute)
		w.sendCold("pull:q", "r", 10, 5*time.Minute)
		require.EqualValues(t, 10, w.purge(Filter{DueTo: split}).Count)
		require.EqualValues(t, 5, w.purge(Filter{IDPrefix: "r"}).Count)
		w.crash()
		w.loseDisk()
		w.open()
		require.Equal(t, delay.Cancelled, w.get(ids[1]).State, "before anything was swept again")
		w.pass(20 * time.Second)
		require.Equal(t, delay.Books{Accepted: 20, Pending: 5, Cancelled: 15}, w.books())
		require.EqualValues(t, 5, w.Status().Cold.Messages)
		require.Len(t, w.drainQueue(5*time.Minute), 5)
		require.Equal(t, delay.Books{Accepted: 20, Delivered: 5, Cancelled: 15}, w.books())
	})
}

// A crash right after the predicate was stored leaves a purge half done: local rows that it covers
// are not cancelled yet. They must be before the boundary passes them, or one of them lives on, and
// after the loss of the disk it would be taken for cancelled. Keeps C18.
func TestBulkCancelCompletedAfterCrash(t *testing.T) {
	for _, blind := range []bool{false, true} { // blind: the boundary comes before the completion
		inWorld(t, quick(), func(w *world) {
			w.sendCold("pull:q", "q", 10, 5*time.Minute)
			warm := w.send(w.draft("pull:q", 45*time.Second, "warm")).ID
			o := &commit.BulkOp{
				Predicate: delay.Predicate{Target: "pull:q"},
				MayHold:   func(*delay.Predicate) bool { return true }, Done: make(chan error, 1),
			}
			require.NoError(t, w.do(o, 0, o.Done))
			require.True(t, o.Made)
			require.Equal(t, delay.Scheduled, w.get(warm).State)
			if blind {
				w.pass(time.Minute) // nobody knows of it but the committer
				require.Equal(t, delay.Books{Accepted: 11, Pending: 10, Cancelled: 1}, w.books())
			}
			w.crash()
			w.open()
			w.pass(5 * time.Second)
			require.Equal(t, delay.Cancelled, w.get(warm).State)
			require.Equal(t, delay.Books{Accepted: 11, Cancelled: 11}, w.books())
			require.Empty(t, w.drainQueue(6*time.Minute))
		})
	}
}

// The count must be exact when two bulk cancels cover the same messages: each counts once, for
// the first.
func TestBulkCancelsOverlap(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sendCold("pull:q", "q", 10, time.Hour)
		w.sendCold("pull:other", "o", 10, time.Hour)
		now := w.Now()
		o := &commit.BulkOp{ // made, and counted only when the boundary comes
			Predicate: delay.Predicate{Target: "pull:q"},
			MayHold:   func(*delay.Predicate) bool { return true }, Done: make(chan error, 1),
		}
		require.NoError(t, w.do(o, 0, o.Done))
		require.Zero(t, w.purge(Filter{IDPrefix: "q"}).Count, "it counts for the one before it")
		w.pass(15 * time.Second)
		require.Len(t, w.bulkCancels(), 2, "the one before it does not know what was counted")
		require.Zero(t, w.purge(Filter{Target: "pull:q"}).Count)
		require.EqualValues(t, 10, w.purge(Filter{DueFrom: now, DueTo: now.Add(5 * time.Hour)}).Count)
		require.Equal(t, delay.Books{Accepted: 20, Cancelled: 20}, w.books())
		require.Zero(t, w.Status().Cold.Messages)
	})
}

// While the bucket cannot be read a purge holds all the same; what is not counted is said to be
// cancelling, and is counted exactly later: by the background, by what comes near, and again after
// a crash from where it was.
func TestBulkCancelCountedLater(t *testing.T) {
	withOutages(t, quick(), func(w *world, down func(bool)) {
		w.sendCold("pull:q", "q", 10, 10*time.Minute)
		w.sendCold("pull:q", "r", 10, time.Hour)
		o := &commit.BulkOp{
			Predicate: delay.Predicate{Target: "pull:q"},
			MayHold:   func(*delay.Predicate) bool { return true }, Done: make(chan error, 1),
		}
		require.NoError(t, w.do(o, 0, o.Done))
		require.EqualValues(t, 20, w.Status().Cancelling)
		require.EqualValues(t, 20, w.books().Pending)
		require.Zero(t, w.count(Filter{}), "what is cancelled is not pending, counted or not")
		w.pass(10 * time.Minute) // the boundary passes some of them
		require.EqualValues(t, 10, w.Status().Cancelling)
		require.Equal(t, delay.Books{Accepted: 20, Pending: 10, Cancelled: 10}, w.books())
		bars, err := w.Histogram(w.t.Context(), time.Hour, Filter{})
		require.NoError(t, err)
		require.Empty(t, bars)
		down(true)
		_, err = w.Purge(w.t.Context(), Filter{Target: "pull:q"}, false)
		require.ErrorIs(t, err, delay.ErrUnavailable)
		w.crash()
		down(false)
		w.open()
		w.pass(5 * time.Second)
		require.Zero(t, w.Status().Cancelling)
		require.Equal(t, delay.Books{Accepted: 20, Cancelled: 20}, w.books())
	})
}

// Without a bucket, or for what a predicate cannot say, a purge goes one by one as ever.
func TestPurgeOneByOne(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		cold := delay.Cold
		w.sendCold("pull:q", "q", 10, time.Hour)
		w.send(w.draft("pull:q", time.Minute, "near"))
		require.Equal(t, PurgeResult{Count: 10}, w.purge(Filter{Level: &cold}))
		require.Empty(t, w.bulkCancels())
		require.Equal(t, PurgeResult{Count: 1}, w.purge(Filter{DueTo: w.Now().Add(2 * time.Minute)}),
			"no segment holds such a due")
		require.Empty(t, w.bulkCancels())
		require.Equal(t, delay.Books{Accepted: 11, Cancelled: 11}, w.books())
	})
}
