// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Change is the answer to a cancel or a stop, with what it has to be judged by.
type Change struct {
	scheduler.ChangeResult
	Asked, Now delay.Due
	Losses     bool          // a disk was lost before
	Forgets    bool          // finished ids are forgotten within the history
	Margin     time.Duration // how long before its due a message may be claimed in the end
}

// CancelAnswered notes the answer, and tells what is wrong with it, "" when nothing is.
func (m *Message) CancelAnswered(c *Change) (wrong string) {
	before := m.Cancelled
	switch c.Verdict {
	case scheduler.Cancelled:
		m.Cancelled, m.CancelTier = Yes, c.Durability == delay.Tier
		if m.Stopped == Maybe && m.Cancels == 0 {
			m.Stopped = No
		}
		switch {
		case m.Tier && !m.CancelTier:
			return "its durability is tier, and that of its cancel local"
		case m.Attempts > 0 && !m.Revived && !m.Retried:
			return fmt.Sprintf("CANCELLED after %d attempts", m.Attempts)
		}
	case scheduler.Stopped:
		m.Stopped, m.Slack = Yes, 1
		if before == Maybe && m.Cancels == 0 {
			m.Cancelled = No
		}
	case scheduler.TooLate:
		if before == Yes && !c.Losses && !c.Forgets {
			return "TOO_LATE after CANCELLED"
		}
		certain := c.State == delay.Claimed || !c.Forgets
		if before == Maybe && m.Cancels == 0 && certain {
			m.Cancelled = No
			if m.Stopped == Maybe && c.State == delay.Claimed {
				m.Stopped = No
			}
		}
		return m.tooLate(c)
	default:
	}
	return ""
}

// tooLate: a message that nobody can have claimed yet is not too late.
func (m *Message) tooLate(c *Change) string {
	known := c.State == delay.Claimed && m.Attempts == 0 && !m.Loose && m.Moving == 0 &&
		!m.Revived && !m.Retried
	if known && c.Now.Add(c.Margin) < m.Earliest() {
		return fmt.Sprintf("TOO_LATE, asked at %d, and due only at %d", c.Asked, m.Earliest())
	}
	return ""
}
