// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// maxStep is the largest forward step of the wall clock that is simply followed (rule R21).
const maxStep = 2 * time.Second

// apart is how far the clock of a witness and the wall clock may be from each other and still
// agree: the step that is followed, and the second that a Date header leaves out.
const apart = maxStep + time.Second

// Witness tells the time of an independent clock, such as the bucket's, and when the wall clock
// showed what, at the moment it was heard last. ok is false when nothing was heard yet.
type Witness func() (remote, local time.Time, ok bool)

// Guarded is the one clock that decides what is due (rule R21): the wall clock, held back
// after a forward step against the boot clock until an independent source agrees, somebody
// confirms it or the hold has lasted long enough. It never goes back: after a backward step it
// stands still until the wall clock has caught up.
type Guarded struct {
	wall    func() time.Time
	boot    func() time.Duration // time since boot, suspend included
	maxHold time.Duration
	events  func(step time.Duration)
	witness Witness

	mu struct {
		sync.Mutex
		last     time.Time     // as given last
		lastBoot time.Duration // when that was
		seen     time.Time     // wall clock at the last look
		known    time.Time     // what the boot clock makes of the wall clock that was believed last
		holding  bool
		since    time.Duration // boot clock when the hold began
		stepped  time.Time     // wall clock then
		start    bool          // the wall clock was ahead when the clock was made
		step     time.Duration
		steps    int64
		back     bool
	}
}

// New makes a clock that begins at the wall clock, or, held, at what the witness says when the wall
// clock is ahead of that. boot is the time since boot, suspend included; hold is the longest time
// that a step is held; ev is told of steps. ev and witness may be nil.
func New(
	wall func() time.Time, boot func() time.Duration, hold time.Duration, ev func(time.Duration),
	witness Witness,
) *Guarded {
	g := &Guarded{wall: wall, boot: boot, maxHold: hold, events: ev, witness: witness}
	g.mu.last, g.mu.lastBoot = wall().Round(0), boot()
	g.mu.seen = g.mu.last
	if ahead := g.ahead(); ahead > apart && !planted.Is(planted.StartUnwitnessed) {
		g.mu.holding, g.mu.start, g.mu.since, g.mu.step = true, true, g.mu.lastBoot, ahead
		g.mu.stepped, g.mu.steps = g.mu.last, 1
		g.mu.last = g.mu.last.Add(-ahead)
		if ev != nil {
			ev(ahead)
		}
	}
	g.mu.known = g.mu.last
	return g
}

// ahead is by how much the wall clock was ahead of the witness when that was heard last.
func (g *Guarded) ahead() time.Duration {
	if g.witness == nil {
		return 0
	}
	remote, local, ok := g.witness()
	if !ok {
		return 0
	}
	return local.Sub(remote)
}

// agreed reports whether the witness has seen the time to which the wall clock stepped, and agrees.
// g.mu is held.
func (g *Guarded) agreed() bool {
	if g.witness == nil {
		return false
	}
	remote, local, ok := g.witness()
	return ok && !local.Before(g.mu.stepped) && local.Sub(remote).Abs() <= apart
}

// Now is the guarded instant (C10, C11).
func (g *Guarded) Now() delay.Due {
	wall, boot := g.wall().Round(0), g.boot()
	g.mu.Lock()
	defer g.mu.Unlock()
	elapsed := max(boot-g.mu.lastBoot, 0)
	known := g.mu.known.Add(elapsed)
	ahead := wall.Sub(known)
	switch {
	case g.mu.holding && (ahead <= maxStep || boot-g.mu.since > g.maxHold || g.agreed()):
		g.mu.holding = false
	case !g.mu.holding && ahead > maxStep && !planted.Is(planted.StepFollowed):
		g.mu.holding, g.mu.since, g.mu.step, g.mu.stepped = true, boot, ahead, wall
		g.mu.start = false
		g.mu.steps++
		if g.events != nil {
			g.events(ahead)
		}
	}
	if wall.Sub(g.mu.seen)-elapsed < -maxStep {
		g.mu.steps++
		if g.events != nil {
			g.events(wall.Sub(g.mu.seen) - elapsed)
		}
	}
	g.mu.seen = wall
	next := wall
	if g.mu.holding {
		next = g.mu.last.Add(elapsed)
	}
	g.mu.back = next.Before(g.mu.last) && !planted.Is(planted.StepBackFollowed)
	if g.mu.back {
		next = g.mu.last
	}
	// While time stands still, the wall clock is compared with what it was before it went back:
	// setting it right is followed at once, setting it further ahead is not (C11).
	g.mu.known = known
	if !g.mu.holding && !g.mu.back {
		g.mu.known = wall
	}
	g.mu.last, g.mu.lastBoot = next, boot
	return delay.InstantOf(next)
}

// Confirm ends a hold.
func (g *Guarded) Confirm() {
	wall, boot := g.wall().Round(0), g.boot()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.holding = false
	g.mu.known, g.mu.lastBoot = wall, boot
	if wall.After(g.mu.last) {
		g.mu.last = wall
	}
}

// Status tells the time, and whether and why it is held.
func (g *Guarded) Status() Status {
	now := g.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	st := Status{Now: now, Held: g.mu.holding || g.mu.back, Steps: g.mu.steps}
	switch {
	case g.mu.holding && g.mu.start:
		st.Reason = "the wall clock is ahead of the bucket's by " +
			g.mu.step.Round(time.Second).String() + "; waiting for confirmation"
	case g.mu.holding:
		st.Reason = "the wall clock stepped forward by " + g.mu.step.Round(time.Second).String() +
			"; waiting for confirmation"
	case g.mu.back:
		st.Reason = "the wall clock stepped back; time stands still until it has caught up"
	}
	return st
}

// Status is the guarded clock (rule R21).
type Status struct {
	Now    delay.Due
	Held   bool   // it does not follow the wall clock now
	Reason string // of holding
	Steps  int64  // since the start
}
