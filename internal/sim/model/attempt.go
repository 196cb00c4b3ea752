// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
)

// Attempt is one attempt at a message, as its receiver sees it.
type Attempt struct {
	Now, Due, FiredAt delay.Due
	Number            uint32
	Push              bool
	Life              int    // of the process
	Began             uint64 // the turn in which it was asked for: what came since may be later
}

// Check tells what is wrong with an attempt, "" when nothing is (the checkers of attempts).
func (m *Message) Check(a *Attempt) string {
	for _, check := range [...]func(*Attempt) string{m.instant, m.allowed, m.counted} {
		if text := check(a); text != "" {
			return text
		}
	}
	return ""
}

// instant: never early.
func (m *Message) instant(a *Attempt) string {
	switch {
	case a.Now < a.Due, a.FiredAt < a.Due:
		return fmt.Sprintf("early: due %d, fired at %d, attempted at %d", a.Due, a.FiredAt, a.Now)
	case a.Now < m.Earliest():
		return fmt.Sprintf("early: it was moved to %v, attempted at %d", m.Dues, a.Now)
	case !m.Loose && m.Moving == 0 && !slices.Contains(m.Dues, a.Due):
		return fmt.Sprintf("delivered with due %d, its due is %v", a.Due, m.Dues)
	}
	return ""
}

// allowed: cancel is exact, a finished message never comes back, one attempt at a time.
func (m *Message) allowed(a *Attempt) string {
	switch {
	case m.Cancelled == Yes:
		return "attempted after CANCELLED"
	case m.Replaced == Yes && m.Draft.Mode != delay.AtMostOnce: // that is finished before it leaves
		return "attempted after it was replaced"
	case m.Stopped == Yes && m.Slack == 0:
		return "attempted after STOPPED"
	case m.Draft.Mode == delay.AtMostOnce && m.Attempts > 0 && !m.Revived:
		return "at most once, and attempted again"
	case m.Flying:
		return "attempted while another attempt is under way"
	case a.Push && m.Told && m.ToldBoot == a.Life:
		return "attempted again after it was delivered, without a crash"
	}
	if m.Stopped == Yes {
		m.Slack--
	}
	if !a.Push && max(m.LastTurn, m.AckTurn) >= a.Began {
		return ""
	}
	switch {
	case m.FinalTier:
		return "attempted again after its end was in the bucket"
	case m.Final:
		return "attempted again after its end was durable"
	case m.Acked == Yes:
		return "leased again after ACKED"
	case !a.Push && a.Now < m.Leased:
		return fmt.Sprintf("leased again while a lease runs until %d", m.Leased)
	}
	return ""
}

// counted: attempts are counted. A crash may lose the last count.
func (m *Message) counted(a *Attempt) string {
	n := a.Number
	switch {
	case n == 0:
		return "attempt number 0"
	case m.LastBoot == a.Life && (n == m.Last || n < m.Last && m.LastTurn < a.Began):
		return fmt.Sprintf("attempt %d after attempt %d", n, m.Last)
	}
	return ""
}

// Incident notes that a process ended in disorder, or with its disk: each message that a receiver
// has, or was about to get, and whose end was not known to be durable, may be repeated once for it
// (R5, S6). It gives how many outcomes were told and not durable.
func (m *Model) Incident(lost bool) (told int) {
	for _, msg := range m.All {
		if msg.Final && !lost || msg.FinalTier || msg.Attempts == 0 && !msg.Flying {
			continue
		}
		if msg.Told && !msg.Flying && !lost {
			told++
		}
		msg.Excuses++
	}
	return told
}

// Repeated reports whether a message reached its receiver more often than once, and once more for
// each incident that covers it and for each reply that was lost.
func (m *Message) Repeated() bool { return !m.Racing && m.Taken > 1+m.Excuses }
