// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
	"github.com/cicadamq/cicada/localstore/ledger"
)

// The words of the packages below, as users of the store know them.
type (
	// Tally counts messages and bytes.
	Tally = ledger.Tally
	// Slot is what one stretch of the future holds.
	Slot = ledger.Slot
	// Counts sums the slots, and counts what has left them.
	Counts = ledger.Counts
	// Meta is what the shard must find again.
	Meta = codec.Meta
	// IDRecord is what is remembered of an id.
	IDRecord = codec.IDRecord
	// Lease is one pull.
	Lease = codec.Lease
	// LeaseEntry is one leased message.
	LeaseEntry = codec.LeaseEntry
	// TargetState is what is durable of a lane.
	TargetState = codec.TargetState
)

// ringSize is how many batches apart the absolute counts are written, and how many deltas may be
// read at open (invariant L3).
const ringSize = 256

// writeLedger puts into b what the ledger needs after a crash (invariant L3): the delta, or every
// 256th time the absolute counts. The caller has the turn and the ledger has absorbed the delta.
func (s *Store) writeLedger(b *Batch) {
	if b.delta.Batch%ringSize != 0 {
		b.scratch = ledger.AppendDelta(b.scratch[:0], &b.delta)
		b.set(s.deltaKey(b.delta.Batch), b.scratch)
		return
	}
	s.ledger.TakeDirty(func(n uint32, t ledger.SlotTally) {
		if t == (ledger.SlotTally{}) {
			b.delete(s.slotKey(n))
			return
		}
		b.set(s.slotKey(n), ledger.AppendSlot(nil, t))
	}, func(lane uint64, t Tally) {
		if t == (Tally{}) {
			b.delete(s.laneKey(lane))
			return
		}
		b.set(s.laneKey(lane), ledger.AppendLane(nil, t))
	})
	base := s.ledger.Base()
	base.TimerLow = s.timers.Low()
	b.set(s.ledgerKey(ledgerBase), ledger.AppendBase(nil, base))
}

// loadLedger reads the ledger back: the absolute counts, then the deltas above their batch. A gap
// between these is damage.
func (s *Store) loadLedger() error {
	var base ledger.Base
	v, ok, err := s.get(s.ledgerKey(ledgerBase))
	if err == nil && ok {
		base, err = ledger.DecodeBase(v)
	}
	if err != nil {
		return err
	}
	slots, lanes := map[uint32]ledger.SlotTally{}, map[uint64]Tally{}
	if err := s.loadSlots(slots); err != nil {
		return err
	}
	if err := s.loadLanes(lanes); err != nil {
		return err
	}
	deltas, err := s.loadDeltas(base.Batch)
	if err != nil {
		return err
	}
	s.ledger.Load(base, slots, lanes)
	for i := range deltas {
		if want := base.Batch + uint64(i) + 1; deltas[i].Batch != want {
			return fmt.Errorf("%w: ledger: batch %d follows %d", delay.ErrCorrupt,
				deltas[i].Batch, want-1)
		}
		s.ledger.Absorb(&deltas[i])
	}
	return nil
}

// loadDeltas reads the ring: the deltas above batch, in order.
func (s *Store) loadDeltas(batch uint64) ([]ledger.Delta, error) {
	var out []ledger.Delta
	err := s.scan(s.ledgerKey(ledgerDelta), nil, func(_, v []byte) (bool, error) {
		d, err := ledger.DecodeDelta(v)
		if err == nil && d.Batch > batch {
			out = append(out, d)
		}
		return true, err
	})
	slices.SortFunc(out, func(a, b ledger.Delta) int { return cmp.Compare(a.Batch, b.Batch) })
	return out, err
}

func (s *Store) loadSlots(slots map[uint32]ledger.SlotTally) error {
	prefix := s.ledgerKey(ledgerSlot)
	return s.scan(prefix, nil, func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+4 {
			return false, badKey(k)
		}
		t, err := ledger.DecodeSlot(v)
		slots[binary.BigEndian.Uint32(k[len(prefix):])] = t
		return true, err
	})
}

func (s *Store) loadLanes(lanes map[uint64]Tally) error {
	prefix := s.ledgerKey(ledgerLane)
	return s.scan(prefix, nil, func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+laneLen {
			return false, badKey(k)
		}
		t, err := ledger.DecodeLane(v)
		lanes[binary.BigEndian.Uint64(k[len(prefix):])] = t
		return true, err
	})
}

// Slots calls fn for every slot that holds messages, in the order of time, until it returns false.
// Slots are hours until 2050, days until 2150, then years. It sees one state between two batches.
func (s *Store) Slots(fn func(Slot) bool) {
	for _, slot := range s.ledger.Slots() {
		if !fn(slot) {
			return
		}
	}
}

// SlotOf is the stretch of the slot that counts messages of the given due.
func SlotOf(due delay.Due) (from delay.Due, width time.Duration) {
	return ledger.Span(ledger.SlotOf(due))
}

// Counts is how much the store holds, as of the last applied batch.
func (s *Store) Counts() Counts { return s.ledger.Counts() }

// LastSeq is the highest seq ever put in a row, parked or not, as of the last applied batch
// (invariant L4).
func (s *Store) LastSeq() delay.Seq { return s.ledger.Base().LastSeq }
