// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/segment"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

// CompactLimits say when something is compacted, and how much at once.
type CompactLimits = upkeep.Limits

// Upkeep is what Compact, Collect and Sweep are told. Now must be set.
type Upkeep struct {
	Now          func() delay.Due // the shard's clock
	DedupeWindow time.Duration    // how long ids are remembered after the end (rule R14)
	Limits       CompactLimits
	DryRun       bool // Collect and Sweep: change nothing

	// Wait, if set, is called as a compaction goes on, with the bytes of the records since the last
	// call, and may hold it back. Its error ends the compaction.
	Wait func(ctx context.Context, bytes int64) error
	// Around, if set, is called for each look at the manifest and each commit of it, which it must
	// make by calling do once, and whose error it returns. So the caller can note every version of
	// the manifest before the next follows (rule R10).
	Around func(ctx context.Context, do func(context.Context) error) error
}

// around calls do, in u's way.
func (u *Upkeep) around(ctx context.Context, do func(context.Context) error) error {
	if u.Around == nil {
		return do(ctx)
	}
	return u.Around(ctx, do)
}

// ownState is the manifest of a shard that was taken.
func (t *Tier) ownState() (*State, error) {
	if err := t.owning(); err != nil {
		return nil, err
	}
	return &t.current.Load().State, nil
}

// looked reads the manifest once more and gives what it says now.
func (t *Tier) looked(
	ctx context.Context, u *Upkeep,
) (state *State, modified time.Time, err error) {
	err = u.around(ctx, func(ctx context.Context) error {
		if err := t.lock(ctx); err != nil {
			return err
		}
		defer t.unlock()
		snap, err := t.check(ctx)
		if err == nil {
			state, modified = &snap.State, snap.Modified
		}
		return err
	})
	return state, modified, err
}

// learn reads a few of the objects that are listed and not known yet: the next call reads on.
func (t *Tier) learn(ctx context.Context, state *State) error {
	ctx = objio.As(ctx, objio.Background)
	kept, marks := t.learned.Missing(state)
	err := ordered(ctx, len(kept), func(ctx context.Context, i int) ([]delay.Key, error) {
		return t.readKeys(ctx, &kept[i])
	}, func(i int, keys []delay.Key) (bool, error) {
		t.learned.NoteKept(state, &kept[i], keys, true)
		return true, nil
	})
	if err != nil {
		return err
	}
	return ordered(ctx, len(marks), func(ctx context.Context, i int) ([]delay.Mark, error) {
		return t.readMarks(ctx, &marks[i])
	}, func(i int, list []delay.Mark) (bool, error) {
		t.learned.NoteMarks(&marks[i], list)
		return true, nil
	})
}

// noteCut learns what a commit has just listed, without reading it. The objects hold the kept
// messages and the marks of the cut in its order.
func (t *Tier) noteCut(cut *Cut, objects []stagedObject) {
	state := &t.current.Load().State
	kept, marks := cut.Kept, cut.Marks
	for i := range objects {
		info := &objects[i].info
		if objects[i].folder != keptFolder {
			continue
		}
		keys := make([]delay.Key, info.Count)
		for i := range keys {
			keys[i] = kept[i].Key
		}
		kept = kept[info.Count:]
		t.learned.NoteKept(state, info, keys, false)
	}
	for i := range objects {
		info := &objects[i].info
		if objects[i].folder == marksFolder {
			t.learned.NoteMarks(info, marks[:info.Count])
			marks = marks[info.Count:]
		}
	}
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
