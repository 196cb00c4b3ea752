// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// A predicate that is dropped too early brings back what it cancelled; one that a rewrite believes
// too early is never counted. Cites R6.
func TestPredicateNeeded(t *testing.T) {
	const window = time.Hour
	at := delay.Due(1_800_000_000_000)
	later := at.Add(window) + 1
	for _, c := range []struct {
		name    string
		now     delay.Due
		edit    func(s *manifest.State, p *delay.Predicate)
		needed  bool
		through delay.Seq
	}{
		{"a segment may hold its keys", later, nil, true, 10},
		{"the segment was written without them", later, func(s *manifest.State, _ *delay.Predicate) {
			s.Segments[0].Purged = 10
		}, false, 10},
		{"the segment was written for an earlier one", later, func(s *manifest.State, _ *delay.Predicate) {
			s.Segments[0].Purged = 9
		}, true, 10},
		{"the segment is younger", later, func(s *manifest.State, _ *delay.Predicate) {
			s.Segments[0].MinSeq = 11
		}, false, 10},
		{"the segment is of other dues", later, func(_ *manifest.State, p *delay.Predicate) {
			p.To = at + 100
		}, true, 0}, // not complete: it was counted for another window
		{"the watermark has passed", later, func(s *manifest.State, _ *delay.Predicate) {
			s.Watermark = delay.Key{Due: at + 2001}
		}, false, 10},
		{"not counted", later, func(s *manifest.State, p *delay.Predicate) {
			s.Segments, p.Counted = nil, delay.Key{Due: at}
		}, true, 0},
		{"nothing was cancelled", at, func(_ *manifest.State, p *delay.Predicate) { p.Cancelled = 0 }, false, 0},
		{"ids are remembered", later - 1, func(s *manifest.State, _ *delay.Predicate) {
			s.Segments = nil
		}, true, 0},
		{"no segments", later, func(s *manifest.State, _ *delay.Predicate) { s.Segments = nil }, false, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := manifest.State{Segments: []manifest.SegmentInfo{{
				Name: "l0/a", First: delay.Key{Due: at + 1000}, Last: delay.Key{Due: at + 2000},
				MinSeq: 5, MaxSeq: 20,
			}}}
			p := delay.Predicate{Seq: 10, At: at, Counted: delay.MaxKey, Cancelled: 1}
			if c.edit != nil {
				c.edit(&s, &p)
			}
			if p.To != 0 {
				p.Counted = delay.Key{Due: p.To - 1}
			}
			s.Predicates = []delay.Predicate{p}
			require.Equal(t, c.needed, PredicateNeeded(&s, &p, c.now, window))
			require.Equal(t, c.through, PurgedThrough(&s, c.now, window))
		})
	}
}

// One that is not settled holds back those after it: a segment has one number for all.
func TestPurgedThrough(t *testing.T) {
	s := manifest.State{Predicates: []delay.Predicate{
		{Seq: 1, Counted: delay.MaxKey}, {Seq: 4, Counted: delay.MaxKey}, {Seq: 5},
		{Seq: 6, Counted: delay.MaxKey},
	}}
	require.EqualValues(t, 4, PurgedThrough(&s, 100, time.Millisecond))
}

// A rewrite must leave out exactly what is covered and settled.
func TestPurged(t *testing.T) {
	rec := delay.AppendRecord(nil, &delay.Message{Target: "log:", Due: 50, Body: []byte("x")})
	k := delay.Key{Due: 50, Seq: 3}
	s := manifest.State{ClusterID: "c", Predicates: []delay.Predicate{
		{Seq: 8, At: 10, Target: "pull:a", Counted: delay.MaxKey},
		{Seq: 9, At: 10, Target: "log:", Counted: delay.Key{Due: 50, Seq: 4}},
	}}
	require.True(t, Purger(&s, 1011, time.Second)(k, rec))
	require.False(t, Purger(&s, 1010, time.Second)(k, rec))
	require.False(t, Purger(&s, 1011, time.Second)(delay.Key{Due: 50, Seq: 4}, rec))
	require.Nil(t, Purger(&manifest.State{}, 1011, time.Second))
}
