// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Histogram counts the pending messages of [from, to) in bars of a bucket. Bars of whole hours
// come from the slots and cost nothing; finer ones are counted.
func (q *Reader) Histogram(
	ctx context.Context, bucket time.Duration, from, to delay.Due,
) ([]Bar, error) {
	ms := bucket.Milliseconds()
	if to == 0 {
		to = delay.MaxDue
	}
	bars := make(map[delay.Due]*Bar)
	at := func(d delay.Due) *Bar {
		start := d - d%delay.Due(ms)
		if bars[start] == nil {
			bars[start] = &Bar{From: start}
		}
		return bars[start]
	}
	var err error
	whole := func(d delay.Due) bool { return d == delay.MaxDue || d%delay.Due(ms) == 0 }
	if bucket%time.Hour == 0 && whole(from) && whole(to) {
		err = q.slotBars(from, to, at)
	} else {
		err = q.Pending(ctx, Filter{DueFrom: from, DueTo: to}, delay.Key{Due: from},
			func(it Item) bool {
				b := at(it.Info.Due)
				b.Count++
				b.Bytes += int64(it.Info.Size)
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
	out := make([]Bar, 0, len(bars))
	for _, b := range bars {
		if b.Count > 0 {
			out = append(out, *b)
		}
	}
	slices.SortFunc(out, func(a, b Bar) int { return int(max(-1, min(1, a.From-b.From))) })
	return out, err
}

// slotBars adds up the slots. What is hot is counted as warm in the slots: it is taken out of the
// bars from now on. Parked messages are in no slot: they are overdue, and read one by one.
func (q *Reader) slotBars(from, to delay.Due, at func(delay.Due) *Bar) error {
	hot := q.hot()
	q.store.Slots(func(slot localstore.Slot) bool {
		if slot.From < from || slot.From >= to {
			return slot.From < to
		}
		b := at(slot.From)
		near := min(hot, slot.Warm.Messages)
		hot -= near
		b.Hot += near
		b.Warm += slot.Warm.Messages - near
		b.Cold += slot.Cold.Messages
		b.Count += slot.Warm.Messages + slot.Cold.Messages
		b.Bytes += slot.Warm.Bytes + slot.Cold.Bytes
		return true
	})
	return q.eachParked(func(k delay.Key, size int) {
		if k.Due >= from && k.Due < to {
			b := at(k.Due)
			b.Count++
			b.Warm++
			b.Bytes += int64(size)
		}
	})
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
