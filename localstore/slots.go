// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Tally counts messages and the bytes of their records.
type Tally struct{ Messages, Bytes int64 }

func (t *Tally) add(o Tally) {
	t.Messages += o.Messages
	t.Bytes += o.Bytes
}

// Slot is what one stretch of the future holds: [From, From+Width).
type Slot struct {
	From  delay.Due
	Width time.Duration
	Warm  Tally // local rows
	Cold  Tally // only in the bucket
}

// Counts sums the slots, and counts what has left them.
type Counts struct {
	Warm, Cold   Tally
	Parked, Dead int64
}

// A slot's number is a function of the due alone, so that a message is always counted out of the
// slot it was counted into. Hours until 2050, days until 2150, then years of 365 days: at most
// 750,000 slots, of which those of the past and empty ones take no memory.
const (
	hourMillis = int64(time.Hour / time.Millisecond)
	dayMillis  = 24 * hourMillis
	yearMillis = 365 * dayMillis

	daysFrom  = delay.Due(2524608000000) // 2050-01-01
	yearsFrom = delay.Due(5680281600000) // 2150-01-01

	firstDay  = uint32(int64(daysFrom) / hourMillis)
	firstYear = firstDay + uint32(int64(yearsFrom-daysFrom)/dayMillis)
)

func slotOf(due delay.Due) uint32 {
	switch {
	case due < 0:
		return 0
	case due < daysFrom:
		return uint32(int64(due) / hourMillis)
	case due < yearsFrom:
		return firstDay + uint32(int64(due-daysFrom)/dayMillis)
	default:
		return firstYear + uint32(int64(min(due, delay.MaxDue)-yearsFrom)/yearMillis)
	}
}

// slotSpan is the inverse of slotOf.
func slotSpan(n uint32) (from delay.Due, width time.Duration) {
	switch {
	case n < firstDay:
		return delay.Due(int64(n) * hourMillis), time.Hour
	case n < firstYear:
		return daysFrom + delay.Due(int64(n-firstDay)*dayMillis), 24 * time.Hour
	default:
		return yearsFrom + delay.Due(int64(n-firstYear)*yearMillis), 365 * 24 * time.Hour
	}
}

// Slots calls fn for every slot that holds messages, in the order of time, until it returns false.
// It sees one state between two batches.
func (s *Store) Slots(fn func(Slot) bool) {
	for _, n := range s.ledger.copySlots() {
		if !fn(n) {
			return
		}
	}
}

// slotTally is the content of one slot.
type slotTally struct{ warm, cold Tally }

func (l *ledger) copySlots() []Slot {
	l.mu.RLock()
	numbers := make([]uint32, 0, len(l.slots))
	for n := range l.slots {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	out := make([]Slot, len(numbers))
	for i, n := range numbers {
		t := l.slots[n]
		out[i].From, out[i].Width = slotSpan(n)
		out[i].Warm, out[i].Cold = t.warm, t.cold
	}
	l.mu.RUnlock()
	return out
}
