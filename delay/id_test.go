// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// An id must give its key back, sort by due, and be recognised only by its own cluster and kind.
func TestIDRoundTrip(t *testing.T) {
	m, other := NewIDMaker("one"), NewIDMaker("two")
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 20000 {
		key := Key{Due: Due(rng.Int64N(int64(MaxDue))), Seq: MakeSeq(Epoch(rng.Uint32N(1<<20)),
			rng.Uint64N(1<<40))}
		shard := Shard(rng.Uint32N(256))
		id := m.Make(shard, key)
		require.Len(t, string(id), idLen)
		require.True(t, LooksServerMade(id))
		kind, s, k := m.Parse(id)
		require.Equal(t, ServerID, kind)
		require.Equal(t, shard, s)
		require.Equal(t, key, k)
		kind, s, k = m.Parse(m.Reserve(shard, key))
		require.Equal(t, ReservedID, kind)
		require.Equal(t, shard, s)
		require.Equal(t, key, k)
		later := m.Make(shard, Key{Due: key.Due + 1, Seq: 1})
		require.Less(t, string(id), string(later))
		if kind, _, _ := other.Parse(id); kind != ClientID {
			accepted++
		}
	}
	require.Less(t, accepted, 50, "another cluster's ids pass the check too often")
}

// Flipping any one character must be noticed almost always.
func TestIDCheck(t *testing.T) {
	m := NewIDMaker("c")
	id := []byte(m.Make(0, Key{Due: 1800000000000, Seq: MakeSeq(3, 77)}))
	passed, tried := 0, 0
	for i := range id {
		for _, c := range []byte(alphabet) {
			if id[i] == c {
				continue
			}
			forged := append([]byte(nil), id...)
			forged[i] = c
			tried++
			if kind, _, _ := m.Parse(ID(forged)); kind != ClientID {
				passed++
			}
		}
	}
	require.LessOrEqual(t, passed, 2, "of %d forged ids", tried)
}
