// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// A cancel of a message that the bucket holds is not durable before the bucket knows of it: without
// an answer of the bucket there is none to the client (rule R13).
func TestChangeWaitsForTheBucket(t *testing.T) {
	withOutages(t, quick(), func(w *world, down func(bool)) {
		d := w.draft("pull:q", time.Hour, "x")
		d.Durability = delay.Tier
		id := w.send(d).ID
		down(true)
		results := make([]ChangeResult, 1)
		start := w.Now()
		err := w.Change(w.t.Context(), []ChangeRequest{{ID: id, Change: Cancel}}, results)
		require.ErrorIs(t, err, delay.ErrUnavailable)
		require.GreaterOrEqual(t, w.Now().Sub(start), tierPatience)
		down(false)
		w.pass(40 * time.Second)
		require.Equal(t, Cancelled, w.change(id, Cancel, 0).Verdict, "a repeat finds what became of it")
	})
}

// An operator who wants exact cancels has a partitioned owner stop: after T without an answer of the
// bucket nothing is claimed any more, because another may own the shard by then (rule R11).
func TestSilentOwnerStops(t *testing.T) {
	opts := quick()
	opts.IsolatedStop = true
	withOutages(t, opts, func(w *world, down func(bool)) {
		w.pass(5 * time.Second)
		id := w.send(w.draft("pull:q", 10*time.Second, "x")).ID
		w.pass(3 * time.Second)
		down(true)
		start := w.Now()
		select {
		case err := <-w.ran:
			require.ErrorIs(t, err, delay.ErrUnavailable)
		case <-time.After(time.Minute):
			require.Fail(t, "it goes on")
		}
		require.LessOrEqual(t, delay.InstantOf(time.Now()).Sub(start), 5*time.Second)
		w.close()
		down(false)
		w.open()
		require.Equal(t, map[delay.ID]int{id: 1}, w.drainQueue(15*time.Second))
	})
}

// A process that stood still asks who owns the shard before it claims anything: its flush would find
// out too late (rule R11).
func TestAwakeOwnerAsks(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.pass(3 * time.Second)
		require.NoError(t, w.mayClaim(w.t.Context(), time.Minute))
		second := w.beside()
		second.open()
		require.ErrorIs(t, w.mayClaim(w.t.Context(), time.Minute), delay.ErrFenced)
		require.ErrorIs(t, <-w.ran, delay.ErrFenced)
		w.close()
		second.drain()
		w.loseDisk()
		w.open()
	})
}

// The ack of an attempt that was given back comes when another one has been acked: the consumer must
// learn that it was not its own (rule R9).
func TestAckOfAnEarlierAttempt(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.send(w.draft("pull:q", 0, "x"))
		first := w.pull(1, time.Second)
		require.Len(t, first, 1)
		nacked := w.settle(SettleRequest{Queue: "q", Settlement: Nack, HasDelay: true}, first...)
		require.Equal(t, []SettleResult{Nacked}, nacked)
		second := w.pull(1, time.Second)
		require.Len(t, second, 1)
		require.Equal(t, []SettleResult{Acked}, w.ack(second...))
		w.pass(time.Second)
		require.Equal(t, []SettleResult{Superseded}, w.ack(first...))
		require.Equal(t, []SettleResult{Acked}, w.ack(second...))
	})
}

// While rows are read back from the store one of them is parked: it is no row any more, and must be
// among what is kept, or the cut would say of a message that it is uploaded and hold it nowhere
// (rule R5).
func TestParkedWhileReadingBack(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.takeFlush()
		defer w.giveFlush()
		id := w.send(w.draft("pull:q", time.Hour, "x")).ID
		part := w.upload.Take()
		require.Len(t, part.Rows, 1)
		key := part.Rows[0].Key
		ref, err := w.lanes.RefOfRecord(key, part.Rows[0].Rec)
		require.NoError(t, err)
		w.commit.Enqueue(&commit.ParkOp{Items: []core.ParkItem{{Ref: ref}}})
		part.Behind = key.Seq
		require.NoError(t, w.readBack(&part))
		require.Len(t, part.Kept, 1, id)
		require.Equal(t, key, part.Kept[0].Key)
	})
}
