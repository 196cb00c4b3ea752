// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
)

type targetList struct {
	Targets []targetStatus `json:"targets"`
}

type targetStatus struct {
	Target    delay.Target `json:"target"`
	InFlight  int          `json:"in_flight"`
	Backlog   int64        `json:"backlog"` // due and waiting
	Rate      float64      `json:"rate"`    // attempts per second
	LastError string       `json:"last_error"`
	Paused    bool         `json:"paused"`
	Open      bool         `json:"open"` // the breaker is open
	Limit     *rateLimit   `json:"limit,omitempty"`
}

// rateLimit is how fast a target may be delivered to.
type rateLimit struct {
	Rate  float64 `json:"rate"`  // messages per second
	Burst uint32  `json:"burst"` // at once
}

func limitOf(l delay.Limit) *rateLimit {
	if l.IsZero() {
		return nil
	}
	return &rateLimit{l.PerSecond(), l.Burst}
}

func (s *Server) targets(c *call) error {
	list, err := c.shard.Targets(c.Context())
	if err != nil {
		return err
	}
	out := targetList{Targets: make([]targetStatus, len(list))}
	for i, t := range list {
		out.Targets[i] = targetStatus{
			Target: t.Target, InFlight: t.InFlight, Backlog: t.Backlog, Rate: t.Rate,
			LastError: t.LastError, Paused: t.Paused, Open: t.Open, Limit: limitOf(t.Limit),
		}
	}
	return c.answer(out)
}

type pauseReply struct {
	Target delay.Target `json:"target"`
	Paused bool         `json:"paused"`
}

func (s *Server) pause(c *call) error  { return s.setPaused(c, true) }
func (s *Server) resume(c *call) error { return s.setPaused(c, false) }

func (s *Server) setPaused(c *call, paused bool) error {
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	target, err := wire.DecodeTarget(body)
	if err != nil {
		return err
	}
	c.change.Target = string(target)
	if err := pauseTarget(c.lasting(), c.shard, target, paused); err != nil {
		return err
	}
	return c.answer(pauseReply{target, paused})
}

type limitReply struct {
	Target delay.Target `json:"target"`
	Limit  *rateLimit   `json:"limit,omitempty"`
}

// limit sets or removes the limit of a target.
func (s *Server) limit(c *call) error {
	body, err := c.body(maxSmallBytes)
	if err != nil {
		return err
	}
	target, l, err := wire.DecodeLimit(body)
	if err != nil {
		return err
	}
	c.change.Target = string(target)
	if err := limitTarget(c.lasting(), c.shard, target, l); err != nil {
		return err
	}
	return c.answer(limitReply{target, limitOf(l)})
}

func limitTarget(
	ctx context.Context, shard access.Shard, target delay.Target, l delay.Limit,
) error {
	if err := anyTarget(target); err != nil {
		return err
	}
	return shard.SetLimit(ctx, target, l)
}

func pauseTarget(
	ctx context.Context, shard access.Shard, target delay.Target, paused bool,
) error {
	if err := anyTarget(target); err != nil {
		return err
	}
	return shard.SetPaused(ctx, target, paused)
}

// anyTarget checks the form only: a target that is no longer allowed may still have messages.
func anyTarget(target delay.Target) error {
	form := wire.Rules{HasBroker: func(string, string) bool { return true }}
	return form.Target(target)
}
