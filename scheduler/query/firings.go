// SPDX-License-Identifier: Apache-2.0

package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/calendar"
)

// MostFirings bounds the firings that one call of Firings computes, each in about a microsecond.
const MostFirings = 1_000_000

// Firings is Histogram with the firings to come of schedules up to f.DueTo, which must be set. The
// next firing of a schedule is counted where its row is, like in Histogram; those after it do not
// exist yet, and are Recurring. More than MostFirings of them are an ErrInvalid for the field "to".
// Paused schedules have none.
func (q *Reader) Firings(ctx context.Context, bucket time.Duration, f Filter) ([]Bar, error) {
	bars, err := q.Histogram(ctx, bucket, f)
	if err != nil {
		return nil, err
	}
	c := firingCounter{h: histogram{ms: delay.Due(bucket.Milliseconds()),
		bars: make(map[delay.Due]*Bar)}, from: f.DueFrom, to: f.DueTo, left: MostFirings}
	if c.zones, err = calendar.NewZones(); err != nil {
		return nil, err
	}
	for i := range bars {
		c.h.bars[bars[i].From] = &bars[i]
	}
	f.Kind, f.DueFrom = Schedules, 0
	err = q.Pending(ctx, f, delay.Key{}, func(it Item) bool {
		c.err = c.add(ctx, &it)
		return c.err == nil
	})
	if err = cmp.Or(c.err, err); err != nil {
		return nil, err
	}
	out := make([]Bar, 0, len(c.h.bars))
	for _, b := range c.h.bars {
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b Bar) int { return cmp.Compare(a.From, b.From) })
	return out, nil
}

// firingCounter adds computed firings to the bars of a histogram.
type firingCounter struct {
	h        histogram
	zones    *calendar.Zones
	from, to delay.Due
	left     int
	err      error
}

// add counts the firings of one schedule after its next one.
func (c *firingCounter) add(ctx context.Context, it *Item) error {
	r := it.Info.Recurrence
	if r.Paused {
		return nil
	}
	from := it.Info.Due // whose firing is the row, which the bars have already
	if r.Count == 0 {
		from = max(from, c.from) // with a count, those before matter too
	}
	firings, err := c.zones.Upcoming(r, it.Info.Due, from)
	if err != nil {
		return fmt.Errorf("schedule %s: %w", it.Info.ID, err)
	}
	for f := range firings {
		switch {
		case f.At >= c.to:
			return nil
		case f.At == it.Info.Due:
			continue
		}
		if c.left--; c.left < 0 {
			return delay.Invalid("to", "more than %d firings until then", MostFirings)
		}
		if c.left%scanChunk == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if f.At >= c.from {
			b := c.h.at(f.At)
			b.Count++
			b.Recurring++
		}
	}
	return nil
}
