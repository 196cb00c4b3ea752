// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objio"
)

// collectKeys bounds the keys of kept messages that one pass over the marks compares.
const collectKeys = 1 << 20

// Collected is what a Collect did, or would do.
type Collected struct {
	Segments []string // no longer listed, now waiting for their deletion
	Kept     []string
	Marks    []string
	Deleted  []string // deleted after their grace period
	Orphans  []string // deleted, were never listed or are listed no more
	Bytes    int64    // of the orphans
}

// Collect gives space back. What no message needs any more leaves the lists: segments behind the
// watermark whose ids need not be remembered any longer, kept segments whose every message has a
// mark or is in a newer one, marks no listed object needs (T7). Objects that left the lists
// DeleteGrace ago are deleted, and so are objects that no manifest lists (T2). dryRun changes
// nothing. now is the shard's clock; ages of orphans are taken by the store's.
func (t *Tier) Collect(
	ctx context.Context, now delay.Due, dedupeWindow time.Duration, dryRun bool,
) (Collected, error) {
	if err := t.lock(ctx); err != nil {
		return Collected{}, err
	}
	defer t.unlock()
	c, err := t.collect(objio.As(ctx, objio.Background), now, dedupeWindow, dryRun)
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	if !dryRun && len(c.Segments)+len(c.Kept)+len(c.Marks)+len(c.Deleted)+len(c.Orphans) > 0 {
		t.opts.Logger.Info("tier collected", zap.Int("segments", len(c.Segments)),
			zap.Int("kept", len(c.Kept)), zap.Int("marks", len(c.Marks)),
			zap.Int("deleted", len(c.Deleted)), zap.Int("orphans", len(c.Orphans)))
	}
	return c, nil
}

func (t *Tier) collect(
	ctx context.Context, now delay.Due, window time.Duration, dryRun bool,
) (c Collected, err error) {
	if err := t.owning(); err != nil {
		return c, err
	}
	// The list comes before the manifest is read: an object that was listed in between is not
	// taken for an orphan.
	infos, err := t.client.List(ctx, t.prefix)
	if err != nil {
		return c, err
	}
	snap, err := t.check(ctx)
	if err != nil {
		return c, err
	}
	state := snap.State.Clone()
	covered, err := t.coveredKept(ctx, &state)
	if err != nil {
		return c, err
	}
	c.retire(&state, covered, now, window)
	expired, err := expiredDeletes(&snap.State, now)
	if err != nil {
		return c, err
	}
	orphans, size := t.orphans(&snap.State, infos, now, snap.Modified)
	c.Deleted, c.Orphans, c.Bytes = expired, orphans, size
	if dryRun {
		return c, nil
	}
	if err := t.client.Delete(ctx, t.keys(slices.Concat(expired, orphans))...); err != nil {
		return c, err
	}
	if len(expired)+len(c.Segments)+len(c.Kept)+len(c.Marks) == 0 {
		return c, nil
	}
	notBefore := now.Add(t.opts.DeleteGrace)
	return c, t.commit(ctx, func(base *State) (State, error) {
		return c.apply(base, t.now(), notBefore), nil
	})
}

func (t *Tier) keys(names []string) []string {
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = t.prefix + name
	}
	return keys
}

// retire removes from state what is not needed any more, and remembers it.
func (c *Collected) retire(
	state *State, covered map[string]bool, now delay.Due, window time.Duration,
) {
	take := func(list []SegmentInfo, names *[]string, done func(*SegmentInfo) bool) []SegmentInfo {
		return slices.DeleteFunc(list, func(i SegmentInfo) bool {
			if !done(&i) {
				return false
			}
			*names = append(*names, i.Name)
			return true
		})
	}
	state.Segments = take(state.Segments, &c.Segments, func(i *SegmentInfo) bool {
		return i.Last.Less(state.Watermark) && i.Last.Due.Add(window) < now
	})
	state.Kept = take(state.Kept, &c.Kept, func(i *SegmentInfo) bool { return covered[i.Name] })
	state.Marks = take(state.Marks, &c.Marks, func(i *SegmentInfo) bool {
		return !marksNeeded(state, i) && (i.IDs == 0 || i.LastID.Add(window) < now)
	})
}

// marksNeeded reports whether a listed object may contain a key of the marks (T7). An object
// without keys, only ids, has zero keys and is needed by none.
func marksNeeded(state *State, marks *SegmentInfo) bool {
	if marks.Last.IsZero() {
		return false
	}
	for _, list := range [...][]SegmentInfo{state.Segments, state.Kept} {
		for i := range list {
			s := &list[i]
			if !s.Last.Less(marks.First) && !marks.Last.Less(s.First) &&
				s.MinSeq <= marks.MaxSeq && marks.MinSeq <= s.MaxSeq {
				return true
			}
		}
	}
	return false
}

// apply is the state after the collection.
func (c *Collected) apply(base *State, now, notBefore delay.Due) State {
	next := base.Clone()
	next.WrittenAt = now
	gone := make(map[string]bool)
	for _, names := range [...][]string{c.Deleted, c.Segments, c.Kept, c.Marks} {
		for _, name := range names {
			gone[name] = true
		}
	}
	next.Deletes = slices.DeleteFunc(next.Deletes, func(d PendingDelete) bool {
		return gone[d.Name]
	})
	for _, list := range [...]*[]SegmentInfo{&next.Segments, &next.Kept, &next.Marks} {
		*list = slices.DeleteFunc(*list, func(i SegmentInfo) bool {
			if !gone[i.Name] {
				return false
			}
			next.Deletes = append(next.Deletes,
				PendingDelete{Name: i.Name, NotBefore: notBefore})
			return true
		})
	}
	return next
}

// expiredDeletes gives the pending deletes whose grace period has passed. A name that is listed as
// well is a broken manifest, and nothing is deleted (T2).
func expiredDeletes(state *State, now delay.Due) ([]string, error) {
	listed := state.Names(false)
	var names []string
	for _, d := range state.Deletes {
		if listed[d.Name] {
			return nil, fmt.Errorf("%w: manifest version %d lists and deletes %s",
				delay.ErrCorrupt, state.Version, d.Name)
		}
		if _, _, err := parseName(d.Name); err != nil {
			return nil, err
		}
		if d.NotBefore <= now {
			names = append(names, d.Name)
		}
	}
	return names, nil
}
