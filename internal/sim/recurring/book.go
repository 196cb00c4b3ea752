// SPDX-License-Identifier: Apache-2.0

package recurring

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/scheduler"
)

// maxStep is what the clock may move by without that anything was missed.
const maxStep = 2 * time.Second

// Settled notes that nothing waits to be done at now.
func (b *Book) Settled(now delay.Due) { b.settled = max(b.settled, now) }

// Stood notes that a process stood still while its clock went from one instant to another.
func (b *Book) Stood(from, to delay.Due) {
	if to.Sub(from) > maxStep {
		b.gaps = append(b.gaps, gap{b.settled, max(from, b.high), to, to})
	}
	b.high = max(b.high, to)
}

// Opened notes that a process has started: the one before has seen the time up to from, this one
// sees it from some instant between since and now on.
func (b *Book) Opened(from, since, now delay.Due) {
	for i := range b.gaps { // the clock may have been set back
		b.gaps[i].until = min(b.gaps[i].until, since)
	}
	b.gaps = append(b.gaps, gap{b.settled, max(from, b.high), since, now})
	b.high = max(b.high, now)
}

// Crashed notes that a process ended at now, and with it the calls under way. lost: with its disk,
// or because another took the shard.
func (b *Book) Crashed(now delay.Due, lost bool) {
	b.high = max(b.high, now)
	for _, d := range b.defs {
		d.busy = false
		for i := range d.byHand {
			if !d.byHand[i].sure {
				d.byHand[i].to = min(d.byHand[i].to, now)
			}
		}
		// A change without an answer is undone in a part of the bucket's order only.
		d.loose = d.loose || lost && (d.draft.Durability != delay.Tier || d.unheard)
	}
	if lost {
		b.settled = 0
		for i := range b.gaps {
			b.gaps[i].from, b.gaps[i].sure = 0, delay.MaxDue
		}
		b.gaps = append(b.gaps, gap{0, delay.MaxDue, delay.MaxDue, now})
	}
}

// Of is the definition whose firing a delivery is, -1 when it is none.
func (b *Book) Of(d *broker.Delivery) int {
	digits, ok := bytes.CutPrefix(d.Body, []byte("s"))
	n, err := strconv.Atoi(string(bytes.TrimSuffix(digits, []byte(";"))))
	if !ok || err != nil || n < 0 || n >= len(b.defs) {
		return -1
	}
	return n
}

// Attempted judges an attempt at a firing of definition no, and gives what it must be. by is the
// time of the shard; stray: by an owner that was replaced.
func (b *Book) Attempted(no int, a *broker.Delivery, stray bool) {
	d := b.defs[no]
	want := d.draft.Message
	missed, text := uint64(0), ""
	headers := slices.Clone(a.Headers)
	if n := len(headers); n > 0 && headers[n-1].Name == delay.HeaderMissed {
		text = headers[n-1].Value
		headers = headers[:n-1]
	}
	if text != "" {
		var err error
		if missed, err = strconv.ParseUint(text, 10, 64); err != nil {
			b.Fail("firing %s: %v", a.ID, err)
		}
	}
	want.Headers = append(slices.Clone(want.Headers),
		delay.Header{Name: delay.HeaderScheduleID, Value: string(want.ID)})
	switch {
	case a.ID != delay.FiringID(want.ID, a.Due):
		b.Fail("firing of %s due %d is called %s", want.ID, a.Due, a.ID)
	case a.Target != want.Target || a.RoutingKey != want.RoutingKey ||
		!slices.Equal(headers, want.Headers):
		b.Fail("firing %s: %+v, of schedule %+v", a.ID, *a, want)
	case d.made == model.No:
		b.Fail("firing %s of a schedule that was refused", a.ID)
	}
	if stray {
		return
	}
	b.judge(d, a.Due)
	if _, seen := d.fired[a.Due]; !seen || missed > d.fired[a.Due] {
		d.fired[a.Due] = missed
	}
}

// judge looks at an instant that fired (G1, G2, G5).
func (b *Book) judge(d *def, due delay.Due) {
	switch {
	case d.hand(due):
		return
	case d.first != 0 && !d.on(due):
		b.Fail("%s (%d) fired at %d: from %d it is due every %d ms", d.draft.ID, d.no, due, d.first,
			d.period)
	case d.ended == model.Yes && !d.loose && due > d.endedAt:
		b.Fail("%s (%d) fired at %d, and ended at %d", d.draft.ID, d.no, due, d.endedAt)
	}
	if d.loose || d.first == 0 {
		return
	}
	for _, g := range slices.Concat(b.gaps, d.gaps) {
		if wrong := d.wrongly(due, g); wrong != "" {
			b.Fail("%s (%d) %s", d.draft.ID, d.no, wrong)
		}
	}
}

// Check judges what came of all schedules, once everything is delivered (G3, G4, G6).
func (b *Book) Check() {
	for _, d := range b.defs {
		if d.made == model.Yes && !d.loose {
			b.count(d)
		}
	}
}

func (b *Book) count(d *def) {
	for _, s := range d.byHand {
		if _, ok := d.fired[s.from]; s.sure && !ok && b.Losses() == 0 {
			b.Fail("%s (%d) was fired by hand, due %d, and nobody got it", d.draft.ID, d.no, s.from)
		}
	}
	dues := make([]delay.Due, 0, len(d.fired))
	for due := range d.fired {
		if d.on(due) {
			dues = append(dues, due)
		}
	}
	slices.Sort(dues)
	next := d.first // the first instant of which nothing is known yet
	for _, due := range dues {
		missed := delay.Due(min(d.fired[due], uint64(delay.MaxDue/d.period)))
		begin := due - missed*d.period
		switch {
		case d.hand(due): // it took the place of the calendar's own, and may hide what that would say
			next = max(next, due+d.period)
			continue
		case begin > next:
			b.Fail("%s (%d): the instants from %d to %d neither fired nor were missed: %d says %d",
				d.draft.ID, d.no, next, begin-d.period, due, missed)
		case begin < next && b.Losses() == 0:
			b.Fail("%s (%d): the instants from %d to %d fired or were missed twice: %d says %d",
				d.draft.ID, d.no, begin, next-d.period, due, missed)
		}
		if at, ok := d.excused(max(begin, d.first), due-d.period, b.gaps); !ok {
			b.Fail("%s (%d): %d was in time, and is called missed by %d", d.draft.ID, d.no, at, due)
		}
		next = max(next, due+d.period)
	}
	if last, ok := d.last(b.calmEnd); ok && b.over && d.endedAt >= b.calmEnd && last > b.calm &&
		next <= last {
		b.Fail("%s (%d) did not fire at %d, without any faults", d.draft.ID, d.no, next)
	}
}

// calmFor is how long schedules go on after all faults have ended.
const calmFor = 150 * time.Second

// Calm brings all schedules to their end after the faults have ended: they are resumed, go on for a
// while, and are cancelled. It gives whether time should pass now, and whether there is anything
// left to do. settled: nothing waits to be done.
func (b *Book) Calm(ctx context.Context, settled bool) (wait, more bool) {
	if b.over || len(b.defs) == 0 {
		return false, false
	}
	busy, waiting := false, 0
	for _, d := range b.defs {
		if d.made != model.No && d.ended != model.Yes && !d.busy {
			waiting++
			d.loose = d.loose || d.made == model.Maybe || d.ended == model.Maybe
		}
		busy = busy || d.busy
	}
	now := b.Now()
	switch {
	case busy:
	case b.stage == healing: // a change without an answer may have paused any of them
		b.each(ctx, scheduler.ResumeSchedule)
		b.stage = resuming
	case b.stage == resuming && b.unheard():
		b.each(ctx, scheduler.ResumeSchedule)
	case b.stage == resuming:
		b.calm, b.stage = now, going
	case b.stage == going && (now < b.calm.Add(calmFor) || !settled):
	case b.stage == going:
		b.calmEnd, b.stage = now, ending
	case waiting > 0:
		b.each(ctx, scheduler.Cancel)
	default:
		b.over = true
	}
	return true, !b.over
}

// stage is how far the schedules are in the phase without faults.
type stage uint8

const (
	healing stage = iota
	resuming
	going
	ending
)

// each asks for a change of every schedule that may live.
func (b *Book) each(ctx context.Context, kind scheduler.Change) {
	for _, d := range b.defs {
		if d.made != model.No && d.ended != model.Yes {
			b.change(ctx, d, kind)
		}
	}
}

// unheard reports whether a schedule that is known has not answered.
func (b *Book) unheard() bool {
	return slices.ContainsFunc(b.defs, func(d *def) bool {
		return d.made == model.Yes && d.ended != model.Yes && d.unheard && !d.loose
	})
}
