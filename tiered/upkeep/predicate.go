// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// Purger gives what reports whether a rewritten segment may leave a record out: a bulk cancel
// covers it that is counted in the books of s, and whose messages' ids need not be remembered any
// more (rule R6). Nil when there is none.
func Purger(
	s *manifest.State, now delay.Due, dedupeWindow time.Duration,
) func(key delay.Key, rec []byte) bool {
	if len(s.Predicates) == 0 {
		return nil
	}
	ids := delay.NewIDMaker(s.ClusterID)
	return func(key delay.Key, rec []byte) bool {
		for i := range s.Predicates {
			p := &s.Predicates[i]
			if p.Settled(key, now, dedupeWindow) && p.Covers(ids, s.Shard, key, rec) {
				return true
			}
		}
		return false
	}
}

// PurgedThrough is the SegmentInfo.Purged of a segment that is written with what Purger says of
// state: the highest predicate up to which all cover nothing in it.
func PurgedThrough(state *manifest.State, now delay.Due, dedupeWindow time.Duration) delay.Seq {
	through := delay.Seq(0)
	for i := range state.Predicates {
		p := &state.Predicates[i]
		if !p.Complete() || !p.Settled(delay.Key{}, now, dedupeWindow) {
			break
		}
		through = p.Seq
	}
	return through
}

// PredicateNeeded reports whether a bulk cancel must stay in the manifest: it is not counted yet,
// an id that it cancelled must be remembered, or a listed segment may hold what it covers (R6).
// One that has cancelled nothing covers nothing that another one does not cover.
func PredicateNeeded(
	state *manifest.State, p *delay.Predicate, now delay.Due, dedupeWindow time.Duration,
) bool {
	if !p.Complete() || !p.Settled(delay.Key{}, now, dedupeWindow) {
		return !p.Complete() || p.Cancelled > 0
	}
	if planted.Is(planted.PredicateRetired) {
		return false
	}
	lower := p.Begin()
	if lower.Less(state.Watermark) {
		lower = state.Watermark // below it nothing comes back from segments
	}
	for i := range state.Segments {
		s := &state.Segments[i]
		if s.Purged < p.Seq && s.MinSeq <= p.Seq && s.Overlaps(lower, p.Upper()) {
			return true
		}
	}
	return false
}
