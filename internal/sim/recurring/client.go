// SPDX-License-Identifier: Apache-2.0

package recurring

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// World is what a Book needs of the history that it is part of.
type World struct {
	Rand   *rand.Rand
	Now    func() delay.Due // the clock of the shard
	Shard  func() *scheduler.Stepped
	Spawn  func(name string, call func()) // begins a call of a client
	Lane   func() delay.Target            // one of the targets
	Trace  func(format string, args ...any)
	Fail   func(format string, args ...any)
	Losses func() int

	Most   int           // schedules at a time; 0 is none ever
	Tier   bool          // there is a bucket
	Finest time.Duration // the shortest period
}

// Book is what was asked of the schedules of a shard, and what came of it.
type Book struct {
	World
	defs    []*def
	gaps    []gap
	settled delay.Due // nothing that was due before waits to be done
	high    delay.Due // the furthest that a clock has come: what was due before may have fired
	calm    delay.Due // since then the shard sees everything
	calmEnd delay.Due
	stage   stage
	over    bool // all schedules were cancelled
}

// Act has a client do something with schedules.
func (b *Book) Act(ctx context.Context) {
	live := 0
	for _, d := range b.defs {
		if d.made > model.No && d.ended < model.Yes {
			live++
		}
	}
	d := b.pick(b.Rand)
	n := b.Rand.IntN(100)
	switch {
	case live < b.Most && (d == nil || n < 15):
		b.send(ctx, b.draw(delay.ID(fmt.Sprintf("schedule-%d", len(b.defs))), b.Lane()), nil)
	case d == nil:
	case n < 40:
		b.change(ctx, d, scheduler.PauseSchedule)
	case n < 70:
		b.change(ctx, d, scheduler.ResumeSchedule)
	case n < 85:
		b.change(ctx, d, scheduler.Fire)
	case n < 93:
		b.send(ctx, b.draw(d.draft.ID, b.Lane()), d)
	default:
		b.change(ctx, d, scheduler.Cancel)
	}
}

// send makes a schedule, in the place of another one when old is given.
func (b *Book) send(ctx context.Context, d, old *def) {
	draft, c := d.draft, *d.draft.Recurrence
	draft.Recurrence, draft.AcceptedAt = &c, b.Now()
	d.made = model.Maybe
	if old != nil {
		draft.Replace = true
		old.ended, old.busy = model.Maybe, true
		d.loose = old.loose
		d.gaps, d.unheard = slices.Clone(old.gaps), old.unheard // it stays paused
	}
	d.busy = true
	b.Trace("schedule %s (%d): %s %s %d of %s", draft.ID, d.no, c.Expr, c.Misfire, c.MisfireLimit,
		draft.Durability)
	b.Spawn("schedule", func() {
		var r [1]scheduler.Receipt
		err := b.Shard().Accept(ctx, []delay.Draft{draft}, r[:])
		refused := r[0].Err != nil || errors.Is(err, delay.ErrOverloaded)
		err = errors.Join(err, r[0].Err)
		b.Trace("schedule %s (%d): due %d %s", draft.ID, d.no, r[0].Due, trace.Reason(err))
		d.busy = false
		if old != nil {
			old.busy = false
		}
		switch {
		case err == nil:
			d.made, d.first = model.Yes, r[0].Due
			if old != nil {
				old.ended, old.endedAt = model.Yes, b.Now()
			}
		case refused:
			d.made = model.No
			if old != nil {
				old.ended = model.No
			}
		}
	})
}

// change pauses, resumes, fires or cancels a schedule.
func (b *Book) change(ctx context.Context, d *def, kind scheduler.Change) {
	asked := b.Now()
	d.busy, d.unheard = true, true
	undo := func() {}
	switch kind {
	case scheduler.PauseSchedule:
		d.pause(b.settled)
	case scheduler.ResumeSchedule:
		for i := range d.gaps {
			d.gaps[i].until = min(d.gaps[i].until, asked)
		}
	case scheduler.Fire: // several in one millisecond take those before
		d.byHand = append(d.byHand, span{from: asked - handful, to: delay.MaxDue})
	default:
		d.ended = model.Maybe
		undo = func() { d.ended = model.No }
		if b.stage == ending { // nobody can tell any more
			undo = func() { d.ended, d.endedAt = model.Yes, asked }
		}
	}
	b.Trace("schedule %s (%d): %s", d.draft.ID, d.no, names[kind])
	b.Spawn("recur", func() {
		var r [1]scheduler.ChangeResult
		q := scheduler.ChangeRequest{ID: d.draft.ID, Change: kind}
		err := b.Shard().Change(ctx, []scheduler.ChangeRequest{q}, r[:])
		err = errors.Join(err, r[0].Err)
		b.Trace("schedule %s (%d): %s: %s due %d %s", d.draft.ID, d.no, names[kind], r[0].Verdict,
			r[0].Due, trace.Reason(err))
		d.busy = false
		switch {
		case err != nil: // it may have been done
		case r[0].Verdict == scheduler.NotFound || r[0].Verdict == scheduler.TooLate:
			undo()
			d.unheard = false
			if !d.loose {
				b.Fail("schedule %s (%d) is there, and %s answers %s", d.draft.ID, d.no, names[kind],
					r[0].Verdict)
			}
		default:
			d.unheard = false
			d.answered(kind, &r[0], b.Now())
		}
	})
}

// handful is how many firings by hand of one moment may be due before it.
const handful = 1000

var names = map[scheduler.Change]string{
	scheduler.PauseSchedule: "pause", scheduler.ResumeSchedule: "resume", scheduler.Fire: "fire",
	scheduler.Cancel: "cancel",
}

// pause begins a gap that nobody has ended; one may be open already.
func (d *def) pause(settled delay.Due) {
	d.gaps = append(d.gaps, gap{
		from: settled, sure: delay.MaxDue, until: delay.MaxDue, to: delay.MaxDue,
	})
}

// answered notes that a change was made, at now at the latest.
func (d *def) answered(kind scheduler.Change, r *scheduler.ChangeResult, now delay.Due) {
	switch kind {
	case scheduler.PauseSchedule:
		d.gaps[len(d.gaps)-1].sure = now
	case scheduler.ResumeSchedule:
		for i := range d.gaps {
			d.gaps[i].to = min(d.gaps[i].to, now)
		}
	case scheduler.Fire:
		d.byHand[len(d.byHand)-1] = span{from: r.Due, to: r.Due, sure: true}
	default:
		d.ended, d.endedAt = model.Yes, now
	}
}
