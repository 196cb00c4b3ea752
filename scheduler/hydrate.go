// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
)

// runHydrate keeps the boundary L a horizon ahead of now, by bringing back what comes near, and
// drops local rows that are far and uploaded (rule R1).
func (s *Shard) runHydrate(ctx context.Context) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	dropped := s.Now()
	hydrating := trouble{log: s.log, what: "hydrate"}
	dropping := trouble{log: s.log, what: "drop"}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next := tierLookEvery
		err := s.hydrateAhead(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if hydrating.note(err); err != nil {
			next = hydrateRetry
		}
		if now := s.Now(); now >= dropped.Add(min(s.opts.DropLag/4, time.Minute)) {
			dropped = now
			if err := s.dropFar(ctx, now); ctx.Err() == nil {
				dropping.note(err)
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
	h := hydration{s: s, n: n}
	h.begin(from)
	err := s.parts.Tier.Scan(ctx, from, to, h.add)
	if err != nil {
		err = fmt.Errorf("scan the tier from %s: %w", from, err)
	} else if h.err == nil {
		h.put(to)
	}
	return errors.Join(h.err, err, h.wait(0))
}

// hydration is a scan on its way into the store. Ops follow each other without waiting for the sync
// of the one before: one that fails fails those behind it, because L stays below them.
type hydration struct {
	s     *Shard
	n     *int
	op    *commit.HydrateOp // being filled
	arena []byte            // its records, one after the other
	sent  []*commit.HydrateOp
	err   error
}

func (h *hydration) begin(from delay.Key) {
	h.op = &commit.HydrateOp{
		Keys: make([]delay.Key, 0, hydrateRows), Recs: make([][]byte, 0, hydrateRows), From: from,
		Done: make(chan error, 1),
	}
	h.arena = make([]byte, 0, hydrateBytes)
}

// add takes a message of the scan; false ends that.
func (h *hydration) add(k delay.Key, rec []byte) bool {
	full := len(h.op.Keys) >= hydrateRows || len(h.arena)+len(rec) > hydrateBytes
	if full && len(h.op.Keys) > 0 {
		if h.put(k); h.err != nil {
			return false
		}
		h.begin(k)
	}
	at := len(h.arena)
	h.arena = append(h.arena, rec...)
	h.op.Keys = append(h.op.Keys, k)
	h.op.Recs = append(h.op.Recs, h.arena[at:len(h.arena):len(h.arena)])
	return true
}

// put hands the op over, and waits while too many are under way.
func (h *hydration) put(boundary delay.Key) {
	h.op.Boundary = boundary
	if h.err = h.s.commit.Put(h.op, 0); h.err == nil {
		h.sent = append(h.sent, h.op)
		h.err = h.wait(hydratesAhead)
	}
}

// wait waits until at most so many ops are under way, and returns the first error.
func (h *hydration) wait(most int) (failed error) {
	for len(h.sent) > most {
		err := h.s.outcome(h.sent[0].Done, h.s.settled)
		if err == nil {
			*h.n += len(h.sent[0].Keys)
		} else if failed == nil {
			failed = err
		}
		h.sent = h.sent[1:]
	}
	return failed
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
