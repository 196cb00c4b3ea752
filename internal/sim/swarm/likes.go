// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"math/rand/v2"
	"time"
)

// likes draws what is younger than the rest from a source of its own, so that a history without it
// stays what it was.
func (c *Config) likes() {
	r := rand.New(rand.NewPCG(c.Seed, 0x11ce5))
	some := r.IntN(4) == 0 && c.Profile == Everything
	if c.Profile == Races {
		c.drawRaces(r)
	} else if some {
		c.Racers, c.Hot, c.Weights[Race] = 2+r.IntN(5), 1+r.IntN(4), 5
	}
	if c.Profile == Clocks || r.IntN(4) == 0 && c.Profile == Everything {
		c.Weights[Step], c.Weights[Confirm] = 1+r.IntN(2), 1+r.IntN(4)
		c.Options.ClockMaxHold = time.Duration(1+r.IntN(5)) * time.Minute
		c.drawSteps()
	}
	if c.Bucket && r.IntN(3) == 0 && c.Options.FlushInterval >= time.Second {
		c.Options.IsolatedStop = true
	}
	if c.Pushes > 1 && r.IntN(3) == 0 {
		c.Poisoned = true
	}
	if c.Profile == Schedules || r.IntN(5) == 0 && c.Profile == Everything {
		c.drawSchedules(r)
	}
}

// drawSchedules has clients make recurring schedules and set limits, and nobody purge: nobody may
// take a firing away before it was seen.
func (c *Config) drawSchedules(r *rand.Rand) {
	w := &c.Weights
	c.Schedules = 1 + r.IntN(5)
	w[Recur], w[Limit], w[Purge] = 2+r.IntN(20), r.IntN(4), 0
	w[Jump] = max(w[Jump], r.IntN(3))
	if c.Profile != Schedules {
		return
	}
	c.Pushes, c.Poisoned = max(c.Pushes, 1), c.Poisoned && c.Pushes > 1
	o := &c.Options
	o.DedupeWindow = max(o.DedupeWindow, 20_000*time.Hour) // beyond the history
	o.DeadRetention = max(o.DeadRetention, o.DedupeWindow)
	w[Recur], w[Wake] = w[Recur]+5, w[Wake]+15
	for _, o := range [...]Op{Crash, PowerLoss, LoseDisk} {
		w[o] = min(w[o], r.IntN(2))
	}
	if w[Join] = min(w[Join], 1); r.IntN(3) > 0 {
		w[Join] = 0
	}
	if r.IntN(3) == 0 { // the clock steps
		w[Step], w[Confirm] = 1+r.IntN(2), 1+r.IntN(4)
		c.Options.ClockMaxHold = time.Duration(1+r.IntN(5)) * time.Minute
		c.drawSteps()
	}
}

// drawSteps keeps what must be remembered beyond all steps of the clock, or gives it up: then there
// may be one of ten years.
func (c *Config) drawSteps() {
	const longer = 20_000 * time.Hour
	c.LongStep = 87_600 * time.Hour
	if c.Options.DedupeWindow > 100*time.Hour {
		c.Options.DedupeWindow, c.LongStep = longer, time.Hour
	}
	c.Options.DeadRetention = max(c.Options.DeadRetention, longer)
}

// drawRaces has few ids, all due soon, and many calls about them at once.
func (c *Config) drawRaces(r *rand.Rand) {
	w := &c.Weights
	c.Racers, c.Hot, c.Steps = 2+r.IntN(5), 1+r.IntN(8), 2500
	for o := Send; o < Tick; o++ {
		w[o] = 0
	}
	w[Race], w[Send], w[Poll], w[Settle] = 100+r.IntN(300), 1, 10+r.IntN(30), 10+r.IntN(30)
	w[Pause], w[Unpause] = r.IntN(2), 2
	w[Tick], w[Wake], w[Jump], w[Age] = 5+r.IntN(30), r.IntN(10), r.IntN(2), 0
	for _, o := range [...]Op{Crash, PowerLoss, LoseDisk, Drain, Join} {
		w[o] = min(w[o], r.IntN(2))
	}
	if r.IntN(4) > 0 {
		c.Options.DedupeWindow = 1000 * time.Hour
	}
	c.FarShare = min(c.FarShare, 0.1)
}
