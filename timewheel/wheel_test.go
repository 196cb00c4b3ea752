// SPDX-License-Identifier: Apache-2.0

package timewheel

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
	era    = 512 * day
)

type item struct {
	rank int // compared within a tick
	n    int // number of insertion, unique
}

func byRank(a, b item) int { return cmp.Compare(a.rank, b.rank) }

// model is a wheel that can hardly be wrong: a slice, sorted whenever asked.
type model struct {
	compare func(a, b item) int
	entries []modelEntry
}

type modelEntry struct {
	at, size int64
	v        item
	h        Handle
}

func (m *model) sort() {
	slices.SortFunc(m.entries, func(a, b modelEntry) int {
		if c := cmp.Compare(a.at, b.at); c != 0 {
			return c
		}
		if m.compare != nil {
			if c := m.compare(a.v, b.v); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.v.n, b.v.n)
	})
}

func (m *model) advance(now int64, most int) (out []item, gone []Handle) {
	m.sort()
	n := 0
	for n < len(m.entries) && n < most && m.entries[n].at <= now {
		out = append(out, m.entries[n].v)
		gone = append(gone, m.entries[n].h)
		n++
	}
	m.entries = slices.Delete(m.entries, 0, n)
	return out, gone
}

// offset is a distance that often hits the edges between levels.
func offset(rng *rand.Rand) int64 {
	unit := []int64{1, second, minute, hour, day, era, 5 * era}[rng.IntN(7)]
	switch rng.IntN(4) {
	case 0:
		return rng.Int64N(3)
	case 1:
		return unit + rng.Int64N(3) - 1
	case 2:
		return rng.Int64N(unit * 2)
	default:
		return rng.Int64N(unit*60 + 1)
	}
}

// The wheel and a sorted slice must agree on every answer, whatever the operations: cascades at
// the edges of levels, late entries, chunks, big jumps, a clock that goes back, stale handles.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runModel(t, seed, 400) })
	}
}

func runModel(t *testing.T, seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	now := []int64{0, 999, 1_800_000_000_000, era - 1, 59*minute + 59*second}[rng.IntN(5)]
	m := &model{}
	if seed%3 != 0 {
		m.compare = byRank
	}
	w := New(Config[item]{Start: now, Compare: m.compare})
	var stale []Handle
	inserted := 0
	for range steps {
		switch op := rng.IntN(10); {
		case op < 5:
			at := now + offset(rng)
			if rng.IntN(5) == 0 {
				at = now - offset(rng)
			}
			for range 1 + rng.IntN(4)*rng.IntN(4) {
				e := modelEntry{at: max(at, 0), size: rng.Int64N(1000), v: item{rng.IntN(5), inserted}}
				inserted++
				e.h = w.Add(at, e.size, e.v)
				m.entries = append(m.entries, e)
			}
		case op < 7 && len(m.entries) > 0:
			i := rng.IntN(len(m.entries))
			e := m.entries[i]
			v, ok := w.Cancel(e.h)
			require.True(t, ok)
			require.Equal(t, e.v, v)
			m.entries = slices.Delete(m.entries, i, i+1)
			stale = append(stale, e.h)
		case op < 8 && len(stale) > 0:
			_, ok := w.Cancel(stale[rng.IntN(len(stale))])
			require.False(t, ok, "a stale handle cancelled something")
		default:
			to := now + offset(rng)
			if rng.IntN(8) == 0 {
				to = now - offset(rng)
			}
			most := rng.IntN(8)
			got := w.Advance(to, nil, most)
			want, gone := m.advance(to, most)
			require.Equal(t, want, got)
			stale = append(stale, gone...)
			now = max(now, to)
		}
		check(t, w, m)
	}
	got := w.Advance(math.MaxInt64, nil, math.MaxInt)
	want, _ := m.advance(math.MaxInt64, math.MaxInt)
	require.Equal(t, want, got)
	check(t, w, m)
}

// check verifies W3, W4 and Next against the model.
func check(t *testing.T, w *Wheel[item], m *model) {
	t.Helper()
	m.sort()
	require.Equal(t, len(m.entries), w.Len())
	next, ok := w.Next()
	require.Equal(t, len(m.entries) > 0, ok)
	var bytes, slotBytes, slotCount int64
	for _, e := range m.entries {
		bytes += e.size
	}
	require.Equal(t, bytes, w.Bytes())
	first, last := true, int64(0)
	w.Slots(func(s Slot) bool {
		slotBytes += s.Bytes
		slotCount += s.Count
		if s.Count <= 0 || s.From >= s.To || s.From < last {
			t.Fatalf("slot %+v after one that ends at %d", s, last)
		}
		last = s.To
		checkSlot(t, m, s)
		if first && s.Level == 0 {
			require.Equal(t, m.entries[0].at, next, "Next is not exact in level 0")
		}
		first = false
		return true
	})
	require.Equal(t, bytes, slotBytes)
	require.EqualValues(t, len(m.entries), slotCount)
	if ok {
		require.LessOrEqual(t, next, m.entries[0].at)
	}
}

func checkSlot(t *testing.T, m *model, s Slot) {
	t.Helper()
	i, _ := slices.BinarySearchFunc(m.entries, s.From, func(e modelEntry, at int64) int {
		return cmp.Compare(e.at, at)
	})
	var count, bytes int64
	for ; i < len(m.entries) && m.entries[i].at < s.To; i++ {
		count++
		bytes += m.entries[i].size
	}
	if count != s.Count || bytes != s.Bytes {
		t.Fatalf("slot %+v holds %d entries of %d bytes", s, count, bytes)
	}
}

// A hundred thousand messages of one millisecond must come sorted, in chunks, with late arrivals
// and cancels of what is due but not yet handed out in their place.
func TestBurstOfOneTick(t *testing.T) {
	const n = 100_000
	rng := rand.New(rand.NewPCG(7, 7))
	w := New(Config[item]{Start: 5, Compare: byRank})
	handles := make([]Handle, n)
	for i, rank := range rng.Perm(n) {
		handles[rank] = w.Add(90*second, 1, item{rank, i})
	}
	got := w.Advance(90*second, nil, 1000)
	require.Len(t, got, 1000)
	_, ok := w.Cancel(handles[0])
	require.False(t, ok, "handed out already")
	_, ok = w.Cancel(handles[1000])
	require.True(t, ok, "due, not handed out")
	w.Add(3, 1, item{-1, n})         // late: before all others
	w.Add(90*second, 1, item{-2, 1}) // the current tick again
	got = w.Advance(90*second, got, 3)
	require.Equal(t, []int{-1, -2, 1001}, ranks(got[1000:]))
	for {
		before := len(got)
		got = w.Advance(90*second, got, 1000)
		if len(got)-before < 1000 {
			break
		}
	}
	require.Len(t, got, n+1)
	require.True(t, slices.IsSortedFunc(got[1002:], byRank))
	require.Zero(t, w.Len())
	require.Zero(t, w.Bytes())
}

// A slot in few runs is merged, in many sorted: both must give the same order, and entries that
// compare equal must keep the order of insertion.
func TestRuns(t *testing.T) {
	for runs := 1; runs <= 2*maxRuns; runs++ {
		w, m := New(Config[item]{Compare: byRank}), &model{compare: byRank}
		for i := range 40 {
			e := modelEntry{at: 5, size: int64(i), v: item{i / 2 % (40/runs + 1), i}}
			e.h = w.Add(e.at, e.size, e.v)
			m.entries = append(m.entries, e)
		}
		require.Equal(t, int64(39*40/2), w.Bytes())
		for w.Len() > 0 {
			want, _ := m.advance(9, 7)
			require.Equal(t, want, w.Advance(9, nil, 7), "%d runs", runs)
			check(t, w, m)
		}
	}
}

func ranks(items []item) (out []int) {
	for _, i := range items {
		out = append(out, i.rank)
	}
	return out
}

// A wheel that slept for years must not walk through every millisecond of them (W6): this test
// would take hours.
func TestJumps(t *testing.T) {
	w := New(Config[item]{})
	year := 365 * day
	for i := range 50 {
		w.Add(int64(i)*7*year+12345, 1, item{n: i})
	}
	var got []item
	for i := range 50 {
		got = w.Advance(int64(i)*7*year+12344, got[:0], 10)
		require.Empty(t, got)
		next, ok := w.Next()
		require.True(t, ok)
		require.LessOrEqual(t, next, int64(i)*7*year+12345)
		got = w.Advance(int64(i)*7*year+12345, got[:0], 10)
		require.Equal(t, []item{{n: i}}, got)
	}
	_, ok := w.Next()
	require.False(t, ok)
}

// Ticks at the ends of the range must neither overflow nor hang.
func TestExtremes(t *testing.T) {
	w := New(Config[item]{Start: -5})
	w.Add(math.MaxInt64, 1, item{n: 3})
	w.Add(math.MinInt64, 1, item{n: 1})
	w.Add(0, MaxSize, item{n: 2})
	next, ok := w.Next()
	require.True(t, ok)
	require.Zero(t, next)
	require.Equal(t, []item{{n: 1}, {n: 2}}, w.Advance(0, nil, 10))
	require.Empty(t, w.Advance(MaxTick-1, nil, 10))
	require.Equal(t, []item{{n: 3}}, w.Advance(math.MaxInt64, nil, 10))
	require.Empty(t, w.Advance(math.MinInt64, nil, 10))
	require.Panics(t, func() { w.Add(1, MaxSize+1, item{}) })
	require.Panics(t, func() { w.Add(1, -1, item{}) })
}

// After the clock went back, an entry that is due by the old time but not by the new one must not
// be handed out early (W1).
func TestClockBack(t *testing.T) {
	w := New(Config[item]{})
	w.Add(100, 1, item{n: 1})
	w.Add(200, 1, item{n: 2})
	require.Len(t, w.Advance(250, nil, 1), 1)
	require.Empty(t, w.Advance(150, nil, 10))
	w.Add(160, 1, item{n: 3})
	require.Empty(t, w.Advance(159, nil, 10))
	require.Equal(t, []item{{n: 3}}, w.Advance(160, nil, 10))
	require.Equal(t, []item{{n: 2}}, w.Advance(200, nil, 10))
}

// The zero handle, handles of other wheels' ranges and reused nodes must be refused (W5), also
// after the memory of a node was released and allocated again.
func TestStaleHandles(t *testing.T) {
	w := New(Config[item]{})
	_, ok := w.Cancel(Handle{})
	require.False(t, ok)
	_, ok = w.Cancel(Handle{index: 1 << 30, gen: 1})
	require.False(t, ok)
	var old []Handle
	for round := range 5 {
		var now []Handle
		for i := range 5 * chunkSize {
			now = append(now, w.Add(int64(i)*977, 1, item{n: i}))
		}
		for _, h := range old {
			_, ok := w.Cancel(h)
			require.False(t, ok, "round %d", round)
		}
		for _, h := range now {
			_, ok := w.Cancel(h)
			require.True(t, ok)
		}
		old = append(old, now...)
	}
	require.Zero(t, w.Len())
	w.Slots(func(Slot) bool { t.Fatal("a slot is left over"); return false })
}

// Generations must not wrap to 0, the generation of no handle.
func TestGenerationWraps(t *testing.T) {
	w := New(Config[item]{})
	h := w.Add(1, 1, item{})
	n := w.lookup(h)
	n.gen = math.MaxUint32
	_, ok := w.Cancel(Handle{h.index, math.MaxUint32})
	require.True(t, ok)
	h2 := w.Add(1, 1, item{})
	require.Equal(t, h.index, h2.index)
	require.EqualValues(t, 1, h2.gen)
}

// A drained burst must give its memory back (W7), and values must not be held.
func TestMemoryIsReleased(t *testing.T) {
	w := New(Config[*int]{})
	for i := range 20 * chunkSize {
		w.Add(int64(i%5000), 1, new(int))
	}
	allocated := func() (n int) {
		for _, c := range w.chunks {
			if c.nodes != nil {
				n++
			}
		}
		return n
	}
	require.Equal(t, 20, allocated())
	require.Len(t, w.Advance(5000, nil, math.MaxInt), 20*chunkSize)
	require.LessOrEqual(t, allocated(), 2)
	require.LessOrEqual(t, cap(w.scratch), keepScratch)
	for _, c := range w.chunks {
		for i := range chunkSize {
			if c.nodes != nil {
				require.Nil(t, c.nodes[i].v)
			}
		}
	}
}

// Adding, cancelling and handing out in chunks must not allocate per entry (W7).
func TestAllocations(t *testing.T) {
	w := New(Config[ref]{Compare: compareRefs})
	dst := make([]ref, 0, 1000)
	now := int64(0)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for i := range 100 {
			h := w.Add(now+int64(i*i), 100, ref{due: now, seq: uint64(i)})
			if i%3 == 0 {
				w.Cancel(h)
			}
		}
		now += 5
		dst = w.Advance(now, dst[:0], 1000)
	}))
}

// The node of the scheduler's reference must stay within 48 bytes: there are millions.
func TestNodeSize(t *testing.T) {
	require.EqualValues(t, 48, unsafe.Sizeof(node[ref]{}))
}

// Slots must stop when told to.
func TestSlotsStops(t *testing.T) {
	w := New(Config[item]{Start: 10})
	for _, at := range []int64{5, 11, 2 * second, 2 * minute, 2 * hour, 2 * day, 2 * era} {
		w.Add(at, 7, item{})
	}
	for most := 1; most <= 7; most++ {
		var seen []int
		w.Slots(func(s Slot) bool {
			seen = append(seen, s.Level)
			return len(seen) < most
		})
		require.Equal(t, []int{Due, 0, 1, 2, 3, 4, Overflow}[:most], seen)
	}
}

// The worked example of the package comment.
func ExampleWheel() {
	w := New(Config[string]{Start: 56_789})
	w.Add(58_000, 5, "tick")
	cancelled := w.Add(58_000, 5, "never")
	w.Add(57_000, 3, "now")
	w.Cancel(cancelled)
	next, _ := w.Next()
	fmt.Println(w.Len(), w.Bytes(), next)
	fmt.Println(w.Advance(57_999, nil, 10))
	fmt.Println(w.Advance(58_000, nil, 10))
	// Output:
	// 2 8 57000
	// [now]
	// [tick]
}
