// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// Swept is what a Sweep found.
type Swept struct {
	Orphans []string // objects that no manifest lists, old enough to go, and still there
	Bytes   int64    // of them
	Deleted []string // what the Sweep before had found already
}

// Sweep looks for objects of uploads that were never committed. It lists the whole bucket below the
// shard, so it is for once a day. What it finds is only reported; what the Sweep before had found
// too is deleted, once the manifest was read again and still does not name it (T2). Age is taken by
// the store's clock.
func (t *Tier) Sweep(ctx context.Context, u Upkeep) (Swept, error) {
	if !t.collecting.CompareAndSwap(false, true) {
		return Swept{}, nil
	}
	defer t.collecting.Store(false)
	s, err := t.sweep(objio.As(ctx, objio.Background), &u)
	if err != nil {
		return s, fmt.Errorf("sweep: %w", err)
	}
	if len(s.Orphans)+len(s.Deleted) > 0 && !u.DryRun {
		t.opts.Logger.Info("tier swept", zap.Int("orphans", len(s.Orphans)),
			zap.Int64("bytes", s.Bytes), zap.Int("deleted", len(s.Deleted)))
	}
	return s, nil
}

func (t *Tier) sweep(ctx context.Context, u *Upkeep) (s Swept, err error) {
	if _, err := t.ownState(); err != nil {
		return s, err
	}
	// The list comes before the manifest is read: an object that was committed in between is not
	// taken for an orphan.
	infos, err := t.client.List(ctx, t.prefix)
	if err != nil {
		return s, err
	}
	state, modified, err := t.looked(ctx, u)
	if err != nil {
		return s, err
	}
	if planted.Is(planted.SweepUnread) {
		if infos, err = t.client.List(ctx, t.prefix); err != nil {
			return s, err
		}
	}
	found := make(map[string]bool)
	for _, o := range t.orphans(state, infos, u.Now(), modified) {
		if !u.DryRun && t.suspects[o.Key] {
			s.Deleted = append(s.Deleted, o.Key)
			continue
		}
		found[o.Key] = true
		s.Orphans, s.Bytes = append(s.Orphans, o.Key), s.Bytes+o.Size
	}
	if u.DryRun {
		return s, nil
	}
	t.suspects = found
	return s, t.client.Delete(ctx, t.keys(s.Deleted)...)
}

// orphans gives the objects, by name, of infos that state does not name and that are older than
// OrphanAge: no upload waits that long for its commit (T4). The age is taken by the store's clock:
// modified is when the manifest was written. What a later owner uploaded, and names this version
// does not know, are left alone.
func (t *Tier) orphans(
	state *State, infos []objstore.Info, now delay.Due, modified time.Time,
) (found []objstore.Info) {
	needed := state.Names(true)
	at := now.Time()
	if modified.Before(at) {
		at = modified
	}
	for _, info := range infos {
		name := strings.TrimPrefix(info.Key, t.prefix)
		folder, _, _ := strings.Cut(name, "/")
		switch folder + "/" {
		case l0Folder, l1Folder, keptFolder, marksFolder:
		default:
			continue
		}
		epoch, _, err := parseName(name)
		if err != nil || needed[name] || epoch > state.Epoch {
			continue
		}
		if at.Sub(info.Modified) > OrphanAge || planted.Is(planted.SweepYoung) {
			info.Key = name
			found = append(found, info)
		}
	}
	return found
}
