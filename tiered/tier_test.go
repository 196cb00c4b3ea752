// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

func record(i int) []byte {
	m := delay.Message{
		Target: "pull:q", Due: 1_800_000_000_000, AcceptedAt: 1_790_000_000_000,
		Body: fmt.Appendf(nil, `{"order":%d,"state":"waiting","total":"%d.00"}`, i, i*7),
	}
	if i%3 == 0 {
		m.ID = delay.ID(fmt.Sprintf("client-%d", i))
	}
	return delay.AppendRecord(nil, &m)
}

func key(i int) delay.Key {
	return delay.Key{Due: delay.Due(1_800_000_000_000 + i*1000), Seq: delay.MakeSeq(1, uint64(i+1))}
}

// What could go wrong: the way a shard uses the tier from end to end, owner and reader.
func TestEndToEnd(t *testing.T) { endToEnd(t, memory.New(memory.Options{})) }

func endToEnd(t *testing.T, bucket objstore.Bucket) {
	t.Helper()
	ctx := t.Context()
	tier, err := Open(ctx, bucket, Options{SegmentBytes: 64 << 10})
	require.NoError(t, err)
	require.True(t, tier.Created())
	state, err := tier.Load(ctx)
	require.NoError(t, err)
	require.Nil(t, state)
	_, err = tier.Take(ctx, [16]byte{1}, false)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	s, err := tier.Take(ctx, [16]byte{1}, true)
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Epoch)
	cut := Cut{Cursors: map[string][]byte{"k": {1}}}
	for i := range 20000 {
		cut.Rows = append(cut.Rows, Row{Key: key(i), Record: record(i)})
	}
	cut.Kept = []delay.Kept{{Key: key(1), Record: record(1), Progress: delay.Progress{Attempts: 2}}}
	cut.Marks = []delay.Mark{{Key: key(7), State: delay.Cancelled, At: 5}}
	s, err = tier.Commit(ctx, cut)
	require.NoError(t, err)
	require.Greater(t, len(s.Segments), 1)
	s2, err := tier.Commit(ctx, Cut{Cursors: cut.Cursors})
	require.NoError(t, err)
	require.Equal(t, s, s2)

	other, err := Open(ctx, bucket, Options{})
	require.NoError(t, err)
	require.False(t, other.Created())
	_, err = other.Load(ctx)
	require.NoError(t, err)
	for _, tr := range []*Tier{tier, other} {
		readAll(t, tr, &cut)
	}
	_, err = other.Take(ctx, [16]byte{2}, false)
	require.NoError(t, err)
	require.ErrorIs(t, tier.Check(ctx), delay.ErrFenced)
	_, err = tier.Commit(ctx, cut)
	require.ErrorIs(t, err, delay.ErrFenced)
	require.NoError(t, other.Release(ctx))
	require.True(t, other.State().Released)
	require.NoError(t, other.Close())
	require.ErrorIs(t, other.Check(ctx), delay.ErrClosed)
}

// readAll reads the cut of TestEndToEnd back in every way.
func readAll(t *testing.T, tr *Tier, cut *Cut) {
	ctx := t.Context()
	n := 0
	require.NoError(t, tr.Scan(ctx, key(100), key(15000), func(k delay.Key, rec []byte) bool {
		require.Equal(t, key(100+n), k)
		require.Equal(t, record(100+n), rec)
		n++
		return true
	}))
	require.Equal(t, 14900, n)
	got := 0
	keys := []delay.Key{key(5), key(19999), key(20001), key(5), {Due: 1, Seq: 1}}
	require.NoError(t, tr.Fetch(ctx, keys, func(i int, rec []byte, err error) {
		if i == 2 || i == 4 {
			require.ErrorIs(t, err, delay.ErrNotFound)
			return
		}
		require.NoError(t, err)
		require.Contains(t, [][]byte{record(5), record(19999)}, rec)
		got++
	}))
	require.Equal(t, 3, got)
	ids := 0
	require.NoError(t, tr.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
		ids++
		return true
	}))
	require.Equal(t, 6667, ids)
	ident, ok, err := tr.FindID(ctx, "client-300")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, key(300), ident.Key)
	_, ok, err = tr.FindID(ctx, "client-301")
	require.NoError(t, err)
	require.False(t, ok)
	var kept []delay.Kept
	require.NoError(t, tr.ScanKept(ctx, func(k delay.Kept) bool {
		k.Record = append([]byte(nil), k.Record...)
		kept = append(kept, k)
		return true
	}))
	require.Equal(t, cut.Kept, kept)
	report, err := tr.Verify(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.EqualValues(t, 20001, report.Messages)
	days, err := tr.Count(ctx, delay.Key{}, delay.MaxKey)
	require.NoError(t, err)
	require.Len(t, days, 1)
	require.EqualValues(t, 20000, days[0].Count)
}
