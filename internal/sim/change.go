// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// change asks for one change of m.
func (w *World) change(m *message, kind scheduler.Change) {
	q := scheduler.ChangeRequest{ID: m.ID, Change: kind}
	if kind == scheduler.Reschedule {
		q.Due = w.due()
	}
	w.trace(m, "%s due %d", changeNames[kind], q.Due)
	w.spawn(changeNames[kind], swarm.Cancel, func() {
		m.Out++
		var mv model.Move
		switch kind {
		case scheduler.Cancel:
			m.Cancels++
			m.Cancelled = max(m.Cancelled, maybe)
		case scheduler.StopRetrying:
			m.Cancels++
			m.Cancelled, m.Stopped = max(m.Cancelled, maybe), max(m.Stopped, maybe)
		case scheduler.Reschedule:
			mv = m.BeginMove(q.Due)
		case scheduler.Fire:
			mv = m.BeginMove(w.shard.Now())
		}
		asked, op := w.now(), w.beginChange(m, &q)
		var r [1]scheduler.ChangeResult
		err := w.shard.Change(w.ctx, []scheduler.ChangeRequest{q}, r[:])
		m.Out--
		if err == nil {
			err = r[0].Err
		}
		op.End(linear.Changed(&r[0], err, w.now()))
		w.trace(m, "%s: %s %s due %d %s", changeNames[kind], r[0].Verdict, r[0].State, r[0].Due,
			trace.Reason(err))
		if kind <= scheduler.StopRetrying {
			m.Cancels--
			w.cancelAnswered(m, &r[0], err, asked)
			return
		}
		if err != nil {
			m.Moving--
			m.Loose = true
			return
		}
		w.moveAnswered(m, &q, &r[0], mv)
	})
}

var changeNames = [...]string{"cancel", "stop", "reschedule", "fire"}

func (w *World) moveAnswered(
	m *message, q *scheduler.ChangeRequest, r *scheduler.ChangeResult, mv model.Move,
) {
	done := r.Verdict == scheduler.Rescheduled || r.Verdict == scheduler.Fired
	if done && mv.Cancelled && w.model.Losses == 0 {
		w.fail(m, "%s after CANCELLED", r.Verdict)
	}
	m.EndMove(mv, r.Due, !done)
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
	if err != nil {
		return
	}
	if wrong := m.CancelAnswered(&model.Change{
		ChangeResult: *r, Asked: asked, Now: max(w.now(), w.hands.High), Losses: w.model.Losses > 0,
		Forgets: w.cfg.Options.DedupeWindow < forever, Margin: w.hist.Margin,
	}); wrong != "" {
		w.fail(m, "%s", wrong)
	}
	if r.Verdict == scheduler.NotFound {
		w.checkFound(m)
	}
}

// checkFound: what was accepted is known until its dedupe window is over.
func (w *World) checkFound(m *message) {
	if m.Accepted == yes && !m.Forgiven && m.Replaced == no && m.Deleted == no &&
		w.cfg.Options.DedupeWindow >= forever {
		w.fail(m, "accepted, and NOT_FOUND")
	}
}

// retryDead starts a dead letter over.
func (w *World) retryDead(m *message) {
	if m.Out > 0 || m.Deleted > no || !m.MayDie(w.cfg.Options.MaxAttempts) && !m.Expires() {
		return
	}
	w.spawn("retry-dead", swarm.RetryDead, func() {
		m.Out++
		lastBoot, stopped, before := m.LastBoot, m.Stopped, m.Acked == yes || m.Told
		mv := m.BeginMove(w.shard.Now())
		m.LastBoot, m.Stopped, m.Retried = -1, min(m.Stopped, maybe), true
		op := m.Reg.Begin(linear.Call{Kind: linear.Retry})
		r, err := w.shard.RetryDead(w.ctx, m.ID)
		m.Out--
		op.End(linear.DeadLetter(r.Due, err))
		w.trace(m, "retry of the dead: due %d %s", r.Due, trace.Reason(err))
		switch {
		case err == nil:
			m.EndMove(mv, r.Due, false)
			m.Refusals, m.Stopped, m.Retried, m.Revived = 0, no, true, true
			m.LastBoot = -1
			if before {
				w.fail(m, "it was delivered, and yet rose from the dead letters")
			}
			w.model.Retried++
		case errors.Is(err, delay.ErrNotFound):
			m.EndMove(mv, 0, true)
			m.Stopped = stopped
			if m.LastBoot == -1 {
				m.LastBoot = lastBoot
			}
		default:
			m.Moving--
			m.Loose, m.Retried, m.Revived = true, true, true
		}
	})
}

// deleteDead deletes a dead letter.
func (w *World) deleteDead(m *message) {
	if m.Out > 0 || !m.MayDie(w.cfg.Options.MaxAttempts) && !m.Expires() {
		return
	}
	w.spawn("delete-dead", swarm.DeleteDead, func() {
		m.Out++
		before := m.Deleted
		m.Deleted = max(m.Deleted, maybe)
		op := m.Reg.Begin(linear.Call{Kind: linear.Delete})
		err := w.shard.DeleteDead(w.ctx, m.ID)
		m.Out--
		op.End(linear.DeadLetter(0, err))
		w.trace(m, "delete of the dead: %s", trace.Reason(err))
		switch {
		case err == nil:
			m.Deleted = yes
		case errors.Is(err, delay.ErrNotFound):
			m.Deleted = before
		}
	})
}
