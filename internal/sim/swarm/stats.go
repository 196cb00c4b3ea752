// SPDX-License-Identifier: Apache-2.0

package swarm

import "time"

// Stats count what a history was made of.
type Stats struct {
	Steps, Messages, Attempts, Boots, Disks, Duplicates int
	Takeovers, Fenced, Refused, Compacted, Deleted      int
	Registers, Raced, Undecided, Isolated               int
	Firings                                             int // of recurring schedules
	Virtual                                             time.Duration
	Calm                                                time.Duration // from the last due to the end
	Hash                                                uint64
}

// Add sums histories up.
func (s *Stats) Add(o Stats) {
	s.Steps, s.Messages, s.Attempts = s.Steps+o.Steps, s.Messages+o.Messages, s.Attempts+o.Attempts
	s.Boots, s.Disks, s.Duplicates = s.Boots+o.Boots, s.Disks+o.Disks, s.Duplicates+o.Duplicates
	s.Takeovers, s.Fenced, s.Refused = s.Takeovers+o.Takeovers, s.Fenced+o.Fenced,
		s.Refused+o.Refused
	s.Compacted, s.Deleted = s.Compacted+o.Compacted, s.Deleted+o.Deleted
	s.Registers, s.Raced = s.Registers+o.Registers, s.Raced+o.Raced
	s.Undecided, s.Isolated = s.Undecided+o.Undecided, s.Isolated+o.Isolated
	s.Firings += o.Firings
	s.Virtual, s.Calm = s.Virtual+o.Virtual, max(s.Calm, o.Calm)
}
