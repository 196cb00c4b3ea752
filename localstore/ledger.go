// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// ringSize is how many batches apart the absolute counts are written, and how many deltas may be
// read at open (invariant L3).
const ringSize = 256

// noTimer is above the instant of every timer.
const noTimer = delay.Due(math.MaxInt64)

// ledger holds what the store counts. Only the owner of the turn changes it; anyone may read it
// under mu.
type ledger struct {
	mu    sync.RWMutex
	slots map[uint32]slotTally
	lanes map[uint64]Tally
	sum   Counts
	meta  Meta
	books delay.Books

	lastSeq  delay.Seq
	batch    uint64    // number of the last batch
	timerLow delay.Due // as read at open; later timerFloor has it

	// Changed since the last absolute counts; only the owner of the turn looks.
	dirtySlots map[uint32]struct{}
	dirtyLanes map[uint64]struct{}
}

func newLedger() *ledger {
	return &ledger{
		slots: map[uint32]slotTally{}, lanes: map[uint64]Tally{},
		dirtySlots: map[uint32]struct{}{}, dirtyLanes: map[uint64]struct{}{},
	}
}

// delta is what one batch changes in the ledger.
type delta struct {
	batch    uint64
	lastSeq  delay.Seq // of the store, as of this batch
	timerMin delay.Due // earliest timer put, or noTimer
	dead     int64
	slots    []slotDelta
	lanes    []laneDelta

	// Where each slot is in slots; last caches the one that was used last.
	at   map[uint32]int
	last int
}

type slotDelta struct {
	slot uint32
	slotTally
}

type laneDelta struct {
	lane uint64
	Tally
}

func (d *delta) reset() {
	d.batch, d.lastSeq, d.timerMin, d.dead, d.last = 0, 0, noTimer, 0, 0
	d.slots, d.lanes = d.slots[:0], d.lanes[:0]
	if d.at == nil {
		d.at = make(map[uint32]int)
	}
	clear(d.at)
}

// slot finds or adds the change of the slot that holds due.
func (d *delta) slot(due delay.Due) *slotTally {
	n := slotOf(due)
	if d.last < len(d.slots) && d.slots[d.last].slot == n {
		return &d.slots[d.last].slotTally
	}
	i, ok := d.at[n]
	if !ok {
		i = len(d.slots)
		d.at[n] = i
		d.slots = append(d.slots, slotDelta{slot: n})
	}
	d.last = i
	return &d.slots[i].slotTally
}

// lane adds to the change of a lane. Few lanes are parked in one batch.
func (d *delta) lane(lane uint64, t Tally) {
	for i := range d.lanes {
		if d.lanes[i].lane == lane {
			d.lanes[i].add(t)
			return
		}
	}
	d.lanes = append(d.lanes, laneDelta{lane, t})
}

func appendTally(dst []byte, t Tally) []byte {
	return binary.AppendVarint(binary.AppendVarint(dst, t.Messages), t.Bytes)
}

func (r *reader) tally() Tally { return Tally{r.varint(), r.varint()} }

func appendDelta(dst []byte, d *delta) []byte {
	dst = append(dst, valueVersion)
	dst = binary.AppendUvarint(dst, d.batch)
	dst = binary.AppendUvarint(dst, uint64(d.lastSeq))
	dst = binary.AppendUvarint(dst, uint64(d.timerMin))
	dst = binary.AppendVarint(dst, d.dead)
	dst = binary.AppendUvarint(dst, uint64(len(d.slots)))
	for i := range d.slots {
		dst = binary.AppendUvarint(dst, uint64(d.slots[i].slot))
		dst = appendTally(appendTally(dst, d.slots[i].warm), d.slots[i].cold)
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.lanes)))
	for _, l := range d.lanes {
		dst = appendTally(binary.BigEndian.AppendUint64(dst, l.lane), l.Tally)
	}
	return dst
}

// The lengths of the shortest encoded changes bound what a damaged count may allocate.
const (
	slotDeltaMin = 5
	laneDeltaMin = 10
)

func decodeDelta(b []byte) (delta, error) {
	r := reader{b: b, what: "ledger delta"}
	r.version()
	d := delta{batch: r.uvarint(), lastSeq: delay.Seq(r.uvarint())}
	d.timerMin = delay.Due(r.bounded(math.MaxInt64))
	d.dead = r.varint()
	for range r.bounded(uint64(len(b)-r.at) / slotDeltaMin) {
		c := slotDelta{slot: uint32(r.bounded(math.MaxUint32))}
		c.warm, c.cold = r.tally(), r.tally()
		d.slots = append(d.slots, c)
	}
	for range r.bounded(uint64(len(b)-r.at) / laneDeltaMin) {
		d.lanes = append(d.lanes, laneDelta{r.uint64(), r.tally()})
	}
	return d, r.end()
}

// base is the rest of the absolute state, next to the slots and lanes.
type base struct {
	batch    uint64
	lastSeq  delay.Seq
	timerLow delay.Due
	dead     int64
}

func appendBase(dst []byte, b base) []byte {
	dst = append(dst, valueVersion)
	dst = binary.AppendUvarint(dst, b.batch)
	dst = binary.AppendUvarint(dst, uint64(b.lastSeq))
	dst = binary.AppendUvarint(dst, uint64(b.timerLow))
	return binary.AppendVarint(dst, b.dead)
}

func decodeBase(v []byte) (base, error) {
	r := reader{b: v, what: "ledger base"}
	r.version()
	b := base{batch: r.uvarint(), lastSeq: delay.Seq(r.uvarint())}
	b.timerLow = delay.Due(r.bounded(math.MaxInt64))
	b.dead = r.varint()
	return b, r.end()
}

func appendSlot(dst []byte, t slotTally) []byte {
	return appendTally(appendTally(append(dst, valueVersion), t.warm), t.cold)
}

func decodeSlot(v []byte) (slotTally, error) {
	r := reader{b: v, what: "ledger slot"}
	r.version()
	t := slotTally{warm: r.tally(), cold: r.tally()}
	return t, r.end()
}

func appendLane(dst []byte, t Tally) []byte { return appendTally(append(dst, valueVersion), t) }

func decodeLane(v []byte) (Tally, error) {
	r := reader{b: v, what: "ledger lane"}
	r.version()
	t := r.tally()
	return t, r.end()
}

// absorb applies the changes of a batch. The caller has the turn.
func (l *ledger) absorb(d *delta) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = d.batch
	l.lastSeq = max(l.lastSeq, d.lastSeq)
	l.timerLow = min(l.timerLow, d.timerMin)
	l.sum.Dead += d.dead
	for i := range d.slots {
		c := &d.slots[i]
		t := l.slots[c.slot]
		t.warm.add(c.warm)
		t.cold.add(c.cold)
		l.sum.Warm.add(c.warm)
		l.sum.Cold.add(c.cold)
		l.dirtySlots[c.slot] = struct{}{}
		if t == (slotTally{}) {
			delete(l.slots, c.slot)
		} else {
			l.slots[c.slot] = t
		}
	}
	for _, c := range d.lanes {
		t := l.lanes[c.lane]
		t.add(c.Tally)
		l.sum.Parked += c.Messages
		l.dirtyLanes[c.lane] = struct{}{}
		if t == (Tally{}) {
			delete(l.lanes, c.lane)
		} else {
			l.lanes[c.lane] = t
		}
	}
}

// writeLedger puts into b what the ledger needs after a crash (invariant L3): the delta, or every
// 256th time the absolute counts. The caller has the turn and has absorbed the delta.
func (s *Store) writeLedger(b *Batch) {
	l := s.ledger
	if b.delta.batch%ringSize != 0 {
		b.scratch = appendDelta(b.scratch[:0], &b.delta)
		b.set(s.deltaKey(b.delta.batch), b.scratch)
		return
	}
	for _, n := range slices.Sorted(maps.Keys(l.dirtySlots)) {
		if t, ok := l.slots[n]; ok {
			b.set(s.slotKey(n), appendSlot(nil, t))
		} else {
			b.delete(s.slotKey(n))
		}
	}
	for _, lane := range slices.Sorted(maps.Keys(l.dirtyLanes)) {
		if t, ok := l.lanes[lane]; ok {
			b.set(s.laneKey(lane), appendLane(nil, t))
		} else {
			b.delete(s.laneKey(lane))
		}
	}
	clear(l.dirtySlots)
	clear(l.dirtyLanes)
	b.set(s.ledgerKey(ledgerBase), appendBase(nil, base{
		batch: l.batch, lastSeq: l.lastSeq, timerLow: s.timers.floor(), dead: l.sum.Dead,
	}))
}

// loadLedger reads the ledger back. The absolute counts come first, then the deltas above their
// batch; a gap between them is damage.
func (s *Store) loadLedger() error {
	l := s.ledger
	b, err := s.loadBase()
	if err != nil {
		return err
	}
	l.batch, l.lastSeq, l.timerLow, l.sum.Dead = b.batch, b.lastSeq, b.timerLow, b.dead
	deltas, err := s.loadDeltas(b.batch)
	if err != nil {
		return err
	}
	if err := s.loadSlots(); err != nil {
		return err
	}
	for i := range deltas {
		if want := b.batch + uint64(i) + 1; deltas[i].batch != want {
			return fmt.Errorf("%w: ledger: batch %d follows %d", delay.ErrCorrupt,
				deltas[i].batch, want-1)
		}
		l.absorb(&deltas[i])
	}
	return nil
}

func (s *Store) loadBase() (base, error) {
	v, ok, err := s.get(s.ledgerKey(ledgerBase))
	if err != nil || !ok {
		return base{}, err
	}
	return decodeBase(v)
}

// loadDeltas reads the ring: the deltas above batch, in order.
func (s *Store) loadDeltas(batch uint64) ([]delta, error) {
	var out []delta
	err := s.scan(s.ledgerKey(ledgerDelta), nil, func(_, v []byte) (bool, error) {
		d, err := decodeDelta(v)
		if err == nil && d.batch > batch {
			out = append(out, d)
		}
		return true, err
	})
	slices.SortFunc(out, func(a, b delta) int {
		if a.batch < b.batch {
			return -1
		}
		return 1
	})
	return out, err
}

func (s *Store) loadSlots() error {
	l := s.ledger
	prefix := s.ledgerKey(ledgerSlot)
	err := s.scan(prefix, nil, func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+4 {
			return false, badKey(k)
		}
		t, err := decodeSlot(v)
		l.slots[binary.BigEndian.Uint32(k[len(prefix):])] = t
		l.sum.Warm.add(t.warm)
		l.sum.Cold.add(t.cold)
		return true, err
	})
	if err != nil {
		return err
	}
	prefix = s.ledgerKey(ledgerLane)
	return s.scan(prefix, nil, func(k, v []byte) (bool, error) {
		if len(k) != len(prefix)+8 {
			return false, badKey(k)
		}
		t, err := decodeLane(v)
		l.lanes[binary.BigEndian.Uint64(k[len(prefix):])] = t
		l.sum.Parked += t.Messages
		return true, err
	})
}
