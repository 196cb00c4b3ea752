// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"sync/atomic"
	"time"
)

const (
	minPause = 100 * time.Millisecond
	maxPause = 10 * time.Second
)

// Backoff is the pause after each of several failures in a row. The zero value is ready.
type Backoff struct{ last time.Duration }

// Next is how long to wait now.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, minPause), maxPause)
	return b.last
}

// Reset begins anew after a success.
func (b *Backoff) Reset() { b.last = 0 }

// quietFor is the time between two warnings of one source: a broker that is away makes every queue
// of it fail at every try.
const quietFor = 5 * time.Second

// Quiet lets one warning through per 5 s. It is safe for concurrent use.
type Quiet struct {
	now  func() time.Time
	last atomic.Int64
}

// NewQuiet makes one that reads the time from now.
func NewQuiet(now func() time.Time) *Quiet { return &Quiet{now: now} }

// May reports whether it is time for a warning again.
func (q *Quiet) May() bool {
	now, last := q.now().UnixNano(), q.last.Load()
	return now-last >= int64(quietFor) && q.last.CompareAndSwap(last, now)
}
