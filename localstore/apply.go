// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore/codec"
)

// Pending is a batch that is visible but perhaps not on disk yet.
type Pending struct {
	b     *Batch
	batch uint64
	seq   delay.Seq
}

// Synced proves that a batch, and every batch before it, is on disk. Only Pending.Wait makes a
// valid one (invariant L1); functions that acknowledge take it and check Valid.
type Synced struct{ batch uint64 }

// Valid is false for the zero value, which anyone can write down.
func (t Synced) Valid() bool { return t.batch > 0 }

// Batch is the number of the batch.
func (t Synced) Batch() uint64 { return t.batch }

// Apply makes the batch visible to all reads that begin after it returned, and starts to write it
// to disk. The batch is used up. Batches of several goroutines take turns. It may wait while
// Pebble makes room. An error means that nothing was or will be acknowledged any more:
// delay.ErrClosed, or the failure that Options.Fatal was told of.
func (s *Store) Apply(b *Batch) (Pending, error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.calls.Begin(); err != nil {
		b.recycle()
		return Pending{}, fmt.Errorf("apply: %w", err)
	}
	defer s.calls.End()
	if err := s.refusal(); err != nil {
		b.recycle()
		return Pending{}, err
	}
	s.seal(b)
	if err := s.commit(b.pb); err != nil {
		return Pending{}, err
	}
	s.publish(b)
	s.filter.forget(s, b.idsGone)
	return Pending{b: b, batch: b.delta.Batch, seq: b.delta.LastSeq}, nil
}

// refusal is why the store takes no batches, or nil.
func (s *Store) refusal() error {
	if s.opts.ReadOnly {
		return fmt.Errorf("apply: %w", delay.ErrClosed)
	}
	if f := s.failed.Load(); f != nil {
		return fmt.Errorf("apply: %w: %w", delay.ErrClosed, f.err)
	}
	return nil
}

// seal numbers the batch and adds what every batch carries. The caller has the turn.
func (s *Store) seal(b *Batch) {
	d := &b.delta
	base := s.ledger.Base()
	d.Batch = base.Batch + 1
	d.LastSeq = max(d.LastSeq, base.LastSeq)
	if b.sets&setsMeta != 0 {
		b.set(s.metaKey(metaMeta), codec.AppendMeta(nil, &b.meta))
	}
	if b.sets&setsBooks != 0 {
		b.scratch = codec.AppendBooks(b.scratch[:0], &b.books)
		b.set(s.metaKey(metaBooks), b.scratch)
	}
	if b.outbox > s.outboxLow {
		b.deleteRange(s.numberKey(spaceOutbox, s.outboxLow), s.numberKey(spaceOutbox, b.outbox))
		s.outboxLow = b.outbox
	}
	b.gather()
	s.filter.add(b.hashes)
	s.ledger.Absorb(d)
	s.timers.Put(d.TimerMin)
	s.writeLedger(b)
}

// publish shows the meta and books of an applied batch.
func (s *Store) publish(b *Batch) {
	if b.sets == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.sets&setsMeta != 0 {
		s.mu.meta = b.meta
	}
	if b.sets&setsBooks != 0 {
		s.mu.books = b.books
	}
}

// commit hands the batch to Pebble's log. Pebble panics when its log has failed before; that is
// the same end as an error.
func (s *Store) commit(pb *pebble.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.wedged.Store(true)
			err = s.fail(fmt.Errorf("apply: %v", r))
		}
	}()
	if err := s.db.ApplyNoSyncWait(pb, pebble.Sync); err != nil {
		return s.fail(fmt.Errorf("apply: %w", err))
	}
	return s.refusal() // it may have failed meanwhile
}

// Wait waits until the batch is on disk. It must be called exactly once, from any goroutine. An
// error is the end of the store; the batch may or may not survive.
func (p Pending) Wait() (Synced, error) {
	s := p.b.s
	err := p.b.pb.SyncWait()
	p.b.recycle()
	if err != nil {
		return Synced{}, s.fail(fmt.Errorf("sync: %w", err))
	}
	if f := s.failed.Load(); f != nil {
		return Synced{}, fmt.Errorf("sync: %w", f.err)
	}
	if !planted.Is(planted.WitnessUnwritten) {
		s.witness.Advance(p.batch, p.seq)
	}
	return Synced{p.batch}, nil
}

// failure is the first fatal error.
type failure struct{ err error }

// fail ends the store: it tells Options.Fatal of the first error and returns err.
func (s *Store) fail(err error) error {
	err = fmt.Errorf("localstore %s: %w", s.dir, err)
	if s.failed.CompareAndSwap(nil, &failure{err}) {
		s.guard.Stop()
		close(s.dead)
		s.opts.Fatal(err)
	}
	return err
}
