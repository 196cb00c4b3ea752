// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// ErrVanished says that a bucket that this cluster has used holds no manifest. None is made anew.
var ErrVanished = fmt.Errorf("%w: the manifest has vanished", delay.ErrCorrupt)

// meet finds out, before the manifest of a known bucket is read for the first time, that the bucket
// keeps its promises and still is the cluster's. Nothing is created: what is missing has vanished.
// The caller has the turn.
func (t *Tier) meet(ctx context.Context) error {
	if !t.opts.Known || t.met {
		return nil
	}
	if t.opts.TryOut != nil {
		if err := t.opts.TryOut(ctx); err != nil {
			return err
		}
	}
	_, _, err := claimBucket(ctx, t.client, t.cluster, "", true)
	if errors.Is(err, delay.ErrNotFound) {
		return fmt.Errorf("%w: there is no %s, and cluster %s has used this bucket", ErrVanished,
			formatKey, t.cluster)
	}
	if err != nil {
		return err
	}
	t.met = true
	return nil
}

// listed is the state that reads go by. The manifest must have been read, or found missing: a
// bucket that has not answered yet is no empty one (T9).
func (t *Tier) listed() (State, error) {
	if !t.seen.Load() {
		return State{}, fmt.Errorf("%w: the manifest has not been read yet", delay.ErrUnavailable)
	}
	return t.State(), nil
}

// Look reads the manifest without waiting for an upload or a commit that is under way, and without
// taking anything from it: only whether this Tier is still the owner (rule R11). delay.ErrFenced:
// it is not, and nothing will succeed any more. A Tier that took nothing has nothing to look after.
func (t *Tier) Look(ctx context.Context) error {
	mine := t.mine.Load()
	if mine == nil {
		return nil
	}
	if err := t.usable(); err != nil {
		return err
	}
	snap, err := t.store.Load(ctx)
	if err != nil {
		return fmt.Errorf("look at manifest: %w", err)
	}
	if snap != nil && snap.State.Nonce != *mine && t.mine.Load() == mine {
		return t.fence(manifest.Fenced(&snap.State))
	}
	return nil
}
