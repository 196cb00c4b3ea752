// SPDX-License-Identifier: Apache-2.0

package core

import (
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// Lanes are let go when nothing refers to them any more, so that any number of targets over time
// takes no more memory than those in use (C9). A number may be on its way when the core has
// nothing of its lane: in a message that is being committed or loaded, in what the core has asked
// for, or in a request. So a lane goes only when its number was not given out since two rounds of
// the clock hand, with a fence through the committer in each, and no load is under way.

// Bounds of letting lanes go.
const (
	laneRound = 60_000 // ms between two rounds
	laneChunk = 1000   // lanes looked at in one step
)

// ActFence asks for an event after everything that was asked for before: EvFenced answers.
type ActFence struct{}

// EvFenced says that what the core had asked for before ActFence is done.
type EvFenced struct{}

func (EvFenced) apply(c *Core) { c.handAt, c.handOn = 0, c.load == nil }

// ActForget asks for what is durable of an idle lane to be forgotten, unless it is paused or
// limited by then.
type ActForget struct{ Target delay.Target }

// wantRound begins a round of the clock hand, and moves the hand.
func (c *Core) wantRound() {
	if c.draining {
		c.handOn = false
		return
	}
	if c.handOn {
		c.moveHand()
	}
	if c.roundAt == 0 {
		c.roundAt = c.now + laneRound
	}
	if c.now < c.roundAt {
		return
	}
	c.roundAt = c.now + laneRound
	c.lanes.Round()
	c.do(ActFence{})
}

// moveHand lets the idle ones of the next lanes go.
func (c *Core) moveHand() {
	end := c.handAt + laneChunk
	for no, l := range c.live.From(c.handAt, end) {
		if !l.idle() || !c.lanes.Release(no) {
			continue
		}
		c.live.Delete(no)
		if !l.claimed.IsZero() {
			c.do(ActForget{Target: l.target})
		}
	}
	c.handAt = end
	c.handOn = end < c.live.End() && c.load == nil
}

// idle reports whether the core has nothing of the lane.
func (l *lane) idle() bool {
	switch {
	case l.hot+l.flying+l.moving > 0 && !planted.Is(planted.LaneForgotten):
	case l.ready.len()+l.parked.len()+l.waiters.len() > 0:
	case l.more, l.loading, l.claiming, l.paused, !l.rate.limit.IsZero():
	case l.timer, l.hungry, l.held, l.touched:
	default:
		return true
	}
	return false
}
