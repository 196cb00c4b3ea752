// SPDX-License-Identifier: Apache-2.0

package core

import "github.com/cicadamq/cicada/delay"

// idleCap is what an empty queue keeps: there are as many queues as lanes.
const idleCap = 64

// queue is a first-in first-out slice; its space is given back when it runs empty.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

func (q *queue[T]) push(v T) { q.items = append(q.items, v) }

func (q *queue[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > idleCap {
			q.items = nil
		}
	case q.head >= 1024 && q.head*2 >= len(q.items):
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
	}
	return v
}

// filter keeps what keep wants, in order.
func (q *queue[T]) filter(keep func(T) bool) {
	kept := q.items[:0]
	for _, v := range q.items[q.head:] {
		if keep(v) {
			kept = append(kept, v)
		}
	}
	clear(q.items[len(kept):])
	q.items, q.head = kept, 0
}

// openSet holds the references that left the wheel and are neither finished nor parked: they hold
// the watermark back. Positions count from 1 and are never reused.
type openSet struct {
	items []openItem
	base  uint64 // position of items[0] is base+1
}

type openItem struct {
	ref     Ref
	firedAt delay.Due
	done    bool
	asked   bool // a park commit is under way
}

func (o *openSet) add(r Ref, now delay.Due) uint64 {
	o.items = append(o.items, openItem{ref: r, firedAt: now})
	return o.base + uint64(len(o.items))
}

func (o *openSet) at(pos uint64) *openItem {
	if pos <= o.base || pos > o.base+uint64(len(o.items)) {
		return nil
	}
	return &o.items[pos-o.base-1]
}

func (o *openSet) finish(pos uint64) {
	if it := o.at(pos); it != nil {
		it.done = true
	}
}

// shift drops the finished front.
func (o *openSet) shift() {
	n := 0
	for n < len(o.items) && o.items[n].done {
		n++
	}
	if n == 0 || n < len(o.items) && n < 1024 {
		return
	}
	o.base += uint64(n)
	left := len(o.items) - n
	if left < cap(o.items)/4 && cap(o.items) > 4096 {
		o.items = append(make([]openItem, 0, left*2), o.items[n:]...)
		return
	}
	o.items = o.items[:copy(o.items, o.items[n:])]
}

// lowest is the smallest key that is still open.
func (o *openSet) lowest() (delay.Key, bool) {
	low, found := delay.MaxKey, false
	for i := range o.items {
		if it := &o.items[i]; !it.done && it.ref.Key.Less(low) {
			low, found = it.ref.Key, true
		}
	}
	return low, found
}
