// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

const (
	// missedGap is the step of the clock between two looks that counts as a time in which the shard
	// did not run: what schedules were due in it was missed.
	missedGap = 2 * time.Second
	// recurAgain is the pause before a schedule is asked again whose firings are not known yet.
	recurAgain = 200 * time.Millisecond
)

// noteStep notes how the clock has moved between two looks of the core's loop.
func (s *Shard) noteStep(before, now delay.Due) {
	if now.Sub(before) > missedGap {
		s.since.Store(int64(now))
	}
}

// recur has the schedules of claims do what they do at their due (rule R20).
func (s *Shard) recur(ctx context.Context, a core.ActDeliver) {
	parcels := s.parcels.Read(ctx, a.Lane, a.Claims)
	outcomes := make([]core.Outcome, len(parcels))
	op := &commit.RecurOp{Done: make(chan error, 1)}
	at := make([]int, 0, len(parcels))
	now, since := s.Now(), delay.Due(s.since.Load())
	if planted.Is(planted.MissedInTime) {
		since = 0
	}
	for i := range parcels {
		p := &parcels[i]
		outcomes[i].Key = p.Ref.Key
		item := commit.RecurItem{Key: p.Ref.Key, ID: p.ID}
		if p.Found {
			plan, err := s.planner.Plan(&p.Msg, now, since)
			if err != nil {
				s.log.Error("schedule cannot be read", zap.String("id", string(p.ID)), zap.Error(err))
				outcomes[i] = again(p.Ref.Key, s.opts.MaxBackoff)
				continue
			}
			item.Message, item.Plan = &p.Msg, plan
		}
		op.Items = append(op.Items, item)
		at = append(at, i)
	}
	err := s.do(op, 0, op.Done)
	fired, missed := 0, uint64(0)
	for n, i := range at {
		it := &op.Items[n]
		switch outcomes[i].Moved = true; {
		case err != nil || it.Wait:
			outcomes[i] = again(it.Key, recurAgain)
		default:
			fired += it.Fired
			missed += it.Missed
		}
	}
	if s.parts.Events.Recurred != nil && err == nil {
		s.parts.Events.Recurred(fired, missed)
	}
	s.post(core.EvOutcomes{Lane: a.Lane, Outcomes: outcomes})
}

// again has a claim come again without an attempt.
func again(key delay.Key, after time.Duration) core.Outcome {
	return core.Outcome{Key: key, Untried: true, After: after}
}
