// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Drain is Shard.Drain without goroutines: what has to happen meanwhile is done through yield.
// After it the Stepped is not used any more; its store is closed by the caller.
func (s *Stepped) Drain(ctx context.Context) error {
	if s.draining.Swap(true) {
		return nil
	}
	s.post(core.EvDrain{})
	s.settleStepped(ctx)
	for len(s.drive.deliveries)+s.delivering > 0 && ctx.Err() == nil {
		s.drive.yield()
	}
	clean := len(s.drive.deliveries)+s.delivering == 0
	s.settleStepped(ctx)
	s.settleStepped(ctx)
	var errs []error
	if s.parts.Tier != nil {
		for s.flushing {
			s.drive.yield()
		}
		s.flushing = true
		defer func() { s.flushing = false }()
		err := s.lastFlush(ctx)
		clean = clean && err == nil && s.uploadedAll()
		errs = append(errs, err)
	}
	done := make(chan error, 1)
	return errors.Join(append(errs, s.do(commit.SetClean(clean, done), 0, done))...)
}

// settleStepped is settleDown, once.
func (s *Stepped) settleStepped(ctx context.Context) {
	done := make(chan struct{})
	s.post(core.EvSync{Done: done})
	for !closedNow(done) && ctx.Err() == nil {
		s.drive.yield()
	}
	synced := make(chan error, 1)
	_ = s.do(commit.Fence(synced), 0, synced)
}

// yieldUntil waits for done by yielding, for at most patience.
func (s *Shard) yieldUntil(done chan struct{}, patience time.Duration) error {
	end := s.parts.Boot() + patience
	for !closedNow(done) {
		if s.parts.Boot() > end {
			return unconfirmed()
		}
		s.drive.yield()
	}
	return nil
}
