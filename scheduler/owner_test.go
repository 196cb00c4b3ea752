// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"path"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// beside is a second owner on the same bucket, with a disk of its own.
func (w *world) beside() *world {
	o := *w
	o.Shard, o.fs = nil, vfs.NewCrashableMem()
	return &o
}

// A second owner takes the shard: the first notices within a flush interval and ends, the second
// waits before it claims, and nothing that was uploaded is lost (rules R10 to R12).
func TestTakeover(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		near := w.send(w.draft("pull:q", 6*time.Second, "near")).ID
		far := w.send(w.draft("pull:q", time.Minute, "far")).ID
		w.pass(3 * time.Second)
		second := w.beside()
		second.open()
		start := second.Now()
		require.ErrorIs(t, <-w.ran, delay.ErrFenced)
		require.LessOrEqual(t, second.Now().Sub(start), 2*time.Second)
		w.close()

		got := second.pull(1, 10*time.Second)
		require.Len(t, got, 1)
		require.Equal(t, near, got[0].ID)
		require.GreaterOrEqual(t, second.Now().Sub(start), 3*time.Second, "claims wait (R11)")
		second.ack(got...)
		got = second.pull(1, 2*time.Minute)
		require.Equal(t, far, got[0].ID)
		second.ack(got...)
		require.Zero(t, second.books().Pending)
		second.drain()

		// The first comes back with its old disk: it is not believed (R10).
		require.ErrorIs(t, w.tryOpen(), ErrOldDisk)
		w.loseDisk()
		w.open()
		require.EqualValues(t, 2, w.books().Delivered)
	})
}

// A new owner that dies in the pause after its takeover must go on with it: the one before may still
// not have looked (R11).
func TestTakeoverPauseSurvivesCrash(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		near := w.send(w.draft("pull:q", 4*time.Second, "near")).ID
		w.pass(3 * time.Second)
		second := w.beside()
		second.open()
		start := second.Now()
		require.ErrorIs(t, <-w.ran, delay.ErrFenced)
		w.close()
		second.crash()
		second.open()
		got := second.pull(1, 10*time.Second)
		require.Len(t, got, 1)
		require.Equal(t, near, got[0].ID)
		require.GreaterOrEqual(t, second.Now().Sub(start), 3*time.Second)
		second.ack(got...)
		second.drain()
	})
}

// A manifest that vanished while the local store remembers one is refused, never made anew.
func TestVanishedManifest(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.send(w.draft("pull:q", time.Hour, "x"))
		w.pass(3 * time.Second)
		w.drain()
		manifest := ""
		require.NoError(t, w.bucket.List(w.t.Context(), "v1/", func(o objstore.Info) bool {
			if path.Base(o.Key) == "manifest" {
				manifest = o.Key
			}
			return true
		}))
		require.NotEmpty(t, manifest)
		require.NoError(t, w.bucket.Delete(w.t.Context(), manifest))
		require.ErrorContains(t, w.tryOpen(), "vanished")
	})
}

// After a crash, a push message due up to the claim horizon may have been handed over: cancel
// answers TOO_LATE, and of any later one CANCELLED (rule R8).
func TestClaimHorizon(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sink.Hold()
		defer w.sink.Release()
		first := w.send(w.draft("log:", time.Second, "handed over"))
		near := w.send(w.draft("log:", 5*time.Second, "within the horizon"))
		far := w.send(w.draft("log:", time.Minute, "beyond"))
		w.pass(2 * time.Second)
		require.Equal(t, TooLate, w.change(first.ID, Cancel, 0).Verdict)
		w.sink.Release()
		w.crash()
		w.open()
		require.Equal(t, TooLate, w.change(near.ID, Cancel, 0).Verdict)
		require.Equal(t, Cancelled, w.change(far.ID, Cancel, 0).Verdict)
		w.pass(time.Minute)
		require.Equal(t, delay.Delivered, w.get(near.ID).State)
		require.Equal(t, 1, w.sink.Taken()[near.ID])
		require.Zero(t, w.sink.Taken()[far.ID])
	})
}

// Lists, counts and bars agree about hot, warm, parked and cold messages; a purge cancels exactly
// what matches.
func TestQueriesAcrossLevels(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		for i := range 300 {
			w.send(w.draft("pull:q", time.Duration(i)*time.Second, "x"))
		}
		for range 30 {
			w.send(w.draft("pull:other", 200*time.Second, "y"))
		}
		w.pass(20 * time.Second)
		ctx := w.t.Context()
		total, err := w.Count(ctx, Filter{})
		require.NoError(t, err)
		require.EqualValues(t, 330, total)
		var listed []Info
		token := ""
		for {
			page, next, err := w.List(ctx, Filter{}, 50, token)
			require.NoError(t, err)
			listed = append(listed, page...)
			if token = next; token == "" {
				break
			}
		}
		require.Len(t, listed, 330)
		levels := make(map[delay.Level]int)
		ids := make(map[delay.ID]bool)
		for i, info := range listed {
			levels[info.Level]++
			ids[info.ID] = true
			if i > 0 {
				require.GreaterOrEqual(t, info.Due, listed[i-1].Due)
			}
		}
		require.Len(t, ids, 330)
		require.Positive(t, levels[delay.Hot])
		require.Positive(t, levels[delay.Warm])
		require.Greater(t, levels[delay.Cold], 200)
		n, err := w.Count(ctx, Filter{Target: "pull:q"})
		require.NoError(t, err)
		require.EqualValues(t, 300, n)
		only, err := delay.NewTargetSet([]string{"pull:o*"})
		require.NoError(t, err)
		limited := Filter{Only: only}
		n, err = w.Count(ctx, limited)
		require.NoError(t, err)
		require.EqualValues(t, 30, n, "of the targets that the caller may see")
		page, _, err := w.List(ctx, limited, 50, "")
		require.NoError(t, err)
		require.Len(t, page, 30)
		bars, err := w.Histogram(ctx, time.Hour, limited)
		require.NoError(t, err)
		require.EqualValues(t, 30, bars[0].Count)
		for _, target := range []delay.Target{"", "pull:q"} {
			_, err = w.Purge(ctx, Filter{Target: target, Only: only}, false)
			require.ErrorIs(t, err, delay.ErrInvalid, "a bulk cancel cannot say patterns")
		}
		for _, bucket := range []time.Duration{time.Hour, time.Minute} {
			bars, err := w.Histogram(ctx, bucket, Filter{})
			require.NoError(t, err)
			var sum int64
			for _, b := range bars {
				sum += b.Count
				require.Equal(t, b.Count, b.Hot+b.Warm+b.Cold)
			}
			require.EqualValues(t, 330, sum, bucket)
		}
		for _, dryRun := range []bool{true, false} {
			res, err := w.Purge(ctx, Filter{Target: "pull:other"}, dryRun)
			require.NoError(t, err)
			require.EqualValues(t, 30, res.Count)
			require.False(t, res.Cancelling)
		}
		require.Equal(t, delay.Books{Accepted: 330, Pending: 300, Cancelled: 30}, w.books())
		require.Len(t, w.drainQueue(2*time.Minute), 300)
		require.Zero(t, w.books().Pending)
	})
}

// A repeated request is told that its message is claimed (S4).
func TestDuplicateOfClaimed(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", 0, "x")
		d.ID = "o-1"
		w.send(d)
		require.Len(t, w.pull(1, time.Second), 1)
		r := w.trySend(d)
		require.True(t, r.Duplicate)
		require.Equal(t, delay.Claimed, r.State)
	})
}

// The last millisecond of the year 9999 is in the histogram, in a bar that holds it, whatever the
// bucket, and the bytes agree.
func TestHistogramOfFarDues(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", 0, "far")
		d.Due = delay.MaxDue
		w.send(d)
		var bytes []int64
		for _, bucket := range []time.Duration{7 * time.Minute, time.Hour, 24 * time.Hour} {
			bars, err := w.Histogram(w.t.Context(), bucket, Filter{})
			require.NoError(t, err)
			require.Len(t, bars, 1, bucket)
			require.LessOrEqual(t, bars[0].From, delay.MaxDue)
			require.Greater(t, bars[0].From.Add(0)+delay.Due(bucket.Milliseconds()), delay.MaxDue)
			bytes = append(bytes, bars[0].Bytes)
		}
		require.Equal(t, bytes[0], bytes[1])
		require.Equal(t, bytes[0], bytes[2])
	})
}
