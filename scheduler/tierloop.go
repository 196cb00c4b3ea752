// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/landed"
	"github.com/cicadamq/cicada/scheduler/trouble"
	"github.com/cicadamq/cicada/scheduler/upload"
	"github.com/cicadamq/cicada/tiered"
)

// Bounds of the tier's loops.
const (
	tierSoon     = 50 * time.Millisecond // a flush asked for waits this long for company (S3)
	tierPatience = 30 * time.Second      // a request of durability tier waits this long (S3)
	flushTimeout = 60 * time.Second
	flushRetry   = time.Second
)

// tierState is what the tier's loops share with the requests that wait for them.
type tierState struct {
	mu struct {
		sync.Mutex
		lastAt  time.Time // of the last flush that succeeded
		lastErr error
		oldest  delay.Due // since when a failed flush waits to be repeated; 0 is none
	}
	landed  landed.Table
	flush   chan struct{} // holds one token: who has it may use what follows
	pending upload.Part   // taken from the buffer and not yet in the bucket
	unsure  bool          // a commit that got no answer may have landed
	missed  bool          // what was delivered before a crash is to be looked for

	isolated atomic.Bool  // started without the bucket, and not taken in its manifest yet (R11)
	answered atomic.Int64 // by the boot clock: when the last look that was answered was begun
}

// waitFor waits until the bucket holds everything up to seq and outbox (C15).
func (s *Shard) waitFor(ctx context.Context, seq delay.Seq, outbox uint64) error {
	done := s.tier.landed.Wait(seq, outbox)
	if done == nil || planted.Is(planted.TierAnsweredEarly) {
		return nil
	}
	s.upload.FlushSoon()
	if s.drive != nil {
		return s.yieldUntil(done, tierPatience)
	}
	timer := time.NewTimer(tierPatience)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	case <-s.closed:
	}
	return unconfirmed()
}

func unconfirmed() error {
	return fmt.Errorf("%w: the bucket did not confirm within %v; the outcome is unknown",
		delay.ErrUnavailable, tierPatience)
}

// waitTierChanges holds the reply to changes of tier messages (rule R13).
func (s *Shard) waitTierChanges(ctx context.Context, outbox uint64, results []ChangeResult) error {
	if s.parts.Tier == nil || !slices.ContainsFunc(results, func(r ChangeResult) bool {
		return r.Err == nil && r.Durability == delay.Tier && !planted.Is(planted.ChangeUnwaited)
	}) {
		return nil
	}
	return s.waitFor(ctx, s.parts.Store.LastSeq(), outbox)
}

// runFlush uploads at every interval, and sooner when asked to (R11: it also notices another
// owner).
func (s *Shard) runFlush(ctx context.Context) error {
	timer := time.NewTimer(s.opts.FlushInterval)
	defer timer.Stop()
	told := trouble.Loop{Log: s.log, What: "flush"}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.upload.Wake:
			select { // company
			case <-ctx.Done():
				return nil
			case <-time.After(tierSoon):
			}
		}
		if s.draining.Load() {
			return nil // the last flush is Drain's
		}
		next := s.opts.FlushInterval
		more, err := s.flushOnce(ctx, false)
		switch {
		case errors.Is(err, delay.ErrFenced):
			return err
		case ctx.Err() != nil:
			return nil
		case err != nil:
			next = min(next, flushRetry)
		case more:
			next = 0
		}
		told.Note(err)
		timer.Reset(next)
	}
}

// lastFlush uploads what is left and releases the manifest.
func (s *Shard) lastFlush(ctx context.Context) error {
	_, err := s.flushOnce(ctx, true)
	return err
}

// flushOnce uploads one cut: new rows, kept messages, marks, and the shard's scalars. more says
// that rows are left to be read back from the store. After the last flush, which releases the
// manifest, there is no other.
func (s *Shard) flushOnce(ctx context.Context, released bool) (more bool, err error) {
	s.takeFlush() // one at a time
	defer s.giveFlush()
	if s.draining.Load() && !released {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	asked := s.parts.Boot()
	if err := s.join(ctx); err != nil {
		s.noteFlush(tiered.Cut{}, err)
		return false, err
	}
	if err := s.noteLanded(ctx); err != nil {
		return false, err
	}
	part := &s.tier.pending
	part.Merge(s.upload.Take())
	if part.Behind > 0 {
		if err := s.readBack(part); err != nil {
			return false, err
		}
	}
	if err := s.lookForMissed(ctx, part); err != nil {
		return false, err
	}
	cut, left, err := s.cuts.Make(part)
	if err != nil {
		return false, fmt.Errorf("cut: %w", err)
	}
	cut.Released = released
	start := s.parts.Now()
	st, err := s.parts.Tier.Commit(ctx, cut)
	if s.parts.Events.Offload != nil && (len(cut.Rows) > 0 || err != nil) {
		s.parts.Events.Offload(s.parts.Now().Sub(start), len(cut.Rows), err)
	}
	s.noteFlush(cut, err)
	if err != nil {
		s.tier.unsure = true
		return false, err
	}
	s.noteAnswer(asked)
	s.cuts.Advance(part, left)
	s.noteCovered(st.Cursors)
	outbox := left.Outbox
	done := make(chan error, 1)
	err = s.do(commit.NoteUpload(cut.Uploaded, st.Version, outbox, done), 0, done)
	if err != nil {
		return false, err
	}
	s.tier.landed.Up(cut.Uploaded, outbox)
	return part.Behind > 0, nil
}

// readBack reads rows from the store, and adds what was to be kept by then: it is in the upload
// buffer when it is synced.
func (s *Shard) readBack(part *upload.Part) error {
	if err := s.cuts.ReadBack(part.Behind); err != nil {
		return fmt.Errorf("read rows back: %w", err)
	}
	done := make(chan error, 1)
	if err := s.do(commit.Fence(done), 0, done); err != nil {
		return err
	}
	if !planted.Is(planted.ParkedMissed) {
		part.Merge(s.upload.Take())
	}
	return nil
}

// lookForMissed has the first cut after a crash mark what was delivered before it. What a segment
// that is damaged holds may come again: no upload waits for it.
func (s *Shard) lookForMissed(ctx context.Context, part *upload.Part) error {
	if !s.tier.missed || planted.Is(planted.DoneLost) {
		return nil
	}
	upTo := max(s.Now(), s.parts.Store.Meta().ClaimHorizon)
	err := s.cuts.Missed(ctx, s.parts.Tier, part, upTo)
	if errors.Is(err, delay.ErrCorrupt) {
		s.log.Error("deliveries before the crash are not all known", zap.Error(err))
		err = nil
	}
	s.tier.missed = err != nil
	return err
}

// noteLanded notes a commit that got no answer and landed, before the next: the disk may never be
// more than one version behind the manifest, or it is not believed (rule R10).
func (s *Shard) noteLanded(ctx context.Context) error {
	if !s.tier.unsure || planted.Is(planted.LandedUnnoted) {
		return nil
	}
	if err := s.parts.Tier.Check(ctx); err != nil {
		return fmt.Errorf("look for the last commit: %w", err)
	}
	done := make(chan error, 1)
	note := commit.NoteUpload(0, s.parts.Tier.State().Version, 0, done)
	if err := s.do(note, 0, done); err != nil {
		return err
	}
	s.tier.unsure = false
	return nil
}

// noteFlush keeps what status and metrics tell.
func (s *Shard) noteFlush(cut tiered.Cut, err error) {
	t := &s.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.lastErr = err
	if err != nil {
		if t.mu.oldest == 0 && t.pending.Since != 0 {
			t.mu.oldest = t.pending.Since
		}
		return
	}
	t.mu.lastAt, t.mu.oldest = s.parts.Now(), 0
	if len(cut.Rows) > 0 {
		s.hydrator.Uploaded(s.clock.Now(), cut.Uploaded)
	}
}
