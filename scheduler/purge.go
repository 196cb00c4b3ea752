// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/query"
)

// purgeChunk is how many messages one step of a purge cancels.
const purgeChunk = 1000

// Purge cancels everything that is scheduled now and matches, and returns the count; dryRun only
// counts. What is accepted while it runs is not touched.
func (s *Shard) Purge(ctx context.Context, f Filter, dryRun bool) (int64, error) {
	scheduled := delay.Scheduled
	if f.State != nil && *f.State != scheduled {
		return 0, delay.Invalid("state", "only scheduled messages can be purged")
	}
	f.State = &scheduled
	if dryRun {
		return s.Count(ctx, f)
	}
	cut := s.commit.HandedOut()
	var n int64
	requests := make([]ChangeRequest, 0, purgeChunk)
	results := make([]ChangeResult, purgeChunk)
	flush := func() error {
		if err := s.Change(ctx, requests, results[:len(requests)]); err != nil {
			return err
		}
		for i := range requests {
			if results[i].Verdict == Cancelled {
				n++
			}
			results[i] = ChangeResult{}
		}
		requests = requests[:0]
		return nil
	}
	var failed error
	err := s.query.Pending(ctx, f, delay.Key{}, func(it query.Item) bool {
		if it.Key.Seq > cut {
			return true
		}
		requests = append(requests, ChangeRequest{ID: it.Info.ID, Change: Cancel, Cut: cut})
		if len(requests) == purgeChunk {
			failed = flush()
		}
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return n, err
	}
	return n, flush()
}
