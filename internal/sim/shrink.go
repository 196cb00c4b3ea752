// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"

	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// Shrink looks for a smaller history that breaks the same promise. It plays at most runs histories
// and gives the smallest failure it found, which may be f itself.
func Shrink(ctx context.Context, f *Failure, runs int) *Failure {
	best := f
	swarm.Shrink(f.Config, f.Step, func(c swarm.Config) (step int, same bool) {
		if runs == 0 || ctx.Err() != nil {
			return 0, false
		}
		runs--
		var next *Failure
		_, err := Run(ctx, c)
		if !errors.As(err, &next) || swarm.KindOf(next.Text) != swarm.KindOf(f.Text) {
			return 0, false
		}
		best = next
		return next.Step, true
	})
	return best
}
