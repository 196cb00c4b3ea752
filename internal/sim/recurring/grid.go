// SPDX-License-Identifier: Apache-2.0

package recurring

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/model"
)

// def is one definition of a schedule: a replaced one is another.
type def struct {
	no     int
	draft  delay.Draft
	period delay.Due // ms between two instants
	first  delay.Due // the first of them, once it is known

	made, ended model.Answer
	endedAt     delay.Due // no instant after it fires, once ended is Yes
	loose       bool      // a lost disk may have taken it, or what was asked of it
	busy        bool      // a call about it is under way
	unheard     bool      // one has no answer

	gaps   []gap // in which it was paused
	byHand []span
	fired  map[delay.Due]uint64 // how many each says were missed before it
}

// gap is a time in which instants were missed: those in (from, to) may be, those in (sure, until)
// are.
type gap struct{ from, sure, until, to delay.Due }

// span is where firings by hand may be due.
type span struct {
	from, to delay.Due
	sure     bool // there is one, at from
}

// grids are what schedules are made of; each has the same form every time.
var grids = [...]struct {
	expr   string
	period time.Duration
}{
	{"@every 1s", time.Second}, {"*/2 * * * * *", 2 * time.Second}, {"@every 7s", 7 * time.Second},
	{"*/10 * * * * *", 10 * time.Second}, {"@every 30s", 30 * time.Second},
	{"* * * * *", time.Minute}, {"@every 10m", 10 * time.Minute}, {"0 * * * *", time.Hour},
}

// maxByMisfire bounds what fire_all makes up for, so that no pile of firings is all there is.
const maxByMisfire = 6

// draw makes a definition of an id.
func (b *Book) draw(id delay.ID, target delay.Target) *def {
	r := b.Rand
	from := 0
	for grids[from].period < b.Finest {
		from++
	}
	g := grids[from+r.IntN(len(grids)-from)]
	d := &def{
		no: len(b.defs), period: delay.Due(g.period.Milliseconds()),
		fired: make(map[delay.Due]uint64),
	}
	c := &delay.Recurrence{Expr: g.expr, Misfire: delay.Misfire(r.IntN(3))}
	if c.Misfire == delay.FireAll {
		c.MisfireLimit = uint32(1 + r.IntN(maxByMisfire))
	}
	if r.IntN(4) == 0 {
		c.Jitter = time.Duration(r.IntN(3000)) * time.Millisecond
	}
	d.draft = delay.Draft{Message: delay.Message{
		ID: id, Target: target, Body: fmt.Appendf(nil, "s%d;", d.no), Recurrence: c,
		Headers: []delay.Header{{Name: "n", Value: fmt.Sprint(d.no)}}, RoutingKey: "tick",
		MaxAttempts: 10_000,
	}}
	if b.Tier && r.IntN(2) == 0 {
		d.draft.Durability, d.draft.Cold = delay.Tier, true
	}
	b.defs = append(b.defs, d)
	return d
}

// on reports whether due is an instant of the schedule.
func (d *def) on(due delay.Due) bool { return due >= d.first && (due-d.first)%d.period == 0 }

// last is the last instant at or before an instant, and whether there is one.
func (d *def) last(at delay.Due) (delay.Due, bool) {
	if at < d.first {
		return 0, false
	}
	return at - (at-d.first)%d.period, true
}

// wrongly tells why an instant that was missed in a gap must not have fired, "" when it may have.
func (d *def) wrongly(due delay.Due, g gap) string {
	c := d.draft.Recurrence
	later := func(n delay.Due) bool { return due+n*d.period < g.until } // missed in the same gap
	if due <= g.sure || due >= g.until {
		return ""
	}
	switch {
	case c.Misfire == delay.SkipMissed:
	case c.Misfire == delay.FireOnce && later(1):
	case c.Misfire == delay.FireAll && later(delay.Due(c.MisfireLimit)):
	default:
		return ""
	}
	return fmt.Sprintf("fired at %d, which was missed between %d and %d, and the policy is %s (%d)",
		due, g.sure, g.until, c.Misfire, c.MisfireLimit)
}

// excused reports whether all instants from to to lie in gaps.
func (d *def) excused(from, to delay.Due, gaps []gap) (delay.Due, bool) {
	for at := from; at <= to; {
		next := at
		for _, g := range gaps {
			if at > g.from && at < g.to {
				next = max(next, g.to)
			}
		}
		for _, g := range d.gaps {
			if at > g.from && at < g.to {
				next = max(next, g.to)
			}
		}
		if next == at {
			return at, false
		}
		if next > to {
			break
		}
		at = from + (next-from+d.period-1)/d.period*d.period
	}
	return 0, true
}

// hand reports whether somebody may have asked for a firing that is due then.
func (d *def) hand(due delay.Due) bool {
	for _, s := range d.byHand {
		if due >= s.from && due <= s.to {
			return true
		}
	}
	return false
}

// pick is one of the definitions that may live and about which nothing is being asked.
func (b *Book) pick(r *rand.Rand) *def {
	var live []*def
	for _, d := range b.defs {
		if d.made == model.Yes && d.ended == model.No && !d.busy {
			live = append(live, d)
		}
	}
	if len(live) == 0 {
		return nil
	}
	return live[r.IntN(len(live))]
}
