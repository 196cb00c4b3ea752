// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps the promise of a sink that delivers exactly once (rule R17): what its ledger
// lists is never sent again, and the ledger is told how much of it may be forgotten.
//
//	Run: Recover from the stored position --> found: listed, and not settled here
//	Deliver: in found? Delivered, unsent : handed to the sink --> unknown? held : settled
//	every second: nothing under way, found or held below n --sync--> position n --covered--> Forget
//
// # Invariants
//
//	G1  Before the ledger was read nothing is sent: what an earlier process sent is not known.
//	G2  The position passes an entry when the outcomes of all it lists are synced. Those of the calls
//	    under way, of answers that got lost and of what is found hold it.
//	G3  An id that is listed and that nobody knows is remembered as delivered, before the position
//	    passes it: a source that brings it again finds it so.
//	G4  A gap in the ledger ends the shard: what it listed may have been sent.
//
// # Concurrency
//
// Run is called once. Deliver and what it returns are safe for concurrent use.
//
// # Failure
//
// A crash at any line is answered by reading the ledger from the stored position again: everything
// above it is found once more, whether it was settled here or not.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

const (
	settleEvery  = time.Second
	recoverRetry = 500 * time.Millisecond // doubled up to
	recoverMost  = 15 * time.Second
)

// NotReady is the pause of what is due before the ledger was read.
const NotReady = time.Second

// Sink is what a Keeper needs of its sink.
type Sink interface {
	broker.Sink
	broker.Ledger
}

// Config is what a Keeper works with. All but Restored must be set.
type Config struct {
	Name string // of the position: "ledger:kafka:main"
	Sink Sink
	Log  *zap.Logger
	// Restored says that the disk was lost: what the ledger lists may be unheard of.
	Restored bool
	// Read is the stored position, Covered that which the bucket stands for.
	Read, Covered func(name string) (int64, bool)
	Fate          func(broker.Done) Fate
	// Sync returns when the outcomes that the core was told of are on the disk.
	Sync func(context.Context) error
	// Note stores a position above 0, and of unheard ids that they were delivered. It sets known for
	// those that have become known meanwhile, and returns after the sync.
	Note func(next int64, unheard []broker.Done, known []bool) error
}

// Keepers are the keepers of a shard, by the kind and name of their brokers: "kafka:main".
type Keepers map[string]*Keeper

// Of is the keeper of a target's broker, or nil.
func (k Keepers) Of(t delay.Target) *Keeper {
	prefix, _, _ := strings.Cut(string(t), "/")
	return k[prefix]
}

// Keeper is the shard's side of one ledger.
type Keeper struct {
	c     Config
	ready atomic.Bool
	heard atomic.Bool
	noted uint64 // the position
	told  uint64 // what the ledger may forget

	mu struct {
		sync.Mutex
		found map[broker.Done]uint64 // listed, with the entry, and not settled here
		held  map[broker.Done]uint64 // unknown outcomes: their entry is above it, if there is one
		calls map[*call]struct{}
	}
}

// call is a Deliver under way: its entries are above base.
type call struct{ base uint64 }

// New makes a Keeper.
func New(c Config) *Keeper {
	k := &Keeper{c: c}
	k.mu.held, k.mu.calls = make(map[broker.Done]uint64), make(map[*call]struct{})
	return k
}

// Run reads the ledger and then moves its position on, until ctx is done. An error ends the shard:
// delay.ErrFenced, another process delivers now; delay.ErrCorrupt, the ledger has a gap.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.recover(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := k.Settle(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, delay.ErrClosed):
			return nil
		case errors.Is(err, delay.ErrFenced):
			return err
		case err != nil:
			k.c.Log.Debug("position of the ledger stays", zap.Error(err))
		}
	}
}

// recover reads the ledger, again until it succeeds (G1).
func (k *Keeper) recover(ctx context.Context) error {
	if next, ok := k.c.Read(k.c.Name); ok {
		k.noted = uint64(next)
	}
	for pause := recoverRetry; ; pause = min(2*pause, recoverMost) {
		found := make(map[broker.Done]uint64)
		err := k.c.Sink.Recover(ctx, k.noted, func(entry uint64, done []broker.Done) error {
			for _, d := range done {
				found[broker.Done{ID: clone(d.ID), Generation: d.Generation}] = entry
			}
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the shard ends
		case err == nil:
			k.c.Log.Info("ledger read", zap.Uint64("after", k.noted), zap.Int("found", len(found)))
			k.mu.Lock()
			k.mu.found = found // and from here on not this function's
			k.mu.Unlock()
			k.ready.Store(true)
			return nil
		case errors.Is(err, delay.ErrCorrupt) && !planted.Is(planted.LedgerGapPassed),
			errors.Is(err, delay.ErrFenced):
			return fmt.Errorf("read the ledger of %s: %w", k.c.Name, err) // G4
		}
		k.c.Log.Warn("ledger not read, nothing is delivered exactly once until it is", zap.Error(err))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func clone(id delay.ID) delay.ID { return delay.ID(strings.Clone(string(id))) }

// Ready reports whether the ledger was read: before, nothing is sent (G1).
func (k *Keeper) Ready() bool { return k.ready.Load() || planted.Is(planted.LedgerUnread) }

// Deliver makes one attempt at each of batch, as broker.Sink. end must be called when the core was
// told of the results, with batch and results as they are.
func (k *Keeper) Deliver(
	ctx context.Context, batch []broker.Delivery, results []broker.Result,
) (end func()) {
	if !k.Ready() {
		for i := range results {
			results[i] = broker.Result{
				Outcome: broker.Retry, Reason: "the ledger is being read", RetryAfter: NotReady,
			}
		}
		return func() {}
	}
	c := &call{} // with base 0 it holds everything
	var rest []broker.Delivery
	var at []int
	k.mu.Lock()
	k.mu.calls[c] = struct{}{}
	none := len(k.mu.found) == 0 // as nearly always
	for i := range batch {
		if none {
			break
		}
		if _, is := k.mu.found[doneOf(&batch[i])]; is && !planted.Is(planted.FoundSentAgain) {
			results[i].Outcome = broker.Delivered
			continue
		}
		rest, at = append(rest, batch[i]), append(at, i)
	}
	k.mu.Unlock()
	base := k.c.Sink.Last()
	k.mu.Lock()
	c.base = base
	k.mu.Unlock()
	switch {
	case none, len(rest) == len(batch):
		k.c.Sink.Deliver(ctx, batch, results)
	case len(rest) > 0:
		some := make([]broker.Result, len(rest))
		k.c.Sink.Deliver(ctx, rest, some)
		for n, i := range at {
			results[i] = some[n]
		}
	}
	return func() { k.end(c, batch, results) }
}

func doneOf(d *broker.Delivery) broker.Done {
	return broker.Done{ID: d.ID, Generation: d.Generation}
}

// end lets go of what has an outcome, and holds what has none (G2).
func (k *Keeper) end(c *call, batch []broker.Delivery, results []broker.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.mu.calls, c)
	for i := range batch {
		d := doneOf(&batch[i])
		if results[i].Outcome != broker.Unknown {
			delete(k.mu.held, d)
			delete(k.mu.found, d)
		} else if _, is := k.mu.held[d]; !is && !planted.Is(planted.UnknownLetGo) {
			d.ID = clone(d.ID)
			k.mu.held[d] = c.base
		}
	}
}

// Heard reports whether everything that was found is known here, so that what is brought again is
// found delivered, and a cancel of it comes too late. On a disk that was not lost it always is.
func (k *Keeper) Heard() bool {
	return !k.c.Restored || k.heard.Load() || planted.Is(planted.UnheardTaken)
}

// Settle moves the position as far as it can. Run calls it.
func (k *Keeper) Settle(ctx context.Context) error {
	if err := k.sort(); err != nil {
		return err
	}
	if n := k.position(); n > k.noted {
		if err := k.c.Sync(ctx); err != nil {
			return err
		}
		if err := k.c.Note(int64(n), nil, nil); err != nil {
			return err
		}
		k.noted = n
	}
	covered, ok := k.c.Covered(k.c.Name)
	if n := uint64(covered); ok && n > k.told {
		if err := k.c.Sink.Forget(ctx, n); err != nil {
			return fmt.Errorf("forget entries of the ledger: %w", err)
		}
		k.told = n
	}
	return nil
}

// position is the entry up to which nothing is open.
func (k *Keeper) position() uint64 {
	n := k.c.Sink.Last() // before the calls are looked at: those that begin later are above it
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.mu.calls {
		n = min(n, c.base)
	}
	for _, base := range k.mu.held {
		n = min(n, base)
	}
	for _, entry := range k.mu.found {
		n = min(n, entry-1)
	}
	return n
}

// sort lets go of what is settled and remembers what nobody knows (G3).
func (k *Keeper) sort() error {
	k.mu.Lock()
	open := make([]broker.Done, 0, len(k.mu.found)+len(k.mu.held))
	for d := range k.mu.found {
		open = append(open, d)
	}
	listed := len(open)
	for d := range k.mu.held {
		open = append(open, d)
	}
	k.mu.Unlock()
	var over, unheard []broker.Done
	doubt := false
	for i, d := range open {
		switch k.c.Fate(d) {
		case Settled:
			over = append(over, d)
		case Unheard:
			if i < listed {
				unheard = append(unheard, d)
			} else {
				over = append(over, d)
			}
		case Doubtful:
			doubt = true
		case Pending:
		}
	}
	if len(unheard) > 0 && !planted.Is(planted.UnheardForgotten) {
		known := make([]bool, len(unheard))
		if err := k.c.Note(0, unheard, known); err != nil {
			return err
		}
		for i, d := range unheard {
			if !known[i] {
				over = append(over, d)
			}
		}
	}
	if !doubt {
		k.heard.Store(true)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range over {
		delete(k.mu.found, d)
		delete(k.mu.held, d)
	}
	return nil
}
