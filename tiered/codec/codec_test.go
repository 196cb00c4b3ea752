// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// What was compressed must come back, compressible or not, in a scratch buffer or not.
func TestZstd(t *testing.T) {
	z := NewZstd()
	noise := make([]byte, 10_000)
	_, _ = rand.Read(noise)
	scratch := make([]byte, 0, 64<<10)
	for _, raw := range [][]byte{{}, {1}, noise, bytes.Repeat([]byte("abcd"), 10_000)} {
		stored := z.Compress([]byte("before"), raw)
		require.Equal(t, "before", string(stored[:6]))
		stored = stored[6:]
		require.LessOrEqual(t, len(stored), len(raw))
		for _, dst := range [][]byte{nil, scratch} {
			got, err := z.Decompress(dst, stored, len(raw))
			require.NoError(t, err)
			require.True(t, bytes.Equal(raw, got))
		}
	}
}

// A block that holds more or less than the index says must be refused without growing (C2).
func TestZstdWrongLength(t *testing.T) {
	z := NewZstd()
	stored := z.Compress(nil, make([]byte, 1<<20))
	for _, n := range []int{0, 1, 1<<20 - 1, 1<<20 + 1} {
		_, err := z.Decompress(nil, stored, n)
		require.ErrorIs(t, err, delay.ErrCorrupt, "%d", n)
	}
}

// The hash is part of the formats: it may never change.
func TestHash64(t *testing.T) {
	require.Equal(t, uint64(0x8570e250fe4c2473), Hash64(""))
	require.Equal(t, uint64(0xda9222d244be3346), Hash64("client-1"))
}

// The first error must stick and name its place (C1).
func TestReaderErrors(t *testing.T) {
	r := Reader{B: []byte{5, 1, 2}}
	require.EqualValues(t, 5, r.Uvarint(9))
	require.Nil(t, r.Bytes(3))
	require.Zero(t, r.Uint64())
	require.EqualError(t, r.Err("thing"), "corrupt: thing: 3 bytes do not fit at offset 1 of 3")
	r = Reader{B: []byte{1, 2}}
	r.Byte()
	require.EqualError(t, r.End("thing"), "corrupt: thing: 1 bytes left over at offset 1 of 2")
	r = Reader{B: binary.AppendUvarint(nil, 1<<40)}
	require.Zero(t, r.Count(1))
	require.False(t, r.OK())
}

// No sequence of reads may panic or go past the input (C1).
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []byte{1, 200, 3, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, ops, b []byte) {
		r := Reader{B: b}
		for _, op := range ops[:min(len(ops), 1000)] { // or the longest inputs take seconds
			switch op % 10 {
			case 0:
				r.Byte()
			case 1:
				r.Uvarint(1 << 40)
			case 2:
				r.Varint()
			case 3:
				require.LessOrEqual(t, r.Count(2)*2, len(b))
			case 4:
				require.LessOrEqual(t, len(r.String(100)), 100)
			case 5:
				r.Uint16()
			case 6:
				r.Uint32()
			case 7:
				r.Uint64()
			case 8:
				r.Key()
			case 9:
				r.Bytes(int(int8(op)))
			}
			if r.Left() < 0 { // asked more often than anything here
				t.Fatal("past the input")
			}
		}
	})
}

func FuzzDecompress(f *testing.F) {
	z := NewZstd()
	f.Add(z.Compress(nil, bytes.Repeat([]byte("abc"), 100)), 300)
	f.Fuzz(func(t *testing.T, stored []byte, n int) {
		if n < 0 || n > 1<<20 {
			return
		}
		raw, err := z.Decompress(nil, stored, n)
		if err == nil {
			require.Len(t, raw, n)
		}
	})
}
