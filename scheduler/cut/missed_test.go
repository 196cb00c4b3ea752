// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/upload"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// After a crash, what a segment holds and the store does not was delivered; but not what was moved
// or cancelled, which also takes the row away. Its own mark waits in the outbox, perhaps for the
// row that it points to: called delivered before that, a message whose reschedule was not even
// answered is lost with the disk, although it was accepted as durable in the tier (S2, S3, R3).
func TestMovedIsNotMissed(t *testing.T) {
	ctx := t.Context()
	gone, moved, cancelled := key(began+1000, 1), key(began+1000, 2), key(began+1000, 3)
	there, next := key(began+1000, 4), key(began+9000, 5)
	known := key(began+1000, 6) // moved, and its mark is uploaded
	record := delay.AppendRecord(nil, &delay.Message{Target: "pull:q", Cold: true})
	store := newStore(t, func(b *localstore.Batch) {
		b.SetMeta(localstore.Meta{Boundary: delay.Key{Due: began + 20_000}})
		b.PutRow(there, record)
		b.PutRow(next, record)
		b.PutOutbox(0, &delay.Mark{Key: moved, State: delay.Scheduled, At: began, Forward: next})
		b.PutOutbox(1, &delay.Mark{Key: cancelled, State: delay.Cancelled, At: began})
	})
	tier, err := tiered.Open(ctx, memory.New(memory.Options{}), tiered.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, tier.Close()) })
	_, err = tier.Take(ctx, [16]byte{1}, true)
	require.NoError(t, err)
	rows := []tiered.Row{{Key: gone, Record: record}, {Key: moved, Record: record},
		{Key: cancelled, Record: record}, {Key: there, Record: record}, {Key: known, Record: record}}
	_, err = tier.Commit(ctx, tiered.Cut{
		Rows: rows, Uploaded: known.Seq,
		Marks: []delay.Mark{{Key: known, State: delay.Scheduled, At: began, Forward: next}},
	})
	require.NoError(t, err)
	var part upload.Part
	require.NoError(t, New(store, func() delay.Due { return began }).
		Missed(ctx, tier, &part, began+10_000))
	require.Equal(t, []delay.Key{gone}, part.Done)
}
