// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// Bounds of the upload buffer.
const (
	uploadMost  = 64 << 20 // bytes of records held for the next flush; beyond it the store is read
	uploadFlush = 16 << 20 // this much starts a flush ahead of the interval
	arenaChunk  = 1 << 20
)

// uploadRow is a synced row that waits for the next flush.
type uploadRow struct {
	key delay.Key
	rec []byte
}

// keptRef names a parked row or a dead letter to be uploaded again (rule R5).
type keptRef struct {
	key  delay.Key
	lane uint64
	dead bool
}

// uploadBuffer collects what the next flush uploads, so that it need not be read back from the
// store. When the bucket is slow it overflows: then only a position is kept, and the flush reads
// the rows it needs.
type uploadBuffer struct {
	off   bool
	now   func() delay.Due
	wake  chan struct{}
	arena []byte // the committer's: rows are copied here

	mu struct {
		sync.Mutex
		part uploadPart
	}
}

// uploadPart is what has come together since the last flush.
type uploadPart struct {
	rows   []uploadRow
	bytes  int64
	since  delay.Due // when the first of rows came; 0 when there are none
	kept   []keptRef
	done   []delay.Key
	last   delay.Seq // every row above behind and up to here is in rows
	outbox uint64
	mark   delay.Key
	books  delay.Books
	uncold int64
	resume delay.Key // where the backlog is read on; of what is left after a cut
	behind delay.Seq // rows overflowed: those up to here must be read from the store; 0 is none
}

func newUploadBuffer(off bool, now func() delay.Due) *uploadBuffer {
	return &uploadBuffer{off: off, now: now, wake: make(chan struct{}, 1)}
}

// row copies a record into the buffer's arena. Only the committer calls it.
func (u *uploadBuffer) row(key delay.Key, rec []byte) uploadRow {
	if len(u.arena)+len(rec) > cap(u.arena) {
		u.arena = make([]byte, 0, max(arenaChunk, len(rec)))
	}
	at := len(u.arena)
	u.arena = append(u.arena, rec...)
	return uploadRow{key: key, rec: u.arena[at:len(u.arena):len(u.arena)]}
}

// add takes over what a synced batch brings (rule R4).
func (u *uploadBuffer) add(f *flushed) {
	if u.off {
		return
	}
	now := u.now()
	u.mu.Lock()
	p := &u.mu.part
	if p.since == 0 && len(f.rows) > 0 {
		p.since = now
	}
	p.last, p.outbox, p.mark = f.last, f.outbox, f.mark
	p.books, p.uncold = f.books, f.uncold
	p.kept = append(p.kept, f.kept...)
	p.done = append(p.done, f.done...)
	p.rows = append(p.rows, f.rows...)
	for _, r := range f.rows {
		p.bytes += int64(len(r.rec)) + delay.KeySize
	}
	p.bound()
	full := p.bytes >= uploadFlush
	u.mu.Unlock()
	if full {
		u.flushSoon()
	}
}

// flushSoon wakes the flush loop.
func (u *uploadBuffer) flushSoon() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// oldest is since when something waits for a flush; 0 is nothing.
func (u *uploadBuffer) oldest() delay.Due {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mu.part.since
}

// take empties the buffer.
func (u *uploadBuffer) take() uploadPart {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.mu.part
	u.mu.part = p.rest()
	return p
}

// bound lets rows go when there are too many of them.
func (p *uploadPart) bound() {
	if p.bytes > uploadMost {
		p.rows, p.bytes, p.behind = nil, 0, p.last
	}
}

// merge adds what has come since to p, which waits for a flush.
func (p *uploadPart) merge(next uploadPart) {
	if next.behind > 0 {
		p.rows, p.bytes, p.behind = nil, 0, next.behind
	}
	if p.since == 0 {
		p.since = next.since
	}
	p.rows = append(p.rows, next.rows...)
	p.bytes += next.bytes
	p.kept = append(p.kept, next.kept...)
	p.done = append(p.done, next.done...)
	p.last, p.outbox, p.mark = next.last, next.outbox, next.mark
	p.books, p.uncold = next.books, next.uncold
	p.bound()
}

// rest is p without anything to upload.
func (p *uploadPart) rest() uploadPart {
	return uploadPart{
		last: p.last, outbox: p.outbox, mark: p.mark, books: p.books, uncold: p.uncold,
	}
}
