// SPDX-License-Identifier: Apache-2.0

// Package inbox is a queue of requests, bounded by their bytes and by their messages, that one
// goroutine empties at once.
//
//	Put ... Put --> Box --Take, all of them--> the committer
//
// It is in memory alone: what waits in it at a crash was not answered.
package inbox

import (
	"fmt"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// Box is the queue. Intake is bounded; what the core asks for, with weight 0 and no messages, is
// bounded by what is in flight. A Box is safe for concurrent use, but for Take and Wake.
type Box[T any] struct {
	mu struct {
		sync.Mutex
		ops    []T
		bytes  int64
		count  int // messages of intake
		closed bool
	}
	most      int64
	mostCount int
	wake      chan struct{}
}

// New makes a box for intake of so many bytes and messages.
func New[T any](most int64, count int) *Box[T] {
	return &Box[T]{most: most, mostCount: count, wake: make(chan struct{}, 1)}
}

// Wake has a value when something was put since the last Take, or the box was closed.
func (q *Box[T]) Wake() <-chan struct{} { return q.wake }

// Put adds o, which brings so many messages. weight counts against the bound; 0 is always taken.
// What finds the queue empty is taken, too, however large it is. ErrOverloaded or ErrClosed: o is
// not taken.
func (q *Box[T]) Put(o T, weight int64, count int) error {
	q.mu.Lock()
	switch {
	case q.mu.closed:
		q.mu.Unlock()
		return delay.ErrClosed
	case weight > 0 && q.mu.bytes > 0 && q.mu.bytes+weight > q.most:
		q.mu.Unlock()
		return fmt.Errorf("%w: %d bytes wait to be stored", delay.ErrOverloaded, q.most)
	case count > 0 && q.mu.count > 0 && q.mu.count+count > q.mostCount:
		q.mu.Unlock()
		return fmt.Errorf("%w: %d messages wait to be stored", delay.ErrOverloaded, q.mostCount)
	}
	q.mu.ops = append(q.mu.ops, o)
	q.mu.bytes += weight
	q.mu.count += count
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// Take empties the queue; reuse is memory that it may keep. closed: nothing more will come.
func (q *Box[T]) Take(reuse []T) (ops []T, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops, q.mu.ops = q.mu.ops, reuse[:0]
	q.mu.bytes, q.mu.count = 0, 0
	return ops, q.mu.closed
}

// Waiting reports whether there is something to take.
func (q *Box[T]) Waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.ops) > 0
}

// Close refuses what comes from now on.
func (q *Box[T]) Close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
