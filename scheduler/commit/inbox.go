// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// inbox is the committer's queue. Intake is bounded by Options.MaxPending; what the core asks for
// is bounded by what is in flight.
type inbox struct {
	mu struct {
		sync.Mutex
		ops    []Op
		bytes  int64
		closed bool
	}
	most int64
	wake chan struct{}
}

func newInbox(most int64) *inbox { return &inbox{most: most, wake: make(chan struct{}, 1)} }

// put adds o. weight counts against the bound; 0 is always taken.
func (q *inbox) put(o Op, weight int64) error {
	q.mu.Lock()
	switch {
	case q.mu.closed:
		q.mu.Unlock()
		return delay.ErrClosed
	case weight > 0 && q.mu.bytes > 0 && q.mu.bytes+weight > q.most:
		q.mu.Unlock()
		return fmt.Errorf("%w: %d bytes wait to be stored", delay.ErrOverloaded, q.most)
	}
	q.mu.ops = append(q.mu.ops, o)
	q.mu.bytes += weight
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take empties the queue.
func (q *inbox) take(reuse []Op) (ops []Op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops, q.mu.ops = q.mu.ops, reuse[:0]
	q.mu.bytes = 0
	return ops, q.mu.closed
}

// waiting reports whether there is something to take.
func (q *inbox) waiting() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.ops) > 0
}

func (q *inbox) close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
