// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"sync"
	"sync/atomic"

	"github.com/cicadamq/cicada/delay"
)

// Bounds of the upload buffer.
const (
	uploadMost  = 64 << 20 // bytes of records held for the next flush; beyond it the store is read
	uploadFlush = 16 << 20 // this much starts a flush ahead of the interval
	arenaChunk  = 1 << 20
)

// Row is a synced row that waits for the next flush.
type Row struct {
	Key delay.Key
	Rec []byte
}

// KeptRef names a parked row or a dead letter to be uploaded again (rule R5).
type KeptRef struct {
	Key  delay.Key
	Lane uint64 // hash of the target of a parked row
	Dead bool   // a dead letter
}

// Buffer collects what the next flush uploads, so that it need not be read back from the
// store (C7). When the bucket is slow it overflows: then only a position is kept, and the flush
// reads the rows it needs. The committer fills it; Take, Oldest, FlushSoon and Wake are safe for
// concurrent use.
type Buffer struct {
	off   bool
	now   func() delay.Due
	Wake  chan struct{} // holds a token when a flush is wanted soon
	arena []byte        // the committer's: rows are copied here
	owed  atomic.Int64  // messages to be kept that no flush has taken, synced or not

	mu struct {
		sync.Mutex
		part Part
	}
}

// Part is what has come together since the last flush. It is a value of whoever took it.
type Part struct {
	Rows   []Row
	Bytes  int64     // of Rows, with their keys
	Since  delay.Due // when the first of Rows came; 0 when there are none
	Kept   []KeptRef
	Done   []delay.Key       // delivered without a mark of their own
	Last   delay.Seq         // every row above Behind and up to here is in Rows
	Outbox uint64            // every mark below it is in the outbox
	Mark   delay.Key         // the watermark
	Books  delay.Books       // as of Last
	Bulk   []delay.Predicate // as of Last, all there are
	Paused []delay.Target    // all there are, ascending
	Uncold int64             // pending rows that no segment holds (rule R15)
	Resume delay.Key         // where the backlog is read on; of what is left after a cut
	Behind delay.Seq         // rows overflowed: read those up to here from the store; 0 is none
}

// NewBuffer makes a buffer that begins with what first says. off is for --bucket none:
// nothing is collected then.
func NewBuffer(off bool, now func() delay.Due, first Part) *Buffer {
	u := &Buffer{off: off, now: now, Wake: make(chan struct{}, 1)}
	u.mu.part = first
	u.owed.Store(int64(len(first.Kept)))
	return u
}

// row copies a record into the buffer's arena. Only the committer calls it.
func (u *Buffer) row(key delay.Key, rec []byte) Row {
	if len(u.arena)+len(rec) > cap(u.arena) {
		u.arena = make([]byte, 0, max(arenaChunk, len(rec)))
	}
	at := len(u.arena)
	u.arena = append(u.arena, rec...)
	return Row{Key: key, Rec: u.arena[at:len(u.arena):len(u.arena)]}
}

// add takes over what a synced batch brings (rule R4).
func (u *Buffer) add(f *flushed) {
	if u.off {
		return
	}
	now := u.now()
	u.mu.Lock()
	p := &u.mu.part
	if p.Since == 0 && len(f.rows) > 0 {
		p.Since = now
	}
	p.Last, p.Outbox, p.Mark = f.last, f.outbox, f.mark
	p.Books, p.Bulk, p.Uncold, p.Paused = f.books, f.bulk, f.uncold, f.paused
	p.Kept = append(p.Kept, f.kept...)
	p.Done = append(p.Done, f.done...)
	p.Rows = append(p.Rows, f.rows...)
	for _, r := range f.rows {
		p.Bytes += int64(len(r.Rec)) + delay.KeySize
	}
	p.bound()
	full := p.Bytes >= uploadFlush
	u.mu.Unlock()
	if full {
		u.FlushSoon()
	}
}

// FlushSoon wakes the flush loop.
func (u *Buffer) FlushSoon() {
	select {
	case u.Wake <- struct{}{}:
	default:
	}
}

// Oldest is since when something waits for a flush; 0 is nothing.
func (u *Buffer) Oldest() delay.Due {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mu.part.Since
}

// Take empties the buffer.
func (u *Buffer) Take() Part {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.mu.part
	u.mu.part = p.Rest()
	u.owed.Add(-int64(len(p.Kept)))
	return p
}

// bound lets rows go when there are too many of them.
func (p *Part) bound() {
	if p.Bytes > uploadMost {
		p.Rows, p.Bytes, p.Behind = nil, 0, p.Last
	}
}

// Merge adds what has come since to p, which waits for a flush.
func (p *Part) Merge(next Part) {
	if next.Behind > 0 {
		p.Rows, p.Bytes, p.Behind = nil, 0, next.Behind
	}
	if p.Since == 0 {
		p.Since = next.Since
	}
	p.Rows = append(p.Rows, next.Rows...)
	p.Bytes += next.Bytes
	p.Kept = append(p.Kept, next.Kept...)
	p.Done = append(p.Done, next.Done...)
	p.Last, p.Outbox, p.Mark = next.Last, next.Outbox, next.Mark
	p.Books, p.Bulk, p.Uncold, p.Paused = next.Books, next.Bulk, next.Uncold, next.Paused
	p.bound()
}

// Rest is p without anything to upload.
func (p *Part) Rest() Part {
	return Part{
		Last: p.Last, Outbox: p.Outbox, Mark: p.Mark, Books: p.Books, Bulk: p.Bulk,
		Uncold: p.Uncold, Paused: p.Paused,
	}
}
