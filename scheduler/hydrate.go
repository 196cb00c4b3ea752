// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/planted"
)

// runHydrate keeps the boundary L a horizon ahead of now, by bringing back what comes near, and
// drops local rows that are far and uploaded (rule R1).
func (s *Shard) runHydrate(ctx context.Context) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	dropped := s.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next := tierLookEvery
		if err := s.hydrateAhead(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("hydrate failed, will be repeated", zap.Error(err))
			next = hydrateRetry
		}
		if now := s.Now(); now >= dropped.Add(min(s.opts.DropLag/4, time.Minute)) {
			dropped = now
			if err := s.dropFar(ctx, now); err != nil && ctx.Err() == nil {
				s.log.Error("drop failed, will be repeated", zap.Error(err))
			}
		}
		tick.Reset(next)
	}
}

// step is how far one hydrate goes beyond the horizon, so that it has something to do.
func (s *Shard) step() time.Duration {
	return min(max(s.opts.Horizon/24, minStep), maxStepAhead)
}

// hydrateAhead raises L to now + horizon + a step, in order of due.
func (s *Shard) hydrateAhead(ctx context.Context) error {
	for ctx.Err() == nil {
		l := s.parts.Store.Meta().Boundary
		now := s.Now()
		if l == delay.MaxKey || l.Due >= now.Add(s.opts.Horizon) {
			return nil
		}
		to := delay.Key{Due: now.Add(s.opts.Horizon + s.step())}
		start, n := s.parts.Now(), 0
		err := s.hydrate(ctx, l, to, &n)
		if s.parts.Events.Hydrate != nil && (n > 0 || err != nil) {
			s.parts.Events.Hydrate(s.parts.Now().Sub(start), n, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hydrate brings the messages of [from, to) back and raises L as it goes: what has been brought
// back can be loaded while the rest still comes.
func (s *Shard) hydrate(ctx context.Context, from, to delay.Key, n *int) error {
	o := &commit.HydrateOp{Done: make(chan error, 1)}
	bytes := 0
	put := func(boundary delay.Key) error {
		o.Boundary = boundary
		err := s.do(o, 0, o.Done)
		*n += len(o.Keys)
		o, bytes = &commit.HydrateOp{Done: make(chan error, 1)}, 0
		return err
	}
	var failed error
	err := s.parts.Tier.Scan(ctx, from, to, func(k delay.Key, rec []byte) bool {
		if len(o.Keys) >= hydrateRows || bytes >= hydrateBytes {
			if failed = put(k); failed != nil {
				return false
			}
		}
		o.Keys = append(o.Keys, k)
		o.Recs = append(o.Recs, slices.Clone(rec))
		bytes += len(rec)
		return true
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return fmt.Errorf("scan the tier from %s: %w", from, err)
	}
	return put(to)
}

// dropFar drops rows beyond the horizon that have been in the bucket for the drop lag.
func (s *Shard) dropFar(ctx context.Context, now delay.Due) error {
	seq, ok := s.droppable(now)
	if !ok {
		return nil
	}
	from := delay.Key{Due: now.Add(s.opts.Horizon + 2*s.step())}
	o := &commit.DropOp{Seq: seq, Done: make(chan error, 1)}
	put := func() error {
		err := s.do(o, 0, o.Done)
		o = &commit.DropOp{Seq: seq, Done: make(chan error, 1)}
		return err
	}
	for more := true; more && ctx.Err() == nil; {
		more = false
		err := s.parts.Store.ScanRows(from, delay.MaxKey, func(k delay.Key, rec []byte) bool {
			if k.Seq > seq {
				return true
			}
			if _, cold, err := delay.RecordTarget(rec); err != nil || !cold {
				return true
			}
			o.Keys = append(o.Keys, k)
			if len(o.Keys) < dropRows {
				return true
			}
			more, from = true, k.Next()
			return false
		})
		if err != nil {
			return err
		}
		if len(o.Keys) > 0 {
			if err := put(); err != nil {
				return err
			}
		}
	}
	return nil
}

// droppable is the highest seq whose upload is older than the drop lag, when there is a new one.
func (s *Shard) droppable(now delay.Due) (delay.Seq, bool) {
	t := &s.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	if planted.Is(planted.DropBeforeNoted) {
		return s.parts.Store.LastSeq(), true
	}
	n := 0
	for n < len(t.mu.history) && t.mu.history[n].at.Add(s.opts.DropLag) <= now {
		n++
	}
	if n == 0 {
		return 0, false
	}
	seq := t.mu.history[n-1].seq
	t.mu.history = slices.Delete(t.mu.history, 0, n)
	return seq, true
}
