// SPDX-License-Identifier: Apache-2.0

package timewheel

import (
	"cmp"
	"slices"
)

// keepScratch is the largest sort buffer, in entries, that is kept for the next time.
const keepScratch = 4096

// sortItem is an entry copied out of its node: sorting copies touches memory in order, sorting
// through the links would miss the cache at every comparison.
type sortItem[T any] struct {
	at    int64
	v     T
	index uint32
	order uint32 // of insertion
}

// maxRuns is the most ascending runs that are merged; with more, sorting copies is faster.
const maxRuns = 4

// sorted marks the entries of l as ready and brings them into the order of W2. Lists in order cost
// one walk. Lists of few runs cost a merge: that is a slot that was loaded from disk after newer
// messages had come for it.
func (w *Wheel[T]) sorted(l list) list {
	var heads, tails [maxRuns]uint32
	runs := 0
	var last *node[T]
	for i := l.head; i != none; {
		n := w.node(i)
		n.setPlace(inReady)
		if last == nil || w.after(last, n) {
			if runs < maxRuns {
				heads[runs] = i
			}
			runs++
		}
		if runs <= maxRuns {
			tails[runs-1] = i
		}
		last, i = n, n.next
	}
	if runs <= 1 {
		return l
	}
	if runs > maxRuns {
		return w.sort(l)
	}
	for _, i := range tails[:runs] {
		w.node(i).next = none
	}
	for _, head := range heads[1:runs] {
		l = w.merge(l.head, head)
	}
	return l
}

// merge joins two sorted chains of nodes; of equal entries those of a come first.
func (w *Wheel[T]) merge(a, b uint32) list {
	out := emptyList
	for a != none || b != none {
		from := &a
		if a == none || b != none && w.after(w.node(a), w.node(b)) {
			from = &b
		}
		i := *from
		n := w.node(i)
		*from = n.next
		w.push(&out, i, n)
	}
	return out
}

func (w *Wheel[T]) sort(l list) list {
	items := slices.Grow(w.scratch[:0], l.count)
	for i := l.head; i != none; {
		n := w.node(i)
		items = append(items, sortItem[T]{n.at, n.v, i, uint32(len(items))})
		i = n.next
	}
	slices.SortFunc(items, w.compareItems)
	out := emptyList
	for i := range items {
		w.push(&out, items[i].index, w.node(items[i].index))
	}
	clear(items) // hold no pointers of entries that are gone
	w.scratch = items[:0]
	if cap(items) > keepScratch {
		w.scratch = nil
	}
	return out
}

func (w *Wheel[T]) compareItems(a, b sortItem[T]) int {
	if c := cmp.Compare(a.at, b.at); c != 0 {
		return c
	}
	if w.compare != nil {
		if c := w.compare(a.v, b.v); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.order, b.order)
}

// after reports whether a must come after b, which was inserted later.
func (w *Wheel[T]) after(a, b *node[T]) bool {
	if a.at != b.at {
		return a.at > b.at
	}
	return w.compare != nil && w.compare(a.v, b.v) > 0
}

// settleLate moves the entries that came too late for their slot to ready.
func (w *Wheel[T]) settleLate() {
	if w.late.count == 0 {
		return
	}
	l := w.late
	w.late = emptyList
	w.mergeReady(w.sorted(l))
}

// mergeReady merges run, which is sorted and was inserted later, into ready. A run that follows
// all of ready, the usual case, costs O(1).
func (w *Wheel[T]) mergeReady(run list) {
	if run.count == 0 {
		return
	}
	if w.ready.count == 0 {
		w.ready = run
		return
	}
	tail, head := w.node(w.ready.tail), w.node(run.head)
	if !w.after(tail, head) {
		tail.next, head.prev = run.head, w.ready.tail
		w.ready.tail = run.tail
		w.ready.count += run.count
		w.ready.bytes += run.bytes
		return
	}
	w.ready = w.merge(w.ready.head, run.head)
}
