// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Settlement is what a consumer said of a lease, and the answer.
type Settlement struct {
	Kind     scheduler.Settlement
	Result   scheduler.SettleResult
	Attempt  uint32     // that was leased
	Before   Answer     // what was known of acks before
	Least    delay.Due  // an extended lease runs until then at least
	Expires  *delay.Due // of the lease
	Live     bool       // the lease runs, and was not settled before
	SameDisk bool       // the lease was made on this disk
	Forgets  bool       // finished ids are forgotten within the history
	Life     int        // of the process
	Turn     uint64
}

// Settled notes the answer to a consumer, and tells what is wrong with it, "" when nothing is.
func (m *Message) Settled(s *Settlement) string {
	switch {
	case s.Kind == scheduler.Ack && s.Result == scheduler.Acked:
		if m.Last > s.Attempt && m.LastBoot >= 0 && s.SameDisk && s.Before == No && !s.Forgets {
			return fmt.Sprintf("the receipt of attempt %d is ACKED after attempt %d", s.Attempt, m.Last)
		}
		m.Done = true
		if s.SameDisk { // else the message may be back in a generation of before the lease
			if m.Acked != Yes {
				m.AckLife = s.Life
			}
			m.Acked, m.AckTurn = Yes, s.Turn
		}
	case s.Result == scheduler.Extended:
		m.Leased, *s.Expires = max(m.Leased, s.Least), s.Least
	case s.Result == scheduler.Superseded || s.Result == scheduler.SettleNotFound:
		live := s.Live && m.Draft.Mode != delay.AtMostOnce
		if live && m.Acks == 0 && m.Replaced == No {
			return fmt.Sprintf("settlement %d of a live lease (attempt %d, until %d): %s", s.Kind,
				s.Attempt, *s.Expires, s.Result)
		}
		if s.Kind == scheduler.Ack && s.Before == No && m.Acks == 0 && m.Acked == Maybe {
			m.Acked = No
		}
	}
	return ""
}
