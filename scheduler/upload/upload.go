// SPDX-License-Identifier: Apache-2.0

// Package upload collects what the next flush uploads, so that it need not be read back from the
// store.
//
//	committer --Add, after the sync of a batch--> Buffer --Take--> flush --> cut --> bucket
package upload

import (
	"sync"
	"sync/atomic"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/position"
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

// Kept names a parked row or a dead letter to be uploaded again (rule R5).
type Kept struct {
	Key  delay.Key
	Lane uint64 // hash of the target of a parked row
	Dead bool   // a dead letter
}

// Buffer collects what is synced (C7 of the committer). When the bucket is slow it overflows: then
// only a position is kept, and the flush reads the rows it needs. The committer fills it; Take,
// Oldest, FlushSoon, Owed and Wake are safe for concurrent use.
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
	Kept   []Kept
	Done   []delay.Key         // delivered without a mark of their own
	Last   delay.Seq           // every row above Behind and up to here is in Rows
	Outbox uint64              // every mark below it is in the outbox
	Mark   delay.Key           // the watermark
	Books  delay.Books         // as of Last
	Bulk   []delay.Predicate   // as of Last, all there are
	Paused []delay.Target      // all there are, ascending
	Limits []delay.TargetLimit // likewise
	Uncold int64               // pending rows that no segment holds (rule R15)
	// Read is how far sources were read, and what the bucket must hold for that (rule R16).
	Read   position.Notes
	Resume delay.Key // where the backlog is read on; of what is left after a cut
	Behind delay.Seq // rows overflowed: read those up to here from the store; 0 is none
}

// New makes a buffer that begins with what first says. off is for --bucket none:
// nothing is collected then.
func New(off bool, now func() delay.Due, first Part) *Buffer {
	u := &Buffer{off: off, now: now, Wake: make(chan struct{}, 1)}
	u.mu.part = first
	u.owed.Store(int64(len(first.Kept)))
	return u
}

// Row copies a record into the buffer's arena. Only the committer calls it.
func (u *Buffer) Row(key delay.Key, rec []byte) Row {
	if len(u.arena)+len(rec) > cap(u.arena) {
		u.arena = make([]byte, 0, max(arenaChunk, len(rec)))
	}
	at := len(u.arena)
	u.arena = append(u.arena, rec...)
	return Row{Key: key, Rec: u.arena[at:len(u.arena):len(u.arena)]}
}

// Owe counts a message to be kept that will be added. Only the committer calls it.
func (u *Buffer) Owe() { u.owed.Add(1) }

// Owed reports whether there are messages to be kept that no flush has taken.
func (u *Buffer) Owed() bool { return u.owed.Load() > 0 }

// Add takes over what a synced batch brings (rule R4). Only the committer calls it.
func (u *Buffer) Add(next Part) {
	if u.off {
		return
	}
	if len(next.Rows) > 0 {
		next.Since = u.now()
	}
	for _, r := range next.Rows {
		next.Bytes += int64(len(r.Rec)) + delay.KeySize
	}
	u.mu.Lock()
	u.mu.part.Merge(next)
	full := u.mu.part.Bytes >= uploadFlush
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
	p.Limits = next.Limits
	p.Read.Merge(next.Read)
	p.bound()
}

// Rest is p without anything to upload.
func (p *Part) Rest() Part {
	return Part{
		Last: p.Last, Outbox: p.Outbox, Mark: p.Mark, Books: p.Books, Bulk: p.Bulk,
		Uncold: p.Uncold, Paused: p.Paused, Limits: p.Limits,
	}
}
