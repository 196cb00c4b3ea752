// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/hydrate"
	"github.com/cicadamq/cicada/scheduler/trouble"
)

// runIDs brings back the ids that segments name, while the shard serves; until it is done,
// requests with client ids are answered "unavailable" (rule R14).
func (s *Shard) runIDs(ctx context.Context) error {
	told := trouble.Loop{Log: s.log, What: "restore ids"}
	for {
		err := s.restoreIDs(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, delay.ErrClosed) {
			return nil //nolint:nilerr // the shard ends; the next start goes on
		}
		told.Note(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(idsRetry):
		}
	}
}

func (s *Shard) restoreIDs(ctx context.Context) error {
	err := hydrate.IDs(ctx, s.parts.Tier, func(o *commit.IDsOp) error { return s.do(o, 0, o.Done) })
	if err == nil {
		s.log.Info("ids restored")
	}
	return err
}
