// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// What cannot be read when it is due stays as it is, and is asked about again: a schedule must not
// be written over by an empty one, and a message of another broker must neither end nor end the
// shard.
func TestUnreadStays(t *testing.T) {
	b := newBench(t)
	it, _ := b.schedule("tick")
	before, books := b.keyOf("tick"), b.store.Books()
	it.Message = nil
	require.True(t, b.recurs(it).Wait)
	require.Equal(t, before, b.keyOf("tick"))
	loc, err := b.find.Locate("tick")
	require.NoError(t, err)
	require.True(t, delay.RecordRecurs(loc.Record))

	o := &GuardOp{Items: []GuardItem{{Key: it.Key}}, Done: make(chan error, 1)}
	b.Enqueue(o)
	b.commit()
	require.NoError(t, <-o.Done)
	require.False(t, o.Items[0].Ended || o.Items[0].Gone)
	require.Equal(t, books, b.store.Books())

	require.NotEqual(t, TooLate, b.change(ChangeRequest{ID: "tick", Change: Cancel}).Verdict)
	require.False(t, b.recurs(it).Wait, "it is gone, and nothing is left to ask about")
	o = &GuardOp{Items: []GuardItem{{Key: it.Key, Fate: broker.Held}}, Done: make(chan error, 1)}
	b.Enqueue(o)
	b.commit()
	require.NoError(t, <-o.Done)
	require.True(t, o.Items[0].Gone && !o.Items[0].Ended)
}
