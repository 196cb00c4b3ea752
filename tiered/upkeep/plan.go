// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"cmp"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// Kind says why objects are compacted.
type Kind uint8

// The kinds, in the order in which they are looked for.
const (
	None    Kind = iota
	Fresh        // many level-0 segments: merge the oldest
	Overlap      // many level-1 segments at one key: merge those
	Kept         // many small kept segments
	Marks        // many small marks objects, or one with marks that are not needed
	Rewrite      // much of a level-1 segment is marked
	Purge        // a settled bulk cancel covers keys of a level-1 segment
)

// String is the word of logs and metrics.
func (k Kind) String() string {
	return [...]string{"none", "fresh", "overlap", "kept", "marks", "rewrite", "purge"}[k]
}

// The defaults of Limits.
const (
	DefaultObjects     = 16
	DefaultOverlap     = 8
	DefaultInputBytes  = 1 << 30
	DefaultTargetBytes = 64 << 20
	DefaultLeastBytes  = 4 << 20
	// MarksPerObject bounds a marks object, which is read as a whole: about 8 MiB.
	MarksPerObject = 100_000

	// maxInputs bounds the inputs of a job, each of which is read ahead.
	maxInputs = 64
	// maxMarks bounds the marks of one job, which are held in memory: about 50 MB with their ids.
	maxMarks = 2 * MarksPerObject
	// examine is how many segments one Plan asks about their marks.
	examine = 512
)

// Limits say when something is compacted, and how much at once. Zero fields take the defaults.
type Limits struct {
	Objects     int   // more level-0, small kept or small marks objects are merged. Default 16
	Overlap     int   // more level-1 segments at one key are merged. Default 8
	InputBytes  int64 // of one job; two inputs are taken whatever their size. Default 1 GiB
	TargetBytes int   // stored size of an output. Default 64 MiB
	// LeastBytes: an output of this stored size is closed at the end of a UTC day. A smaller kept
	// segment is a small one. Default 4 MiB, at most TargetBytes.
	LeastBytes int
}

// SetDefaults fills zero fields.
func (l *Limits) SetDefaults() {
	l.Objects = cmp.Or(max(l.Objects, 0), DefaultObjects)
	l.Overlap = cmp.Or(max(l.Overlap, 0), DefaultOverlap)
	l.InputBytes = cmp.Or(max(l.InputBytes, 0), DefaultInputBytes)
	l.TargetBytes = min(cmp.Or(max(l.TargetBytes, 0), DefaultTargetBytes), DefaultTargetBytes)
	l.LeastBytes = min(cmp.Or(max(l.LeastBytes, 0), DefaultLeastBytes), l.TargetBytes)
}

// Job is one compaction: the inputs, in the order of the manifest's list.
type Job struct {
	Kind   Kind
	Inputs []manifest.SegmentInfo
}

// Plan gives the next job that s calls for; its Kind is None when there is none. purged is the
// predicate up to which all are settled; ids that ended before since need not be remembered.
func Plan(s *manifest.State, l *Limits, k *Known, purged delay.Seq, since delay.Due) Job {
	for _, plan := range [...]func() Job{
		func() Job { return planFresh(s, l) },
		func() Job { return planOverlap(s, l) },
		func() Job { return planKept(s, l) },
		func() Job { return planMarks(s, l, k, since) },
		func() Job { return planRewrite(s, k, purged) },
	} {
		if job := plan(); job.Kind != None {
			return job
		}
	}
	return Job{}
}

// take gives the first of list, up to the limits of a job, but at least two.
func take(list []manifest.SegmentInfo, l *Limits) []manifest.SegmentInfo {
	bytes := int64(0)
	for i := range list {
		bytes += list[i].Stored
		if i >= 2 && (bytes > l.InputBytes || i >= maxInputs) {
			return list[:i]
		}
	}
	return list
}

func planFresh(s *manifest.State, l *Limits) Job {
	var fresh []manifest.SegmentInfo
	for i := range s.Segments {
		if s.Segments[i].Level == 0 {
			fresh = append(fresh, s.Segments[i])
		}
	}
	if len(fresh) <= l.Objects {
		return Job{}
	}
	return Job{Kind: Fresh, Inputs: take(fresh, l)}
}

// planOverlap walks the segments by their first key. Of those that overlap at one key the smaller
// ones are merged: at least half of them, and larger ones as long as all before together are not
// smaller. So a segment is not written again for every few small ones that come upon it.
func planOverlap(s *manifest.State, l *Limits) Job {
	order := make([]int, 0, len(s.Segments))
	for i := range s.Segments {
		if s.Segments[i].Level > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return s.Segments[a].First.Compare(s.Segments[b].First)
	})
	var open []int
	for _, i := range order {
		first := s.Segments[i].First
		open = slices.DeleteFunc(open, func(j int) bool { return s.Segments[j].Last.Less(first) })
		if open = append(open, i); len(open) > l.Overlap {
			break
		}
	}
	if len(open) <= l.Overlap {
		return Job{}
	}
	slices.SortFunc(open, func(a, b int) int {
		return cmp.Or(cmp.Compare(s.Segments[a].Stored, s.Segments[b].Stored), cmp.Compare(a, b))
	})
	inputs, bytes := make([]manifest.SegmentInfo, 0, len(open)), int64(0)
	for n, i := range open {
		if n > len(open)/2 && s.Segments[i].Stored > bytes {
			break
		}
		bytes += s.Segments[i].Stored
		inputs = append(inputs, s.Segments[i])
	}
	return Job{Kind: Overlap, Inputs: take(inputs, l)}
}

// planKept takes the first run of neighbours that are small (U4).
func planKept(s *manifest.State, l *Limits) Job {
	from := 0
	for i := range s.Kept {
		if s.Kept[i].Stored >= int64(l.LeastBytes) {
			from = i + 1
		}
		if i-from+1 > l.Objects {
			for i+1 < len(s.Kept) && s.Kept[i+1].Stored < int64(l.LeastBytes) {
				i++
			}
			return Job{Kind: Kept, Inputs: take(s.Kept[from:i+1], l)}
		}
	}
	return Job{}
}

func planMarks(s *manifest.State, l *Limits, k *Known, since delay.Due) Job {
	var small []manifest.SegmentInfo
	count := int64(0)
	least := lowest(s)
	for i := range s.Marks {
		m := &s.Marks[i]
		if m.Count < MarksPerObject/2 {
			if count += m.Count; len(small) < 2 || count <= maxMarks && len(small) < maxInputs*4 {
				small = append(small, *m)
			}
		} else if m.MaxSeq <= s.Uploaded && (m.IDs == 0 || m.LastID < since) &&
			k.below(m, least)*2 > m.Count {
			return Job{Kind: Marks, Inputs: s.Marks[i : i+1]}
		}
	}
	if len(small) <= l.Objects {
		return Job{}
	}
	return Job{Kind: Marks, Inputs: small}
}

// lowest is the least key that a listed segment can hold.
func lowest(s *manifest.State) delay.Key {
	least := delay.MaxKey
	for _, list := range [...][]manifest.SegmentInfo{s.Segments, s.Kept} {
		for i := range list {
			if list[i].First.Less(least) {
				least = list[i].First
			}
		}
	}
	return least
}

// planRewrite looks at some of the segments, and goes on with the next ones the next time.
func planRewrite(s *manifest.State, k *Known, purged delay.Seq) Job {
	for range min(len(s.Segments), examine) {
		info := &s.Segments[k.advance(len(s.Segments))]
		kind := None
		switch {
		case info.Level == 0: // the next merge takes it
		case k.Marked(info)*2 > info.Count:
			kind = Rewrite
		case info.Purged < purged && covered(s, info, purged):
			kind = Purge
		}
		if kind != None {
			return Job{Kind: kind, Inputs: []manifest.SegmentInfo{*info}}
		}
	}
	return Job{}
}

// covered reports whether one of the predicates up to purged may cover a message of info.
func covered(s *manifest.State, info *manifest.SegmentInfo, purged delay.Seq) bool {
	for i := range s.Predicates {
		p := &s.Predicates[i]
		if p.Seq > info.Purged && p.Seq <= purged && info.MinSeq <= p.Seq &&
			info.Overlaps(p.Begin(), p.Upper()) {
			return true
		}
	}
	return false
}
