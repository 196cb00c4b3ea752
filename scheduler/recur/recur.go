// SPDX-License-Identifier: Apache-2.0

// Package recur decides what a recurring schedule does at its due: which firings are made, which
// were missed, and when it is due next (rule R20).
//
//	          missed                 in time       to come
//	--|----|----|----|----[since]----|----|--now--|----|-->
//	  Next                                        the Next of the successor
//
// What was due before the instant since was missed: the shard did not run then, the clock stepped
// over it, or the schedule was paused. The policy says what becomes of it. What was due later fires
// once each, however late it is: a shard that is busy misses nothing.
//
// # Invariants
//
//	Y1  Every instant of the calendar is in exactly one plan, as a firing or as missed.
//	Y2  A plan depends on the stored schedule, now and since alone. A firing's due, and so its id,
//	    is an instant of the calendar, whenever it is made.
//	Y3  A plan is bounded: what is more is left to the next one, at once.
//
// A Planner is safe for concurrent use.
package recur

import (
	"fmt"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/calendar"
)

// Bounds of a plan and of the planner.
const (
	maxInstants = 10_000 // looked at in one plan (Y3)
	maxFirings  = 1000   // made in one plan (Y3)
	maxRules    = 4096   // parsed and kept
)

// jitterSalt keeps the jitter of an id apart from its spread.
const jitterSalt = 0x6a69747465720000

// Planner parses schedules and plans their firings.
type Planner struct {
	zones *calendar.Zones

	mu    sync.Mutex
	rules map[name]*calendar.Rule
}

// name is what a rule is parsed from.
type name struct{ expr, zone string }

// New makes a planner with the embedded time zones.
func New() (*Planner, error) {
	zones, err := calendar.NewZones()
	if err != nil {
		return nil, fmt.Errorf("schedules: %w", err)
	}
	return &Planner{zones: zones, rules: make(map[name]*calendar.Rule)}, nil
}

// Rule is the calendar of c. The error is an invalid field, "schedule" or "time_zone".
func (p *Planner) Rule(c *delay.Recurrence) (*calendar.Rule, error) {
	n := name{c.Expr, c.Zone}
	p.mu.Lock()
	r := p.rules[n]
	p.mu.Unlock()
	if r != nil {
		return r, nil
	}
	r, err := p.zones.Parse(c.Expr, c.Zone)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rules) >= maxRules {
		clear(p.rules)
	}
	p.rules[name{string([]byte(c.Expr)), string([]byte(c.Zone))}] = r
	return r, nil
}

// Begin makes a schedule of a draft whose Recurrence holds a definition: its start is now, its due
// the first firing. The error is an invalid field; Start is set if nothing but the calendar, the
// end or the moment is against it.
func (p *Planner) Begin(m *delay.Message, now delay.Due) error {
	c := m.Recurrence
	if err := check(m); err != nil {
		return err
	}
	r, err := p.Rule(c)
	if err != nil {
		return err
	}
	*c = delay.Recurrence{
		Expr: c.Expr, Zone: c.Zone, Misfire: c.Misfire, MisfireLimit: c.MisfireLimit,
		Until: c.Until, Count: c.Count, Jitter: c.Jitter, Start: now,
	}
	next, ok := r.Next(now, now)
	salt := uint64(jitterSalt)
	if m.ID == "" { // told apart by its content and the moment
		salt ^= delay.Digest(m) ^ uint64(now)
	}
	due := next.At.Add(delay.SpreadOf(string(m.ID), salt, c.Jitter))
	switch {
	case !ok || due > delay.MaxDue:
		return delay.Invalid("schedule", "%q never fires", c.Expr)
	case c.Until > 0 && due > c.Until:
		return delay.Invalid("until", "the first firing would be at %v", due)
	}
	c.Next, m.Due = next.At, due
	// A repeated request is told by its content alone (S4): its instants differ.
	m.AcceptedAt, m.Given, m.ByDelay = now, now, true
	return nil
}

// check refuses what the firings could not carry.
func check(m *delay.Message) error {
	c := m.Recurrence
	switch {
	case len(m.ID) > delay.MaxScheduleIDBytes:
		return delay.Invalid("id", "of a schedule is longer than %d bytes",
			delay.MaxScheduleIDBytes)
	case len(m.Headers) > delay.MaxHeaders-2:
		return delay.Invalid("headers", "of a schedule are more than %d", delay.MaxHeaders-2)
	case len(c.Zone) > delay.MaxZoneBytes:
		return delay.Invalid("time_zone", "is longer than %d bytes", delay.MaxZoneBytes)
	case m.Spread > 0:
		return delay.Invalid("spread", "does not go with schedule: use jitter")
	case m.NotAfter > 0:
		return delay.Invalid("not_after", "does not go with schedule: use ttl and until")
	case m.MaxWait > 0:
		return delay.Invalid("max_wait", "does not go with schedule")
	case c.Misfire > delay.SkipMissed:
		return delay.Invalid("misfire", "want fire_once, fire_all or skip")
	case c.MisfireLimit > 0 && c.Misfire != delay.FireAll:
		return delay.Invalid("misfire_limit", "goes with misfire fire_all only")
	case c.MisfireLimit > delay.MaxMisfireLimit:
		return delay.Invalid("misfire_limit", "want 1 to %d", delay.MaxMisfireLimit)
	case c.Jitter < 0 || c.Jitter > 365*delay.Day:
		return delay.Invalid("jitter", "want 0 to 365d")
	}
	return nil
}

// Firing is one message to be made.
type Firing struct {
	Due    delay.Due
	Missed uint64 // so many were missed since the firing before
}

// Plan is what a schedule does at its due.
type Plan struct {
	Firings []Firing
	Missed  uint64           // due and not made
	Next    delay.Recurrence // with the progress made
	Due     delay.Due        // of the successor
	End     bool             // there is none
}

// Plan plans what the schedule m, stored as it is, does at now. What was due before since was
// missed.
func (p *Planner) Plan(m *delay.Message, now, since delay.Due) (Plan, error) {
	r, err := p.Rule(m.Recurrence)
	if err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	c := *m.Recurrence
	w := walk{rule: r, c: c, jitter: m.Due.Sub(c.Next), at: c.Next}
	var pl Plan
	pl.makeUp(w.take(min(now, max(since, c.Since)-1), maxInstants), &c)
	if !w.stopped { // otherwise more was missed than one plan looks at
		for _, due := range w.take(now, maxFirings-len(pl.Firings)).last {
			pl.Firings = append(pl.Firings, Firing{Due: due})
		}
	}
	if left := c.Count - min(c.Fired, c.Count); c.Count > 0 && uint64(len(pl.Firings)) >= left {
		pl.Firings, w.over = pl.Firings[:left], true
	}
	c.Missed += pl.Missed
	c.Untold += pl.Missed
	if n := len(pl.Firings); n > 0 {
		c.Fired += uint64(n)
		c.Last = pl.Firings[n-1].Due
		pl.Firings[0].Missed, c.Untold = c.Untold, 0
	}
	c.Next, pl.Due, pl.End = w.at, w.due(), w.over
	pl.Next = c
	return pl, nil
}

// makeUp applies the policy to what was missed.
func (pl *Plan) makeUp(missed run, c *delay.Recurrence) {
	most := uint64(0)
	switch {
	case missed.more: // none of these is the latest: the plan that follows decides
	case c.Misfire == delay.FireOnce:
		most = 1
	case c.Misfire == delay.FireAll:
		most = uint64(c.MisfireLimit)
		if most == 0 {
			most = delay.DefaultMisfireLimit
		}
	}
	most = min(most, missed.n, uint64(len(missed.last)))
	pl.Missed = missed.n - most
	for _, due := range missed.last[uint64(len(missed.last))-most:] {
		pl.Firings = append(pl.Firings, Firing{Due: due})
	}
}

// walk goes through the instants of a calendar.
type walk struct {
	rule    *calendar.Rule
	c       delay.Recurrence
	jitter  time.Duration
	at      delay.Due // the next instant
	over    bool      // there is none
	stopped bool      // take looked at as many as it may
}

// run is what take found.
type run struct {
	last []delay.Due // the latest of them, ascending
	n    uint64      // how many there were
	more bool        // there are more of them
}

func (w *walk) due() delay.Due { return w.at.Add(w.jitter) }

// take takes the instants up to the instant to, at most most of them.
func (w *walk) take(to delay.Due, most int) run {
	var r run
	for !w.over && w.due() <= to {
		if int(r.n) == most {
			w.stopped, r.more = true, true
			return r
		}
		r.n++
		if len(r.last) == delay.MaxMisfireLimit {
			r.last = append(r.last[:0], r.last[1:]...)
		}
		r.last = append(r.last, w.due())
		w.step()
	}
	return r
}

// step goes on to the next instant.
func (w *walk) step() {
	next, ok := w.rule.Next(w.at, w.c.Start)
	w.at = next.At
	switch due := w.due(); {
	case !ok || due > delay.MaxDue:
		w.over = true
	case w.c.Until > 0 && due > w.c.Until:
		w.over = true
	}
}
