// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/trouble"
)

// idChunk is how many ids of segments are restored in one commit.
const idChunk = 1000

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
	o := &commit.IDsOp{Done: make(chan error, 1)}
	var failed error
	put := func() bool {
		failed = s.do(o, 0, o.Done)
		o = &commit.IDsOp{Done: make(chan error, 1)}
		return failed == nil
	}
	err := s.parts.Tier.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
		o.IDs = append(o.IDs, id)
		o.Idents = append(o.Idents, ident)
		return len(o.IDs) < idChunk || put()
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	o.Complete = true
	if put() {
		s.log.Info("ids restored")
	}
	return failed
}
