// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Tally counts messages and the bytes of their records.
type Tally struct{ Messages, Bytes int64 }

// Add adds o, which may be negative.
func (t *Tally) Add(o Tally) {
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

// SlotOf is the number of the slot that holds due.
func SlotOf(due delay.Due) uint32 {
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

// Span is the stretch of a slot: the inverse of SlotOf.
func Span(slot uint32) (from delay.Due, width time.Duration) {
	switch {
	case slot < firstDay:
		return delay.Due(int64(slot) * hourMillis), time.Hour
	case slot < firstYear:
		return daysFrom + delay.Due(int64(slot-firstDay)*dayMillis), 24 * time.Hour
	default:
		return yearsFrom + delay.Due(int64(slot-firstYear)*yearMillis), 365 * 24 * time.Hour
	}
}

// Slots is a copy of every slot that holds messages, in the order of time.
func (l *Ledger) Slots() []Slot {
	l.mu.RLock()
	defer l.mu.RUnlock()
	numbers := make([]uint32, 0, len(l.slots))
	for n := range l.slots {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	out := make([]Slot, len(numbers))
	for i, n := range numbers {
		t := l.slots[n]
		out[i].From, out[i].Width = Span(n)
		out[i].Warm, out[i].Cold = t.Warm, t.Cold
	}
	return out
}
