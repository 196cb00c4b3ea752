// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/recur"
)

// schedule stores a schedule that fires each second and returns what its lane would do at its due.
func (b *bench) schedule(id delay.ID) (RecurItem, delay.Due) {
	b.t.Helper()
	p, err := recur.New()
	require.NoError(b.t, err)
	d := delay.Draft{Message: delay.Message{
		ID: id, Target: "pull:q", Body: []byte("tick"),
		Recurrence: &delay.Recurrence{Expr: "@every 1s"},
	}}
	require.NoError(b.t, p.Begin(&d.Message, b.now))
	o := &AcceptOp{
		Drafts: []delay.Draft{d}, Receipts: make([]Receipt, 1), Done: make(chan error, 1),
	}
	require.NoError(b.t, b.Put(o, 1))
	b.commit()
	require.NoError(b.t, <-o.Done)
	require.NoError(b.t, o.Receipts[0].Err)
	id = o.Receipts[0].ID
	loc, err := b.find.Locate(id)
	require.NoError(b.t, err)
	m, err := delay.DecodeRecord(loc.Record)
	require.NoError(b.t, err)
	first := b.now.Add(time.Second)
	plan, err := p.Plan(&m, first, b.now)
	require.NoError(b.t, err)
	return RecurItem{Key: loc.Key, ID: id, Message: &m, Plan: plan}, first
}

func (b *bench) recurs(it RecurItem) RecurItem {
	b.t.Helper()
	o := &RecurOp{Items: []RecurItem{it}, Done: make(chan error, 1)}
	b.Enqueue(o)
	b.commit()
	require.NoError(b.t, <-o.Done)
	return o.Items[0]
}

// An instant whose firing exists may come up again: it is known by its id, and not made twice
// (rule R20). The schedule moves on all the same.
func TestFiringsAreKnownByTheirIDs(t *testing.T) {
	b := newBench(t)
	it, due := b.schedule("tick")
	b.accept(delay.FiringID("tick", due))
	before := b.store.Books()
	require.Zero(t, b.recurs(it).Fired)
	require.Equal(t, before, b.store.Books())
	require.Equal(t, due.Add(time.Second), b.keyOf("tick").Due)
}

// What was cancelled, paused or replaced between the plan and its commit does nothing: the row that
// was planned for is gone (rule R20).
func TestFiringAsksForItsRow(t *testing.T) {
	for name, change := range map[string]Change{"cancelled": Cancel, "paused": PauseSchedule} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			it, due := b.schedule("tick")
			b.grant = false // the core has handed it out
			require.NotEqual(t, TooLate, b.change(ChangeRequest{ID: "tick", Change: change}).Verdict)
			require.Zero(t, b.recurs(it).Fired)
			_, known, err := b.store.LookupID(string(delay.FiringID("tick", due)))
			require.NoError(t, err)
			require.False(t, known)
			require.Zero(t, b.store.Books().Accepted)
		})
	}
}

// The firing and the successor are one batch: a crash between them would lose an instant or repeat
// it. Both are seen, or neither.
func TestFiringAndSuccessorTogether(t *testing.T) {
	b := newBench(t)
	it, due := b.schedule("tick")
	b.Enqueue(&RecurOp{Items: []RecurItem{it}, Done: make(chan error, 1)})
	require.NoError(t, b.CommitStep())
	require.Len(t, b.synced, 1, "one batch")
	b.commit()
	require.Equal(t, due.Add(time.Second), b.keyOf("tick").Due)
	require.Equal(t, due, b.keyOf(delay.FiringID("tick", due)).Due)
	require.Equal(t, delay.Books{Accepted: 1, Pending: 1, Schedules: 1}, b.store.Books())
}

// While ids are restored nobody knows whether the owner before has made a firing: it waits, unless
// it is due after all that owner can have done (rule R14).
func TestFiringWaitsForIDs(t *testing.T) {
	b := newBench(t)
	it, due := b.schedule("tick")
	b.meta.IDsComplete, b.meta.LostUpTo = false, due
	require.True(t, b.recurs(it).Wait)
	require.Equal(t, due, b.keyOf("tick").Due)
	b.meta.LostUpTo = due - 1
	it = b.recurs(it)
	require.False(t, it.Wait)
	require.Equal(t, 1, it.Fired)
}

// A schedule without a client's id is found by the one it got, wherever it has moved.
func TestScheduleWithMadeID(t *testing.T) {
	b := newBench(t)
	it, due := b.schedule("")
	require.Equal(t, 1, b.recurs(it).Fired)
	require.Equal(t, due.Add(time.Second), b.keyOf(it.ID).Due)
	require.Equal(t, Cancelled, b.change(ChangeRequest{ID: it.ID, Change: Cancel}).Verdict)
	require.Equal(t, delay.Books{Accepted: 1, Pending: 1}, b.store.Books())
}
