// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"maps"
	"slices"

	"github.com/cicadamq/cicada/delay"
)

// State is the content of a manifest. Treat one that was given to you as read-only.
type State struct {
	ClusterID string
	Shard     delay.Shard
	Epoch     delay.Epoch // of the owner; from 1
	Version   uint64      // of the manifest; from 1
	Nonce     [16]byte    // of the owner
	Released  bool        // the owner stopped cleanly
	WrittenAt delay.Due   // by the owner's clock

	Watermark    delay.Key // every message with a key below is finished or in a kept segment
	ClaimHorizon delay.Due // nothing due later was ever claimed on a push lane (R8)
	// Uploaded: every accepted message with a seq up to this one that qualifies for the tier is in
	// a listed segment or finished.
	Uploaded    delay.Seq
	Books       delay.Books // of the cut (R15)
	NotUploaded int64       // messages accepted but in no segment (R15)
	Cursors     map[string][]byte

	Segments []SegmentInfo // in the order of their commits, as are Kept and Marks
	Kept     []SegmentInfo
	Marks    []SegmentInfo
	Deletes  []PendingDelete

	// Predicates are the bulk cancels that are not retired yet, ascending seqs (rule R6). What they
	// have counted is in Books.
	Predicates []delay.Predicate
	// Paused are the targets whose lanes an operator has paused, ascending.
	Paused []delay.Target
	// Limits are the limits that an operator has given to targets, ascending.
	Limits []delay.TargetLimit
}

// SegmentInfo is what the manifest knows of an object: enough to choose it, read it and check it.
// For a marks object First and Last are the keys of its marks.
type SegmentInfo struct {
	Name           string // below the shard's prefix
	Level          uint8
	Epoch          delay.Epoch // of the writer
	First, Last    delay.Key
	MinSeq, MaxSeq delay.Seq
	Count          int64
	Bytes          int64  // of the records, raw
	Stored         int64  // size of the object
	TailOffset     int64  // where a segment's tail begins; 0 for marks
	Checksum       uint32 // CRC32C of a segment's body, or of the whole marks object
	IDs            int64  // entries with an id
	LastID         delay.Due
	CommittedAt    delay.Due
	// Purged: what the predicates up to this seq cover was left out when the segment was written.
	Purged delay.Seq
}

// Overlaps reports whether s may hold a key of [lower, upper).
func (s *SegmentInfo) Overlaps(lower, upper delay.Key) bool {
	return s.First.Less(upper) && !s.Last.Less(lower)
}

// MayHold reports whether s may hold key.
func (s *SegmentInfo) MayHold(key delay.Key) bool {
	return !key.Less(s.First) && !s.Last.Less(key) && s.MinSeq <= key.Seq && key.Seq <= s.MaxSeq
}

// PendingDelete is an object that is no longer listed and is deleted once NotBefore has passed.
type PendingDelete struct {
	Name      string
	NotBefore delay.Due
}

// Clone is a copy that shares nothing that the original's owner may change.
func (s *State) Clone() State {
	c := *s
	c.Cursors = maps.Clone(s.Cursors)
	c.Segments, c.Kept = slices.Clone(s.Segments), slices.Clone(s.Kept)
	c.Marks, c.Deletes = slices.Clone(s.Marks), slices.Clone(s.Deletes)
	c.Predicates, c.Paused = slices.Clone(s.Predicates), slices.Clone(s.Paused)
	c.Limits = slices.Clone(s.Limits)
	return c
}

// Names gives every name that must exist: listed, and, when pending is true, not yet deleted.
func (s *State) Names(pending bool) map[string]bool {
	names := make(map[string]bool, len(s.Segments)+len(s.Kept)+len(s.Marks)+len(s.Deletes))
	for _, list := range [...][]SegmentInfo{s.Segments, s.Kept, s.Marks} {
		for i := range list {
			names[list[i].Name] = true
		}
	}
	if pending {
		for _, d := range s.Deletes {
			names[d.Name] = true
		}
	}
	return names
}
