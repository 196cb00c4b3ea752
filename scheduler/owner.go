// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/tiered"
)

const (
	// takeoverWait is how many flush intervals a new owner waits for a predecessor that may still
	// live, and how long an owner that got no answer is believed to be one (T of rule R11).
	takeoverWait = 3
	// isolatedAfter is how long a start waits for the bucket before it goes on without it.
	isolatedAfter = 10 * time.Second
	// awakeLook bounds the look of a process that stood still.
	awakeLook = 5 * time.Second
	// isolatedGap is left out of the seqs of an epoch that goes on: ids may have been reserved with
	// seqs that are in no row. A reserved id holds its instant too, so that even more of them
	// would have to be reserved again in the same millisecond to meet.
	isolatedGap = 1 << 24
)

// errIsolated says that the bucket gave no answer and the shard may start without it.
var errIsolated = errors.New("no answer from the bucket")

// MayStartAlone reports whether a shard with this meta may start while its bucket does not answer
// (rule R11): the directory was joined to its cluster and has written manifests. With tier.isolated
// stop it may not, as an owner without the bucket would have to stop.
func MayStartAlone(m localstore.Meta, opts Options) bool {
	return m.Epoch > 0 && m.Adopted && m.ManifestVersion > 0 && !opts.IsolatedStop
}

// firstLook reads the manifest. errIsolated: there was no answer, and the shard may do without.
// Another cluster's bucket or a refusal is an answer.
func (s *Shard) firstLook(ctx context.Context, m *localstore.Meta) (*tiered.State, error) {
	if m.Epoch > 0 && m.ManifestVersion > 0 && s.parts.Tier.ClusterID() != m.ClusterID {
		return nil, fmt.Errorf("%w: the bucket is for cluster %s, the data directory is of "+
			"cluster %s", delay.ErrInvalid, s.parts.Tier.ClusterID(), m.ClusterID)
	}
	if !MayStartAlone(*m, s.opts) {
		return s.parts.Tier.Load(ctx)
	}
	look, cancel := context.WithTimeout(ctx, isolatedAfter)
	defer cancel()
	st, err := s.parts.Tier.Load(look)
	silent := errors.Is(err, delay.ErrUnavailable) || look.Err() != nil
	if err != nil && silent && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: %w", errIsolated, err)
	}
	return st, err
}

// firstSeq is the seq above which a start hands seqs out. A start on the last epoch goes on above
// all that were handed out before (rule R4).
func firstSeq(epoch delay.Epoch, isolated bool, last delay.Seq) (delay.Seq, error) {
	first := delay.MakeSeq(epoch, 0)
	if !isolated {
		return first, nil
	}
	used := max(last, first).Counter()
	if last.Epoch() > epoch || used > delay.MaxCounter-isolatedGap {
		return 0, fmt.Errorf("%w: epoch %d has no seqs left after %d.%d, and another needs the bucket",
			delay.ErrUnavailable, epoch, last.Epoch(), last.Counter())
	}
	return delay.MakeSeq(epoch, used+isolatedGap), nil
}

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
	if err := believable(&meta, st); errors.Is(err, ErrOldDisk) {
		return fmt.Errorf("%w: %w", delay.ErrFenced, err)
	} else if err != nil {
		return err
	}
	if err := follow(&meta, st); err != nil {
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
		if silent > s.patience() {
			return fmt.Errorf("%w: no answer from the bucket for %v, and tier.isolated is stop",
				delay.ErrUnavailable, silent.Round(time.Second))
		}
		return nil
	}
	if still <= max(s.patience(), time.Second) || s.tier.isolated.Load() {
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
		switch err := s.parts.Tier.Look(ctx); {
		case errors.Is(err, delay.ErrFenced):
			return err
		case err == nil && !s.tier.isolated.Load():
			s.noteAnswer(asked)
		}
	}
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
