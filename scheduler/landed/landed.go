// SPDX-License-Identifier: Apache-2.0

// Package landed keeps how far the bucket has come, for those who wait for it (rule R13).
package landed

import (
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// Table is what the bucket holds and who waits for more. The zero value is nothing and nobody. It
// is safe for concurrent use. Who waits is bounded by the requests under way.
type Table struct {
	mu struct {
		sync.Mutex
		waiters []waiter
		rows    delay.Seq // every row up to here is in a committed segment, where it belongs
		outbox  uint64    // every mark below is in the bucket
	}
}

type waiter struct {
	rows   delay.Seq
	outbox uint64
	done   chan struct{}
}

// Wait gives a channel that is closed when the bucket holds the rows up to a seq and the marks
// below a number of the outbox; nil when it does already.
func (t *Table) Wait(rows delay.Seq, outbox uint64) chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rows <= t.mu.rows && outbox <= t.mu.outbox {
		return nil
	}
	w := waiter{rows: rows, outbox: outbox, done: make(chan struct{})}
	t.mu.waiters = append(t.mu.waiters, w)
	return w.done
}

// Up tells what a committed manifest holds.
func (t *Table) Up(rows delay.Seq, outbox uint64) {
	var ready []waiter
	t.mu.Lock()
	t.mu.rows, t.mu.outbox = max(t.mu.rows, rows), max(t.mu.outbox, outbox)
	waiting := t.mu.waiters[:0]
	for _, w := range t.mu.waiters {
		if w.rows <= t.mu.rows && w.outbox <= t.mu.outbox {
			ready = append(ready, w)
		} else {
			waiting = append(waiting, w)
		}
	}
	clear(t.mu.waiters[len(waiting):])
	t.mu.waiters = waiting
	t.mu.Unlock()
	for _, w := range ready {
		close(w.done)
	}
}
