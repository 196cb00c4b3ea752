// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// RetryDead moves a dead letter back to pending, due now, without its not_after. ErrNotFound when
// there is none.
// One of durability tier is answered after the bucket holds it (rule R13).
func (s *Shard) RetryDead(ctx context.Context, id delay.ID) (Receipt, error) {
	o := &commit.DeadOp{ID: id, Retry: true, Done: make(chan error, 1)}
	err := s.do(o, 0, o.Done)
	if err == nil && o.Receipt.Durability == delay.Tier && s.parts.Tier != nil {
		err = s.waitFor(ctx, s.parts.Store.LastSeq(), o.Outbox)
	}
	return o.Receipt, err
}

// DeleteDead deletes a dead letter for good. ErrNotFound when there is none.
func (s *Shard) DeleteDead(_ context.Context, id delay.ID) error {
	o := &commit.DeadOp{ID: id, Done: make(chan error, 1)}
	return s.do(o, 0, o.Done)
}

// SetPaused pauses or resumes a target, durably: a paused target keeps its due messages scheduled.
func (s *Shard) SetPaused(_ context.Context, target delay.Target, paused bool) error {
	lane := s.lanes.Number(target)
	done := make(chan error, 1)
	return s.do(commit.PauseTarget(target, lane, paused, done), 0, done)
}

// SetLimit sets or, with the zero value, removes the limit of a target, durably.
func (s *Shard) SetLimit(_ context.Context, target delay.Target, limit delay.Limit) error {
	lane := s.lanes.Number(target)
	done := make(chan error, 1)
	err := s.do(commit.LimitTarget(target, lane, limit, done), 0, done)
	if err == nil {
		s.crowd.Limit(target, limit)
	}
	return err
}

// Targets describes every lane by name. One that has had nothing to do for minutes is none.
func (s *Shard) Targets(context.Context) ([]TargetStatus, error) {
	ev := core.EvTargets{Done: make(chan []core.LaneStatus, 1)}
	s.post(ev)
	lanes, ok := wait(s, ev.Done)
	if !ok {
		return nil, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	lanes = slices.DeleteFunc(lanes, func(l core.LaneStatus) bool {
		return l.Target == delay.Schedules // nobody's target: it only makes firings
	})
	rates := s.rates.Take(lanes, s.parts.Now())
	out := make([]TargetStatus, len(lanes))
	for i, l := range lanes {
		out[i] = TargetStatus{
			Target: l.Target, InFlight: l.InFlight, Backlog: l.Backlog, Rate: rates[i],
			LastError: l.LastError, Paused: l.Paused, Open: l.Open, Limit: l.Limit,
		}
	}
	slices.SortFunc(out, func(a, b TargetStatus) int { return cmp.Compare(a.Target, b.Target) })
	return out, nil
}

func (s *Shard) glance() core.Glance {
	ev := core.EvGlance{Done: make(chan core.Glance, 1)}
	s.post(ev)
	g, _ := wait(s, ev.Done)
	return g
}

// Status tells how the shard is.
func (s *Shard) Status() Status {
	store := s.parts.Store
	meta, counts := store.Meta(), store.Counts()
	g := s.glance()
	st := Status{
		ClusterID: meta.ClusterID, Shard: s.shard, Epoch: meta.Epoch, Watermark: meta.Watermark,
		ClaimHorizon: meta.ClaimHorizon, Boundary: meta.Boundary,
		Hot:           LevelStatus{Messages: g.Hot, Bytes: g.HotBytes},
		Cold:          LevelStatus{max(0, counts.Cold.Messages), max(0, counts.Cold.Bytes)},
		DiskFreeBytes: store.DiskFree(), Accepting: !s.draining.Load(),
		Isolated: s.tier.isolated.Load(), Restoring: !meta.IDsComplete,
		Clock: s.clock.Status(), Books: store.Books(),
		Cancelling: s.query.Cancelling(),
	}
	warm := counts.Warm.Messages + counts.Parked - g.Hot
	st.Warm = LevelStatus{
		Messages: max(0, warm),
		Bytes:    max(0, counts.Warm.Bytes-g.HotBytes),
	}
	t := &s.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	st.LastFlush = t.mu.lastAt
	if t.mu.lastErr != nil {
		st.LastFlushError = t.mu.lastErr.Error()
	}
	oldest := t.mu.oldest
	if waiting := s.upload.Oldest(); oldest == 0 {
		oldest = waiting
	}
	if oldest != 0 {
		st.OldestNotUploaded = max(0, st.Clock.Now.Sub(oldest))
	}
	return st
}
