// SPDX-License-Identifier: Apache-2.0

package scheduler

import "github.com/cicadamq/cicada/delay"

// Stood tells the shard that its clock was at an instant when it was driven last: what schedules
// were due in a longer time was missed, as the loop of a process that stood still would notice.
func (s *Stepped) Stood(before delay.Due) { s.noteStep(before, s.clock.Now()) }

// Waiting is how many deliveries wait to be done.
func (s *Stepped) Waiting() int { return len(s.drive.deliveries) }

// Handing tells for whom the nth of these is, and how many messages.
func (s *Stepped) Handing(n int) (delay.Target, int) {
	a := s.drive.deliveries[n]
	return s.lanes.Target(a.Lane), len(a.Claims)
}
