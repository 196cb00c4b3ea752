// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// raced is an id for which clients race. Their calls overlap as they like, so nothing is expected
// of one answer alone: the history of the id as a whole decides (R12).
type raced struct {
	id       delay.ID
	contents []*message
	calls    int
}

// raceCalls is after how many calls clients turn to another id.
const raceCalls = 9

// race makes one call about one of the hot ids.
func (w *World) race() {
	under := 0
	for _, s := range w.strands {
		if s.kind == swarm.Race {
			under++
		}
	}
	if under >= w.cfg.Racers {
		return
	}
	if len(w.hot) < w.cfg.Hot {
		w.hot = append(w.hot, &raced{id: delay.ID(fmt.Sprintf("race-%d", len(w.model.All)))})
	}
	i := w.rng.IntN(len(w.hot))
	r := w.hot[i]
	if r.calls++; r.calls > raceCalls {
		w.hot = slices.Delete(w.hot, i, i+1)
	}
	switch n := w.rng.IntN(100); {
	case n < 15 || len(r.contents) == 0:
		w.raceSend(r, w.raceContent(r), false)
	case n < 25:
		w.raceSend(r, r.contents[w.rng.IntN(len(r.contents))], w.chance(0.2))
	case n < 40:
		w.raceSend(r, w.raceContent(r), true)
	case n < 55:
		w.raceChange(r, scheduler.Cancel)
	case n < 60:
		w.raceChange(r, scheduler.StopRetrying)
	case n < 75:
		w.raceChange(r, scheduler.Reschedule)
	case n < 82:
		w.raceChange(r, scheduler.Fire)
	case n < 95:
		w.look(r.contents[0])
	default:
		w.raceDead(r, n < 98)
	}
}

// soon is a due around which calls race.
func (w *World) soon() delay.Due {
	if w.chance(w.cfg.FarShare) {
		return w.due()
	}
	return w.now().Add(w.between(-100*time.Millisecond, 2*time.Second))
}

// raceContent makes a content for the id.
func (w *World) raceContent(r *raced) *message {
	m := w.draft(r.id)
	m.Racing, m.Aside, m.Draft.Due = true, true, w.soon()
	m.Draft.Cold = m.Draft.Durability == delay.Tier ||
		m.Draft.Due.Sub(m.Draft.AcceptedAt) > w.cfg.Options.MinWait
	m.Accepted, m.Dues, m.Every = maybe, nil, nil
	m.May(m.Draft.Due)
	r.contents = append(r.contents, m)
	return m
}

func (w *World) raceSend(r *raced, m *message, replace bool) {
	d := m.Draft
	d.AcceptedAt, d.Replace = w.shard.Now(), replace
	w.trace(m, "race: send %q due %d replace %v", r.id, d.Due, replace)
	kind := linear.Submit
	if replace {
		kind = linear.Replace
	}
	w.spawn("race-send", swarm.Race, func() {
		op := m.Reg.Begin(linear.Call{Kind: kind, Content: m.No, Due: d.Due})
		var got [1]scheduler.Receipt
		err := w.shard.Accept(w.ctx, []delay.Draft{d}, got[:])
		if err == nil {
			err = got[0].Err
		}
		w.trace(m, "race: sent, generation %d duplicate %v: %s", got[0].Generation,
			got[0].Duplicate, trace.Reason(err))
		op.End(linear.Accepted(&got[0], err))
	})
}

func (w *World) raceChange(r *raced, kind scheduler.Change) {
	q := scheduler.ChangeRequest{ID: r.id, Change: kind}
	if kind == scheduler.Reschedule {
		q.Due = w.soon()
		for _, m := range r.contents {
			m.May(q.Due)
		}
	}
	m := r.contents[0]
	w.trace(m, "race: %s %q due %d", changeNames[kind], r.id, q.Due)
	w.spawn("race-change", swarm.Race, func() {
		op := w.beginChange(m, &q)
		var got [1]scheduler.ChangeResult
		err := w.shard.Change(w.ctx, []scheduler.ChangeRequest{q}, got[:])
		if err == nil {
			err = got[0].Err
		}
		w.trace(m, "race: %s: %s %s due %d %s", changeNames[kind], got[0].Verdict, got[0].State,
			got[0].Due, trace.Reason(err))
		op.End(linear.Changed(&got[0], err, w.now()))
	})
}

// beginChange notes a change in the history of its id.
func (w *World) beginChange(m *message, q *scheduler.ChangeRequest) *linear.Op {
	return m.Reg.Begin(linear.Call{Kind: linear.KindOf(q.Change), Due: q.Due})
}

// raceDead retries or deletes a dead letter.
func (w *World) raceDead(r *raced, again bool) {
	m := r.contents[0]
	w.spawn("race-dead", swarm.Race, func() {
		kind, due := linear.Delete, delay.Due(0)
		if again {
			kind = linear.Retry
		}
		op := m.Reg.Begin(linear.Call{Kind: kind})
		var err error
		if again {
			var got scheduler.Receipt
			got, err = w.shard.RetryDead(w.ctx, r.id)
			due = got.Due
		} else {
			err = w.shard.DeleteDead(w.ctx, r.id)
		}
		w.trace(m, "race: dead letter, again %v: due %d %s", again, due, trace.Reason(err))
		op.End(linear.DeadLetter(due, err))
	})
}

// beginGet notes a look in the history of its id, unless others are under way: what it sees of them
// a crash may take back.
func (w *World) beginGet(m *message) *linear.Op {
	if m.Reg.Busy() {
		return nil
	}
	return m.Reg.Begin(linear.Call{Kind: linear.Get})
}

func (w *World) endGet(m *message, op *linear.Op, info *scheduler.Info, err error) {
	a := linear.Seen(info, err, w.now())
	if m.Reg.Shared() {
		a.Result = linear.NoEffect
	}
	op.End(a)
}

// checkOrders asks for every id whether some order explains what was seen of it.
func (w *World) checkOrders() {
	v := w.hist.Check(orderLimit)
	w.stats.Registers += v.Registers
	w.stats.Raced += v.Raced
	w.stats.Undecided += v.Unknown
	if v.Broken == nil {
		return
	}
	var about *message
	for _, m := range w.model.All {
		if m.Reg == v.Broken && (about == nil || m.Attempts > about.Attempts) {
			about = m
		}
	}
	w.fail(about, "no order of the calls explains what was seen of its id:\n%s", v.Broken)
}

// orderLimit is the time that the order of one id may take to find.
const orderLimit = 500 * time.Millisecond
