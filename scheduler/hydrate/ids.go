// SPDX-License-Identifier: Apache-2.0

package hydrate

import (
	"context"
	"errors"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/tiered"
)

// idChunk is how many ids of segments are restored in one commit.
const idChunk = 1000

// IDs brings back the ids that segments name (rule R14). do commits an op and waits for its sync.
func IDs(ctx context.Context, tier *tiered.Tier, do func(*commit.IDsOp) error) error {
	o := &commit.IDsOp{Done: make(chan error, 1)}
	var failed error
	put := func() bool {
		failed = do(o)
		o = &commit.IDsOp{Done: make(chan error, 1)}
		return failed == nil
	}
	err := tier.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
		o.IDs = append(o.IDs, id)
		o.Idents = append(o.Idents, ident)
		return len(o.IDs) < idChunk || put()
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	o.Complete = true
	put()
	return failed
}
