// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/bulk"
	"github.com/cicadamq/cicada/scheduler/trouble"
)

// Purge cancels everything that is scheduled now and matches, and returns the count; dryRun only
// counts. What is accepted while it runs is not touched. Of cold messages the count may be
// incomplete; they are cancelled all the same.
func (s *Shard) Purge(ctx context.Context, f Filter, dryRun bool) (PurgeResult, error) {
	if s.draining.Load() && !dryRun {
		return PurgeResult{}, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	return s.bulk.Purge(ctx, f, dryRun)
}

func (s *Shard) newBulk() *bulk.Canceller {
	return bulk.New(bulk.Config{
		Store: s.parts.Store, Tier: s.parts.Tier, Bulk: s.find.Bulk(), Query: s.query,
		DedupeWindow: s.opts.DedupeWindow, Now: s.Now, Boot: s.parts.Boot,
		Do:     func(o bulk.Op, done chan error) error { return s.do(o, 0, done) },
		Change: s.change,
		Confirm: func(ctx context.Context, outbox uint64) error {
			return s.waitFor(ctx, 0, outbox)
		},
		Report: func(n int) { s.reportEnded("", delay.Cancelled, "", n) },
	})
}

// runBulk completes bulk cancels in the background.
func (s *Shard) runBulk(ctx context.Context) error {
	t := trouble.Loop{Log: s.log, What: "count bulk cancels"}
	s.bulk.Run(ctx, t.Note)
	return nil
}

// coldRecords reads the cold messages among ids that a bulk cancel may cover. Empty is one that no
// segment holds.
func (s *Shard) coldRecords(
	ctx context.Context, ids []delay.ID,
) (map[delay.Key][]byte, error) {
	if s.parts.Tier == nil || !s.bulk.Busy() {
		return nil, nil
	}
	requests := make([]ChangeRequest, len(ids))
	for i, id := range ids {
		requests[i].ID = id
	}
	return s.fetchCold(ctx, requests)
}
