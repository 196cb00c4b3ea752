// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/recovery"
)

const (
	// takeoverWait is how many flush intervals a new owner waits for a predecessor that may still
	// live, and how long an owner that got no answer is believed to be one (T of rule R11).
	takeoverWait = 3
	// awakeLook bounds the look of a process that stood still.
	awakeLook = 5 * time.Second
)

// join takes the shard in the manifest after a start without it (rule R11): before anything is
// uploaded the manifest is read, and it must be the one that this disk knows. Whoever holds the
// flush token calls it. ErrFenced: another owner's was found; the disk is not to be believed then.
func (s *Shard) join(ctx context.Context) error {
	if !s.tier.isolated.Load() {
		return nil
	}
	asked := s.parts.Boot()
	tier, meta := s.parts.Tier, s.parts.Store.Meta()
	st, err := tier.Load(ctx)
	if err != nil {
		return err
	}
	if err := recovery.Believable(&meta, st); errors.Is(err, ErrOldDisk) {
		return fmt.Errorf("%w: %w", delay.ErrFenced, err)
	} else if err != nil {
		return err
	}
	if err := recovery.Follow(&meta, st); err != nil {
		return err
	}
	done := make(chan error, 1)
	note := commit.NoteTaking(meta.Nonce, meta.ManifestVersion, meta.NextNonce, done)
	if err := s.do(note, 0, done); err != nil {
		return err
	}
	taken, err := tier.Take(ctx, meta.NextNonce, false)
	if err != nil {
		return fmt.Errorf("take the shard: %w", err)
	}
	note = commit.NoteTaken(taken.Epoch, meta.NextNonce, taken.Version, done)
	if err := s.do(note, 0, done); err != nil {
		return err
	}
	s.noteAnswer(asked)
	s.tier.isolated.Store(false)
	s.log.Info("bucket answers again, the shard is taken", zap.Uint32("epoch", uint32(taken.Epoch)))
	return nil
}

// patience is T of rule R11: for so long after a look at the manifest its owner is the owner.
func (s *Shard) patience() time.Duration { return takeoverWait * s.opts.FlushInterval }

// mayClaim is asked before each step of the core, still after the one before, whether this is
// still the owner (rule R11). With tier.isolated stop nothing is claimed later than T after a look
// that was answered: a new owner claims nothing for as long after it took the shard. Otherwise an
// owner goes on without an answer; but a process that stood still for longer than T asks once
// before it goes on, because another may own the shard by now.
func (s *Shard) mayClaim(ctx context.Context, still time.Duration) error {
	if s.parts.Tier == nil {
		return nil
	}
	if s.opts.IsolatedStop {
		silent := s.parts.Boot() - time.Duration(s.tier.answered.Load())
		if silent > s.patience() && !planted.Is(planted.SilentGoesOn) {
			return fmt.Errorf("%w: no answer from the bucket for %v, and tier.isolated is stop",
				delay.ErrUnavailable, silent.Round(time.Second))
		}
		return nil
	}
	awake := still <= max(s.patience(), time.Second) || planted.Is(planted.AwakeUnasked)
	if awake || s.tier.isolated.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, awakeLook)
	defer cancel()
	err := s.parts.Tier.Look(ctx)
	if errors.Is(err, delay.ErrFenced) {
		return err
	}
	s.log.Warn("process stood still", zap.Duration("for", still), zap.Error(err))
	return nil
}

// runLooks reads the manifest whenever the flushes do not, because one of them takes long or waits:
// the owner looks every flush interval (rule R11).
func (s *Shard) runLooks(ctx context.Context) error {
	tick := time.NewTicker(s.opts.FlushInterval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asked := s.parts.Boot()
		if asked-time.Duration(s.tier.answered.Load()) <= s.opts.FlushInterval*5/4 {
			continue
		}
		if err := s.look(ctx, asked); err != nil {
			return err
		}
	}
}

// look reads the manifest. The only error is ErrFenced.
func (s *Shard) look(ctx context.Context, asked time.Duration) error {
	err := s.parts.Tier.Look(ctx)
	if errors.Is(err, delay.ErrFenced) {
		return err
	}
	if err == nil && !s.tier.isolated.Load() {
		s.noteAnswer(asked)
	}
	return nil
}

// noteAnswer notes that a look begun at asked found this owner.
func (s *Shard) noteAnswer(asked time.Duration) {
	for a := &s.tier.answered; ; {
		last := a.Load()
		if last >= int64(asked) || a.CompareAndSwap(last, int64(asked)) {
			return
		}
	}
}
