// SPDX-License-Identifier: Apache-2.0

// Package hands moves the wall clock of simulated processes, and has a second opinion of what their
// guarded clock may make of it: rule R21 in other words than the product's. A Clock is confined to
// one goroutine.
package hands

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Clock is a wall clock that can be wrong.
type Clock struct {
	Off  time.Duration // what it is ahead of the time
	High delay.Due     // the furthest that a guarded clock has come
	Hold time.Duration // the longest time that a step is held

	life  int           // of the process that began with the wall clock as it was
	last  delay.Due     // the guarded clock at the last look
	most  time.Time     // it may not be beyond this
	at    time.Duration // by the boot clock, when most was right
	held  bool          // a forward step waits for somebody
	since time.Duration
}

// tolerance is the step that is simply followed.
const tolerance = 2 * time.Second

// Draw chooses a step; far is the largest.
func (c *Clock) Draw(r *rand.Rand, far time.Duration) time.Duration {
	steps := [...]time.Duration{
		time.Second, 3 * time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour,
		far, -time.Second, -time.Minute, -time.Hour, -30 * 24 * time.Hour,
		-c.Off, -c.Off, -c.Off,
	}
	return steps[r.IntN(len(steps))]
}

// Confirmed notes that somebody has confirmed the wall clock.
func (c *Clock) Confirmed(wall time.Time, boot time.Duration) {
	c.held, c.most, c.at = false, later(c.most, wall), boot
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Look compares the guarded clock of a process with both clocks. The answer says what is wrong: it
// never goes back while the process lives, and follows a forward step only when somebody confirmed
// it or it was held for the longest time.
// A process that began at an instant of the boot clock may know of the time since then.
func (c *Clock) Look(
	life int, wall time.Time, began, boot time.Duration, now delay.Due,
) string {
	c.High = max(c.High, now)
	if c.life != life {
		most := wall
		if now.Time().After(wall) { // it has gone back while the process opened
			most = now.Time().Add(boot - began)
		}
		*c = Clock{
			Off: c.Off, High: c.High, Hold: c.Hold, life: life, last: now, most: most, at: boot,
		}
		return ""
	}
	most := c.most.Add(boot - c.at)
	switch ahead := wall.Sub(most); {
	case ahead <= tolerance:
		c.held, most = false, later(most, wall)
	case !c.held:
		c.held, c.since = true, boot
	case boot-c.since > c.Hold:
		c.held, most = false, wall
	}
	last := c.last
	c.last, c.most, c.at = now, most, boot
	switch {
	case now < last:
		return fmt.Sprintf("the clock went back from %d to %d", last, now)
	case now > delay.InstantOf(most.Add(tolerance+time.Millisecond)):
		return fmt.Sprintf("the clock is at %d, and may be at %d: the wall clock says %d", now,
			delay.InstantOf(most), delay.InstantOf(wall))
	}
	return ""
}
