// SPDX-License-Identifier: Apache-2.0

package history

import (
	"math"
	"slices"
	"time"
)

// followed is the forward step that a daemon may follow at once (R21).
const followed = 2 * time.Second

// readApart is how far apart a daemon may read its two clocks.
const readApart = 5 * time.Millisecond

// clock bounds what a daemon may take for the time, given the steps of its clocks.
type clock struct {
	hold  int64 // ns: how long a step is held
	steps []step
	lives []life
}

type step struct{ at, wall, boot int64 } // ahead from then on

// life is one process of the daemon.
type life struct {
	daemon     string
	start, end int64
}

func clockOf(events []Event, hold time.Duration) *clock {
	c := &clock{hold: int64(hold)}
	running := map[string]int{}
	for _, e := range events {
		switch e.What {
		case Step:
			c.steps = append(c.steps, step{e.At, e.Wall, e.Boot})
		case Launch:
			running[e.Daemon] = len(c.lives)
			c.lives = append(c.lives, life{e.Daemon, e.At, math.MaxInt64})
		case Exit:
			if i, ok := running[e.Daemon]; ok {
				c.lives[i].end = e.At
				delete(running, e.Daemon)
			}
		}
	}
	return c
}

// at is the clocks' lead at an instant.
func (c *clock) at(t int64) step {
	i, _ := slices.BinarySearchFunc(c.steps, t+1, func(s step, t int64) int {
		return int(min(max(s.at-t, -1), 1))
	})
	if i == 0 {
		return step{}
	}
	return c.steps[i-1]
}

// stepped reports whether a clock was stepped within these instants.
func (c *clock) stepped(from, to int64) bool {
	return slices.ContainsFunc(c.steps, func(s step) bool { return s.at >= from && s.at <= to })
}

// died is when the process that answered at this address at this instant ended, and whether it did.
func (c *clock) died(daemon string, after int64) (int64, bool) {
	for _, l := range c.lives {
		if l.daemon == daemon && l.end >= after && l.end != math.MaxInt64 {
			return l.end, true
		}
	}
	return 0, false
}

// latest is the latest instant, in ms, that any daemon may believe at t: what is due after it must
// not have been attempted.
func (c *clock) latest(t int64) int64 {
	if len(c.steps) == 0 {
		return t / int64(time.Millisecond)
	}
	best := int64(math.MinInt64)
	for i, l := range c.lives {
		next := int64(math.MaxInt64)
		if i+1 < len(c.lives) {
			next = c.lives[i+1].start
		}
		// What a process sent before its end may arrive after it.
		if l.start <= t && (l.end >= t || next > t || t-l.end < int64(time.Second)) {
			best = max(best, c.believed(l.start, t))
		}
	}
	if best == math.MinInt64 {
		best = t + c.at(t).wall
	}
	return (best + int64(readApart)) / int64(time.Millisecond)
}

// believed is the latest instant that a process which began at start may believe at t: its wall
// clock, but no more than two seconds ahead of what the boot clock makes of the wall clock that it
// saw, unless it was ahead for as long as steps are held.
func (c *clock) believed(start, t int64) int64 {
	s := c.at(start)
	wall, boot := start+s.wall, start+s.boot
	known := wall   // by the boot clock
	highest := wall // a clock that went back stands still
	held := int64(-1)
	look := func(at int64, s step) {
		nextBoot := at + s.boot
		known += max(nextBoot-boot, 0)
		boot, wall = nextBoot, at+s.wall
		ahead := wall - known
		switch {
		case ahead <= int64(followed):
			held = -1
			known = max(known, wall)
		case held < 0:
			held = boot
		case boot-held >= c.hold:
			held, known = -1, wall
		}
		if held < 0 {
			highest = max(highest, wall)
		} else {
			highest = max(highest, known)
		}
	}
	for _, next := range c.steps {
		if next.at <= start || next.at > t {
			continue
		}
		look(next.at-1, s)
		s = next
		look(next.at, s)
	}
	look(t, s)
	return highest
}
