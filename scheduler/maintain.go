// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"

	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/hydrate"
	"github.com/cicadamq/cicada/scheduler/maintain"
	"github.com/cicadamq/cicada/scheduler/trouble"
)

// newMaintainer makes what keeps the bucket in order; nil without one.
func (s *Shard) newMaintainer() *maintain.Maintainer {
	if s.parts.Tier == nil {
		return nil
	}
	return maintain.New(maintain.Config{
		Tier: s.parts.Tier, Log: s.log, Now: s.Now, Boot: s.parts.Boot,
		CompactInterval: s.opts.FlushInterval, CollectInterval: s.opts.CollectInterval,
		CompactRate: s.opts.CompactRate, DedupeWindow: s.opts.DedupeWindow,
		Limits: s.opts.Compact, Around: s.besideFlushes,
		Busy: func() bool { return len(s.tier.flush) > 0 }, Over: s.draining.Load,
		Stepped: s.drive != nil, Events: s.parts.Events.Maintain,
	})
}

// newHydrator makes what keeps local what comes near; nil without a bucket.
func (s *Shard) newHydrator() *hydrate.Hydrator {
	if s.parts.Tier == nil {
		return nil
	}
	return hydrate.New(hydrate.Config{
		Store: s.parts.Store, Tier: s.parts.Tier, Horizon: s.opts.Horizon,
		DropLag: s.opts.DropLag, Now: s.Now, Wall: s.parts.Now,
		Put:      func(o commit.Op) error { return s.commit.Put(o, 0) },
		Wait:     func(done chan error) error { return s.outcome(done, s.settled) },
		Hydrated: s.parts.Events.Hydrate,
	})
}

// runHydrate keeps the boundary L a horizon ahead of now and drops rows that are far (rule R1).
func (s *Shard) runHydrate(ctx context.Context) error {
	hydrating := trouble.Loop{Log: s.log, What: "hydrate"}
	dropping := trouble.Loop{Log: s.log, What: "drop"}
	s.hydrator.Run(ctx, hydrating.Note, dropping.Note)
	return nil
}

// takeFlush takes the token that flushes and other commits of the manifest share.
func (s *Shard) takeFlush() {
	for s.drive != nil && len(s.tier.flush) > 0 {
		s.drive.yield()
	}
	s.tier.flush <- struct{}{}
}

func (s *Shard) giveFlush() { <-s.tier.flush }

// besideFlushes does something that may commit the manifest, between two flushes, and notes the
// version locally: the disk may never be more than one version behind (rule R10).
func (s *Shard) besideFlushes(
	ctx context.Context, do func(context.Context) error,
) error {
	if s.drive != nil {
		s.drive.yield() // much may have happened since the work began
	}
	s.takeFlush()
	defer s.giveFlush()
	if err := s.noteLanded(ctx); err != nil {
		return err
	}
	before := s.parts.Tier.State().Version
	if err := do(ctx); err != nil {
		s.tier.unsure = true
		return err
	}
	version := s.parts.Tier.State().Version
	if version == before {
		return nil
	}
	done := make(chan error, 1)
	return s.do(commit.NoteUpload(0, version, 0, done), 0, done)
}
