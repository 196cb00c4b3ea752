// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// same compares a store with what it must hold, counts, slots and filter included.
func same(t *testing.T, want *model, s *Store) {
	t.Helper()
	got, err := readModel(s)
	require.NoError(t, err)
	cold := want.Cold
	got.Cold = cold // the store holds only their counts
	require.Equal(t, want, got)
	counts, slots := want.counts()
	require.Equal(t, counts, s.Counts())
	gotSlots := []Slot{}
	s.Slots(func(slot Slot) bool {
		gotSlots = append(gotSlots, slot)
		return true
	})
	require.Equal(t, slots, gotSlots)
	for id := range want.IDs {
		rec, ok, err := s.LookupID(id)
		require.NoError(t, err)
		require.True(t, ok, "the filter denies %q", id)
		require.Equal(t, want.IDs[id], rec)
	}
}

// snapshot is a file system as a crash leaves it, and the batches that it may hold.
type snapshot struct {
	fs          *vfs.MemFS
	least, most uint64
	what        string
}

// crasher takes clones at sync points.
type crasher struct {
	mu      sync.Mutex
	mem     *vfs.MemFS
	rng     *rand.Rand
	oneIn   int
	synced  atomic.Uint64 // batches that were acknowledged
	applied atomic.Uint64 // batches that were begun
	taken   []snapshot
}

func (c *crasher) take(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rng.IntN(c.oneIn) != 0 {
		return
	}
	percent := []int{0, 50, 100}[c.rng.IntN(3)]
	snap := snapshot{least: c.synced.Load(), what: fmt.Sprint(name, " ", percent, "%")}
	snap.fs = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	snap.most = c.applied.Load()
	c.taken = append(c.taken, snap)
}

// Whatever a crash leaves at any sync, of the store, its log, its tables, its manifest or the
// witness: everything acknowledged is there, nothing is half there, and what is counted is exact
// (L2, L3, L5). Recovery is crashed again.
func TestCrashAtEverySync(t *testing.T) {
	for _, run := range []struct {
		seed           uint64
		batches, oneIn int
	}{{1, 30, 1}, {2, 60, 4}, {3, 700, 60}} {
		t.Run(fmt.Sprintf("seed %d", run.seed), func(t *testing.T) {
			crashRun(t, run.seed, run.batches, run.oneIn)
		})
	}
}

func crashRun(t *testing.T, seed uint64, batches, oneIn int) {
	mem := vfs.NewCrashableMem()
	c := &crasher{mem: mem, rng: rand.New(rand.NewPCG(seed, 2)), oneIn: oneIn}
	fs := &hookFS{FS: mem}
	take := c.take
	fs.around.Store(&take)
	s := open(t, fs)
	w := newWorld(seed)
	states := []*model{w.m.clone()}
	var pending []Pending
	wait := func() {
		for _, p := range pending {
			synced, err := p.Wait()
			require.NoError(t, err)
			c.synced.Store(synced.Batch())
		}
		pending = pending[:0]
	}
	for i := range batches {
		b := s.NewBatch()
		w.step(b)
		states = append(states, w.m.clone())
		c.applied.Add(1)
		p, err := s.Apply(b)
		require.NoError(t, err)
		if pending = append(pending, p); w.rng.IntN(3) == 0 {
			wait()
		}
		if i%97 == 50 { // tables and a manifest change
			require.NoError(t, s.db.Flush())
		}
	}
	wait()
	same(t, w.m, s)
	require.NoError(t, s.Close())
	fs.around.Store(nil)
	t.Logf("%d crashes", len(c.taken))
	for i, snap := range c.taken {
		verifyCrash(t, snap, states, i%30 == 0)
	}
}

func verifyCrash(t *testing.T, snap snapshot, states []*model, again bool) {
	t.Helper()
	fs := &hookFS{FS: snap.fs}
	c := &crasher{mem: snap.fs, rng: rand.New(rand.NewPCG(7, 7)), oneIn: 1}
	if again {
		c.synced.Store(snap.least)
		c.applied.Store(snap.most)
		take := c.take
		fs.around.Store(&take)
	}
	s, err := Open(fs, testDir, Options{Simulated: true})
	require.NoError(t, err, snap.what)
	n := s.ledger.Base().Batch
	require.GreaterOrEqual(t, n, snap.least, snap.what)
	require.LessOrEqual(t, n, snap.most, snap.what)
	same(t, states[n], s)
	// The recovered store takes batches, and counts on.
	commit(t, s, func(b *Batch) { b.PutCursor("after", []byte("crash")) })
	fs.around.Store(nil)
	require.NoError(t, s.Close())
	s, err = Open(snap.fs, testDir, Options{Simulated: true})
	require.NoError(t, err, snap.what)
	require.Equal(t, n+1, s.ledger.Base().Batch)
	require.True(t, s.IDsKnown())
	require.NoError(t, s.Close())
	for _, snap := range c.taken {
		snap.most++
		s, err := Open(snap.fs, testDir, Options{Simulated: true})
		require.NoError(t, err, snap.what)
		require.GreaterOrEqual(t, s.ledger.Base().Batch, snap.least, snap.what)
		require.LessOrEqual(t, s.ledger.Base().Batch, snap.most, snap.what)
		require.NoError(t, s.Close())
	}
}

// The model run without crashes, longer, with reopening: the same store in other words.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	fs := vfs.NewMem()
	s := open(t, fs)
	w := newWorld(seed)
	for i := range 900 {
		commit(t, s, w.step)
		if i%150 == 149 {
			same(t, w.m, s)
			require.NoError(t, s.Close())
			s = open(t, fs)
			same(t, w.m, s)
		}
	}
	for k, rec := range w.m.Rows {
		got, err := s.Row(k)
		require.NoError(t, err)
		require.Equal(t, rec, string(got))
	}
	for lane, rows := range w.m.Parked {
		for k, v := range rows {
			rec, claimed, err := s.Parked(lane, k)
			require.NoError(t, err)
			require.Equal(t, v[1:], string(rec))
			require.Equal(t, v[0] == 1, claimed)
			at, ok, err := s.ParkedLane(k)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, lane, at)
		}
	}
	_, _, err := s.Parked(1, delay.Key{Due: 1})
	require.ErrorIs(t, err, delay.ErrNotFound)
	require.NoError(t, s.Close())
}
