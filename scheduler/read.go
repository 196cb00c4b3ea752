// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/core"
)

// inspect asks the core; after the end of the loop it knows nothing.
func (s *Shard) inspect(keys []delay.Key) []core.Sight {
	ev := core.EvInspect{Keys: keys, Done: make(chan []core.Sight, 1)}
	s.post(ev)
	if out, ok := wait(s, ev.Done); ok {
		return out
	}
	return make([]core.Sight, len(keys))
}

// Get returns what is known of a message; ErrNotFound when nothing is, ErrUnavailable when nobody
// can say yet because ids are being restored (rule R14), after a wait.
func (s *Shard) Get(ctx context.Context, id delay.ID, withBody bool) (Info, error) {
	if s.doubts(id) {
		s.awaitIDs(ctx)
	}
	return s.query.Get(ctx, id, withBody)
}

// List pages through messages by due: pending ones unless the filter asks for another state. The
// finished ones that can be listed are dead letters and those whose id is remembered. limit is 1
// to 1,000; token is "" or what the page before returned.
func (s *Shard) List(
	ctx context.Context, f Filter, limit int, token string,
) ([]Info, string, error) {
	return s.query.List(ctx, f, limit, token)
}

// DeadLetters pages through dead and expired messages by due.
func (s *Shard) DeadLetters(
	_ context.Context, f Filter, limit int, token string,
) ([]Info, string, error) {
	return s.query.DeadLetters(f, limit, token)
}

// Next lists the pending messages that are due soonest.
func (s *Shard) Next(ctx context.Context, limit int) ([]Info, error) {
	out, _, err := s.query.List(ctx, Filter{}, limit, "")
	return out, err
}

// Count counts messages exactly, and schedules only where the filter asks for them. Without a
// filter it costs nothing; with one it reads what may match.
func (s *Shard) Count(ctx context.Context, f Filter) (int64, error) {
	return s.query.Count(ctx, f)
}

// Histogram counts the pending messages that pass a filter in bars of a bucket. Bars of whole hours
// come from the slots and cost nothing; finer and filtered ones are counted.
func (s *Shard) Histogram(ctx context.Context, bucket time.Duration, f Filter) ([]Bar, error) {
	return s.query.Histogram(ctx, bucket, f)
}

// Firings is Histogram with the firings to come of schedules up to f.DueTo, which must be set; the
// next firing of a schedule is in Histogram already. More than query.MostFirings are an ErrInvalid
// for the field "to".
func (s *Shard) Firings(ctx context.Context, bucket time.Duration, f Filter) ([]Bar, error) {
	return s.query.Firings(ctx, bucket, f)
}
