// SPDX-License-Identifier: Apache-2.0

package timewheel

import "math"

const (
	// MaxTick is the furthest tick: larger ones count as MaxTick, negative ones as 0.
	MaxTick int64 = 1 << 62
	// MaxSize is the largest size of one entry, 1 GiB - 1.
	MaxSize int64 = 1<<sizeBits - 1
)

// Config is what a wheel is made with. The zero value is valid.
type Config[T any] struct {
	// Start is the first current tick.
	Start int64
	// Compare orders entries of one tick, as slices.SortFunc does; nil keeps insertion order.
	// It is called by Advance and must be a pure function of its arguments.
	Compare func(a, b T) int
}

// Wheel holds entries of type T until their ticks. See the package comment.
type Wheel[T any] struct {
	slab[T]

	compare func(a, b T) int
	cur     int64 // the current tick
	pending int64 // ticks before it are expired: cur, or cur+1 once the slot of cur is empty
	levels  [levels]level
	over    list  // entries beyond the last level
	overMin int64 // not later than the first entry of over

	ready   list  // expired, sorted by (tick, compare, insertion)
	late    list  // added with a tick already past, since the last Advance
	lateMin int64 // not later than the first entry of late

	count, bytes int64
	scratch      []sortItem[T]
}

// New is an empty wheel whose current tick is cfg.Start.
func New[T any](cfg Config[T]) *Wheel[T] {
	w := &Wheel[T]{compare: cfg.Compare, over: emptyList, ready: emptyList, late: emptyList}
	w.slab.init()
	for l := range w.levels {
		w.levels[l].init(l)
	}
	w.moveTo(min(max(cfg.Start, 0), MaxTick))
	return w
}

// Handle names one entry of one wheel. It is refused once the entry is gone (W5). The zero Handle
// names nothing.
type Handle struct {
	index, gen uint32
}

// Add puts v into the wheel, to be handed out at tick at, and is O(1). A tick already past is
// allowed: v comes with the next Advance. size, at most MaxSize, only counts in Bytes and Slots.
func (w *Wheel[T]) Add(at, size int64, v T) Handle {
	if size < 0 || size > MaxSize {
		panic("BUG: timewheel: size out of range")
	}
	at = min(max(at, 0), MaxTick)
	i, n := w.alloc()
	n.at, n.v = at, v
	n.size = uint32(size)
	w.count++
	w.bytes += size
	if at < w.pending {
		n.setPlace(inLate)
		if w.late.count == 0 || at < w.lateMin {
			w.lateMin = at
		}
		w.push(&w.late, i, n)
	} else {
		w.place(i, n)
	}
	return Handle{index: i, gen: n.gen}
}

// Cancel removes the entry of h and returns it, in O(1). ok is false when the entry is gone:
// handed out or cancelled before.
func (w *Wheel[T]) Cancel(h Handle) (v T, ok bool) {
	n := w.lookup(h)
	if n == nil {
		return v, false
	}
	switch n.place() {
	case inReady:
		w.unlink(&w.ready, n)
	case inLate:
		w.unlink(&w.late, n)
	default:
		w.displace(n)
	}
	v = n.v
	w.remove(h.index, n)
	return v, true
}

// Advance makes now the current tick and appends entries whose tick is not after now to dst, in the
// order of W2. Fewer than most means there are no more; otherwise call it again.
// Going back is harmless: the current tick stays, and no entry is handed out before its tick.
func (w *Wheel[T]) Advance(now int64, dst []T, most int) []T {
	now = min(now, MaxTick)
	w.settleLate()
	for {
		dst, most = w.handOut(now, dst, most)
		if most <= 0 {
			return dst
		}
		l, at, ok := w.nextSlot()
		if !ok || at > now {
			break
		}
		w.moveTo(at)
		if l == 0 {
			w.expire(at)
		} else {
			w.cascade(l, at)
		}
	}
	if now > w.cur {
		w.moveTo(now)
	}
	return dst
}

// Next is a tick not later than that of any entry, and ok is false when there is none. It is exact
// when the first entry is in level 0, else the beginning of its slot. It visits no entries.
func (w *Wheel[T]) Next() (at int64, ok bool) {
	at = math.MaxInt64
	if w.ready.count > 0 {
		at = w.node(w.ready.head).at
	}
	if w.late.count > 0 {
		at = min(at, w.lateMin)
	}
	if at == math.MaxInt64 {
		_, at, ok = w.nextSlot()
		return at, ok
	}
	return at, true
}

// Len is the number of entries.
func (w *Wheel[T]) Len() int { return int(w.count) }

// Bytes is the sum of the sizes of the entries.
func (w *Wheel[T]) Bytes() int64 { return w.bytes }

// handOut moves entries that are not after now from ready to dst, and returns how many more may
// follow. A clock that went back is why ready may hold later ones.
func (w *Wheel[T]) handOut(now int64, dst []T, most int) ([]T, int) {
	for most > 0 && w.ready.count > 0 {
		i := w.ready.head
		n := w.node(i)
		if n.at > now {
			return dst, 0
		}
		dst = append(dst, n.v)
		w.unlink(&w.ready, n)
		w.remove(i, n)
		most--
	}
	return dst, most
}

// remove frees the node of an entry that was unlinked.
func (w *Wheel[T]) remove(i uint32, n *node[T]) {
	w.count--
	w.bytes -= n.bytes()
	w.free(i, n)
}
