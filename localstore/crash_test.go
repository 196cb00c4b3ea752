// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
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
	snap := c.clone(name)
	c.taken = append(c.taken, snap)
}

// clone is the disk as a crash at this moment leaves it: of what was not synced nothing, all, or
// each block and each entry of a directory with some probability.
func (c *crasher) clone(name string) snapshot {
	percent := min(max(c.rng.IntN(141)-20, 0), 100)
	snap := snapshot{least: c.synced.Load(), what: fmt.Sprint(name, " ", percent, "%")}
	snap.fs = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
	snap.most = c.applied.Load()
	return snap
}

// Whatever a crash leaves at any sync, of the store, its log, its tables, its manifest or the
// witness: everything acknowledged is there, nothing is half there, and what is counted is exact
// (L2, L3, L5). Recovery is crashed again.
func TestCrashAtEverySync(t *testing.T) {
	for _, run := range []struct {
		seed           uint64
		batches, oneIn int
	}{{1, 30, 1}, {2, 60, 4}, {3, 700, 60}} {
		if testing.Short() { // under the race detector each costs ten times as much
			run.oneIn *= 4
		}
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

// damageEverything asks for all crashes, cuts, damages and errors instead of a sample: make crash.
func damageEverything() bool { return os.Getenv("CICADA_DAMAGE") == "full" }

// damageSeed is where the random part begins; CICADA_SEED asks for another.
func damageSeed(t *testing.T) uint64 {
	seed := uint64(1)
	if text := os.Getenv("CICADA_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d", seed)
	return seed
}

const (
	nestedMost = 5  // crashes of a recovery within each other
	storyLen   = 40 // batches between two openings, at most
)

// A crash anywhere, at a sync or between two, with any share of what was not synced; in every third
// one the recovery, or the clean end after it, is crashed as well, up to five times. What was
// acknowledged, and what a finished start has shown, is there in the end (L2, L3, L5).
func TestCrashClones(t *testing.T) {
	want := 200
	if damageEverything() {
		want = 10_000
	}
	seed := damageSeed(t)
	crashes, nested, deepest := 0, 0, [nestedMost + 1]int{}
	for n := uint64(0); crashes < want; n++ {
		rng := rand.New(rand.NewPCG(seed, n))
		states, taken := story(t, rng)
		for _, snap := range taken {
			depth := 0
			if rng.IntN(3) == 0 {
				depth = 1 + rng.IntN(nestedMost)
				nested++
			}
			deepest[depth]++
			snap.what = fmt.Sprintf("seed %d story %d: %s", seed, n, snap.what)
			verifyNested(t, rng, snap, states, depth)
			crashes++
		}
	}
	t.Logf("%d crashes, %d with crashes of their recovery; by depth %v", crashes, nested, deepest)
	require.GreaterOrEqual(t, 5*nested, crashes, "too few crashes of recoveries")
}

// story is a life of a store, with a clean end in the middle, and crashes of it.
func story(t *testing.T, rng *rand.Rand) (states []*model, taken []snapshot) {
	mem := vfs.NewCrashableMem()
	own := rand.New(rand.NewPCG(rng.Uint64(), 1)) // the syncs of the log draw from it, beside us
	c := &crasher{mem: mem, rng: own, oneIn: 4 + rng.IntN(12)}
	fs := &hookFS{FS: mem}
	take := c.take
	fs.around.Store(&take)
	w := newWorld(rng.Uint64())
	states = []*model{w.m.clone()}
	for range 2 {
		s := open(t, fs)
		var pending []Pending
		for range 1 + rng.IntN(storyLen) {
			b := s.NewBatch()
			w.step(b)
			states = append(states, w.m.clone())
			c.applied.Add(1)
			p, err := s.Apply(b)
			require.NoError(t, err)
			pending = append(pending, p)
			c.take("apply")
			if rng.IntN(3) == 0 {
				pending = c.acknowledge(t, pending)
			}
			if rng.IntN(20) == 0 {
				require.NoError(t, s.db.Flush())
			}
		}
		c.acknowledge(t, pending)
		require.NoError(t, s.Close())
	}
	fs.around.Store(nil)
	return states, c.taken
}

func (c *crasher) acknowledge(t *testing.T, pending []Pending) []Pending {
	for _, p := range pending {
		synced, err := p.Wait()
		require.NoError(t, err)
		c.synced.Store(synced.Batch())
	}
	return pending[:0]
}

// verifyNested opens a crashed store. With a depth above zero that opening, or the close after it,
// is crashed too, and what that leaves is opened.
func verifyNested(
	t *testing.T, rng *rand.Rand, snap snapshot, states []*model, depth int,
) {
	t.Helper()
	fs := &hookFS{FS: snap.fs}
	c := &crasher{mem: snap.fs, rng: rand.New(rand.NewPCG(rng.Uint64(), 2)), oneIn: 1}
	c.synced.Store(snap.least)
	c.applied.Store(snap.most)
	var next *snapshot
	var mu sync.Mutex
	if depth > 0 {
		left := rng.IntN(16)
		around := func(name string) {
			mu.Lock()
			defer mu.Unlock()
			if left--; left < 0 && next == nil {
				clone := c.clone(name)
				next = &clone
			}
		}
		fs.around.Store(&around)
	}
	s, err := Open(fs, testDir, Options{Simulated: true})
	require.NoError(t, err, snap.what)
	n := s.ledger.Base().Batch
	c.synced.Store(max(snap.least, n))
	require.GreaterOrEqual(t, n, snap.least, snap.what)
	require.LessOrEqual(t, n, snap.most, snap.what)
	same(t, states[n], s)
	require.NoError(t, s.Close())
	if depth == 0 {
		return
	}
	if next == nil { // fewer syncs than that
		clone := c.clone("after close")
		next = &clone
	}
	next.what = snap.what + ", then " + next.what
	verifyNested(t, rng, *next, states, depth-1)
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
