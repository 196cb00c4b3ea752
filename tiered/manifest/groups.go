// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"cmp"
	"slices"

	"github.com/cicadamq/cicada/delay"
)

// The kinds of listed objects.
const (
	KindSegment = "segment"
	KindKept    = "kept"
	KindMarks   = "marks"
)

// Group sums up the listed objects of one kind and level.
type Group struct {
	Kind    string
	Level   uint8
	Objects int
	Items   int64 // messages, or marks
	Bytes   int64 // of the records, raw; 0 for marks
	Stored  int64 // in the bucket

	First, Last    delay.Due // of the keys; zero when there are only marks of ids
	Oldest, Newest delay.Due // when they were committed
}

// Groups sums up the listed objects: segments by level, then kept ones, then marks. A kind that
// has no object is left out.
func (s *State) Groups() []Group {
	var all []Group
	for _, list := range [...]struct {
		kind  string
		infos []SegmentInfo
	}{{KindSegment, s.Segments}, {KindKept, s.Kept}, {KindMarks, s.Marks}} {
		var groups []Group
		for i := range list.infos {
			info := &list.infos[i]
			at := slices.IndexFunc(groups, func(g Group) bool { return g.Level == info.Level })
			if at < 0 {
				at = len(groups)
				groups = append(groups, Group{Kind: list.kind, Level: info.Level,
					Oldest: info.CommittedAt})
			}
			groups[at].add(info)
		}
		slices.SortFunc(groups, func(a, b Group) int { return cmp.Compare(a.Level, b.Level) })
		all = append(all, groups...)
	}
	return all
}

func (g *Group) add(info *SegmentInfo) {
	g.Objects++
	g.Items += info.Count
	g.Bytes += info.Bytes
	g.Stored += info.Stored
	g.Oldest = min(g.Oldest, info.CommittedAt)
	g.Newest = max(g.Newest, info.CommittedAt)
	if info.Last.IsZero() {
		return
	}
	// Marks of an id alone come first and have no key.
	if first := info.First.Due; g.First == 0 || first != 0 && first < g.First {
		g.First = first
	}
	g.Last = max(g.Last, info.Last.Due)
}
