// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// ExactSink is a sink that delivers exactly once.
type ExactSink interface {
	broker.Sink
	broker.Ledger
}

// LedgerSubject is a receiver, and sinks that share one ledger there.
type LedgerSubject struct {
	// Open opens a sink on the ledger of every other, as a daemon does that starts again or takes
	// over. The suite closes it, also after Crash.
	Open   func(t *testing.T) ExactSink
	Target delay.Target
	// Visible lists what consumers of the target see: what is committed.
	Visible func(t *testing.T) []broker.Done
	// Crash ends a sink without a word, at any moment; nil when that cannot be done.
	Crash func(t *testing.T, s ExactSink)
	// Drop removes an entry from the ledger, as a mistake would; nil when that cannot be done.
	Drop func(t *testing.T, entry uint64)
}

// RunLedger runs the suite for sinks that are a Ledger. open makes a fresh receiver with an empty
// ledger, and cleans up with t.Cleanup.
//
// It checks what exactly once stands on (rule R17): what is visible and what the ledger lists are
// the same at every moment that a crash can leave behind, an older writer is shut out, and a ledger
// with a hole is never believed.
func RunLedger(t *testing.T, open func(t *testing.T) LedgerSubject) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s LedgerSubject)
	}{
		{"before recover", ledgerBeforeRecover},
		{"lists", ledgerLists},
		{"after", ledgerAfter},
		{"numbers", ledgerNumbers},
		{"fences", ledgerFences},
		{"forgets", ledgerForgets},
		{"holes", ledgerHoles},
		{"apply fails", ledgerApplyFails},
		{"crashes", ledgerCrashes},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// entry is what a ledger told.
type entry struct {
	number uint64
	done   []broker.Done
}

// recover opens a sink and reads its ledger, which must have no hole.
func (s LedgerSubject) recover(t *testing.T, after uint64) (ExactSink, []entry) {
	t.Helper()
	sink := s.Open(t)
	entries, err := read(t, sink, after)
	require.NoError(t, err)
	last := after
	for _, e := range entries {
		require.Greater(t, e.number, last, "entries come in order")
		last = e.number
	}
	require.GreaterOrEqual(t, sink.Last(), last)
	return sink, entries
}

func read(t *testing.T, sink ExactSink, after uint64) (entries []entry, err error) {
	t.Helper()
	err = sink.Recover(t.Context(), after, func(n uint64, done []broker.Done) error {
		entries = append(entries, entry{n, slices.Clone(done)})
		return nil
	})
	return entries, err
}

// batch is n messages whose ids begin with prefix.
func (s LedgerSubject) batch(prefix string, n int) ([]broker.Delivery, []broker.Result) {
	batch, results := Subject{Target: s.Target}.newBatch(prefix, n)
	for i := range batch {
		batch[i].Generation = uint32(i%3 + 1)
	}
	return batch, results
}

// deliver delivers n messages, all of which must arrive.
func (s LedgerSubject) deliver(t *testing.T, sink ExactSink, prefix string, n int) []broker.Done {
	t.Helper()
	batch, results := s.batch(prefix, n)
	Subject{Sink: sink}.deliver(t, batch, results)
	done := make([]broker.Done, n)
	for i, r := range results {
		require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
		done[i] = broker.Done{ID: batch[i].ID, Generation: batch[i].Generation}
	}
	return done
}

// listed is all that entries list, and fails when something is listed twice.
func listed(t *testing.T, entries []entry) []broker.Done {
	t.Helper()
	var all []broker.Done
	for _, e := range entries {
		all = append(all, e.done...)
	}
	sortDone(all)
	require.Len(t, slices.Compact(slices.Clone(all)), len(all), "something is listed twice")
	return all
}

func sortDone(all []broker.Done) {
	slices.SortFunc(all, func(a, b broker.Done) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Generation, b.Generation))
	})
}

// sameAsVisible says that the ledger lists what consumers see, each once.
func (s LedgerSubject) sameAsVisible(t *testing.T, entries []entry) {
	t.Helper()
	visible := s.Visible(t)
	sortDone(visible)
	require.Equal(t, listed(t, entries), visible)
}

// A sink that did not read its ledger does not know what it delivered (R17).
func ledgerBeforeRecover(t *testing.T, s LedgerSubject) {
	sink := s.Open(t)
	batch, results := s.batch("early-", 3)
	Subject{Sink: sink}.deliver(t, batch, results)
	for _, r := range results {
		require.NotEqual(t, broker.Delivered, r.Outcome)
	}
	require.NoError(t, sink.Close())
	require.Empty(t, s.Visible(t))
}

// What was delivered must be in the ledger of the next start, with its generation.
func ledgerLists(t *testing.T, s LedgerSubject) {
	sink, entries := s.recover(t, 0)
	require.Empty(t, entries)
	require.Zero(t, sink.Last())
	var want []broker.Done
	for i, n := range []int{1, 7, 100} {
		want = append(want, s.deliver(t, sink, fmt.Sprint("lists", i, "-"), n)...)
	}
	require.NoError(t, sink.Close())
	sink, entries = s.recover(t, 0)
	require.NoError(t, sink.Close())
	sortDone(want)
	require.Equal(t, want, listed(t, entries))
	s.sameAsVisible(t, entries)
}

// A manifest covers the first entries: only the others are told, and numbers go on behind them.
func ledgerAfter(t *testing.T, s LedgerSubject) {
	sink, _ := s.recover(t, 0)
	s.deliver(t, sink, "covered-", 5)
	covered := sink.Last()
	want := s.deliver(t, sink, "later-", 5)
	require.NoError(t, sink.Close())
	sink, entries := s.recover(t, covered)
	sortDone(want)
	require.Equal(t, want, listed(t, entries))
	last := sink.Last()
	s.deliver(t, sink, "last-", 1)
	require.Greater(t, sink.Last(), last)
	require.NoError(t, sink.Close())
	sink, entries = s.recover(t, last)
	require.NoError(t, sink.Close())
	require.NotEmpty(t, entries)
}

// A manifest that covers up to Last must cover what was delivered before it asked, and nothing that
// begins later: else a batch is forgotten, or told twice.
func ledgerNumbers(t *testing.T, s LedgerSubject) {
	sink, _ := s.recover(t, 0)
	byPrefix := map[string]uint64{}
	for i := range 10 {
		before := sink.Last()
		prefix := fmt.Sprint("numbers", i, "-")
		s.deliver(t, sink, prefix, 3)
		require.Greater(t, sink.Last(), before)
		byPrefix[prefix] = before
	}
	require.NoError(t, sink.Close())
	sink, entries := s.recover(t, 0)
	require.NoError(t, sink.Close())
	for _, e := range entries {
		for _, d := range e.done {
			for prefix, before := range byPrefix {
				if len(d.ID) == len(prefix)+1 && string(d.ID[:len(prefix)]) == prefix {
					require.Greater(t, e.number, before, "%s", d.ID)
				}
			}
		}
	}
}

// The older of two writers must not make anything visible any more, whatever it believes (R17).
func ledgerFences(t *testing.T, s LedgerSubject) {
	old, _ := s.recover(t, 0)
	s.deliver(t, old, "old-", 2)
	heir, entries := s.recover(t, 0)
	require.Len(t, listed(t, entries), 2)
	batch, results := s.batch("zombie-", 3)
	Subject{Sink: old}.deliver(t, batch, results)
	for _, r := range results {
		require.NotEqual(t, broker.Delivered, r.Outcome)
	}
	s.deliver(t, heir, "heir-", 2)
	require.NoError(t, old.Close())
	require.NoError(t, heir.Close())
	sink, entries := s.recover(t, 0)
	require.NoError(t, sink.Close())
	require.Len(t, listed(t, entries), 4)
	s.sameAsVisible(t, entries)
}

// What was forgotten is not asked for again, and the rest stays; if it is asked for, an answer with
// a hole would look like messages that were never delivered.
func ledgerForgets(t *testing.T, s LedgerSubject) {
	sink, _ := s.recover(t, 0)
	for i := range 4 {
		s.deliver(t, sink, fmt.Sprint("forget", i, "-"), 2)
	}
	covered := sink.Last()
	s.deliver(t, sink, "kept-", 4)
	require.NoError(t, sink.Forget(t.Context(), covered))
	s.deliver(t, sink, "behind-", 2) // it may carry the removal
	end := sink.Last()
	require.NoError(t, sink.Close())

	sink, entries := s.recover(t, covered)
	require.Len(t, listed(t, entries), 6)
	require.NoError(t, sink.Forget(t.Context(), end))
	s.deliver(t, sink, "final-", 1)
	require.NoError(t, sink.Close())
	sink, entries = s.recover(t, end)
	require.Len(t, listed(t, entries), 1)
	require.NoError(t, sink.Close())

	sink = s.Open(t)
	if entries, err := read(t, sink, 0); err != nil {
		require.ErrorIs(t, err, delay.ErrCorrupt)
	} else {
		require.Len(t, listed(t, entries), 15, "it was not removed yet, and nothing of it was")
	}
	require.NoError(t, sink.Close())
}

// Behind a hole nobody knows what was delivered (R17).
func ledgerHoles(t *testing.T, s LedgerSubject) {
	if s.Drop == nil {
		t.Skip("entries cannot be removed")
	}
	sink, _ := s.recover(t, 0)
	for i := range 4 {
		s.deliver(t, sink, fmt.Sprint("hole", i, "-"), 2)
	}
	require.NoError(t, sink.Close())
	sink, entries := s.recover(t, 0)
	require.NoError(t, sink.Close())
	hole := entries[len(entries)-2].number
	s.Drop(t, hole)

	sink = s.Open(t)
	_, err := read(t, sink, 0)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	batch, results := s.batch("after-hole-", 2)
	Subject{Sink: sink}.deliver(t, batch, results)
	for _, r := range results {
		require.NotEqual(t, broker.Delivered, r.Outcome)
	}
	require.NoError(t, sink.Close())
	sink, _ = s.recover(t, hole) // the manifest covers it
	require.NoError(t, sink.Close())
}

// An entry that could not be applied is told again: passing over it delivers its messages twice.
func ledgerApplyFails(t *testing.T, s LedgerSubject) {
	sink, _ := s.recover(t, 0)
	s.deliver(t, sink, "apply-", 2)
	require.NoError(t, sink.Close())

	sink = s.Open(t)
	err := sink.Recover(t.Context(), 0, func(uint64, []broker.Done) error {
		return delay.ErrDiskFull
	})
	require.ErrorIs(t, err, delay.ErrDiskFull)
	batch, results := s.batch("unapplied-", 1)
	Subject{Sink: sink}.deliver(t, batch, results)
	require.NotEqual(t, broker.Delivered, results[0].Outcome)
	entries, err := read(t, sink, 0)
	require.NoError(t, err, "it is called again until it succeeds")
	require.Len(t, listed(t, entries), 2)
	require.NoError(t, sink.Close())
}

// A process may die at any moment of a delivery: what its heir is told must be what is visible,
// with everything that was reported, and what is not in it is delivered again (R17).
func ledgerCrashes(t *testing.T, s LedgerSubject) {
	if s.Crash == nil {
		t.Skip("a sink cannot crash")
	}
	const rounds, lanes = 12, 3
	reported := map[broker.Done]bool{}
	var entries []entry
	for round := range rounds {
		sink, found := s.recover(t, 0)
		entries = found
		known := map[broker.Done]bool{}
		for _, d := range listed(t, entries) {
			known[d] = true
		}
		for d := range reported {
			require.True(t, known[d], "%v was reported and is not in the ledger", d)
		}
		s.sameAsVisible(t, entries)

		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		batches, results := [lanes][]broker.Delivery{}, [lanes][]broker.Result{}
		for lane := range lanes {
			batches[lane], results[lane] = s.batch(fmt.Sprint("crash", round, "-", lane, "-"), 10)
			wg.Go(func() { sink.Deliver(ctx, batches[lane], results[lane]) })
		}
		select {
		case <-time.After(time.Duration(round) * 4 * time.Millisecond):
		case <-t.Context().Done():
		}
		s.Crash(t, sink)
		cancel()
		wg.Wait()
		_ = sink.Close()
		for lane := range lanes {
			for i, r := range results[lane] {
				d := &batches[lane][i]
				if r.Outcome == broker.Delivered {
					reported[broker.Done{ID: d.ID, Generation: d.Generation}] = true
				}
			}
		}
	}
	sink, entries := s.recover(t, 0)
	require.NoError(t, sink.Close())
	s.sameAsVisible(t, entries)
}
