// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// bench is a committer on a store in memory, driven by steps.
type bench struct {
	*Committer
	t      *testing.T
	store  *localstore.Store
	posted []core.Event
	grant  bool // what the core says to a change
	now    delay.Due
}

func newBench(t *testing.T) *bench {
	store, err := localstore.Open(vfs.NewMem(), "store", localstore.Options{
		Simulated: true, Logger: zaptest.NewLogger(t),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	b := &bench{t: t, store: store, grant: true, now: 1_700_000_000_000}
	now := func() delay.Due { return b.now }
	b.Committer = New(Config{
		Store: store, IDs: delay.NewIDMaker("cluster"), Lanes: lanes.New(),
		Upload: upload.New(true, now, upload.Part{}), Log: zaptest.NewLogger(t), Now: now,
		Wall: func() time.Time { return time.UnixMilli(int64(b.now)) },
		Post: func(ev core.Event) { b.posted = append(b.posted, ev) },
		Ask:  func(delay.Key, *uint32) bool { return b.grant },
		Broken: func(err error) {
			require.NoError(t, err)
		},
		Options: Options{
			MinWait: time.Minute, DedupeWindow: time.Hour, DeadRetention: time.Hour,
			MaxPending: 1 << 20, MaxPendingMessages: 100, Syncs: 4,
		},
		Meta: localstore.Meta{Epoch: 1, IDsComplete: true, Boundary: delay.MaxKey},
	})
	b.changed() // with the first batch the store knows it too
	return b
}

// commit applies and syncs what was put.
func (b *bench) commit() {
	b.t.Helper()
	require.NoError(b.t, b.CommitStep())
	for {
		if _, batches := b.Backlog(); !batches {
			return
		}
		require.NoError(b.t, b.SyncStep())
	}
}

func (b *bench) accept(ids ...delay.ID) []Receipt {
	b.t.Helper()
	o := &AcceptOp{Done: make(chan error, 1), Receipts: make([]Receipt, len(ids))}
	for _, id := range ids {
		o.Drafts = append(o.Drafts, delay.Draft{Message: delay.Message{
			ID: id, Target: "pull:q", Due: b.now.Add(time.Hour), AcceptedAt: b.now,
			Body: []byte("x"),
		}})
	}
	require.NoError(b.t, b.Put(o, 1))
	b.commit()
	require.NoError(b.t, <-o.Done)
	return o.Receipts
}

// A reply before the sync would be a promise that a crash breaks (C4): neither the caller nor the
// core may hear of a batch that is only applied.
func TestRepliesAfterSync(t *testing.T) {
	b := newBench(t)
	o := &AcceptOp{
		Drafts: []delay.Draft{{Message: delay.Message{
			Target: "pull:q", Due: b.now.Add(time.Hour), AcceptedAt: b.now,
		}}},
		Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	require.NoError(t, b.Put(o, 1))
	require.NoError(t, b.CommitStep())
	require.Empty(t, o.Done)
	require.Empty(t, b.posted)
	require.NoError(t, b.SyncStep())
	require.NoError(t, <-o.Done)
	require.Len(t, b.posted, 1)
	require.IsType(t, core.EvAccepted{}, b.posted[0])
}

// A cancel that does not ask the core could be answered CANCELLED while the message is delivered
// (C5), and one that is refused must leave the row alone.
func TestCancelAsks(t *testing.T) {
	b := newBench(t)
	id := b.accept("a")[0].ID
	cancel := func() ChangeResult {
		o := &ChangeOp{
			Requests: []ChangeRequest{{ID: id, Change: Cancel}},
			Results:  make([]ChangeResult, 1), Done: make(chan error, 1),
		}
		require.NoError(t, b.Put(o, 1))
		b.commit()
		require.NoError(t, <-o.Done)
		return o.Results[0]
	}
	b.grant = false
	require.Equal(t, TooLate, cancel().Verdict)
	require.Equal(t, int64(1), b.store.Books().Pending)
	b.grant = true
	require.Equal(t, Cancelled, cancel().Verdict)
	require.Equal(t, int64(0), b.store.Books().Pending)
	require.Equal(t, Cancelled, cancel().Verdict) // S5: a repeat answers the same
}

// Pausing writes the same record as the claim cursor: it must not set the cursor back, or a parked
// message that was handed over before a crash could be cancelled after it (rule R8).
func TestPauseKeepsCursor(t *testing.T) {
	b := newBench(t)
	target := delay.Target("http://sink")
	lane := b.lanes.Number(target)
	key := delay.Key{Due: b.now, Seq: delay.MakeSeq(1, 1)}
	done := make(chan error, 1)
	b.Enqueue(RaiseCursor(core.ActClaimCursor{Lane: lane, Key: key}))
	b.Enqueue(PauseTarget(target, lane, true, done))
	b.commit()
	require.NoError(t, <-done)
	b.Enqueue(RaiseCursor(core.ActClaimCursor{Lane: lane, Key: key.Next()}))
	b.commit()
	found := map[delay.Target]localstore.TargetState{}
	require.NoError(t, b.store.ScanTargets(func(t delay.Target, st localstore.TargetState) bool {
		found[t] = st
		return true
	}))
	require.Equal(t, map[delay.Target]localstore.TargetState{
		target: {Paused: true, ClaimCursor: key.Next()},
	}, found)
}

// An id that is restored while its message ends, in one batch, must not come back as pending: it
// would never be forgotten, and a new message could never use it.
func TestRestoredIDEnds(t *testing.T) {
	b := newBench(t)
	b.accept("a")
	before, _, err := b.store.LookupID("a")
	require.NoError(t, err)
	key := before.Key
	rec, err := b.store.Row(key)
	require.NoError(t, err)
	ref, err := b.lanes.RefOfRecord(key, rec)
	require.NoError(t, err)
	batch := b.store.NewBatch()
	batch.DeleteID("a") // as after the loss of the disk
	pending, err := b.store.Apply(batch)
	require.NoError(t, err)
	_, err = pending.Wait()
	require.NoError(t, err)
	b.Enqueue(&FinishOp{ActFinish: core.ActFinish{Items: []core.FinishItem{{
		Ref: ref, State: delay.Delivered, Attempts: 1,
	}}}, Report: func(FinishOp) {}})
	b.Enqueue(&IDsOp{
		IDs: []string{"a"}, Idents: []delay.Identity{{Key: key, Generation: 1}},
		Done: make(chan error, 1),
	})
	b.commit()
	got, known, err := b.store.LookupID("a")
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, delay.Delivered, got.State)
}

// A row may only be dropped when its upload is noted (C7): a crash between the two would leave no
// copy that anybody knows of.
func TestDropAfterUpload(t *testing.T) {
	b := newBench(t)
	b.meta.Boundary = delay.Key{}
	b.accept("a")
	drop := func() {
		o := &DropOp{Seq: delay.MakeSeq(1, 1), Done: make(chan error, 1)}
		require.NoError(t, b.store.ScanRows(delay.Key{}, delay.MaxKey,
			func(k delay.Key, _ []byte) bool {
				o.Keys = append(o.Keys, k)
				return true
			}))
		require.NoError(t, b.Put(o, 0))
		b.commit()
		require.NoError(t, <-o.Done)
	}
	drop()
	require.Equal(t, int64(0), b.store.Counts().Cold.Messages)
	done := make(chan error, 1)
	b.Enqueue(NoteUpload(delay.MakeSeq(1, 1), 1, 0, done))
	drop()
	require.NoError(t, <-done)
	require.Equal(t, int64(1), b.store.Counts().Cold.Messages)
}

// After Close nothing may hang: what cannot be refused is answered with ErrClosed.
func TestClosed(t *testing.T) {
	b := newBench(t)
	b.Close()
	done := make(chan error, 1)
	b.Enqueue(Fence(done))
	require.ErrorIs(t, <-done, delay.ErrClosed)
	require.ErrorIs(t, b.Put(Fence(done), 1), delay.ErrClosed)
}
