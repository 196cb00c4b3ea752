// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// moved is a request that gives a message another due, under way.
type moving struct {
	before    []delay.Due
	cancelled bool // it had been answered before
}

// beginMove notes that the due may become due from now on.
func (m *message) beginMove(due delay.Due) moving {
	mv := moving{before: slices.Clone(m.dues), cancelled: m.cancelled == yes}
	m.moving++
	m.mixed = m.mixed || m.moving > 1
	m.moved = true
	m.may(due)
	return mv
}

// endMove notes the answer: the due that holds now, or none when it was refused for sure.
func (m *message) endMove(mv moving, due delay.Due, refused bool) {
	m.moving--
	switch {
	case refused && !m.mixed:
		m.dues = mv.before
	case refused:
	case !m.mixed:
		m.may(due)
		m.dues, m.loose = []delay.Due{due}, false
	default:
		m.may(due)
		m.loose = true
	}
	m.mixed = m.mixed && m.moving > 0
}

// change asks for one change of m.
func (w *World) change(m *message, kind scheduler.Change) {
	q := scheduler.ChangeRequest{ID: m.id, Change: kind}
	if kind == scheduler.Reschedule {
		q.Due = w.due()
	}
	w.trace(m, "%s due %d", changeNames[kind], q.Due)
	w.spawn(changeNames[kind], swarm.Cancel, func() {
		m.out++
		var mv moving
		switch kind {
		case scheduler.Cancel:
			m.cancels++
			m.cancelled = max(m.cancelled, maybe)
		case scheduler.StopRetrying:
			m.cancels++
			m.cancelled, m.stopped = max(m.cancelled, maybe), max(m.stopped, maybe)
		case scheduler.Reschedule:
			mv = m.beginMove(q.Due)
		case scheduler.Fire:
			mv = m.beginMove(w.shard.Now())
		}
		asked := w.now()
		var r [1]scheduler.ChangeResult
		err := w.shard.Change(w.ctx, []scheduler.ChangeRequest{q}, r[:])
		m.out--
		if err == nil {
			err = r[0].Err
		}
		w.trace(m, "%s: %s %s due %d %s", changeNames[kind], r[0].Verdict, r[0].State, r[0].Due,
			trace.Reason(err))
		if kind <= scheduler.StopRetrying {
			m.cancels--
			w.cancelAnswered(m, &r[0], err, asked)
			return
		}
		if err != nil {
			m.moving--
			m.loose = true
			return
		}
		w.moveAnswered(m, &q, &r[0], mv)
	})
}

var changeNames = [...]string{"cancel", "stop", "reschedule", "fire"}

func (w *World) moveAnswered(
	m *message, q *scheduler.ChangeRequest, r *scheduler.ChangeResult, mv moving,
) {
	done := r.Verdict == scheduler.Rescheduled || r.Verdict == scheduler.Fired
	if done && mv.cancelled && w.model.losses == 0 {
		w.fail(m, "%s after CANCELLED", r.Verdict)
	}
	m.endMove(mv, r.Due, !done)
	switch {
	case done && q.Change == scheduler.Reschedule && r.Due != q.Due:
		w.fail(m, "rescheduled to %d instead of %d", r.Due, q.Due)
	case r.Verdict == scheduler.NotFound:
		w.checkFound(m)
	}
}

func (w *World) cancelAnswered(
	m *message, r *scheduler.ChangeResult, err error, asked delay.Due,
) {
	before := m.cancelled
	switch {
	case err != nil:
	case r.Verdict == scheduler.Cancelled:
		m.cancelled, m.cancelTier = yes, r.Durability == delay.Tier
		if m.tier && !m.cancelTier {
			w.fail(m, "its durability is tier, and that of its cancel local")
		}
		if m.attempts > 0 && !m.revived && !m.retried {
			w.fail(m, "CANCELLED after %d attempts", m.attempts)
		}
		if m.stopped == maybe && m.cancels == 0 {
			m.stopped = no
		}
	case r.Verdict == scheduler.Stopped:
		m.stopped, m.slack = yes, 1
		if before == maybe && m.cancels == 0 {
			m.cancelled = no
		}
	case r.Verdict == scheduler.TooLate:
		if before == yes && w.model.losses == 0 && w.cfg.Options.DedupeWindow >= forever {
			w.fail(m, "TOO_LATE after CANCELLED")
		}
		w.checkTooLate(m, r, asked)
		certain := r.State == delay.Claimed || w.cfg.Options.DedupeWindow >= forever
		if before == maybe && m.cancels == 0 && certain {
			m.cancelled = no
			if m.stopped == maybe && r.State == delay.Claimed {
				m.stopped = no
			}
		}
	case r.Verdict == scheduler.NotFound:
		w.checkFound(m)
	}
}

// checkFound: what was accepted is known until its dedupe window is over.
func (w *World) checkFound(m *message) {
	if m.accepted == yes && !m.forgiven && m.replaced == no && m.deleted == no &&
		w.cfg.Options.DedupeWindow >= forever {
		w.fail(m, "accepted, and NOT_FOUND")
	}
}

// checkTooLate: a message that nobody can have claimed yet is not too late.
func (w *World) checkTooLate(m *message, r *scheduler.ChangeResult, asked delay.Due) {
	margin := 3*w.cfg.Options.FlushInterval + 11*time.Second
	if r.State != delay.Claimed || m.attempts > 0 || m.loose || m.moving > 0 || m.revived ||
		m.retried {
		return
	}
	if w.now().Add(margin) < m.earliest() {
		w.fail(m, "TOO_LATE, asked at %d, and due only at %d", asked, m.earliest())
	}
}

// retryDead starts a dead letter over.
func (w *World) retryDead(m *message) {
	if m.out > 0 || m.deleted > no || !m.mayDie(w) && !m.expires() {
		return
	}
	w.spawn("retry-dead", swarm.RetryDead, func() {
		m.out++
		lastBoot, stopped, before := m.lastBoot, m.stopped, m.acked == yes || m.told
		mv := m.beginMove(w.shard.Now())
		m.lastBoot, m.stopped, m.retried = -1, min(m.stopped, maybe), true
		r, err := w.shard.RetryDead(w.ctx, m.id)
		m.out--
		w.trace(m, "retry of the dead: due %d %s", r.Due, trace.Reason(err))
		switch {
		case err == nil:
			m.endMove(mv, r.Due, false)
			m.refusals, m.stopped, m.retried, m.revived = 0, no, true, true
			m.lastBoot = -1
			if before {
				w.fail(m, "it was delivered, and yet rose from the dead letters")
			}
			w.model.retried++
		case errors.Is(err, delay.ErrNotFound):
			m.endMove(mv, 0, true)
			m.stopped = stopped
			if m.lastBoot == -1 {
				m.lastBoot = lastBoot
			}
		default:
			m.moving--
			m.loose, m.retried, m.revived = true, true, true
		}
	})
}

// deleteDead deletes a dead letter.
func (w *World) deleteDead(m *message) {
	if m.out > 0 || !m.mayDie(w) && !m.expires() {
		return
	}
	w.spawn("delete-dead", swarm.DeleteDead, func() {
		m.out++
		before := m.deleted
		m.deleted = max(m.deleted, maybe)
		err := w.shard.DeleteDead(w.ctx, m.id)
		m.out--
		w.trace(m, "delete of the dead: %s", trace.Reason(err))
		switch {
		case err == nil:
			m.deleted = yes
		case errors.Is(err, delay.ErrNotFound):
			m.deleted = before
		}
	})
}
