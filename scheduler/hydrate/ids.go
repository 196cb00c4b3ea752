// SPDX-License-Identifier: Apache-2.0

package hydrate

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/trouble"
	"github.com/cicadamq/cicada/tiered"
)

const (
	idChunk     = 1000            // how many ids of segments are restored in one commit
	idsRetry    = time.Second     // between attempts, while the bucket does not tell them
	idsPatience = 5 * time.Second // how long a request waits for them: mostly they take less than one
)

// IDs brings back the ids that segments name, and lets requests wait for them (rule R14). Only one
// call of Run or Restore may be under way; the rest is safe for concurrent use.
type IDs struct {
	tier  *tiered.Tier
	log   *zap.Logger
	do    func(*commit.IDsOp) error
	there chan struct{} // closed when they are
}

// NewIDs makes an IDs. do commits an op and waits for its sync.
func NewIDs(tier *tiered.Tier, log *zap.Logger, do func(*commit.IDsOp) error) *IDs {
	return &IDs{tier: tier, log: log, do: do, there: make(chan struct{})}
}

// Await returns when the ids are there, after a wait that is long enough for most buckets, or when
// the request or the shard ends. Whoever looks afterwards still refuses what it cannot know.
func (r *IDs) Await(ctx context.Context, ended <-chan struct{}) {
	timer := time.NewTimer(idsPatience)
	defer timer.Stop()
	select {
	case <-r.there:
	case <-ended:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Run restores the ids while the shard serves, and returns when they are there or ctx is done: the
// next start goes on.
func (r *IDs) Run(ctx context.Context) {
	told := trouble.Loop{Log: r.log, What: "restore ids"}
	for {
		err := r.Restore(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, delay.ErrClosed) {
			return
		}
		told.Note(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(idsRetry):
		}
	}
}

// Restore brings back all ids once.
func (r *IDs) Restore(ctx context.Context) error {
	o := &commit.IDsOp{Done: make(chan error, 1)}
	var failed error
	put := func() bool {
		failed = r.do(o)
		o = &commit.IDsOp{Done: make(chan error, 1)}
		return failed == nil
	}
	err := r.tier.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
		o.IDs = append(o.IDs, id)
		o.Idents = append(o.Idents, ident)
		return len(o.IDs) < idChunk || put()
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	o.Complete = true
	if !put() {
		return failed
	}
	close(r.there)
	r.log.Info("ids restored")
	return nil
}
