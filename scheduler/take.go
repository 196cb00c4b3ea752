// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/intake"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/scheduler/recovery"
)

// Intake is the side of the shard that sources see.
func (s *Shard) Intake() *intake.Intake { return s.intake }

// openIntake begins with the positions that were found.
func (s *Shard) openIntake(own *recovery.Ownership, f *recovery.Found) {
	tiered := s.parts.Tier != nil
	s.positions = position.NewTable(tiered, f.Read)
	if tiered && !own.Isolated {
		s.noteCovered(s.parts.Tier.State().Cursors)
	}
	events := &s.parts.Events
	s.intake = intake.New(intake.Config{
		Positions: s.positions, Tiered: tiered, Now: s.Now, Accepting: s.accepting,
		Prepare: s.prepareTaken, Fetch: s.fetchCold, Replaced: s.coldRecords, Do: s.do,
		Events: intake.Events{
			Accepted: events.Accepted, Duplicate: events.Duplicate, Rejected: events.Rejected,
			Cancelled: func(n int) { s.reportEnded("", delay.Cancelled, "", n) },
		},
	})
}

// prepareTaken completes what a source brings, or says why it can never be stored.
func (s *Shard) prepareTaken(d *delay.Draft) error {
	if s.parts.Check != nil {
		if err := s.parts.Check(d); err != nil {
			return err
		}
	}
	if d.Durability == delay.Tier && s.parts.Tier == nil {
		return delay.Invalid("durability", "tier needs a bucket (--bucket none)")
	}
	if d.Recurrence != nil {
		return s.planner.Begin(&d.Message, s.Now())
	}
	return nil
}

// noteCovered tells the sources how far a committed manifest stands for them (rule R16).
func (s *Shard) noteCovered(cursors map[string][]byte) {
	if err := s.positions.SetCovered(cursors); err != nil {
		s.log.Error("cursors unreadable", zap.Error(err))
	}
}
