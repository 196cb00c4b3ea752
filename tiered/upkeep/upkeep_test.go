// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
)

func key(i int) delay.Key { return delay.Key{Due: delay.Due(1000 * i), Seq: delay.Seq(i + 1)} }

func segment(name string, level uint8, first, last int, stored int64) manifest.SegmentInfo {
	return manifest.SegmentInfo{
		Name: name, Level: level, First: key(first), Last: key(last), MinSeq: 1, MaxSeq: 1 << 30,
		Count: int64(last - first + 1), Stored: stored,
	}
}

func limits() Limits {
	var l Limits
	l.SetDefaults()
	return l
}

// Nothing must be merged without need, and what is due first comes first.
func TestPlan(t *testing.T) {
	many := func(n int, level uint8, stored int64) (list []manifest.SegmentInfo) {
		for i := range n {
			list = append(list, segment(fmt.Sprint(i), level, 0, 9, stored))
		}
		return list
	}
	big := many(20, 0, 100<<20)
	mixed := append(many(9, 1, 1), segment("big", 1, 0, 9, 1<<30))
	spread := []manifest.SegmentInfo{}
	for i := range 50 {
		spread = append(spread, segment(fmt.Sprint(i), 1, 10*i, 10*i+9, 1))
	}
	keptGap := many(20, 0, 1)
	keptGap[10].Stored = DefaultLeastBytes
	old := many(1, 0, 1)
	old[0].Count, old[0].MaxSeq = MarksPerObject, 5
	for _, c := range []struct {
		name  string
		state manifest.State
		kind  Kind
		n     int
	}{
		{"empty", manifest.State{}, None, 0},
		{"16 of level 0", manifest.State{Segments: many(16, 0, 1)}, None, 0},
		{"17 of level 0", manifest.State{Segments: many(17, 0, 1)}, Fresh, 17},
		{"large ones", manifest.State{Segments: big}, Fresh, 10},
		{"very many", manifest.State{Segments: many(500, 0, 1)}, Fresh, maxInputs},
		{"8 overlap", manifest.State{Segments: many(8, 1, 1)}, None, 0},
		{"9 overlap", manifest.State{Segments: many(9, 1, 1)}, Overlap, 9},
		{"9 small ones on a large one", manifest.State{Segments: mixed}, Overlap, 9},
		{"side by side", manifest.State{Segments: spread}, None, 0},
		{"16 kept", manifest.State{Kept: many(16, 0, 1)}, None, 0},
		{"17 kept", manifest.State{Kept: many(17, 0, 1)}, Kept, 17},
		{"17 kept, large", manifest.State{Kept: many(17, 0, DefaultLeastBytes)}, None, 0},
		{"20 kept, a large one between them", manifest.State{Kept: keptGap}, None, 0},
		{"17 marks objects", manifest.State{Marks: many(17, 0, 1)}, Marks, 17},
		{"16 marks objects", manifest.State{Marks: many(16, 0, 1)}, None, 0},
		{"a large marks object, unknown", manifest.State{Marks: old, Uploaded: 9}, None, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limits()
			job := Plan(&c.state, &l, NewKnown(), 0, 0)
			require.Equal(t, c.kind.String(), job.Kind.String())
			require.Len(t, job.Inputs, c.n)
		})
	}
}

// A large marks object whose keys nothing can hold any more must go although it is not small.
func TestPlanOldMarks(t *testing.T) {
	info := segment("m", 0, 0, 99, 1)
	info.Count, info.MaxSeq = MarksPerObject, 100
	s := &manifest.State{Marks: []manifest.SegmentInfo{info}, Uploaded: 100,
		Segments: []manifest.SegmentInfo{segment("s", 1, 90, 99, 1)}}
	s.Segments[0].Count = 1 << 40 // marks are few among them
	marks := make([]delay.Mark, MarksPerObject)
	for i := range marks {
		marks[i].Key = delay.Key{Due: delay.Due(i), Seq: 1}
	}
	k, l := NewKnown(), limits()
	k.NoteMarks(&info, marks)
	require.Equal(t, Marks, Plan(s, &l, k, 0, 0).Kind)
	s.Segments[0].First = delay.Key{Due: 10}
	require.Equal(t, None, Plan(s, &l, k, 0, 0).Kind)
	s.Segments[0].First, s.Uploaded = key(90), 99
	require.Equal(t, None, Plan(s, &l, k, 0, 0).Kind, "a row may still be uploaded")
}

// Compactions must come to an end, whatever segments there are, and never make more of them overlap
// at one key. Cites U3.
func TestPlanEnds(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, seed))
		l := Limits{Objects: 3, Overlap: 2, InputBytes: 200, TargetBytes: 40, LeastBytes: 10}
		var s manifest.State
		n := 0
		add := func(level uint8, first, last int, stored int64) {
			s.Segments = append(s.Segments, segment(fmt.Sprint(n), level, first, last, stored))
			n++
		}
		for range rng.IntN(40) {
			first := rng.IntN(100)
			add(uint8(rng.IntN(2)), first, first+rng.IntN(50), 1+rng.Int64N(60))
		}
		for jobs := 0; ; jobs++ {
			require.Less(t, jobs, 1000, "seed %d: no end", seed)
			job := Plan(&s, &l, NewKnown(), 0, 0)
			if job.Kind == None {
				break
			}
			before := deepest(s.Segments)
			first, last, bytes := 1<<30, 0, int64(0)
			for _, in := range job.Inputs {
				first, last = min(first, int(in.First.Due/1000)), max(last, int(in.Last.Due/1000))
				bytes += in.Stored
				s.Segments = slices.DeleteFunc(s.Segments, func(x manifest.SegmentInfo) bool {
					return x.Name == in.Name
				})
			}
			for parts := bytes/40 + 1; first <= last; first += (last-first)/int(parts) + 1 {
				add(1, first, min(last, first+(last-first)/int(parts)), bytes/parts)
			}
			if job.Kind == Overlap {
				require.LessOrEqual(t, deepest(s.Segments), before, "seed %d", seed)
			}
		}
		require.LessOrEqual(t, deepest(s.Segments), 2+3)
	}
}

func deepest(list []manifest.SegmentInfo) (most int) {
	for i := range 200 {
		n := 0
		for _, s := range list {
			if s.MayHold(key(i)) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// Kept segments must never be given up while one of their messages is neither marked nor newer
// elsewhere, in whatever order things are learned, and in the end must be. Cites U2.
func TestKnownCovered(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 7))
		k := NewKnown()
		var s manifest.State
		content := map[string][]delay.Key{}
		marks := map[string][]delay.Mark{}
		marked := map[delay.Key]bool{}
		for step := range 30 {
			switch name := fmt.Sprint(step); rng.IntN(4) {
			case 0, 1:
				var keys []delay.Key
				for i := range 12 {
					if rng.IntN(3) == 0 && !marked[key(i)] {
						keys = append(keys, key(i))
					}
				}
				if len(keys) == 0 {
					continue
				}
				info := segment(name, 0, 0, 12, 1)
				info.Count = int64(len(keys))
				s.Kept, content[name] = append(s.Kept, info), keys
				if rng.IntN(2) == 0 { // by this process, which knows what it uploads
					k.NoteKept(&s, &info, keys, false)
				}
			case 2:
				m := delay.Mark{Key: key(rng.IntN(12))}
				info := segment(name, 0, 0, 12, 1)
				info.Count, marked[m.Key] = 1, true
				s.Marks, marks[name] = append(s.Marks, info), []delay.Mark{m}
				if rng.IntN(2) == 0 {
					k.NoteMarks(&info, marks[name])
				}
			case 3:
				learn(k, &s, content, marks)
			}
			covered := k.Covered(&s)
			for i := range s.Kept {
				if name := s.Kept[i].Name; covered[name] {
					require.True(t, isCovered(&s, i, content, marked), "seed %d: %s", seed, name)
				}
			}
			s.Kept = slices.DeleteFunc(s.Kept, func(i manifest.SegmentInfo) bool {
				return covered[i.Name]
			})
		}
		for range 40 {
			learn(k, &s, content, marks)
		}
		covered := k.Covered(&s)
		for i := range s.Kept {
			require.Equal(t, isCovered(&s, i, content, marked), covered[s.Kept[i].Name], "seed %d", seed)
		}
	}
}

// learn reads what is missing.
func learn(
	k *Known, s *manifest.State, content map[string][]delay.Key, marks map[string][]delay.Mark,
) {
	kept, objects := k.Missing(s)
	for i := range kept {
		k.NoteKept(s, &kept[i], content[kept[i].Name], true)
	}
	for i := range objects {
		k.NoteMarks(&objects[i], marks[objects[i].Name])
	}
}

func isCovered(
	s *manifest.State, at int, content map[string][]delay.Key, marked map[delay.Key]bool,
) bool {
	for _, key := range content[s.Kept[at].Name] {
		newer := slices.ContainsFunc(s.Kept[at+1:], func(i manifest.SegmentInfo) bool {
			return slices.Contains(content[i.Name], key)
		})
		if !marked[key] && !newer {
			return false
		}
	}
	return true
}

// The filter must keep each mark that a listed object may hold. Cites U5.
func TestMarkFilter(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 9))
		s := manifest.State{Uploaded: delay.Seq(rng.IntN(100))}
		for range rng.IntN(8) {
			first := rng.IntN(90)
			info := segment("x", 1, first, first+rng.IntN(10), 1)
			info.MinSeq = delay.Seq(rng.IntN(100))
			info.MaxSeq = info.MinSeq + delay.Seq(rng.IntN(50))
			if rng.IntN(2) == 0 {
				s.Kept = append(s.Kept, info)
			} else {
				s.Segments = append(s.Segments, info)
			}
		}
		f := NewMarkFilter(&s, 1000, time.Second)
		require.True(t, f.Needed(&delay.Mark{ID: "x", At: 1}))
		for i := range 100 {
			m := delay.Mark{Key: delay.Key{Due: delay.Due(1000 * i), Seq: delay.Seq(rng.IntN(120))}}
			want := m.Key.Seq > s.Uploaded
			for _, list := range [...][]manifest.SegmentInfo{s.Segments, s.Kept} {
				for j := range list {
					want = want || list[j].MayHold(m.Key)
				}
			}
			require.Equal(t, want, f.Needed(&m), "seed %d: %s", seed, m.Key)
		}
	}
}

// A predicate that is settled asks for one rewrite of what it may cover, and of nothing else.
func TestPlanPurge(t *testing.T) {
	s := &manifest.State{
		Segments:   []manifest.SegmentInfo{segment("a", 1, 0, 9, 1), segment("b", 1, 50, 59, 1)},
		Predicates: []delay.Predicate{{Seq: 70, From: key(55).Due, Counted: delay.MaxKey}},
	}
	l := limits()
	require.Equal(t, None, Plan(s, &l, NewKnown(), 0, 0).Kind, "not settled")
	job := Plan(s, &l, NewKnown(), 70, 0)
	require.Equal(t, Purge, job.Kind)
	require.Equal(t, "b", job.Inputs[0].Name)
	s.Segments[1].Purged = 70
	require.Equal(t, None, Plan(s, &l, NewKnown(), 70, 0).Kind)
}
