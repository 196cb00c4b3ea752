// SPDX-License-Identifier: Apache-2.0

package upkeep

import (
	"slices"
	"sync"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/manifest"
)

const (
	// maxOpen bounds the keys of kept messages that are remembered, 32 MB. Kept segments beyond it
	// are not learned, and stay (U2).
	maxOpen = 1 << 20
	// learnAtOnce bounds what one Missing asks for of each kind.
	learnAtOnce = 8
	// sampled is how many keys of a marks object are remembered.
	sampled = 256
)

// Known is what was learned of the objects that the manifest lists: about how many marks lie where,
// and which kept messages have neither a mark nor a newer upload. It is lost with the process and
// learned anew.
type Known struct {
	mu     sync.Mutex
	marks  map[string]*sample
	base   map[string]int64     // marks that a segment was written, or read, without
	owner  map[delay.Key]string // the newest kept segment of each unfinished key
	open   map[string]int       // keys that each known kept segment owns
	cursor int                  // of planRewrite
}

// sample is every step-th key of a marks object.
type sample struct {
	keys           []delay.Key
	step           int64
	minSeq, maxSeq delay.Seq
}

// NewKnown knows nothing.
func NewKnown() *Known {
	return &Known{
		marks: make(map[string]*sample), base: make(map[string]int64),
		owner: make(map[delay.Key]string), open: make(map[string]int),
	}
}

// Missing forgets what s lists no more and gives some of what is listed and not known yet, the kept
// segments first: marks are applied to those that are known when they come.
func (k *Known) Missing(s *manifest.State) (kept, marks []manifest.SegmentInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.prune(s)
	room := maxOpen - int64(len(k.owner))
	for i := range s.Kept {
		info := &s.Kept[i]
		if _, ok := k.open[info.Name]; ok || info.Count > room {
			continue
		}
		if kept = append(kept, *info); len(kept) == learnAtOnce {
			break
		}
		room -= info.Count
	}
	if len(kept) > 0 {
		return kept, nil
	}
	for i := range s.Marks {
		info := &s.Marks[i]
		if k.marks[info.Name] == nil && !info.Last.IsZero() {
			if marks = append(marks, *info); len(marks) == learnAtOnce {
				break
			}
		}
	}
	return nil, marks
}

// prune forgets what s does not list.
func (k *Known) prune(s *manifest.State) {
	listed := s.Names(false)
	gone := false
	for name := range k.open {
		if !listed[name] {
			delete(k.open, name)
			gone = true
		}
	}
	if gone {
		for key, name := range k.owner {
			if !listed[name] {
				delete(k.owner, key)
			}
		}
	}
	for name := range k.marks {
		if !listed[name] {
			delete(k.marks, name)
		}
	}
	for name := range k.base {
		if !listed[name] {
			delete(k.base, name)
		}
	}
}

// NoteKept tells the keys of a kept segment that s lists. Marks that overlap it and were committed
// before are forgotten when again is set, to be applied anew: those of a segment that was just
// uploaded cannot be finished yet, unless by marks of the same commit.
func (k *Known) NoteKept(s *manifest.State, info *manifest.SegmentInfo, keys []delay.Key,
	again bool,
) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.open[info.Name]; ok || len(k.owner)+len(keys) > maxOpen {
		return
	}
	place := make(map[string]int, len(s.Kept))
	for i := range s.Kept {
		place[s.Kept[i].Name] = i + 1
	}
	k.open[info.Name] = 0
	for _, key := range keys {
		old, ok := k.owner[key]
		if ok && place[old] > place[info.Name] {
			continue // a newer one has it
		}
		if ok {
			k.open[old]--
		}
		k.owner[key] = info.Name
		k.open[info.Name]++
	}
	for i := range s.Marks {
		if m := &s.Marks[i]; again && m.Overlaps(info.First, info.Last.Next()) {
			delete(k.marks, m.Name)
		}
	}
}

// NoteMarks tells what a marks object holds, sorted by key.
func (k *Known) NoteMarks(info *manifest.SegmentInfo, marks []delay.Mark) {
	k.mu.Lock()
	defer k.mu.Unlock()
	x := &sample{
		step: (info.Count + sampled - 1) / sampled, minSeq: info.MinSeq, maxSeq: info.MaxSeq,
	}
	for i := range marks {
		key := marks[i].Key
		if key.IsZero() {
			continue
		}
		if name, ok := k.owner[key]; ok {
			delete(k.owner, key)
			k.open[name]--
		}
		if int64(i)%x.step == 0 {
			x.keys = append(x.keys, key)
		}
	}
	k.marks[info.Name] = x
}

// NoteWritten tells that a segment holds no marked messages now: it was written, or read, with
// marks applied that Marked counted as marked.
func (k *Known) NoteWritten(info *manifest.SegmentInfo, marked int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.base[info.Name] += marked
}

// Covered gives the kept segments whose every message has a mark or is in a newer one.
func (k *Known) Covered(s *manifest.State) map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	covered := make(map[string]bool)
	for i := range s.Kept {
		n, ok := k.open[s.Kept[i].Name]
		early := planted.Is(planted.KeptBehind) && s.Kept[i].Last.Less(s.Watermark)
		if ok && n == 0 || early {
			covered[s.Kept[i].Name] = true
		}
	}
	return covered
}

// Marked is about how many messages of a segment were marked since it was written: the marks that
// lie between its keys, less those that it was written without.
func (k *Known) Marked(info *manifest.SegmentInfo) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := int64(0)
	for _, x := range k.marks {
		if x.minSeq <= info.MaxSeq && info.MinSeq <= x.maxSeq {
			n += (x.rank(info.Last.Next()) - x.rank(info.First)) * x.step
		}
	}
	return n - k.base[info.Name]
}

// rank is how many sampled keys are below key.
func (x *sample) rank(key delay.Key) int64 {
	n, _ := slices.BinarySearchFunc(x.keys, key, delay.Key.Compare)
	return int64(n)
}

// below is about how many marks of an object have keys below key.
func (k *Known) below(info *manifest.SegmentInfo, key delay.Key) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if x := k.marks[info.Name]; x != nil {
		return x.rank(key) * x.step
	}
	return 0
}

// advance gives the place of n that is looked at next.
func (k *Known) advance(n int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cursor = (k.cursor + 1) % n
	return k.cursor
}
