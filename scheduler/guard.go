// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// judge has the guarded messages of claims judged, and ends those that are not held any longer
// (rule R18).
func (s *Shard) judge(ctx context.Context, a core.ActDeliver) {
	lane := s.lanes.Target(a.Lane)
	parcels := s.parcels.Read(ctx, a.Lane, a.Claims)
	items, at, outcomes := s.guards.Judge(ctx, lane, parcels, s.Now())
	if len(items) > 0 {
		op := &commit.GuardOp{Lane: lane, Items: items, Done: make(chan error, 1)}
		err := s.do(op, 0, op.Done)
		if err != nil {
			s.log.Error("judged messages not ended", zap.Error(err))
		}
		for n, i := range at {
			if err == nil && items[n].Gone {
				outcomes[i].Untried, outcomes[i].Moved = false, true
			}
		}
		if err == nil {
			s.reportJudged(items)
		}
	}
	s.post(core.EvOutcomes{Lane: a.Lane, Outcomes: outcomes})
}

// reportJudged tells the metrics of what ended.
func (s *Shard) reportJudged(items []commit.GuardItem) {
	for i := range items {
		it := &items[i]
		if !it.Ended {
			continue
		}
		switch it.Fate {
		case broker.Suppressed:
			s.reportEnded(it.Message.Target, delay.Suppressed, "", 1)
		case broker.Released:
			s.reportEnded(it.Message.Target, delay.Delivered, "", 1)
		default:
			s.reportEnded(it.Message.Target, delay.Dead, "rejected", 1)
		}
	}
}
