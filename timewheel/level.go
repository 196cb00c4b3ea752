// SPDX-License-Identifier: Apache-2.0

package timewheel

import "math/bits"

// levels is the number of levels below the overflow.
const levels = 5

// The level of a Slot that is none of the levels 0 to 4.
const (
	// Due is the slot of entries that are due and not yet handed out.
	Due = -1
	// Overflow is the slot of entries beyond the last level.
	Overflow = levels
)

// shape is the table of the package comment: ticks per slot and slots per level.
var shape = [levels]struct{ unit, slots int64 }{
	{1, 1000},
	{1000, 60},
	{60 * 1000, 60},
	{60 * 60 * 1000, 24},
	{24 * 60 * 60 * 1000, 512},
}

// Slot tells what one slot holds: the entries with From <= tick < To.
type Slot struct {
	Level        int // 0 to 4, Due or Overflow
	From, To     int64
	Count, Bytes int64
}

// level is one circular array of slots. By W3 it only ever holds ticks of one rotation, the one
// that the current tick is in, so indices sort like ticks.
type level struct {
	unit, span int64
	end        int64 // the first tick after the rotation
	slots      []list
	occupied   []uint64 // bit i: slots[i] is not empty
	used       int      // how many are not empty
}

func (l *level) init(i int) {
	l.unit, l.span = shape[i].unit, shape[i].unit*shape[i].slots
	l.slots = make([]list, shape[i].slots)
	for s := range l.slots {
		l.slots[s] = emptyList
	}
	l.occupied = make([]uint64, (len(l.slots)+63)/64)
}

// slot is the index of the slot of tick at, which must be in the rotation.
func (l *level) slot(at int64) int { return int((at - (l.end - l.span)) / l.unit) }

// from is the first tick of slot s.
func (l *level) from(s int) int64 { return l.end - l.span + int64(s)*l.unit }

func (l *level) occupy(s int) {
	l.occupied[s>>6] |= 1 << (s & 63)
	l.used++
}

func (l *level) vacate(s int) {
	l.occupied[s>>6] &^= 1 << (s & 63)
	l.used--
}

// first is the first occupied slot; there must be one.
func (l *level) first() int {
	for i, word := range l.occupied {
		if word != 0 {
			return i<<6 | bits.TrailingZeros64(word)
		}
	}
	panic("BUG: timewheel: no slot is occupied")
}

// moveTo makes at the current tick. The caller has emptied what lies between.
func (w *Wheel[T]) moveTo(at int64) {
	w.cur = at
	w.pending = max(w.pending, at)
	for i := range w.levels {
		l := &w.levels[i]
		if at < l.end {
			return // rotations nest: the coarser ones go on too
		}
		l.end = (at/l.span + 1) * l.span
	}
}

// place links a node into the lowest level that spans its tick (W3).
func (w *Wheel[T]) place(i uint32, n *node[T]) {
	n.setPlace(inWheel)
	for k := range w.levels {
		l := &w.levels[k]
		if n.at >= l.end {
			continue
		}
		s := l.slot(n.at)
		if l.slots[s].count == 0 {
			l.occupy(s)
		}
		w.push(&l.slots[s], i, n)
		return
	}
	if w.over.count == 0 || n.at < w.overMin {
		w.overMin = n.at
	}
	w.push(&w.over, i, n)
}

// displace unlinks a node that place linked.
func (w *Wheel[T]) displace(n *node[T]) {
	for k := range w.levels {
		l := &w.levels[k]
		if n.at >= l.end {
			continue
		}
		s := l.slot(n.at)
		w.unlink(&l.slots[s], n)
		if l.slots[s].count == 0 {
			l.vacate(s)
		}
		return
	}
	w.unlink(&w.over, n)
}

// nextSlot is the first occupied slot: its level and first tick. For the overflow it is the
// beginning of the era of its first entry.
func (w *Wheel[T]) nextSlot() (k int, from int64, ok bool) {
	for k := range w.levels {
		if l := &w.levels[k]; l.used > 0 {
			return k, l.from(l.first()), true
		}
	}
	if w.over.count == 0 {
		return 0, 0, false
	}
	l := &w.levels[levels-1]
	return Overflow, max(l.end, w.overMin-w.overMin%l.span), true
}

// take empties the slot of level k that begins at tick from.
func (w *Wheel[T]) take(k int, from int64) list {
	l := &w.levels[k]
	s := l.slot(from)
	taken := l.slots[s]
	l.slots[s] = emptyList
	l.vacate(s)
	return taken
}

// cascade moves the entries of the slot that has just begun to the levels below, in their order,
// so that insertion order within a tick survives (W2).
func (w *Wheel[T]) cascade(k int, from int64) {
	var taken list
	if k == Overflow {
		taken, w.over = w.over, emptyList
	} else {
		taken = w.take(k, from)
	}
	for i := taken.head; i != none; {
		n := w.node(i)
		next := n.next
		w.place(i, n)
		i = next
	}
}

// expire moves the slot of tick at, the current one, to ready. What is added to the same tick from
// now on is late, so that it is merged with what is not handed out yet (W2).
func (w *Wheel[T]) expire(at int64) {
	w.pending = at + 1
	w.mergeReady(w.sorted(w.take(0, at)))
}

// Slots calls fn for every slot that holds entries, by time, until it returns false. Due comes
// first, with ticks from 0; the slots of a level lie after those of the level below.
func (w *Wheel[T]) Slots(fn func(Slot) bool) {
	if n := w.ready.count + w.late.count; n > 0 {
		due := Slot{Level: Due, To: w.pending, Count: int64(n), Bytes: w.ready.bytes + w.late.bytes}
		if !fn(due) {
			return
		}
	}
	for k := range w.levels {
		l := &w.levels[k]
		for i, word := range l.occupied {
			for ; word != 0; word &= word - 1 {
				s := i<<6 | bits.TrailingZeros64(word)
				from, held := l.from(s), &l.slots[s]
				if !fn(Slot{
					Level: k, From: from, To: from + l.unit,
					Count: int64(held.count), Bytes: held.bytes,
				}) {
					return
				}
			}
		}
	}
	if w.over.count > 0 {
		fn(Slot{
			Level: Overflow, From: w.levels[levels-1].end, To: MaxTick + 1,
			Count: int64(w.over.count), Bytes: w.over.bytes,
		})
	}
}
