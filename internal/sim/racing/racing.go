// SPDX-License-Identifier: Apache-2.0

// Package racing has clients of a simulated shard race for ids around their due. It is confined to
// one goroutine.
package racing

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// World is what races need of the history that they are part of.
type World struct {
	Rand   *rand.Rand
	Config *swarm.Config
	Now    func() delay.Due // the clock of the shard
	Far    func() delay.Due // any due
	Shard  func() *scheduler.Stepped
	Draft  func(id delay.ID) *model.Message // makes a content
	Look   func(m *model.Message)
	Spawn  func(name string, call func()) // begins a call of a client
	Trace  func(m *model.Message, format string, args ...any)
}

// Races are the ids that clients race for now.
type Races struct {
	World
	hot []*raced
}

// raced is an id for which clients race. Their calls overlap as they like, so nothing is expected
// of one answer alone: the history of the id as a whole decides (R12).
type raced struct {
	id       delay.ID
	contents []*model.Message
	calls    int
}

// maxCalls is after how many calls clients turn to another id.
const maxCalls = 9

// Call makes one call about one of the hot ids; no names a new one.
func (w *Races) Call(ctx context.Context, no int) {
	if len(w.hot) < w.Config.Hot {
		w.hot = append(w.hot, &raced{id: delay.ID(fmt.Sprintf("race-%d", no))})
	}
	i := w.Rand.IntN(len(w.hot))
	r := w.hot[i]
	if r.calls++; r.calls > maxCalls {
		w.hot = slices.Delete(w.hot, i, i+1)
	}
	switch n := w.Rand.IntN(100); {
	case n < 15 || len(r.contents) == 0:
		w.send(ctx, r, w.content(r), false)
	case n < 25:
		w.send(ctx, r, r.contents[w.Rand.IntN(len(r.contents))], w.Rand.Float64() < 0.2)
	case n < 40:
		w.send(ctx, r, w.content(r), true)
	case n < 55:
		w.change(ctx, r, scheduler.Cancel)
	case n < 60:
		w.change(ctx, r, scheduler.StopRetrying)
	case n < 75:
		w.change(ctx, r, scheduler.Reschedule)
	case n < 82:
		w.change(ctx, r, scheduler.Fire)
	case n < 95:
		w.Look(r.contents[0])
	default:
		w.dead(ctx, r, n < 98)
	}
}

// soon is a due around which calls race.
func (w *Races) soon() delay.Due {
	if w.Rand.Float64() < w.Config.FarShare {
		return w.Far()
	}
	return w.Now().Add(swarm.Between(w.Rand, -100*time.Millisecond, 2*time.Second))
}

// content makes a content for the id.
func (w *Races) content(r *raced) *model.Message {
	m := w.Draft(r.id)
	m.Racing, m.Aside, m.Draft.Due = true, true, w.soon()
	m.Draft.Cold = m.Draft.Durability == delay.Tier ||
		m.Draft.Due.Sub(m.Draft.AcceptedAt) > w.Config.Options.MinWait
	m.Accepted, m.Dues, m.Every = model.Maybe, nil, nil
	m.May(m.Draft.Due)
	r.contents = append(r.contents, m)
	return m
}

func (w *Races) send(ctx context.Context, r *raced, m *model.Message, replace bool) {
	d := m.Draft
	d.AcceptedAt, d.Replace = w.Shard().Now(), replace
	w.Trace(m, "race: send %q due %d replace %v", r.id, d.Due, replace)
	kind := linear.Submit
	if replace {
		kind = linear.Replace
	}
	w.Spawn("race-send", func() {
		op := m.Reg.Begin(linear.Call{Kind: kind, Content: m.No, Due: d.Due})
		var got [1]scheduler.Receipt
		err := w.Shard().Accept(ctx, []delay.Draft{d}, got[:])
		if err == nil {
			err = got[0].Err
		}
		w.Trace(m, "race: sent, generation %d duplicate %v: %s", got[0].Generation,
			got[0].Duplicate, trace.Reason(err))
		op.End(linear.Accepted(&got[0], err))
	})
}

func (w *Races) change(ctx context.Context, r *raced, kind scheduler.Change) {
	q := scheduler.ChangeRequest{ID: r.id, Change: kind}
	if kind == scheduler.Reschedule {
		q.Due = w.soon()
		for _, m := range r.contents {
			m.May(q.Due)
		}
	}
	m := r.contents[0]
	w.Trace(m, "race: %s %q due %d", kind, r.id, q.Due)
	w.Spawn("race-change", func() {
		op := m.Reg.Begin(linear.Call{Kind: linear.KindOf(q.Change), Due: q.Due})
		var got [1]scheduler.ChangeResult
		err := w.Shard().Change(ctx, []scheduler.ChangeRequest{q}, got[:])
		if err == nil {
			err = got[0].Err
		}
		w.Trace(m, "race: %s: %s %s due %d %s", kind, got[0].Verdict, got[0].State,
			got[0].Due, trace.Reason(err))
		op.End(linear.Changed(&got[0], err, w.Now()))
	})
}

// dead retries or deletes a dead letter.
func (w *Races) dead(ctx context.Context, r *raced, again bool) {
	m := r.contents[0]
	w.Spawn("race-dead", func() {
		kind, due := linear.Delete, delay.Due(0)
		if again {
			kind = linear.Retry
		}
		op := m.Reg.Begin(linear.Call{Kind: kind})
		var err error
		if again {
			var got scheduler.Receipt
			got, err = w.Shard().RetryDead(ctx, r.id)
			due = got.Due
		} else {
			err = w.Shard().DeleteDead(ctx, r.id)
		}
		w.Trace(m, "race: dead letter, again %v: due %d %s", again, due, trace.Reason(err))
		op.End(linear.DeadLetter(due, err))
	})
}
