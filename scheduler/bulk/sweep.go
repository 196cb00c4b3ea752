// SPDX-License-Identifier: Apache-2.0

package bulk

import (
	"context"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
)

// sweep counts what is left of a bulk cancel, while goOn says so. It reports whether nothing is
// left. It waits for the ids of a restore: an id that comes back later would stay pending.
func (c *Canceller) sweep(ctx context.Context, seq delay.Seq, goOn func() bool) (bool, error) {
	p, ok := c.Bulk.Find(seq)
	if !ok {
		return true, nil
	}
	if !c.Store.Meta().IDsComplete || !goOn() {
		return false, nil
	}
	s := sweeper{c: c, p: p, goOn: goOn}
	s.begin(p.Swept)
	from := p.Swept
	if l := c.Store.Meta().Boundary; from.Less(l) {
		from = l
	}
	if upper := p.Upper(); from.Less(upper) {
		err := c.Tier.Scan(ctx, from, upper, s.look)
		if s.err == nil && err != nil {
			s.err = fmt.Errorf("count a bulk cancel from %s: %w", from, err)
		}
	}
	if s.err == nil && !s.stopped {
		s.put(p.Upper())
	}
	return s.finished, s.err
}

// sweeper is a sweep on its way.
type sweeper struct {
	c        *Canceller
	p        delay.Predicate
	goOn     func() bool
	op       *commit.SweepOp
	looked   int
	bytes    int
	finished bool
	stopped  bool
	err      error
}

func (s *sweeper) begin(from delay.Key) {
	s.op = &commit.SweepOp{Seq: s.p.Seq, From: from, Done: make(chan error, 1)}
	s.looked, s.bytes = 0, 0
}

// look takes a cold message; false ends the scan.
func (s *sweeper) look(k delay.Key, rec []byte) bool {
	if len(s.op.Keys) >= sweepKeys || s.bytes >= sweepBytes || s.looked >= sweepLooked {
		s.put(k)
		s.stopped = s.err == nil && !s.goOn()
		if s.err != nil || s.finished || s.stopped {
			return false
		}
		s.begin(k)
	}
	s.looked++
	if s.c.Bulk.CoveredBy(&s.p, k, rec) {
		s.op.Keys = append(s.op.Keys, k)
		s.op.Recs = append(s.op.Recs, slices.Clone(rec))
		s.bytes += len(rec)
	}
	return true
}

// put has the committer count what was found below next, in one batch with that position (C17).
func (s *sweeper) put(next delay.Key) {
	s.op.Next = next
	s.err = s.c.Do(s.op, s.op.Done)
	s.finished = s.err == nil && s.op.Finished
	if s.err == nil && s.op.Fresh > 0 {
		s.c.Report(s.op.Fresh)
	}
}
