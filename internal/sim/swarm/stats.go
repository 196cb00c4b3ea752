// SPDX-License-Identifier: Apache-2.0

package swarm

import "time"

// Stats count what a history was made of.
type Stats struct {
	Steps, Messages, Attempts, Boots, Disks, Duplicates int
	Takeovers, Fenced, Refused, Compacted, Deleted      int
	Virtual                                             time.Duration
	Hash                                                uint64
}

// Add sums histories up.
func (s *Stats) Add(o Stats) {
	s.Steps, s.Messages, s.Attempts = s.Steps+o.Steps, s.Messages+o.Messages, s.Attempts+o.Attempts
	s.Boots, s.Disks, s.Duplicates = s.Boots+o.Boots, s.Disks+o.Disks, s.Duplicates+o.Duplicates
	s.Takeovers, s.Fenced, s.Refused = s.Takeovers+o.Takeovers, s.Fenced+o.Fenced,
		s.Refused+o.Refused
	s.Compacted, s.Deleted = s.Compacted+o.Compacted, s.Deleted+o.Deleted
	s.Virtual += o.Virtual
}
