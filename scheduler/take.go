// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"

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
		Positions: s.positions, Tiered: tiered, Now: s.Now, Accepting: s.taking,
		Check: s.parts.Check, Fetch: s.fetchCold, Replaced: s.coldRecords, Do: s.do,
		Begin: func(m *delay.Message) error { return s.planner.Begin(m, s.Now()) },
		Events: intake.Events{
			Accepted: events.Accepted, Duplicate: events.Duplicate, Rejected: events.Rejected,
			Cancelled: func(n int) { s.reportEnded("", delay.Cancelled, "", n) },
		},
	})
}

// taking says why sources must wait. After the loss of the disk they bring again what a ledger may
// list: until that was read nobody can say of it that it was not delivered (rule R17).
func (s *Shard) taking() error {
	for _, k := range s.ledgers {
		if !k.Heard() {
			return fmt.Errorf("%w: a ledger is being read", delay.ErrUnavailable)
		}
	}
	return s.accepting()
}

// noteCovered tells the sources how far a committed manifest stands for them (rule R16).
func (s *Shard) noteCovered(cursors map[string][]byte) {
	if err := s.positions.SetCovered(cursors); err != nil {
		s.log.Error("cursors unreadable", zap.Error(err))
	}
}
