// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
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
	o := &hydrateOp{done: make(chan error, 1)}
	bytes := 0
	commit := func(boundary delay.Key) error {
		o.boundary = boundary
		err := s.do(o, 0, o.done)
		*n += len(o.keys)
		o, bytes = &hydrateOp{done: make(chan error, 1)}, 0
		return err
	}
	var failed error
	err := s.parts.Tier.Scan(ctx, from, to, func(k delay.Key, rec []byte) bool {
		if len(o.keys) >= hydrateRows || bytes >= hydrateBytes {
			if failed = commit(k); failed != nil {
				return false
			}
		}
		o.keys = append(o.keys, k)
		o.recs = append(o.recs, slices.Clone(rec))
		bytes += len(rec)
		return true
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return fmt.Errorf("scan the tier from %s: %w", from, err)
	}
	return commit(to)
}

// hydrateOp brings cold messages back into rows, unless they are marked (the race with a cancel is
// decided here, rule R1) or still there.
type hydrateOp struct {
	keys     []delay.Key
	recs     [][]byte
	boundary delay.Key
	done     chan error
}

func (o *hydrateOp) stage(c *committer) {
	err := c.store.ReadRows(o.keys, func(i int, rec []byte) {
		if rec != nil {
			return // not dropped yet
		}
		if _, marked, err := c.store.Mark(o.keys[i]); err == nil && !marked {
			c.batch.HydrateRow(o.keys[i], o.recs[i])
		}
	})
	if err != nil {
		c.log.Error("rows unreadable while hydrating", zap.Error(err))
		return
	}
	if c.meta.Boundary.Less(o.boundary) {
		c.meta.Boundary = o.boundary
		c.changed()
		c.then(evBoundary{boundary: o.boundary})
	}
}

func (o *hydrateOp) finish(_ localstore.Synced, err error) { o.done <- err }

// dropFar drops rows beyond the horizon that have been in the bucket for the drop lag.
func (s *Shard) dropFar(ctx context.Context, now delay.Due) error {
	seq, ok := s.droppable(now)
	if !ok {
		return nil
	}
	from := delay.Key{Due: now.Add(s.opts.Horizon + 2*s.step())}
	o := &dropOp{seq: seq, done: make(chan error, 1)}
	commit := func() error {
		err := s.do(o, 0, o.done)
		o = &dropOp{seq: seq, done: make(chan error, 1)}
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
			o.keys = append(o.keys, k)
			if len(o.keys) < dropRows {
				return true
			}
			more, from = true, k.Next()
			return false
		})
		if err != nil {
			return err
		}
		if len(o.keys) > 0 {
			if err := commit(); err != nil {
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

// dropOp turns warm rows cold. The committer looks again: a row may be finished by now.
type dropOp struct {
	keys []delay.Key
	seq  delay.Seq
	done chan error
}

func (o *dropOp) stage(c *committer) {
	if c.meta.Uploaded < o.seq {
		return // the upload is not noted locally yet (C7)
	}
	err := c.store.ReadRows(o.keys, func(i int, rec []byte) {
		if rec != nil && !o.keys[i].Less(c.meta.Boundary) {
			c.batch.DropRow(o.keys[i], len(rec))
		}
	})
	if err != nil {
		c.log.Error("rows unreadable while dropping", zap.Error(err))
	}
}

func (o *dropOp) finish(_ localstore.Synced, err error) { o.done <- err }
