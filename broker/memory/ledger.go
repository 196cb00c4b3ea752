// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Log is a broker with transactions, in memory: what consumers see, and the ledger beside it. It
// stays when its sinks end, and is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	epoch   uint64 // of the writer that fenced last
	last    uint64 // number of the newest entry
	entries map[uint64][]broker.Done
	visible []broker.Done
}

// NewLog is an empty one.
func NewLog() *Log { return &Log{entries: map[uint64][]broker.Done{}} }

// Visible is a copy of what consumers see, in order: every delivery that was committed.
func (l *Log) Visible() []broker.Done {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.visible)
}

// Drop removes an entry of the ledger and leaves a hole.
func (l *Log) Drop(entry uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, entry)
}

// Commit is what becomes of a transaction.
type Commit struct {
	Applied bool // it is visible, and in the ledger
	Told    bool // the sink hears how it ended
}

// ExactOptions of an Exact.
type ExactOptions struct {
	// Script decides about the n-th transaction, from 0, of the Exact; nil applies and tells all.
	// It runs without a lock and may block.
	Script func(n int, batch []broker.Delivery) Commit
}

// Exact is a broker.Sink and broker.Ledger into a Log: each Deliver is one transaction.
//
// A transaction whose end it was not told is looked up in the ledger before anything else is sent,
// as real ones must (rule R17).
type Exact struct {
	log    *Log
	script func(n int, batch []broker.Delivery) Commit

	mu     sync.Mutex // held over a transaction: there is one at a time
	epoch  uint64     // 0: not recovered
	count  int
	closed bool
	unsure map[broker.Done]uint64 // by the entry that lists them, if it was committed
}

var (
	_ broker.Sink   = (*Exact)(nil)
	_ broker.Ledger = (*Exact)(nil)
)

// NewExact is a sink into l.
func NewExact(l *Log, opts ExactOptions) *Exact {
	s := &Exact{log: l, script: opts.Script, unsure: map[broker.Done]uint64{}}
	if s.script == nil {
		s.script = func(int, []broker.Delivery) Commit { return Commit{Applied: true, Told: true} }
	}
	return s
}

// Recover fences, then tells the entries above after.
func (s *Exact) Recover(
	_ context.Context, after uint64, apply func(entry uint64, done []broker.Done) error,
) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	epoch, entries, err := s.log.fence(after)
	if err != nil {
		return err
	}
	for i, done := range entries {
		if err := apply(after+1+uint64(i), done); err != nil {
			return fmt.Errorf("apply entry %d of the ledger: %w", after+1+uint64(i), err)
		}
	}
	s.epoch = epoch
	return nil
}

// fence makes a new writer the only one, and lists the entries above after.
func (l *Log) fence(after uint64) (epoch uint64, entries [][]broker.Done, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	for n := after + 1; n <= l.last; n++ {
		done, ok := l.entries[n]
		if !ok {
			return 0, nil, fmt.Errorf("%w: ledger: entry %d of %d is missing", delay.ErrCorrupt, n,
				l.last)
		}
		entries = append(entries, slices.Clone(done))
	}
	l.last = max(l.last, after)
	return l.epoch, entries, nil
}

// Last is the number of the newest entry.
func (s *Exact) Last() uint64 {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.last
}

// Forget removes entries.
func (s *Exact) Forget(_ context.Context, n uint64) error {
	l := s.log
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.entries, func(entry uint64, _ []broker.Done) bool { return entry <= n })
	return nil
}

// Deliver is one transaction with one entry.
func (s *Exact) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == 0 || s.closed || ctx.Err() != nil || len(batch) == 0 {
		return
	}
	done, send := s.resolve(batch, results)
	if len(done) == 0 {
		return
	}
	c := s.script(s.count, batch)
	s.count++
	entry, ok := s.log.commit(s.epoch, done, c.Applied)
	if !ok { // fenced: nothing of it is visible, and nothing will be
		return
	}
	for n, i := range send {
		switch {
		case !c.Told:
			s.unsure[done[n]] = entry
		case c.Applied:
			results[i] = broker.Result{Outcome: broker.Delivered}
		default:
			results[i] = broker.Result{Outcome: broker.Retry, Reason: "the transaction was aborted"}
		}
	}
}

// resolve reports what an earlier transaction delivered without telling, and lists the rest, with
// their places in the batch.
func (s *Exact) resolve(batch []broker.Delivery, results []broker.Result) (
	rest []broker.Done, send []int,
) {
	for i := range batch {
		d := broker.Done{ID: clone(batch[i]).ID, Generation: batch[i].Generation}
		entry, unsure := s.unsure[d]
		delete(s.unsure, d)
		if unsure && s.log.lists(entry, d) {
			results[i] = broker.Result{Outcome: broker.Delivered}
			continue
		}
		rest, send = append(rest, d), append(send, i)
	}
	return rest, send
}

// commit applies a transaction of the writer with this epoch; ok is false when there is a newer
// one.
func (l *Log) commit(epoch uint64, done []broker.Done, applied bool) (entry uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return 0, false
	}
	if applied {
		l.last++
		l.entries[l.last] = done
		l.visible = append(l.visible, done...)
	}
	return l.last, true
}

func (l *Log) lists(entry uint64, d broker.Done) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.entries[entry], d)
}

// Close ends it: nothing is sent any more.
func (s *Exact) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
