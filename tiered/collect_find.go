// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/segment"
)

// orphans gives the objects of infos that state does not name and that are older than OrphanAge.
// The age is taken by the store's clock: modified is when the manifest was written. Objects of an
// upload that is still to be committed, and names this version does not know, are left alone.
func (t *Tier) orphans(
	state *State, infos []objstore.Info, now delay.Due, modified time.Time,
) (names []string, size int64) {
	needed := state.Names(true)
	for i := range t.staged {
		needed[t.staged[i].info.Name] = true
	}
	at := now.Time()
	if modified.Before(at) {
		at = modified
	}
	for _, info := range infos {
		name := strings.TrimPrefix(info.Key, t.prefix)
		folder, _, _ := strings.Cut(name, "/")
		switch folder + "/" {
		case l0Folder, keptFolder, marksFolder:
		default:
			continue
		}
		if _, _, err := parseName(name); err != nil || needed[name] {
			continue
		}
		if at.Sub(info.Modified) > OrphanAge {
			names, size = append(names, name), size+info.Size
		}
	}
	return names, size
}

// coveredKept gives the kept segments whose every message has a mark or is in a newer kept segment.
// It compares at most collectKeys keys at a time; what spans two such groups is found covered only
// by marks, which errs on the side of keeping.
func (t *Tier) coveredKept(ctx context.Context, state *State) (map[string]bool, error) {
	covered := make(map[string]bool)
	var group []*SegmentInfo
	var keys int64
	for i := range state.Kept {
		info := &state.Kept[i]
		if len(group) > 0 && keys+info.Count > collectKeys {
			if err := t.coverGroup(ctx, state, group, covered); err != nil {
				return nil, err
			}
			group, keys = nil, 0
		}
		group, keys = append(group, info), keys+info.Count
	}
	if len(group) == 0 {
		return covered, nil
	}
	return covered, t.coverGroup(ctx, state, group, covered)
}

// coverGroup adds the covered segments of the group to covered.
func (t *Tier) coverGroup(
	ctx context.Context, state *State, group []*SegmentInfo, covered map[string]bool,
) error {
	owner := make(map[delay.Key]int) // the newest segment of the group with the key, uncovered
	err := ordered(ctx, len(group), func(ctx context.Context, i int) ([]delay.Key, error) {
		return t.readKeys(ctx, group[i])
	}, func(i int, keys []delay.Key) (bool, error) {
		for _, k := range keys {
			owner[k] = i
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	var marks []SegmentInfo
	for i := range state.Marks {
		if m := &state.Marks[i]; !m.Last.IsZero() && overlapsAny(m, group) {
			marks = append(marks, *m)
		}
	}
	err = t.scanMarks(ctx, marks, func(m delay.Mark) bool {
		delete(owner, m.Key)
		return true
	})
	if err != nil {
		return err
	}
	open := make(map[int]bool)
	for _, i := range owner {
		open[i] = true
	}
	for i, info := range group {
		if !open[i] {
			covered[info.Name] = true
		}
	}
	return nil
}

func overlapsAny(m *SegmentInfo, group []*SegmentInfo) bool {
	for _, g := range group {
		if m.Overlaps(g.First, g.Last.Next()) {
			return true
		}
	}
	return false
}

// readKeys reads the keys of a segment.
func (t *Tier) readKeys(ctx context.Context, info *SegmentInfo) (keys []delay.Key, err error) {
	x, err := t.index(ctx, info)
	if err != nil {
		return nil, err
	}
	err = t.again(ctx, info, func() error {
		keys = make([]delay.Key, 0, info.Count)
		r := segment.NewReader(t.z, x, t.ranged(info))
		return r.Scan(ctx, delay.Key{}, delay.MaxKey, func(it segment.Item) bool {
			keys = append(keys, it.Key)
			return true
		})
	})
	return keys, err
}
