// SPDX-License-Identifier: Apache-2.0

package bloom

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

func hashes(prefix string, n int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = Hash(fmt.Sprint(prefix, i))
	}
	return out
}

func falsePositives(set *Set, n int) int {
	found := 0
	for _, h := range hashes("other-", n) {
		if set.Has(h) {
			found++
		}
	}
	return found
}

// A filter that denies what it holds lets a repeated message in twice; one that doubts too much
// costs a read of the store for each fresh id, five times slower.
func TestSet(t *testing.T) {
	const n = 150_000
	for _, capacity := range []int64{0, n} {
		set := New(capacity)
		ids := hashes("id-", n)
		for i := 0; i < n; i += 1000 {
			set.Add(ids[i : i+1000])
		}
		set.Add(ids) // again: nothing new
		for _, h := range ids {
			if !set.Has(h) {
				t.Fatalf("lost %x", h)
			}
		}
		require.InEpsilon(t, n, set.IDs(), 0.02)
		limit := 0.0008
		if capacity == 0 {
			limit = 0.0015 // three layers instead of one
		}
		rate := float64(falsePositives(set, 200_000)) / 200_000
		t.Logf("capacity %d: %.2f %% false, %.1f bits an id", capacity, 100*rate,
			float64(set.Bytes()*8)/n)
		require.Less(t, rate, limit)
		require.Less(t, set.Bytes()*8, int64(2*bitsPerID*n))
	}
}

// Ids that differ in one place, or only in length, must not share a hash.
func TestHash(t *testing.T) {
	seen := map[uint64]string{}
	for i := range 50_000 {
		for _, id := range []string{fmt.Sprint(i), fmt.Sprintf("order-%012d-x", i)} {
			h := Hash(id)
			if other := seen[h]; other != "" {
				t.Fatalf("%q and %q", id, other)
			}
			seen[h] = id
		}
	}
	for n := range 30 {
		h := Hash(string(make([]byte, n)))
		require.Empty(t, seen[h])
		seen[h] = fmt.Sprint(n, " zeros")
	}
	require.Equal(t, uint64(0x2efe713021b555b8), Hash("golden: part of the format"))
}

// Lookups run beside additions and growth.
func TestSetConcurrent(t *testing.T) {
	set := New(0)
	ids := hashes("id-", 200_000)
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			part := ids[g*100_000 : (g+1)*100_000]
			for i := 0; i < len(part); i += 100 {
				set.Add(part[i : i+100])
				for _, h := range part[max(0, i-1000) : i+100] {
					if !set.Has(h) {
						t.Errorf("lost %x", h)
					}
				}
			}
		})
	}
	wg.Wait()
}

// A set that has forgotten half is stale, or the filter of a busy store never gets smaller.
func TestStale(t *testing.T) {
	set := New(0)
	set.Add(hashes("id-", 200_000))
	set.Forget(firstLayerIDs)
	require.False(t, set.Stale())
	set.Forget(100_000 - firstLayerIDs)
	require.True(t, set.Stale())
	require.InEpsilon(t, 100_000, set.Left(), 0.03)
}

func saved(t testing.TB, set *Set, stamp Stamp) []byte {
	var buf bytes.Buffer
	require.NoError(t, Write(&buf, set, stamp))
	return buf.Bytes()
}

// A filter read back from a damaged file, or of another state of the store, would deny ids.
func TestFile(t *testing.T) {
	set := New(0)
	ids := hashes("id-", 100_000)
	set.Add(ids)
	set.Forget(17)
	stamp := Stamp{1, 2, 3}
	data := saved(t, set, stamp)
	back, err := Read(bytes.NewReader(data), int64(len(data)), stamp)
	require.NoError(t, err)
	require.Equal(t, set.IDs(), back.IDs())
	require.Equal(t, set.Left(), back.Left())
	for _, h := range ids {
		require.True(t, back.Has(h))
	}
	require.Equal(t, falsePositives(set, 10_000), falsePositives(back, 10_000))
	_, err = Read(bytes.NewReader(data), int64(len(data)), Stamp{1, 2})
	require.ErrorIs(t, err, delay.ErrCorrupt)
	for i := 0; i < len(data); i += 997 {
		data[i] ^= 4
		_, err := Read(bytes.NewReader(data), int64(len(data)), stamp)
		require.ErrorIs(t, err, delay.ErrCorrupt, "flip at %d", i)
		data[i] ^= 4
		_, err = Read(bytes.NewReader(data[:i]), int64(i), stamp)
		require.ErrorIs(t, err, delay.ErrCorrupt, "cut at %d", i)
	}
}

// Reading a damaged file must not take memory that the file does not justify, nor panic.
func FuzzRead(f *testing.F) {
	small := &Set{}
	small.layers.Store(&[]*bloom{newBloom(50)})
	small.Add(hashes("id-", 20))
	f.Add(saved(f, small, Stamp{7}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Read(bytes.NewReader(data), int64(len(data)), Stamp{7})
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		require.Equal(t, data, saved(t, set, Stamp{7}))
	})
}

func BenchmarkHas(b *testing.B) {
	set := New(1_000_000)
	set.Add(hashes("id-", 1_000_000))
	for i := 0; b.Loop(); i++ {
		set.Has(uint64(i) * 0x9e3779b97f4a7c15)
	}
}
