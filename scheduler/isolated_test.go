// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// withOutages is a world whose bucket can be taken away.
func withOutages(t *testing.T, opts Options, f func(w *world, down func(bool))) {
	t.Helper()
	inWorld(t, opts, func(w *world) {
		w.drain()
		bad := faulty.New(memory.New(memory.Options{Now: time.Now}), rand.New(rand.NewPCG(1, 1)),
			faulty.Options{})
		w.bucket = bad
		w.loseDisk()
		w.open()
		f(w, bad.SetDown)
	})
}

// A directory that has seen the bucket starts without it, on its last epoch: it delivers, accepts,
// and gives out seqs that no message ever had, over any number of such starts. When the bucket is
// back it takes the shard before it uploads, and nothing is lost (rule R11).
func TestStartWithoutBucket(t *testing.T) {
	withOutages(t, quick(), func(w *world, down func(bool)) {
		want := map[delay.ID]bool{}
		send := func(in time.Duration) { want[w.send(w.draft("pull:q", in, "x")).ID] = true }
		for i := range 20 {
			send(time.Duration(5+i*10) * time.Second) // the last of them are dropped
		}
		w.pass(5 * time.Second)
		before := w.Status()
		highest := w.store.LastSeq()
		for range 3 {
			w.crash()
			down(true)
			w.open()
			require.Equal(t, before.Epoch, w.Status().Epoch)
			require.True(t, w.Status().Isolated)
			n := len(want)
			send(10 * time.Second)
			send(2 * time.Minute)
			require.Len(t, want, n+2, "an id was given twice")
			reserved, err := w.Reserve(w.t.Context(), 10)
			require.NoError(t, err)
			for _, id := range reserved {
				require.NotContains(t, want, id)
			}
			require.Greater(t, w.store.LastSeq(), highest)
			highest = w.store.LastSeq()
			w.pass(time.Second)
		}
		got := w.drainQueue(15 * time.Second)
		require.NotEmpty(t, got, "delivery goes on")
		require.Equal(t, before.Epoch, w.tierEpoch(), "nothing is written without the bucket")
		down(false)
		w.pass(40 * time.Second) // the tier looks now and then while the bucket is silent
		require.False(t, w.Status().Isolated)
		require.Greater(t, w.Status().Epoch, before.Epoch)
		for id, n := range w.drainQueue(5 * time.Minute) {
			got[id] += n
		}
		for id := range want {
			require.Equal(t, 1, got[id], id)
		}
		require.EqualValues(t, len(want), w.books().Delivered)
		far := w.send(w.draft("pull:q", 2*time.Minute, "x")).ID
		w.pass(5 * time.Second)
		w.crash()
		w.loseDisk()
		w.open()
		require.Equal(t, map[delay.ID]int{far: 1}, w.drainQueue(3*time.Minute))
	})
}

// tierEpoch is the epoch in the manifest that was read last.
func (w *world) tierEpoch() delay.Epoch {
	if e := w.tier.State().Epoch; e != 0 {
		return e
	}
	return w.Status().Epoch // no manifest was read
}

// Leases go on over a start on the last epoch, with receipts and numbers of their own.
func TestLeasesWithoutBucket(t *testing.T) {
	withOutages(t, quick(), func(w *world, down func(bool)) {
		for range 4 {
			w.send(w.draft("pull:q", 0, "x"))
		}
		first := w.pull(2, time.Second)
		require.Len(t, first, 2)
		w.pass(time.Second)
		w.crash()
		down(true)
		w.open()
		second := w.pull(2, time.Second)
		require.Len(t, second, 2)
		require.NotEqual(t, first[0].ID, second[0].ID)
		w.crash()
		w.open()
		require.Equal(t, []SettleResult{Acked, Acked, Acked, Acked}, w.ack(append(first, second...)...))
		require.EqualValues(t, 4, w.books().Delivered)
		down(false)
		w.pass(40 * time.Second)
	})
}

// What must not start without the bucket: a directory that never saw one, or one that an operator
// wants to stop. And when the bucket is back and another owner was there, the directory is old.
func TestNoStartWithoutBucket(t *testing.T) {
	withOutages(t, quick(), func(w *world, down func(bool)) {
		w.send(w.draft("pull:q", time.Hour, "x"))
		w.pass(3 * time.Second)
		w.crash()
		old := w.fs
		down(true)
		w.loseDisk()
		require.ErrorIs(t, w.tryOpen(), delay.ErrUnavailable, "an empty directory")
		w.fs = old
		w.opts.IsolatedStop = true
		require.ErrorIs(t, w.tryOpen(), delay.ErrUnavailable, "isolated: stop")
		w.opts.IsolatedStop = false
		w.open()
		require.True(t, w.Status().Isolated)

		// Meanwhile another owner, whom the bucket answers.
		down(false)
		other := w.beside()
		other.open()
		err := <-w.ran
		require.ErrorIs(t, err, delay.ErrFenced)
		require.ErrorIs(t, err, ErrOldDisk)
		w.close()
		require.ErrorIs(t, w.tryOpen(), ErrOldDisk)
		other.drain()
		w.fs = vfs.NewCrashableMem()
		w.open()
	})
}

// An hour without the bucket: accepting and delivery go on, on time; it is told once that it is
// gone and once that it is back, and what has piled up is uploaded in pieces while messages still
// come and go on time.
func TestOutageOfAnHour(t *testing.T) {
	withOutages(t, Options{
		FlushInterval: time.Second, MinWait: 2 * time.Second, Horizon: 3 * time.Hour,
		DropLag: 2 * time.Second, HotWindow: 5 * time.Second,
	}, func(w *world, down func(bool)) {
		w.drain()
		logs, seen := observer.New(zapcore.InfoLevel)
		w.log = zap.New(logs)
		w.open()
		for i := range 100 {
			w.send(w.draft("pull:q", time.Duration(1+i)*time.Minute, "before"))
		}
		w.pass(5 * time.Second)
		down(true)
		delivered, late := 0, time.Duration(0)
		work := func(rounds int) {
			for i := range rounds {
				for range 10 {
					w.send(w.draft("pull:q", time.Duration(1+i%3)*time.Minute, "during"))
				}
				for range 6 { // ten seconds each
					for _, l := range w.pull(100, 10*time.Second) {
						delivered++
						late = max(late, w.Now().Sub(l.Due))
						w.ack(l)
					}
				}
				w.pass(time.Second)
			}
		}
		work(60)
		require.Greater(t, delivered, 500)
		require.Less(t, late, 2*time.Second)
		st := w.Status()
		require.Greater(t, st.OldestNotUploaded, 30*time.Minute)
		require.NotEmpty(t, st.LastFlushError)
		down(false)
		late = 0
		work(3)
		require.Less(t, late, 2*time.Second, "the backlog disturbs delivery")
		require.Less(t, w.Status().OldestNotUploaded, 10*time.Second)
		require.Empty(t, w.Status().LastFlushError)
		told := map[string]int{}
		for _, e := range seen.All() {
			told[e.Message]++
		}
		require.Equal(t, 1, told["bucket does not answer, offload paused"], told)
		require.Equal(t, 1, told["bucket answers again, offload goes on"], told)
		require.LessOrEqual(t, len(seen.All()), 12, fmt.Sprint(told))
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(5 * time.Second)
		b := w.books()
		require.Zero(t, b.LostWithDisk, b)
	})
}
