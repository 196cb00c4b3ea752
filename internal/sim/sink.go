// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"slices"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
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
		begun[i].flying = !w.old
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
		m.flying = false
		if results[i].Outcome == broker.Delivered {
			m.told, m.toldAt, m.toldBoot, m.done = true, w.now(), w.life, true
		}
		if results[i].Outcome == broker.Rejected {
			m.refusals++
		}
	}
}

// one decides about one attempt.
func (s *sink) one(m *message) broker.Result {
	w := s.w
	take := func() {
		m.taken++
		w.trace(m, "taken (%d)", m.taken)
	}
	switch {
	case w.healed || !s.down && !w.chance(w.cfg.TargetFault):
		take()
		return broker.Result{Outcome: broker.Delivered}
	case s.down:
		w.trace(m, "target down")
		return broker.Result{Outcome: broker.Retry, Reason: "down"}
	}
	switch w.rng.IntN(5) {
	case 0:
		w.trace(m, "rejected")
		return broker.Result{Outcome: broker.Rejected, Reason: "no"}
	case 1:
		take()
		w.trace(m, "reply lost")
		return broker.Result{}
	case 2:
		w.trace(m, "request lost")
		return broker.Result{}
	case 3:
		after := w.between(time.Millisecond, 20*time.Second)
		w.trace(m, "retry after %v", after)
		return broker.Result{Outcome: broker.Retry, Reason: "busy", RetryAfter: after}
	default:
		w.trace(m, "retry")
		return broker.Result{Outcome: broker.Retry, Reason: "later"}
	}
}

// Close implements broker.Sink.
func (s *sink) Close() error { return nil }

// attempted checks one attempt against everything that is known (the checkers of attempts).
// began is the turn in which it was asked for: what happened since may have come after the claim
// (W4).
func (w *World) attempted(d *broker.Delivery, push bool, began uint64) *message {
	w.stats.Attempts++
	m := w.model.find(d.Body)
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
	if w.boot < w.quiet && w.life == w.quietLife {
		w.fail(m, "attempted %v before the pause of a new owner is over", w.quiet-w.boot)
	}
	w.checkInstant(m, d, now)
	w.checkAllowed(m, push, began)
	w.checkNumber(m, d.Attempt, began)
	m.attempts++
	if m.lastBoot != w.life {
		m.last = 0
	}
	m.last, m.lastBoot, m.lastTurn = max(m.last, d.Attempt), w.life, w.turn
	if m.id == "" {
		m.id = delay.ID(string(d.ID)) // a crash has eaten the answer that named it
	}
	return m
}

func (w *World) checkContent(m *message, d *broker.Delivery) {
	if m.refused && m.accepted == no {
		w.fail(m, "it was refused and is delivered")
	}
	if m.id != "" && m.id != d.ID {
		w.fail(m, "it is delivered as %q", d.ID)
	}
	same := string(m.draft.Body) == string(d.Body) && m.draft.Target == d.Target &&
		m.draft.RoutingKey == d.RoutingKey && slices.Equal(m.draft.Headers, d.Headers)
	if !same {
		w.fail(m, "sent %+v, delivered %+v", m.draft.Message, *d)
	}
}

// checkInstant: never early.
func (w *World) checkInstant(m *message, d *broker.Delivery, now delay.Due) {
	switch {
	case now < d.Due, d.FiredAt < d.Due:
		w.fail(m, "early: due %d, fired at %d, attempted at %d", d.Due, d.FiredAt, now)
	case now < m.earliest():
		w.fail(m, "early: it was moved to %v, attempted at %d", m.dues, now)
	case !m.loose && m.moving == 0 && !slices.Contains(m.dues, d.Due):
		w.fail(m, "delivered with due %d, its due is %v", d.Due, m.dues)
	}
}

// checkAllowed: cancel is exact, a finished message never comes back, one attempt at a time.
func (w *World) checkAllowed(m *message, push bool, began uint64) {
	if m.taken > 0 {
		w.stats.Duplicates++
	}
	switch {
	case m.cancelled == yes:
		w.fail(m, "attempted after CANCELLED")
	case m.replaced == yes && m.draft.Mode != delay.AtMostOnce: // that is finished before it leaves
		w.fail(m, "attempted after it was replaced")
	case m.stopped == yes && m.slack == 0:
		w.fail(m, "attempted after STOPPED")
	case m.draft.Mode == delay.AtMostOnce && m.attempts > 0 && !m.revived:
		w.fail(m, "at most once, and attempted again")
	case m.flying:
		w.fail(m, "attempted while another attempt is under way")
	case push && m.told && m.toldBoot == w.life:
		w.fail(m, "attempted again after it was delivered, without a crash")
	}
	if m.stopped == yes {
		m.slack--
	}
	if !push && max(m.lastTurn, m.ackTurn) >= began {
		return
	}
	switch {
	case m.finalTier:
		w.fail(m, "attempted again after its end was in the bucket")
	case m.final:
		w.fail(m, "attempted again after its end was durable")
	case m.acked == yes:
		w.fail(m, "leased again after ACKED")
	case !push && w.now() < m.leased:
		w.fail(m, "leased again while a lease runs until %d", m.leased)
	}
}

// checkNumber: attempts are counted. A crash may lose the last count.
func (w *World) checkNumber(m *message, n uint32, began uint64) {
	switch {
	case n == 0:
		w.fail(m, "attempt number 0")
	case m.lastBoot == w.life && (n == m.last || n < m.last && m.lastTurn < began):
		w.fail(m, "attempt %d after attempt %d", n, m.last)
	}
}
