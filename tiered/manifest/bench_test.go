// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/base32"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// large is a manifest with n segments as compaction leaves them, and what comes with them.
func large(n int) State {
	rng := rand.New(rand.NewPCG(1, 1))
	const start = delay.Due(1_800_000_000_000)
	enc := base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)
	info := func(folder string, i int) SegmentInfo {
		var id [16]byte
		for j := range id {
			id[j] = byte(rng.Uint32())
		}
		copy(id[:], []byte{1, 0xa3, byte(i >> 8), byte(i)}) // the time
		first := start.Add(time.Duration(i) * 6 * time.Hour)
		count := 100_000 + rng.Int64N(200_000)
		return SegmentInfo{
			Name: fmt.Sprintf("%s/%07d-%s.seg", folder, 3, enc.EncodeToString(id[:])), Level: 1,
			Epoch: 3, First: delay.Key{Due: first, Seq: delay.Seq(1<<40 + rng.Uint64N(1<<32))},
			Last: delay.Key{
				Due: first.Add(5 * time.Hour), Seq: delay.Seq(3<<40 + rng.Uint64N(1<<32)),
			},
			MinSeq: delay.Seq(1<<40 + rng.Uint64N(1<<20)),
			MaxSeq: delay.Seq(3<<40 + rng.Uint64N(1<<32)), Count: count, Bytes: count * 210,
			Stored: 60<<20 + rng.Int64N(4<<20), TailOffset: 59<<20 + rng.Int64N(1<<20),
			Checksum: rng.Uint32(), IDs: rng.Int64N(count), LastID: first.Add(5 * time.Hour),
			CommittedAt: start.Add(time.Duration(i) * time.Minute),
		}
	}
	s := State{
		ClusterID: "01jcz7m2k4t5v6w7x8y9z0a1b2", Epoch: 3, Version: 1, Nonce: [16]byte{7},
		Watermark: delay.Key{Due: start}, Uploaded: 3 << 40,
	}
	for i := range n {
		s.Segments = append(s.Segments, info("l1", i))
	}
	for i := range 16 {
		s.Kept = append(s.Kept, info("kept", i))
		s.Marks = append(s.Marks, info("marks", i))
	}
	return s
}

// A manifest of 10,000 segments must stay below 1 MiB, or each flush would write too much.
func TestSizeOf10k(t *testing.T) {
	s := large(10_000)
	require.Less(t, len(Encode(codec.NewZstd(), &s)), 1<<20)
}

// BenchmarkManifest10k is a commit of a manifest with 10,000 segments, and reading it.
func BenchmarkManifest10k(b *testing.B) {
	z, s := codec.NewZstd(), large(10_000)
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(len(Encode(z, &s))), "bytes")
		}
	})
	b.Run("decode", func(b *testing.B) {
		body := Encode(z, &s)
		for b.Loop() {
			_, err := Decode(z, body)
			require.NoError(b, err)
		}
	})
	b.Run("commit", func(b *testing.B) {
		bucket := memory.New(memory.Options{})
		client := objio.New(bucket, objio.Policy{
			Jitter: func() float64 { return 0 }, Now: time.Now,
		})
		store := NewStore(client, z, "m")
		snap, err := store.Commit(b.Context(), nil, s.Nonce, func(*State) (State, error) {
			return s.Clone(), nil
		})
		require.NoError(b, err)
		for b.Loop() {
			snap, err = store.Commit(b.Context(), snap, s.Nonce, func(base *State) (State, error) {
				return base.Clone(), nil
			})
			require.NoError(b, err)
		}
	})
}
