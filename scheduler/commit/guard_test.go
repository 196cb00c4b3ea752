// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// keyOf is the key that the id index knows, or that a server-made id says.
func (b *bench) keyOf(id delay.ID) delay.Key {
	b.t.Helper()
	loc, err := b.find.Locate(id)
	require.NoError(b.t, err)
	return loc.Key
}

// change asks for one change.
func (b *bench) change(q ChangeRequest) ChangeResult {
	b.t.Helper()
	o := &ChangeOp{
		Requests: []ChangeRequest{q}, Results: make([]ChangeResult, 1), Done: make(chan error, 1),
	}
	require.NoError(b.t, b.Put(o, 1))
	b.commit()
	require.NoError(b.t, <-o.Done)
	return o.Results[0]
}

// apply writes to the store past the committer.
func (b *bench) apply(fill func(*localstore.Batch)) {
	b.t.Helper()
	batch := b.store.NewBatch()
	fill(batch)
	pending, err := b.store.Apply(batch)
	require.NoError(b.t, err)
	_, err = pending.Wait()
	require.NoError(b.t, err)
}

func draft(id delay.ID, target delay.Target, due, now delay.Due) delay.Draft {
	return delay.Draft{Message: delay.Message{
		ID: id, Target: target, Due: due, AcceptedAt: now, Body: []byte("x"),
	}}
}

// withBucket makes the committer one of a shard with a bucket.
func (b *bench) withBucket() {
	now := func() delay.Due { return b.now }
	b.tiered, b.upload = true, upload.New(false, now, upload.Part{})
}

// send accepts one message for a target that is pushed to.
func (b *bench) send(due delay.Due) delay.ID {
	b.t.Helper()
	o := &AcceptOp{
		Drafts:   []delay.Draft{draft("", "http://sink", due, b.now)},
		Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	require.NoError(b.t, b.Put(o, 1))
	b.commit()
	require.NoError(b.t, <-o.Done)
	require.NoError(b.t, o.Receipts[0].Err)
	return o.Receipts[0].ID
}

// A message that is due in the past must not lie where nobody looks any more (rule R2).
func TestKeysStayAboveTheWatermark(t *testing.T) {
	b := newBench(t)
	b.meta.Watermark = delay.Key{Due: b.now}
	require.False(t, b.keyOf(b.send(b.now.Add(-time.Hour))).Less(b.meta.Watermark))
}

// The core proposes a watermark before it has heard of the last batch: the committer lowers it to
// what it accepted since, or that would never be delivered (rule R2, C3).
func TestWatermarkWaitsForTheAccepted(t *testing.T) {
	b := newBench(t)
	key := b.keyOf(b.send(b.now))
	b.Enqueue(RaiseWatermark(core.ActWatermark{
		Mark: delay.Key{Due: b.now + 1000}, Seen: key.Seq - 1,
	}))
	b.commit()
	require.False(t, key.Less(b.store.Meta().Watermark))
}

// Two requests with one id in one batch: the second must see the first, which nobody can read yet
// (rule R14).
func TestIDsOfOneBatch(t *testing.T) {
	b := newBench(t)
	receipts := b.accept("a", "a")
	require.False(t, receipts[0].Duplicate)
	require.True(t, receipts[1].Duplicate)
	require.Equal(t, int64(1), b.store.Books().Pending)
}

// While ids are being restored nobody knows whether one is new (rule R14).
func TestIDsWaitForTheRestore(t *testing.T) {
	b := newBench(t)
	b.meta.IDsComplete = false
	require.ErrorIs(t, b.accept("a")[0].Err, delay.ErrUnavailable)
}

// What is known of an id during a restore may be of an earlier generation: a message that was
// replaced after its cancel must not answer as cancelled, and then be delivered (rule R14).
func TestKnownIDsWaitForTheRestore(t *testing.T) {
	b := newBench(t)
	b.accept("cancelled", "pending")
	require.Equal(t, Cancelled,
		b.change(ChangeRequest{ID: "cancelled", Change: Cancel}).Verdict)
	b.meta.IDsComplete = false
	b.changed()
	b.accept("")
	for _, id := range []delay.ID{"cancelled", "unknown"} {
		_, err := b.Finder().Locate(id)
		require.ErrorIs(t, err, delay.ErrUnavailable, id)
	}
	loc, err := b.Finder().Locate("pending")
	require.NoError(t, err, "what has no mark is the last")
	require.Equal(t, find.PlaceRow, loc.Place)
}

// An id that was used again after its message ended has a window of its own: the timer of the first
// end must not forget the second (S4).
func TestIDUsedAgainIsRemembered(t *testing.T) {
	b := newBench(t)
	b.accept("a")
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: "a", Change: Cancel}).Verdict)
	b.now = b.now.Add(30 * time.Minute)
	o := &AcceptOp{
		Drafts:   []delay.Draft{draft("a", "pull:q", b.now.Add(time.Hour), b.now)},
		Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	o.Drafts[0].Replace = true
	require.NoError(t, b.Put(o, 1))
	b.commit()
	require.NoError(t, o.Receipts[0].Err)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: "a", Change: Cancel}).Verdict)
	b.now = b.now.Add(31 * time.Minute)
	b.Enqueue(&TimersOp{UpTo: b.now, Done: make(chan int, 1)})
	b.commit()
	_, known, err := b.store.LookupID("a")
	require.NoError(t, err)
	require.True(t, known)
	b.now = b.now.Add(30 * time.Minute)
	b.Enqueue(&TimersOp{UpTo: b.now, Done: make(chan int, 1)})
	b.commit()
	_, known, err = b.store.LookupID("a")
	require.NoError(t, err)
	require.False(t, known)
}

// A cancel that is repeated must be answered the same, also for an id of the server: without a
// record it would look delivered (S5, rule R14).
func TestCancelIsRemembered(t *testing.T) {
	b := newBench(t)
	id := b.send(b.now.Add(time.Hour))
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: id, Change: Cancel}).Verdict)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: id, Change: Cancel}).Verdict)
}

// Between two attempts a message is in no queue: the record of its attempts says that it is too late
// (S5).
func TestCancelBetweenAttempts(t *testing.T) {
	b := newBench(t)
	id := b.send(b.now.Add(time.Hour))
	b.apply(func(batch *localstore.Batch) {
		batch.PutProgress(b.keyOf(id), delay.Progress{State: delay.Claimed, Attempts: 1})
	})
	require.Equal(t, TooLate, b.change(ChangeRequest{ID: id, Change: Cancel}).Verdict)
}

// After the loss of a disk nobody knows what the owner before had handed out up to then: its cancel
// cannot be promised, that of a later message can (rule R12).
func TestCancelAfterLoss(t *testing.T) {
	b := newBench(t)
	before, later := b.send(b.now.Add(time.Minute)), b.send(b.now.Add(time.Hour))
	b.meta.LostBefore, b.meta.LostUpTo = 2, b.now.Add(time.Minute)
	require.Equal(t, TooLate, b.change(ChangeRequest{ID: before, Change: Cancel}).Verdict)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: later, Change: Cancel}).Verdict)
}

// park parks a message.
func (b *bench) park(id delay.ID, claimed bool) {
	b.t.Helper()
	key := b.keyOf(id)
	rec, err := b.store.Row(key)
	require.NoError(b.t, err)
	ref, err := b.lanes.RefOfRecord(key, rec)
	require.NoError(b.t, err)
	b.Enqueue(&ParkOp{Items: []core.ParkItem{{Ref: ref, Claimed: claimed}}})
	b.commit()
}

// What is parked between two attempts, or may have been claimed before a crash, must say so: its
// lane's cursor does not tell (rule R8).
func TestParkedSaysThatItWasClaimed(t *testing.T) {
	b := newBench(t)
	claimed, fresh := b.send(b.now), b.send(b.now)
	b.park(claimed, true)
	b.park(fresh, false)
	require.Equal(t, TooLate, b.change(ChangeRequest{ID: claimed, Change: Cancel}).Verdict)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: fresh, Change: Cancel}).Verdict)
}

// After a crash what is parked up to the durable cursor of its lane may have been handed over, what
// is above it never was: a paused backlog can be cancelled (rule R8).
func TestCancelAsksTheCursor(t *testing.T) {
	b := newBench(t)
	before, after := b.send(b.now), b.send(b.now)
	b.park(before, false)
	b.park(after, false)
	b.cursors["http://sink"] = b.keyOf(before)
	require.Equal(t, TooLate, b.change(ChangeRequest{ID: before, Change: Cancel}).Verdict)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: after, Change: Cancel}).Verdict)
}

// After a crash a push up to the claim horizon may have been handed over, unless it was accepted
// since (rule R8).
func TestCancelAsksTheHorizon(t *testing.T) {
	b := newBench(t)
	before, after := b.send(b.now.Add(time.Minute)), b.send(b.now.Add(time.Hour))
	b.first, b.horizon = b.lastSeq(), b.now.Add(time.Minute) // a start
	since := b.send(b.now.Add(time.Minute))
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: since, Change: Cancel}).Verdict)
	require.Equal(t, TooLate, b.change(ChangeRequest{ID: before, Change: Cancel}).Verdict)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: after, Change: Cancel}).Verdict)
}

// The answers to changes and acks are promises as those to sends are: none before the sync (C4).
func TestAnswersAfterSync(t *testing.T) {
	b := newBench(t)
	id, leased := b.send(b.now.Add(time.Hour)), b.send(b.now)
	o := &ChangeOp{
		Requests: []ChangeRequest{{ID: id, Change: Cancel}},
		Results:  make([]ChangeResult, 1), Done: make(chan error, 1),
	}
	key := b.keyOf(leased)
	ref := core.Ref{Key: key, Lane: b.lanes.Number("http://sink"), Meta: 1}
	st := &core.Settling{Done: make(chan error, 1)}
	require.NoError(t, b.Put(o, 1))
	b.Enqueue(&FinishOp{ActFinish: core.ActFinish{Settle: st, Items: []core.FinishItem{{
		Ref: ref, State: delay.Delivered, Attempts: 1,
	}}}})
	require.NoError(t, b.CommitStep())
	require.Empty(t, o.Done)
	require.Empty(t, st.Done)
	b.commit()
	require.NoError(t, <-o.Done)
	require.NoError(t, <-st.Done)
}

// A dead letter that is counted nowhere leaves the books without balance (S10).
func TestDeadIsCounted(t *testing.T) {
	b := newBench(t)
	id := b.send(b.now)
	b.Enqueue(&FinishOp{ActFinish: core.ActFinish{Items: []core.FinishItem{{
		Ref:   core.Ref{Key: b.keyOf(id), Lane: b.lanes.Number("http://sink"), Meta: 1},
		State: delay.Dead, Attempts: 1, Reason: "rejected",
	}}}})
	b.commit()
	require.Equal(t, delay.Books{Accepted: 1, Dead: 1}, b.store.Books())
}

// What is uploaded before its sync may be in the bucket alone after a power failure, under a key that
// nobody was told of (rule R4).
func TestUploadAfterSync(t *testing.T) {
	b := newBench(t)
	b.withBucket()
	o := &AcceptOp{
		Drafts:   []delay.Draft{draft("", "pull:q", b.now.Add(time.Hour), b.now)},
		Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	require.NoError(t, b.Put(o, 1))
	require.NoError(t, b.CommitStep())
	require.Empty(t, b.upload.Take().Rows)
	b.commit()
	require.Len(t, b.upload.Take().Rows, 1)
}

// The boundary may rise between the look at a row and its drop: below it rows are the whole truth,
// and one that is dropped there is lost (rule R1).
func TestDropStaysAboveTheBoundary(t *testing.T) {
	b := newBench(t)
	b.meta.Boundary = delay.Key{}
	b.accept("a", "b")
	b.now = b.now.Add(time.Hour)
	b.accept("c")
	b.Enqueue(NoteUpload(b.lastSeq(), 1, 0, nil))
	b.meta.Boundary = delay.Key{Due: b.now.Add(time.Minute)}
	o := &DropOp{
		Keys: []delay.Key{b.keyOf("a"), b.keyOf("b"), b.keyOf("c")}, Seq: b.lastSeq(),
		Done: make(chan error, 1),
	}
	require.NoError(t, b.Put(o, 0))
	b.commit()
	require.Equal(t, int64(1), b.store.Counts().Cold.Messages)
}

// A message that moves leaves a mark where it was, with its new address: the segment that holds it
// there must not bring it back (rules R1, R3).
func TestMoveLeavesAMark(t *testing.T) {
	b := newBench(t)
	b.withBucket()
	b.meta.Boundary = delay.Key{}
	b.accept("a")
	before := b.keyOf("a")
	r := b.change(ChangeRequest{ID: "a", Change: Reschedule, Due: b.now.Add(2 * time.Hour)})
	require.Equal(t, Rescheduled, r.Verdict)
	after := b.keyOf("a")
	require.NotEqual(t, before.Seq, after.Seq)
	mark, marked, err := b.store.Mark(before)
	require.NoError(t, err)
	require.True(t, marked)
	require.Equal(t, after, mark.Forward)
}

// The id of a message is stored in the same commit as the message: a crash between two would leave
// a message that its sender may send once more (S4).
func TestIDGoesWithItsMessage(t *testing.T) {
	b := newBench(t)
	o := &AcceptOp{
		Drafts:   []delay.Draft{draft("a", "pull:q", b.now.Add(time.Hour), b.now)},
		Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	require.NoError(t, b.Put(o, 1))
	require.NoError(t, b.CommitStep())
	require.Len(t, b.synced, 1)
	b.commit()
	require.NoError(t, <-o.Done)
}
