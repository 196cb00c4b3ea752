// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// The record is read by other versions of the program: its bytes are fixed.
func TestGolden(t *testing.T) {
	w := State{ID: StoreID{0xaa, 15: 0xbb}, Generation: 3, Phase: Live, Batch: 0x1234,
		LastSeq: delay.MakeSeq(5, 6)}
	require.Equal(t, "43494341444157540102aa0000000000000000000000000000bb0000000000000003"+
		"000000000000123400000500000000067ff3e98b", hex.EncodeToString(Append(nil, w)))
	back, err := Decode(Append(nil, w))
	require.NoError(t, err)
	require.Equal(t, w, back)
	later := Append(nil, w)
	later[8] = 2
	sum := crc(later[:recordSize-4])
	later = append(later[:recordSize-4], byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
	_, err = Decode(later)
	require.ErrorIs(t, err, ErrVersion)
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, State{Phase: Clean, Batch: 7}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := Decode(b)
		if err != nil {
			require.True(t, errors.Is(err, delay.ErrCorrupt) || errors.Is(err, ErrVersion), "%v", err)
			return
		}
		require.Equal(t, b[:recordSize], Append(nil, w))
	})
}

// A crash or a torn write at any time leaves the state before or the one after, never none.
func TestTornWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mem := vfs.NewCrashableMem()
	w, err := Open(mem, "w")
	require.NoError(t, err)
	require.Equal(t, None, w.State().Phase)
	id := StoreID{9}
	require.NoError(t, w.Create(id))
	dir, err := mem.OpenDir("")
	require.NoError(t, err)
	require.NoError(t, dir.Sync())
	require.NoError(t, w.Begin(id, 0, 0))
	for n := uint64(1); n < 50; n++ {
		w.Advance(n, delay.Seq(n))
		require.NoError(t, w.catchUp())
		clone := mem.CrashClone(vfs.CrashCloneCfg{})
		// Half of the next write reaches the disk.
		f, err := clone.OpenReadWrite("w", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		next := Append(nil, State{ID: id, Generation: w.last.Generation + 1, Phase: Live, Batch: n + 1})
		_, err = f.WriteAt(next[:rng.IntN(len(next))], int64((w.last.Generation+1)%2)*slotSize)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		back, err := Open(clone, "w")
		require.NoError(t, err)
		require.Equal(t, n, back.State().Batch)
		require.Equal(t, id, back.State().ID)
	}
	require.NoError(t, w.Finish(60, 60))
	require.NoError(t, w.Close())
	back, err := Open(mem, "w")
	require.NoError(t, err)
	require.Equal(t, State{ID: id, Generation: w.last.Generation, Phase: Clean, Batch: 60,
		LastSeq: 60}, back.State())
}

// A witness of which nothing can be read says nothing: that is an error, not a new store.
func TestUnreadable(t *testing.T) {
	good := make([]byte, fileSize)
	copy(good, Append(nil, State{Phase: Live, Generation: 2, Batch: 2}))
	copy(good[slotSize:], Append(nil, State{Phase: Live, Generation: 3, Batch: 3}))
	w, err := Newest(good)
	require.NoError(t, err)
	require.Equal(t, uint64(3), w.Batch)
	_, err = Newest(good[:fileSize-1])
	require.ErrorIs(t, err, delay.ErrCorrupt)
	good[slotSize+20] ^= 1
	w, err = Newest(good)
	require.NoError(t, err)
	require.Equal(t, uint64(2), w.Batch)
	good[20] ^= 1
	_, err = Newest(good)
	require.ErrorIs(t, err, delay.ErrCorrupt)
}
