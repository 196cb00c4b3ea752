// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// Change applies changes (S5); results[i] answers requests[i] after it is synced, and, for a
// message of durability tier, after the bucket holds it (rule R13).
func (s *Shard) Change(
	ctx context.Context, requests []ChangeRequest, results []ChangeResult,
) error {
	outbox, err := s.change(ctx, requests, results)
	if err != nil {
		return err
	}
	return s.waitTierChanges(ctx, outbox, results)
}

// change is Change without waiting for the bucket, which has to hold the marks below outbox.
func (s *Shard) change(
	ctx context.Context, requests []ChangeRequest, results []ChangeResult,
) (outbox uint64, err error) {
	if s.draining.Load() {
		return 0, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	if slices.ContainsFunc(requests, func(r ChangeRequest) bool { return s.doubts(r.ID) }) {
		s.awaitIDs(ctx)
	}
	guarded, err := s.guards.Mark(ctx, s.find, s.parts.Tier, requests)
	if err != nil {
		return 0, err
	}
	o := &commit.ChangeOp{
		Requests: guarded.Requests, Results: results, Done: make(chan error, 1),
	}
	for try := 0; ; try++ {
		if o.Records, err = s.fetchCold(ctx, requests); err != nil {
			return 0, err
		}
		if err := s.do(o, 0, o.Done); err != nil {
			return 0, err
		}
		s.reportEnded("", delay.Cancelled, "", int(o.Fresh))
		o.Fresh = 0
		if try > 0 || !anyRefetch(results) {
			break
		}
		// A retry repeats only what was not answered: the others answer the same again.
	}
	guarded.Answer(results)
	s.stopRetrying(requests, results)
	for i := range results {
		if errors.Is(results[i].Err, commit.ErrRefetch) {
			results[i].Err = fmt.Errorf("%w: message %s moves between tiers", delay.ErrUnavailable,
				requests[i].ID)
		}
	}
	return o.Outbox, nil
}

// reportEnded tells the metrics of messages that ended without an attempt.
func (s *Shard) reportEnded(target delay.Target, state delay.State, reason string, n int) {
	if s.parts.Events.Finished != nil && n > 0 {
		s.parts.Events.Finished(target, state, reason, n)
	}
}

func anyRefetch(results []ChangeResult) bool {
	for i := range results {
		if errors.Is(results[i].Err, commit.ErrRefetch) {
			return true
		}
	}
	return false
}

// stopRetrying turns TOO_LATE into STOPPED for claimed messages when asked for (S5).
func (s *Shard) stopRetrying(requests []ChangeRequest, results []ChangeResult) {
	for i := range requests {
		r := &results[i]
		if requests[i].Change != StopRetrying || r.Verdict != TooLate || r.State.Finished() {
			continue
		}
		loc, err := s.find.Locate(requests[i].ID)
		if err != nil {
			continue
		}
		done := make(chan bool, 1)
		s.post(core.EvStop{Key: loc.Key, Done: done})
		if claimed, _ := wait(s, done); claimed {
			*r = ChangeResult{Verdict: Stopped, State: delay.Dead}
		}
	}
}

// fetchCold reads the records of cold messages that are to be moved, or cancelled with the
// durability that only the record tells (rule R13), or may be cancelled by a bulk cancel already.
// One that no segment holds is empty.
func (s *Shard) fetchCold(
	ctx context.Context, requests []ChangeRequest,
) (map[delay.Key][]byte, error) {
	if s.parts.Tier == nil {
		return nil, nil
	}
	var keys []delay.Key
	for i := range requests {
		loc, err := s.find.Locate(requests[i].ID)
		if err != nil || loc.Place != find.PlaceCold {
			continue
		}
		// A cancel needs only to know its durability, which the index tells of a known id.
		if requests[i].Change > StopRetrying || !loc.Known ||
			s.find.Bulk().MayCover(loc.Key, loc.ID) {
			keys = append(keys, loc.Key)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	records := make(map[delay.Key][]byte, len(keys))
	err := s.parts.Tier.Fetch(ctx, keys, func(i int, rec []byte, err error) {
		switch {
		case err == nil:
			records[keys[i]] = append([]byte(nil), rec...)
		case errors.Is(err, delay.ErrNotFound):
			records[keys[i]] = []byte{}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("fetch cold messages: %w", err)
	}
	return records, nil
}
