// SPDX-License-Identifier: Apache-2.0

// Package ledger counts what the local store holds: messages and bytes for each slot of the
// future, for each lane of parked rows, and in sum. It is pure: the store writes its deltas and
// absolute counts, and reads them back.
//
// A batch changes the ledger by a Delta. Absorbing all deltas in order gives the counts; so does
// loading absolute counts and absorbing the deltas above their batch.
//
// One goroutine at a time may change a Ledger; anyone may read it at any time.
package ledger

import (
	"maps"
	"slices"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// SlotTally is the content of one slot.
type SlotTally struct{ Warm, Cold Tally }

// Lane is the parked rows of one lane.
type Lane struct {
	Lane uint64
	Tally
}

// Ledger is the counts of one store.
type Ledger struct {
	mu    sync.RWMutex
	slots map[uint32]SlotTally
	lanes map[uint64]Tally
	sum   Counts
	base  Base // Dead and TimerLow are not kept up to date: see sum and the store

	// Changed since TakeDirty; only who changes the ledger looks.
	dirtySlots map[uint32]struct{}
	dirtyLanes map[uint64]struct{}
}

// Base is what the ledger holds beside slots and lanes.
type Base struct {
	Batch   uint64    // number of the last batch
	LastSeq delay.Seq // highest of any row ever
	// TimerLow is an instant below which there are no timers; the ledger only carries it.
	TimerLow delay.Due
	Dead     int64
}

// New is an empty ledger.
func New() *Ledger {
	return &Ledger{
		slots: map[uint32]SlotTally{}, lanes: map[uint64]Tally{},
		dirtySlots: map[uint32]struct{}{}, dirtyLanes: map[uint64]struct{}{},
	}
}

// Load sets absolute counts, as read back.
func (l *Ledger) Load(b Base, slots map[uint32]SlotTally, lanes map[uint64]Tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base, l.slots, l.lanes = b, slots, lanes
	l.sum = Counts{Dead: b.Dead}
	for _, t := range slots {
		l.sum.Warm.Add(t.Warm)
		l.sum.Cold.Add(t.Cold)
	}
	for _, t := range lanes {
		l.sum.Parked += t.Messages
	}
}

// Absorb applies the changes of the next batch.
func (l *Ledger) Absorb(d *Delta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base.Batch = d.Batch
	l.base.LastSeq = max(l.base.LastSeq, d.LastSeq)
	l.base.TimerLow = min(l.base.TimerLow, d.TimerMin)
	l.sum.Dead += d.Dead
	for i := range d.slots {
		c := &d.slots[i]
		t := l.slots[c.slot]
		t.Warm.Add(c.Warm)
		t.Cold.Add(c.Cold)
		l.sum.Warm.Add(c.Warm)
		l.sum.Cold.Add(c.Cold)
		l.dirtySlots[c.slot] = struct{}{}
		if t == (SlotTally{}) {
			delete(l.slots, c.slot)
		} else {
			l.slots[c.slot] = t
		}
	}
	for _, c := range d.lanes {
		t := l.lanes[c.Lane]
		t.Add(c.Tally)
		l.sum.Parked += c.Messages
		l.dirtyLanes[c.Lane] = struct{}{}
		if t == (Tally{}) {
			delete(l.lanes, c.Lane)
		} else {
			l.lanes[c.Lane] = t
		}
	}
}

// TakeDirty calls the functions for every slot and lane that changed since the last time, in order;
// zero tallies are of those that emptied.
func (l *Ledger) TakeDirty(slot func(uint32, SlotTally), lane func(uint64, Tally)) {
	for _, n := range slices.Sorted(maps.Keys(l.dirtySlots)) {
		slot(n, l.slots[n])
	}
	for _, n := range slices.Sorted(maps.Keys(l.dirtyLanes)) {
		lane(n, l.lanes[n])
	}
	clear(l.dirtySlots)
	clear(l.dirtyLanes)
}

// Base is what the ledger holds beside slots and lanes, as of the last batch.
func (l *Ledger) Base() Base {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := l.base
	b.Dead = l.sum.Dead
	return b
}

// Counts are the sums.
func (l *Ledger) Counts() Counts {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sum
}

// Lanes is a copy of the lanes that have parked rows, in order.
func (l *Ledger) Lanes() []Lane {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]Lane, 0, len(l.lanes))
	for _, n := range slices.Sorted(maps.Keys(l.lanes)) {
		out = append(out, Lane{n, l.lanes[n]})
	}
	return out
}

// Copy is a copy of everything that is counted.
func (l *Ledger) Copy() (map[uint32]SlotTally, map[uint64]Tally, Counts) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.slots), maps.Clone(l.lanes), l.sum
}
