// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

// deletesAtOnce bounds the objects that one Collect deletes.
const deletesAtOnce = 10_000

// Collected is what a Collect did, or would do.
type Collected struct {
	Segments []string // no longer listed, now waiting for their deletion
	Kept     []string
	Marks    []string
	Deleted  []string // deleted after their grace period
}

// Collect gives space back. What no message needs any more leaves the lists: segments behind the
// watermark whose ids need not be found any longer, kept segments whose every message has a mark or
// is in a newer one, marks no listed object needs (T7). Objects that left the lists DeleteGrace ago
// are deleted, once the manifest was read again and still says so (T2). It asks the bucket for
// nothing when nothing is to be done, but for a few objects that it does not know yet.
func (t *Tier) Collect(ctx context.Context, u Upkeep) (Collected, error) {
	if !t.collecting.CompareAndSwap(false, true) {
		return Collected{}, nil
	}
	defer t.collecting.Store(false)
	c, err := t.collect(objio.As(ctx, objio.Background), &u)
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	if !u.DryRun && len(c.Segments)+len(c.Kept)+len(c.Marks)+len(c.Deleted) > 0 {
		t.opts.Logger.Info("tier collected", zap.Int("segments", len(c.Segments)),
			zap.Int("kept", len(c.Kept)), zap.Int("marks", len(c.Marks)),
			zap.Int("deleted", len(c.Deleted)))
	}
	return c, nil
}

func (t *Tier) collect(ctx context.Context, u *Upkeep) (c Collected, err error) {
	state, err := t.ownState()
	if err != nil {
		return c, err
	}
	if planted.Is(planted.CollectNothing) {
		return c, nil
	}
	if err := t.learn(ctx, state); err != nil {
		return c, err
	}
	covered, now := t.learned.Covered(state), u.Now()
	next := state.Clone()
	retired := upkeep.Retire(&next, covered, now, u.DedupeWindow)
	expired, err := expiredDeletes(state, now)
	if err != nil {
		return c, err
	}
	if u.DryRun || retired.Len()+len(expired) == 0 {
		return collected(retired, expired), nil
	}
	if expired, err = t.deleteExpired(ctx, u, len(expired) > 0); err != nil {
		return c, err
	}
	deleted := make(map[string]bool, len(expired))
	for _, name := range expired {
		deleted[name] = true
	}
	err = t.commitUpkeep(ctx, u, func(base *State) (State, error) {
		next := base.Clone()
		retired = upkeep.Retire(&next, covered, now, u.DedupeWindow)
		c = collected(retired, expired)
		next.Deletes = slices.DeleteFunc(next.Deletes, func(d PendingDelete) bool {
			return deleted[d.Name]
		})
		notBefore := u.Now().Add(t.opts.DeleteGrace)
		for _, names := range [...][]string{c.Segments, c.Kept, c.Marks} {
			for _, name := range names {
				next.Deletes = append(next.Deletes, PendingDelete{Name: name, NotBefore: notBefore})
			}
		}
		return next, nil
	})
	return c, err
}

func collected(r upkeep.Retired, deleted []string) Collected {
	return Collected{Segments: r.Segments, Kept: r.Kept, Marks: r.Marks, Deleted: deleted}
}

// deleteExpired deletes what the manifest, read again, lists as expired. Whoever owns the shard by
// the time of the deletes, nobody can list these names any more (T4).
func (t *Tier) deleteExpired(ctx context.Context, u *Upkeep, some bool) ([]string, error) {
	if !some {
		return nil, nil
	}
	state, _, err := t.looked(ctx, u)
	if planted.Is(planted.DeleteUnread) {
		state, err = t.ownState()
	}
	if err != nil {
		return nil, err
	}
	expired, err := expiredDeletes(state, u.Now())
	if err != nil {
		return nil, err
	}
	return expired, t.client.Delete(ctx, t.keys(expired)...)
}

// commitUpkeep commits what build makes of the manifest.
func (t *Tier) commitUpkeep(
	ctx context.Context, u *Upkeep, build func(base *State) (State, error),
) error {
	return u.around(ctx, func(ctx context.Context) error {
		if err := t.lock(ctx); err != nil {
			return err
		}
		defer t.unlock()
		if err := t.owning(); err != nil {
			return err
		}
		return t.commit(ctx, func(base *State) (State, error) {
			next, err := build(base)
			next.WrittenAt = t.now()
			return next, err
		})
	})
}

func (t *Tier) keys(names []string) []string {
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = t.prefix + name
	}
	return keys
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
		if (d.NotBefore <= now || planted.Is(planted.DeleteAtOnce)) && len(names) < deletesAtOnce {
			names = append(names, d.Name)
		}
	}
	return names, nil
}
