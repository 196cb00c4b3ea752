// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// inbox is the committer's queue. Intake is bounded by Options.MaxPending and MaxPendingMessages;
// what the core asks for is bounded by what is in flight.
type inbox struct {
	mu struct {
		sync.Mutex
		ops    []Op
		bytes  int64
		count  int // messages of intake
		closed bool
	}
	most      int64
	mostCount int
	wake      chan struct{}
}

func newInbox(most int64, count int) *inbox {
	return &inbox{most: most, mostCount: count, wake: make(chan struct{}, 1)}
}

// draftBytes is what a draft takes beside its strings and its body.
const draftBytes = 256

// Weight is what a draft counts against Options.MaxPending: about its bytes in memory.
func Weight(d *delay.Draft) int64 {
	n := draftBytes + len(d.Body) + len(d.ID) + len(d.Target) + len(d.RoutingKey)
	for i := range d.Headers {
		n += len(d.Headers[i].Name) + len(d.Headers[i].Value)
	}
	return int64(n)
}

// intake is an op that brings messages.
type intake interface{ messages() int }

// put adds o. weight counts against the bound; 0 is always taken. What finds the queue empty is
// taken, too, however large it is.
func (q *inbox) put(o Op, weight int64) error {
	count := 0
	if in, ok := o.(intake); ok {
		count = in.messages()
	}
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

// take empties the queue.
func (q *inbox) take(reuse []Op) (ops []Op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops, q.mu.ops = q.mu.ops, reuse[:0]
	q.mu.bytes, q.mu.count = 0, 0
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
