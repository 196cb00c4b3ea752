// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/tierjson"
)

func (s *Server) tier(c *call) error {
	if s.opts.Tier == nil {
		return fmt.Errorf("%w: there is no bucket", delay.ErrNotFound)
	}
	info, shard := s.opts.Tier(), c.shard.Status()
	return c.answer(tierjson.Of(&info, &shard, s.opts.Now()))
}
