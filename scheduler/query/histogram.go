// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Histogram counts the pending messages that pass a filter in bars of a bucket, a schedule as one
// at its next firing unless it is paused; bytes are of records. Bars of whole hours, filtered by
// their dues at most, come from the slots and cost nothing, as far as the slots are that fine:
// within the next decades, and unless a bulk cancel is not counted there yet. Everything else is
// read and counted.
func (q *Reader) Histogram(ctx context.Context, bucket time.Duration, f Filter) ([]Bar, error) {
	from, to := f.DueFrom, f.DueTo
	if to == 0 {
		to = delay.MaxDue + 1
	}
	plain := f == Filter{DueFrom: f.DueFrom, DueTo: f.DueTo}
	f.DueTo = to
	h := histogram{q: q, f: f, ms: delay.Due(bucket.Milliseconds()), bars: make(map[delay.Due]*Bar)}
	whole := func(d delay.Due) bool { return d > delay.MaxDue || d%h.ms == 0 }
	var err error
	if plain && bucket%time.Hour == 0 && whole(from) && whole(to) {
		err = h.slots(ctx, bucket, from, to)
	} else {
		err = h.count(ctx, from, to)
	}
	out := make([]Bar, 0, len(h.bars))
	for _, b := range h.bars {
		if b.Count > 0 {
			out = append(out, *b)
		}
	}
	slices.SortFunc(out, func(a, b Bar) int { return cmp.Compare(a.From, b.From) })
	return out, err
}

// histogram is one under construction.
type histogram struct {
	q    *Reader
	f    Filter
	ms   delay.Due // width of a bar
	bars map[delay.Due]*Bar
}

// at is the bar of an instant.
func (h *histogram) at(d delay.Due) *Bar {
	start := d - d%h.ms
	if h.bars[start] == nil {
		h.bars[start] = &Bar{From: start}
	}
	return h.bars[start]
}

// count reads the messages of [from, to).
func (h *histogram) count(ctx context.Context, from, to delay.Due) error {
	f := h.f
	f.DueFrom, f.DueTo = from, to
	return h.q.Pending(ctx, f, delay.Key{Due: from}, func(it Item) bool {
		if r := it.Info.Recurrence; r != nil && r.Paused {
			return true // it has no future before it is resumed
		}
		b := h.at(it.Info.Due)
		b.Count++
		b.Bytes += int64(it.Bytes)
		switch it.Info.Level {
		case delay.Hot:
			b.Hot++
		case delay.Warm:
			b.Warm++
		default:
			b.Cold++
		}
		return true
	})
}

// slots adds up the slots, and counts where they are wider than a bar. What is hot is counted as
// warm in the slots: it is taken out of the bars from now on. Parked messages are in no slot: they
// are overdue, and read one by one.
func (h *histogram) slots(
	ctx context.Context, bucket time.Duration, from, to delay.Due,
) error {
	hot := h.q.hot()
	var wide []localstore.Slot
	h.q.store.Slots(func(slot localstore.Slot) bool {
		end := slot.From.Add(slot.Width)
		switch {
		case slot.From >= to:
			return false
		case end <= from:
			return true
		case slot.Width > bucket || h.q.find.Bulk().Uncounted(slot.From, end):
			wide = append(wide, slot)
			return true
		}
		b := h.at(slot.From)
		near := min(hot, slot.Warm.Messages)
		hot -= near
		b.Hot += near
		b.Warm += slot.Warm.Messages - near
		// After a restore the counts of cold slots are rough, and may be too low.
		cold := max(0, slot.Cold.Messages)
		b.Cold += cold
		b.Count += slot.Warm.Messages + cold
		b.Bytes += slot.Warm.Bytes + max(0, slot.Cold.Bytes)
		return true
	})
	for _, slot := range wide {
		end := slot.From.Add(slot.Width)
		if end >= delay.MaxDue {
			end = delay.MaxDue + 1
		}
		if err := h.count(ctx, max(from, slot.From), min(to, end)); err != nil {
			return err
		}
	}
	return h.q.eachParked(func(k delay.Key, size int) {
		if k.Due >= from && k.Due < to {
			b := h.at(k.Due)
			b.Count++
			b.Warm++
			b.Bytes += int64(size)
		}
	})
}

// Cancelling is how many cold messages there are, at most, that bulk cancels have still to look at.
func (q *Reader) Cancelling() (n int64) {
	if q.find.Bulk().Uncounted(0, 0) {
		q.store.Slots(func(slot localstore.Slot) bool {
			if q.find.Bulk().Uncounted(slot.From, slot.From.Add(slot.Width)) {
				n += max(0, slot.Cold.Messages)
			}
			return true
		})
	}
	return n
}

// eachParked calls fn for every parked row.
func (q *Reader) eachParked(fn func(k delay.Key, size int)) error {
	var lanes []uint64
	err := q.store.ParkedLanes(func(lane uint64, _ delay.Target, _ int64) bool {
		lanes = append(lanes, lane)
		return true
	})
	for _, lane := range lanes {
		if err == nil {
			err = q.store.ScanParked(lane, delay.Key{},
				func(k delay.Key, _ bool, rec []byte) bool { fn(k, len(rec)); return true })
		}
	}
	return err
}
