// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const (
	tornBytes  = 64 << 10
	tornStride = 397 // of the cuts of a short run; a prime, to meet every place of a block
)

// tornStore is a store that died with a log of more than 64 KiB, and its states by batch. It is
// quiet when its witness has followed before.
func tornStore(t *testing.T, quiet bool) (*vfs.MemFS, []*model) {
	mem := vfs.NewCrashableMem()
	s := open(t, mem, func(o *Options) { o.MemTableBytes = 8 << 20 })
	w := newWorld(11)
	states := []*model{w.m.clone()}
	for s.db.Metrics().WAL.Size < tornBytes*5/4 {
		commit(t, s, w.step)
		states = append(states, w.m.clone())
		if s.db.Metrics().WAL.Size < tornBytes/2 {
			time.Sleep(10 * time.Millisecond) // of the bubble: the witness follows a part
		}
	}
	if quiet {
		time.Sleep(2 * time.Second)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	return clone, states
}

// A log that ends early, at whatever byte: the store holds a prefix of its batches, whole, at least
// those that the witness names, or does not open. It never panics, nor holds half a batch (L2).
func TestTornLog(t *testing.T) {
	stride := tornStride
	if damageEverything() {
		stride = 1
	}
	for name, quiet := range map[string]bool{"witness followed": true, "witness behind": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tornRun(t, quiet, stride) })
		})
	}
}

func tornRun(t *testing.T, quiet bool, stride int) {
	clone, states := tornStore(t, quiet)
	path := victim(filesOf(t, clone), ".log")
	info, err := clone.Stat(path)
	require.NoError(t, err)
	size := int(info.Size())
	require.Greater(t, size, tornBytes)
	w, err := witnessOf(clone)
	require.NoError(t, err)
	all := uint64(len(states) - 1)
	require.Equal(t, quiet, w == all, "%d of %d", w, all)
	counts := map[string]int{}
	opened := map[uint64]int{}
	for end := size; end >= size-tornBytes; end -= stride {
		fs := copyMem(clone)
		rewrite(t, fs, path, func(b []byte) []byte { return b[:end] })
		s, err := Open(fs, testDir, Options{Simulated: true})
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt, "cut at %d of %d", end, size)
			counts[refused]++
			continue
		}
		n := s.ledger.Base().Batch
		require.GreaterOrEqual(t, n, w, "cut at %d of %d", end, size)
		if opened[n]++; opened[n] <= 2 || n == all {
			same(t, states[n], s)
		}
		require.NoError(t, s.Close())
		counts["a prefix"]++
	}
	t.Logf("log of %d bytes, %d batches, witness at %d: %v, %d different prefixes", size, all, w,
		counts, len(opened))
	require.Positive(t, counts[refused])
	if quiet {
		require.Equal(t, []uint64{all}, slices.Collect(maps.Keys(opened)))
	} else {
		require.Greater(t, len(opened), 10)
	}
}

// witnessOf is the batch that the witness of a store names.
func witnessOf(fs vfs.FS) (uint64, error) {
	s, err := Open(fs, testDir, Options{Simulated: true, ReadOnly: true})
	if err != nil {
		return 0, err
	}
	return s.witness.State().Batch, s.Close()
}
