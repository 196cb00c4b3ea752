// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// Retired names what left the lists of a manifest.
type Retired struct{ Segments, Kept, Marks []string }

// Len is how many objects there are.
func (r *Retired) Len() int { return len(r.Segments) + len(r.Kept) + len(r.Marks) }

// Retire takes out of the lists of s what no message needs any more, and gives the names: segments
// behind the watermark whose ids need not be found any longer, the covered kept segments, and marks
// that no listed object needs. Nothing goes by age alone. The slices of s are changed.
func Retire(
	s *manifest.State, covered map[string]bool, now delay.Due, window time.Duration,
) (r Retired) {
	out := func(list *[]manifest.SegmentInfo, names *[]string, done func(*manifest.SegmentInfo) bool) {
		*list = slices.DeleteFunc(*list, func(i manifest.SegmentInfo) bool {
			if !done(&i) {
				return false
			}
			*names = append(*names, i.Name)
			return true
		})
	}
	out(&s.Segments, &r.Segments, func(i *manifest.SegmentInfo) bool {
		over := i.IDs == 0 || i.LastID.Add(window) < now || planted.Is(planted.IDsRetireEarly)
		return i.Last.Less(s.Watermark) && over
	})
	out(&s.Kept, &r.Kept, func(i *manifest.SegmentInfo) bool { return covered[i.Name] })
	out(&s.Marks, &r.Marks, func(i *manifest.SegmentInfo) bool {
		return !marksNeeded(s, i) && (i.IDs == 0 || i.LastID.Add(window) < now)
	})
	return r
}

// marksNeeded reports whether a listed object may hold a key of the marks, or one that is still to
// be uploaded (U5). An object without keys, only ids, has zero keys and is needed by none.
func marksNeeded(s *manifest.State, marks *manifest.SegmentInfo) bool {
	if marks.Last.IsZero() {
		return false
	}
	return marks.MaxSeq > s.Uploaded || Holds(s, marks, nil)
}

// Holds reports whether an object that s lists, and known does not, may hold a key that lies within
// the keys and seqs of marks.
func Holds(s *manifest.State, marks *manifest.SegmentInfo, known map[string]bool) bool {
	for _, list := range [...][]manifest.SegmentInfo{s.Segments, s.Kept} {
		for i := range list {
			x := &list[i]
			if x.Level > 0 && planted.Is(planted.MarksApplied) {
				continue
			}
			if !x.Last.Less(marks.First) && !marks.Last.Less(x.First) &&
				x.MinSeq <= marks.MaxSeq && marks.MinSeq <= x.MaxSeq && !known[x.Name] {
				return true
			}
		}
	}
	return false
}

// MarkFilter decides which marks a merge of marks objects must copy (U5).
type MarkFilter struct {
	Now      delay.Due
	Window   time.Duration
	uploaded delay.Seq
	objects  []*manifest.SegmentInfo // by first key
	next     int
	open     []*manifest.SegmentInfo // those that may hold the last key asked for, or a later one
}

// NewMarkFilter decides by what s lists.
func NewMarkFilter(s *manifest.State, now delay.Due, window time.Duration) *MarkFilter {
	f := &MarkFilter{Now: now, Window: window, uploaded: s.Uploaded}
	for _, list := range [...][]manifest.SegmentInfo{s.Segments, s.Kept} {
		for i := range list {
			f.objects = append(f.objects, &list[i])
		}
	}
	slices.SortFunc(f.objects, func(a, b *manifest.SegmentInfo) int {
		return a.First.Compare(b.First)
	})
	return f
}

// Needed reports whether m must stay. It is asked in the order of the keys.
func (f *MarkFilter) Needed(m *delay.Mark) bool {
	if m.ID != "" && m.At.Add(f.Window) >= f.Now {
		return true
	}
	if m.Key.IsZero() {
		return false
	}
	for f.next < len(f.objects) && !m.Key.Less(f.objects[f.next].First) {
		f.open = append(f.open, f.objects[f.next])
		f.next++
	}
	f.open = slices.DeleteFunc(f.open, func(i *manifest.SegmentInfo) bool {
		return i.Last.Less(m.Key)
	})
	return m.Key.Seq > f.uploaded ||
		slices.ContainsFunc(f.open, func(i *manifest.SegmentInfo) bool { return i.MayHold(m.Key) })
}
