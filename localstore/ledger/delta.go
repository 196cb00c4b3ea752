// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"math"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
)

// NoTimer is above the instant of every timer.
const NoTimer = delay.Due(math.MaxInt64)

// Delta is what one batch changes in the ledger.
type Delta struct {
	Batch    uint64
	LastSeq  delay.Seq // highest of the batch's rows; of the whole store once it is numbered
	TimerMin delay.Due // earliest timer put, or NoTimer
	Dead     int64
	slots    []slotDelta
	lanes    []Lane

	// Where each slot is in slots; last caches the one that was used last.
	at   map[uint32]int
	last int
}

type slotDelta struct {
	slot uint32
	SlotTally
}

// Reset makes d the delta of an empty batch; it keeps its memory.
func (d *Delta) Reset() {
	d.Batch, d.LastSeq, d.TimerMin, d.Dead, d.last = 0, 0, NoTimer, 0, 0
	d.slots, d.lanes = d.slots[:0], d.lanes[:0]
	if d.at == nil {
		d.at = make(map[uint32]int)
	}
	clear(d.at)
}

// Slot is the change of the slot that holds due, to be added to at once.
func (d *Delta) Slot(due delay.Due) *SlotTally {
	n := SlotOf(due)
	if d.last < len(d.slots) && d.slots[d.last].slot == n {
		return &d.slots[d.last].SlotTally
	}
	i, ok := d.at[n]
	if !ok {
		i = len(d.slots)
		d.at[n] = i
		d.slots = append(d.slots, slotDelta{slot: n})
	}
	d.last = i
	return &d.slots[i].SlotTally
}

// Lane adds to the change of a lane. Few lanes are parked in one batch.
func (d *Delta) Lane(lane uint64, t Tally) {
	for i := range d.lanes {
		if d.lanes[i].Lane == lane {
			d.lanes[i].Add(t)
			return
		}
	}
	d.lanes = append(d.lanes, Lane{lane, t})
}

func appendTally(dst []byte, t Tally) []byte {
	return binary.AppendVarint(binary.AppendVarint(dst, t.Messages), t.Bytes)
}

func readTally(r *codec.Reader) Tally { return Tally{r.Varint(), r.Varint()} }

// AppendDelta appends the value of a delta.
func AppendDelta(dst []byte, d *Delta) []byte {
	dst = append(dst, codec.Version)
	dst = binary.AppendUvarint(dst, d.Batch)
	dst = binary.AppendUvarint(dst, uint64(d.LastSeq))
	dst = binary.AppendUvarint(dst, uint64(d.TimerMin))
	dst = binary.AppendVarint(dst, d.Dead)
	dst = binary.AppendUvarint(dst, uint64(len(d.slots)))
	for i := range d.slots {
		dst = binary.AppendUvarint(dst, uint64(d.slots[i].slot))
		dst = appendTally(appendTally(dst, d.slots[i].Warm), d.slots[i].Cold)
	}
	dst = binary.AppendUvarint(dst, uint64(len(d.lanes)))
	for _, l := range d.lanes {
		dst = appendTally(binary.BigEndian.AppendUint64(dst, l.Lane), l.Tally)
	}
	return dst
}

// The lengths of the shortest encoded changes bound what a damaged count may allocate.
const (
	slotDeltaMin = 5
	laneDeltaMin = 10
)

// DecodeDelta reads what AppendDelta wrote.
func DecodeDelta(b []byte) (Delta, error) {
	r := codec.Reader{B: b, What: "ledger delta"}
	r.Version()
	d := Delta{Batch: r.Uvarint(), LastSeq: delay.Seq(r.Uvarint())}
	d.TimerMin = delay.Due(r.Bounded(math.MaxInt64))
	d.Dead = r.Varint()
	for range r.Bounded(uint64(r.Left() / slotDeltaMin)) {
		c := slotDelta{slot: uint32(r.Bounded(math.MaxUint32))}
		c.Warm, c.Cold = readTally(&r), readTally(&r)
		d.slots = append(d.slots, c)
	}
	for range r.Bounded(uint64(r.Left() / laneDeltaMin)) {
		d.lanes = append(d.lanes, Lane{r.Uint64(), readTally(&r)})
	}
	return d, r.End()
}

// AppendBase appends the value of the base.
func AppendBase(dst []byte, b Base) []byte {
	dst = append(dst, codec.Version)
	dst = binary.AppendUvarint(dst, b.Batch)
	dst = binary.AppendUvarint(dst, uint64(b.LastSeq))
	dst = binary.AppendUvarint(dst, uint64(b.TimerLow))
	return binary.AppendVarint(dst, b.Dead)
}

// DecodeBase reads what AppendBase wrote.
func DecodeBase(v []byte) (Base, error) {
	r := codec.Reader{B: v, What: "ledger base"}
	r.Version()
	b := Base{Batch: r.Uvarint(), LastSeq: delay.Seq(r.Uvarint())}
	b.TimerLow = delay.Due(r.Bounded(math.MaxInt64))
	b.Dead = r.Varint()
	return b, r.End()
}

// AppendSlot appends the value of a slot.
func AppendSlot(dst []byte, t SlotTally) []byte {
	return appendTally(appendTally(append(dst, codec.Version), t.Warm), t.Cold)
}

// DecodeSlot reads what AppendSlot wrote.
func DecodeSlot(v []byte) (SlotTally, error) {
	r := codec.Reader{B: v, What: "ledger slot"}
	r.Version()
	t := SlotTally{Warm: readTally(&r), Cold: readTally(&r)}
	return t, r.End()
}

// AppendLane appends the value of a lane.
func AppendLane(dst []byte, t Tally) []byte { return appendTally(append(dst, codec.Version), t) }

// DecodeLane reads what AppendLane wrote.
func DecodeLane(v []byte) (Tally, error) {
	r := codec.Reader{B: v, What: "ledger lane"}
	r.Version()
	t := readTally(&r)
	return t, r.End()
}
