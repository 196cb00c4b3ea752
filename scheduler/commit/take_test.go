// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/position"
)

const partition = broker.Partition("kafka:main/t/0")

// take puts a batch through the committer.
func (b *bench) take(records map[delay.Key][]byte, items ...broker.Item) (*TakeOp, error) {
	b.t.Helper()
	o := &TakeOp{
		Batch: &broker.Batch{
			Partition: partition, Items: items, Next: items[len(items)-1].Offset + 1,
		},
		Records: records, Took: make([]Taken, len(items)), Done: make(chan error, 1),
	}
	require.NoError(b.t, b.Put(o, 1))
	b.commit()
	return o, <-o.Done
}

// item is a message of a source, due after wait.
func (b *bench) item(offset int64, id delay.ID, wait time.Duration) broker.Item {
	return broker.Item{Offset: offset, Draft: draft(id, "http://sink", b.now.Add(wait), b.now)}
}

// stored is the position in the store.
func (b *bench) stored() int64 {
	b.t.Helper()
	value, ok, err := b.store.Cursor(string(partition))
	require.NoError(b.t, err)
	require.True(b.t, ok)
	next, err := position.Parse(value)
	require.NoError(b.t, err)
	return next
}

// A batch may be read again after an answer that got lost, and in parts: nothing may be stored twice,
// and nothing that is below the position may be looked at.
func TestTakeSkipsWhatItTook(t *testing.T) {
	b := newBench(t)
	o, err := b.take(nil, b.item(3, "a", time.Hour), b.item(4, "a", time.Hour),
		broker.Item{Offset: 6, Cancel: "a"}, broker.Item{Offset: 7, Cancel: "nobody"})
	require.NoError(t, err)
	require.Equal(t, []Taken{TakenNew, TakenRepeated, TakenCancelled, TakenVoid}, o.Took)
	require.Equal(t, delay.Books{Accepted: 1, Cancelled: 1}, b.store.Books())
	require.EqualValues(t, 8, b.stored())
	o, err = b.take(nil, b.item(6, "b", time.Hour), b.item(7, "c", time.Hour),
		b.item(8, "d", time.Hour))
	require.NoError(t, err)
	require.Equal(t, []Taken{TakenNot, TakenNot, TakenNew}, o.Took)
	require.EqualValues(t, 2, b.store.Books().Accepted)
	o, err = b.take(nil, b.item(2, "e", time.Hour))
	require.NoError(t, err)
	require.EqualValues(t, 9, b.stored(), "it never moves back")
	require.EqualValues(t, 9, o.Next)
}

// What can never be taken is passed with its reason; the others must not share its fate (S7).
func TestTakeRefuses(t *testing.T) {
	b := newBench(t)
	_, err := b.take(nil, b.item(0, "a", time.Hour))
	require.NoError(t, err)
	other := b.item(1, "a", time.Hour)
	other.Draft.Body = []byte("other")
	reserved := b.item(2, b.ids.Make(0, delay.Key{Due: b.now, Seq: 7}), time.Hour)
	o, err := b.take(nil, other, reserved, b.item(3, "b", time.Hour))
	require.NoError(t, err)
	require.Equal(t, []Taken{TakenRefused, TakenRefused, TakenNew}, o.Took)
	require.ErrorIs(t, o.Batch.Items[0].Err, delay.ErrExists)
	require.ErrorIs(t, o.Batch.Items[1].Err, delay.ErrInvalid)
	require.NoError(t, o.Batch.Items[2].Err)
	require.EqualValues(t, 4, b.stored())
}

// An item that cannot be taken just now holds the position, or it would be lost; what was taken
// before it is stored and not taken again (rule R17).
func TestTakeStopsAtWhatFailed(t *testing.T) {
	b := newBench(t)
	b.accept("known")
	b.meta.IDsComplete = false // only what is known and pending can be answered for
	b.changed()
	b.accept("")
	items := []broker.Item{
		{Offset: 0, Cancel: "known"}, b.item(1, "a", time.Hour), b.item(2, "b", time.Hour),
	}
	o, err := b.take(nil, items...)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.True(t, o.Stored)
	require.EqualValues(t, 1, o.Next)
	require.EqualValues(t, 1, b.stored())
	require.EqualValues(t, 1, b.store.Books().Cancelled)
	b.meta.IDsComplete = true
	b.changed()
	o, err = b.take(nil, items...)
	require.NoError(t, err)
	require.Equal(t, []Taken{TakenNot, TakenNew, TakenNew}, o.Took)
	require.EqualValues(t, 3, b.stored())
	require.EqualValues(t, 4, b.store.Books().Accepted)
}

// The bucket stands for a message when it holds it, or when it has ended; one that is not uploaded
// because it waits too short has to be waited for, also when it was there before (rule R16).
func TestTakeNotesShortWaits(t *testing.T) {
	b := newBench(t)
	b.withBucket()
	note := func(items ...broker.Item) position.Note {
		t.Helper()
		_, err := b.take(nil, items...)
		require.NoError(t, err)
		notes := b.upload.Take().Read[string(partition)]
		require.Len(t, notes, 1)
		require.Equal(t, b.lastSeq(), notes[0].Seq)
		require.Equal(t, b.meta.OutboxNext, notes[0].Outbox)
		return notes[0]
	}
	require.Zero(t, note(b.item(0, "long", time.Hour)).Short)
	first := note(b.item(1, "short", time.Second), b.item(2, "other", time.Hour))
	require.Equal(t, b.keyOf("short"), first.Short)
	require.Equal(t, b.keyOf("short"), note(b.item(3, "short", time.Second)).Short, "again")
	forTier := b.item(4, "tier", time.Second)
	forTier.Draft.Cold = true
	require.Zero(t, note(forTier).Short)
	require.Zero(t, note(b.item(5, "long", time.Hour)).Short, "again")
	require.EqualValues(t, 2, note(broker.Item{Offset: 6, Cancel: "short"},
		broker.Item{Offset: 7, Cancel: "other"}).Outbox)
}

// What a source has let go of must stay in the bucket when it is moved: a short wait that was
// uploaded because its source asked for it is uploaded under its new key too (rules R3, R16).
func TestMovedStaysForTheTier(t *testing.T) {
	b := newBench(t)
	b.withBucket()
	short, long := b.item(0, "short", time.Second), b.item(1, "long", time.Hour)
	short.Draft.Cold = true
	_, err := b.take(nil, short, long)
	require.NoError(t, err)
	require.Len(t, b.upload.Take().Rows, 2)
	for _, id := range []delay.ID{"short", "long"} {
		b.change(ChangeRequest{ID: id, Change: Reschedule, Due: b.now.Add(2 * time.Second)})
	}
	rows := b.upload.Take().Rows
	require.Len(t, rows, 1)
	require.Equal(t, b.keyOf("short"), rows[0].Key)
}
