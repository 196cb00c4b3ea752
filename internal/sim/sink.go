// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// sink is the receiver of every push lane: it keeps the truth apart from what it tells.
type sink struct {
	w    *World
	down bool
}

func newSink(w *World) *sink { return &sink{w: w} }

// Deliver implements broker.Sink.
func (s *sink) Deliver(_ context.Context, batch []broker.Delivery, results []broker.Result) {
	w := s.w
	begun := make([]*message, len(batch))
	for i := range batch {
		begun[i] = w.attempted(&batch[i], true, w.turn)
		begun[i].Flying = !w.old && !begun[i].Racing
	}
	for i := range batch {
		if w.chance(0.1) {
			w.yield()
		}
		if w.chance(w.cfg.TargetFault*0.2) && !w.healed {
			w.sleep(w.between(time.Millisecond, 15*time.Second))
		}
		results[i] = s.one(begun[i])
		if w.chance(0.1) {
			w.yield()
		}
	}
	if w.old {
		return // nobody but the old owner hears of it
	}
	for i, m := range begun {
		m.Flying = false
		switch results[i].Outcome {
		case broker.Delivered:
			m.Reg.Answered(linear.Call{Kind: linear.Outcome}, linear.Done)
		case broker.Rejected:
			m.Reg.Answered(linear.Call{Kind: linear.Outcome}, linear.Failed)
		default:
		}
		if m.Racing {
			continue
		}
		if results[i].Outcome == broker.Delivered {
			m.Told, m.ToldAt, m.ToldBoot, m.Done = true, w.now(), w.life, true
		}
		if results[i].Outcome == broker.Rejected {
			m.Refusals++
		}
	}
}

// one decides about one attempt.
func (s *sink) one(m *message) broker.Result {
	w := s.w
	take := func() {
		m.Taken++
		w.trace(m, "taken (%d)", m.Taken)
		if m.Repeated() {
			w.fail(m, "taken %d times, with %d incidents that may repeat it", m.Taken, m.Excuses)
		}
	}
	switch {
	case w.cfg.Poisoned && !w.healed && m.Draft.Target == w.lane(0):
		w.trace(m, "poisoned")
		return broker.Result{Outcome: broker.Retry, Reason: "poisoned"}
	case w.healed || !s.down && !w.chance(w.cfg.TargetFault):
		take()
		return broker.Result{Outcome: broker.Delivered}
	case s.down:
		w.trace(m, "target down")
		return broker.Result{Outcome: broker.Retry, Reason: "down"}
	}
	took, reply, word := swarm.Reply(w.rng)
	if took {
		take()
		m.Excuses++
	}
	w.trace(m, "%s", word)
	return reply
}

// Close implements broker.Sink.
func (s *sink) Close() error { return nil }

// attempted checks one attempt against everything that is known (the checkers of attempts).
// began is the turn in which it was asked for: what happened since may have come after the claim
// (W4).
func (w *World) attempted(d *broker.Delivery, push bool, began uint64) *message {
	w.stats.Attempts++
	m := w.model.Find(d.ID, d.Body)
	if no := w.recurs.Of(d); no >= 0 {
		m = w.firing(no, d, m)
	}
	if m == nil {
		w.fail(nil, "a receiver got a body that nobody sent: %q", d.Body)
	}
	now := w.now()
	w.trace(m, "attempt %d of %q at %d, due %d", d.Attempt, d.ID, now, d.Due)
	w.checkContent(m, d)
	if w.old {
		w.checkStray(m, push)
		return m
	}
	m.Reg.Handed(linear.Call{
		Kind: linear.Attempt, Content: m.No, Due: d.Due,
	}, max(now, w.hands.High)) // it may have been claimed before the clock went back
	if w.boot < w.quiet && w.life == w.quietLife && w.cfg.Weights[swarm.Step] == 0 {
		w.fail(m, "attempted %v before the pause of a new owner is over", w.quiet-w.boot)
	}
	if m.Racing {
		m.Attempts++
		return m
	}
	if m.Taken > 0 {
		w.stats.Duplicates++
	}
	at, fired := max(now, w.hands.High), max(d.FiredAt, w.hands.High)
	if wrong := m.Check(&model.Attempt{
		Now: at, Due: d.Due, FiredAt: fired, Number: d.Attempt, Push: push, Life: w.life,
		Began: began,
	}); wrong != "" {
		w.fail(m, "%s", wrong)
	}
	m.Attempts++
	if m.LastBoot != w.life {
		m.Last = 0
	}
	m.Last, m.LastBoot, m.LastTurn = max(m.Last, d.Attempt), w.life, w.turn
	if m.ID == "" {
		m.ID = delay.ID(string(d.ID)) // a crash has eaten the answer that named it
	}
	return m
}

func (w *World) checkContent(m *message, d *broker.Delivery) {
	if m.Refused && m.Accepted == no {
		w.fail(m, "it was refused and is delivered")
	}
	if m.ID != "" && m.ID != d.ID {
		w.fail(m, "it is delivered as %q", d.ID)
	}
	if !m.Same(d) {
		w.fail(m, "sent %+v, delivered %+v", m.Draft.Message, *d)
	}
}
