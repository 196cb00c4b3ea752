// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"

	"github.com/cicadamq/cicada/delay"
)

// awaitIDs lets a request that needs an answer of the ids wait while they are being restored. In a
// simulation nothing waits.
func (s *Shard) awaitIDs(ctx context.Context) {
	if s.drive == nil && !s.parts.Store.Meta().IDsComplete {
		s.names.Await(ctx, s.closed)
	}
}

// doubts tells whether nobody can say yet what id names (rule R14).
func (s *Shard) doubts(id delay.ID) bool {
	if s.parts.Store.Meta().IDsComplete {
		return false
	}
	_, err := s.find.Locate(id)
	return errors.Is(err, delay.ErrUnavailable)
}
