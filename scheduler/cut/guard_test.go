// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/scheduler/upload"
)

const began = delay.Due(1_700_000_000_000)

func newStore(t *testing.T, fill func(*localstore.Batch)) *localstore.Store {
	t.Helper()
	store, err := localstore.Open(vfs.NewMem(), "store", localstore.Options{Simulated: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	b := store.NewBatch()
	fill(b)
	pending, err := store.Apply(b)
	require.NoError(t, err)
	_, err = pending.Wait()
	require.NoError(t, err)
	return store
}

func key(due delay.Due, n uint64) delay.Key {
	return delay.Key{Due: due, Seq: delay.MakeSeq(1, n)}
}

// A mark says that a message has moved to a row which is still to be read back. Uploaded before that
// row it would lose the message with the disk: it waits (rule R3).
func TestMarkWaitsForItsRow(t *testing.T) {
	old, moved := key(began+1000, 1), key(began+2000, 2)
	store := newStore(t, func(b *localstore.Batch) {
		b.PutOutbox(0, &delay.Mark{Key: old, State: delay.Scheduled, At: began, Forward: moved})
	})
	m := New(store, func() delay.Due { return began })
	part := upload.Part{Behind: moved.Seq, Last: moved.Seq, Outbox: 1}
	cut, left, err := m.Make(&part)
	require.NoError(t, err)
	require.Empty(t, cut.Marks)
	require.Zero(t, left.Outbox, "the next cut brings it")
	part = upload.Part{Last: moved.Seq, Outbox: 1, Rows: []upload.Row{{Key: moved, Rec: []byte("x")}}}
	cut, left, err = m.Make(&part)
	require.NoError(t, err)
	require.Len(t, cut.Marks, 1)
	require.EqualValues(t, 1, left.Outbox)
}

// The watermark of a cut is of the same batch as the rest of it: what was parked behind a newer one
// is not among what is kept, and would be lost with the disk (rule R5).
func TestWatermarkIsOfTheCut(t *testing.T) {
	store := newStore(t, func(b *localstore.Batch) {
		b.SetMeta(localstore.Meta{Watermark: delay.Key{Due: began}})
	})
	m := New(store, func() delay.Due { return began })
	part := upload.Part{Mark: delay.Key{Due: began - 1000}}
	cut, _, err := m.Make(&part)
	require.NoError(t, err)
	require.Equal(t, part.Mark, cut.Watermark)
}

// A source forgets what is below the cursor of a manifest: all of it must be in the bucket or have
// ended by then, or the loss of the disk loses it (rule R16).
func TestCursorWaits(t *testing.T) {
	const name = "kafka:main/t/0"
	store := newStore(t, func(b *localstore.Batch) {
		b.PutOutbox(0, &delay.Mark{Key: key(began-2000, 1), State: delay.Cancelled, At: began})
	})
	m := New(store, func() delay.Due { return began })
	short := key(began+500, 4)
	covered := func(note position.Note, change func(*upload.Part)) bool {
		t.Helper()
		part := upload.Part{Last: short.Seq, Outbox: 1, Mark: short.Next()}
		note.Next = 7
		part.Read.Add(name, note)
		change(&part)
		cut, left, err := m.Make(&part)
		require.NoError(t, err)
		at, ok := cut.Cursors[name]
		require.Equal(t, ok, len(left.Read[name]) == 0, "it is told, or waits")
		require.Len(t, part.Read[name], 1, "a cut that fails is made again")
		if ok {
			require.Equal(t, position.Append(nil, 7), at)
		}
		return ok
	}
	as := func(*upload.Part) {}
	require.True(t, covered(position.Note{Seq: short.Seq, Outbox: 1, Short: short}, as))
	require.False(t, covered(position.Note{Seq: short.Seq + 1, Outbox: 1}, as), "rows")
	require.False(t, covered(position.Note{Seq: short.Seq}, func(p *upload.Part) {
		p.Behind = short.Seq // and a backlog is still to be read
	}), "rows of a backlog")
	require.False(t, covered(position.Note{Seq: short.Seq, Outbox: 2}, as), "marks")
	require.False(t, covered(position.Note{Seq: short.Seq, Short: short.Next()}, as), "short waits")
}
