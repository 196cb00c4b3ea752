// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/recurring"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// newSchedules begins the book of the schedules.
func (w *World) newSchedules() {
	w.model.Recurs = w.cfg.Schedules > 0
	w.recurs.World = recurring.World{
		Rand: w.rng, Now: w.now, Shard: func() *scheduler.Stepped { return w.shard }, Lane: w.target,
		Spawn:  func(name string, call func()) { w.spawn(name, swarm.Recur, call) },
		Trace:  func(format string, args ...any) { w.trace(nil, format, args...) },
		Fail:   func(format string, args ...any) { w.fail(nil, format, args...) },
		Losses: func() int { return w.model.Losses },
		Most:   w.cfg.Schedules, Tier: w.cfg.Bucket,
		Finest: w.cfg.Finest(),
	}
}

// firing is the message of a firing: nobody sent it, so it is made when a receiver gets it first.
func (w *World) firing(no int, d *broker.Delivery, m *message) *message {
	w.recurs.Attempted(no, d, w.old)
	if m == nil {
		m = w.model.Fired(d)
		w.stats.Firings++
	}
	m.Fires(d, w.model.Losses > 0)
	return m
}

// stood tells every process that runs how far its clock has moved since it was looked at last: its
// own loop would notice.
func (w *World) stood() {
	if w.cfg.Schedules == 0 || w.healedAt != 0 {
		return
	}
	for _, n := range w.alive() {
		now := n.shard.Now()
		n.shard.Stood(n.seen)
		if n == w.main {
			w.recurs.Stood(n.seen, now)
		}
		n.seen = now
	}
}

// noteSettled notes the instants at which no firing waits to be made.
func (w *World) noteSettled() {
	if w.cfg.Schedules > 0 && w.recurred() {
		w.recurs.Settled(w.now())
	}
}

// recurred reports whether what is due now has recurred: the shard claims, has nothing left to do,
// and nothing that is due lies in the bucket.
func (w *World) recurred() bool {
	if w.shard == nil || w.draining || w.frozen || w.boot < w.quiet || !w.settled() {
		return false
	}
	meta := w.store.Meta()
	return meta.IDsComplete && (w.tier == nil || w.now() < meta.Boundary.Due)
}

// endSchedules lets the schedules go on without faults, and ends them. It reports whether they have
// not ended.
func (w *World) endSchedules() bool {
	wait, more := w.recurs.Calm(w.ctx, w.recurred())
	if wait {
		for _, k := range [...]scheduler.TaskKind{scheduler.TaskFlush, scheduler.TaskHydrate} {
			if w.can(k) {
				w.do(opOfTask(k), scheduler.Task{Kind: k})
			}
		}
		w.consume()
		w.advance(w.untilWake())
	}
	return more
}

// limit sets the limit of a target.
func (w *World) limit(target delay.Target, limit delay.Limit) {
	done := w.limits.Ask(target, limit, w.now())
	w.spawn("limit", swarm.Limit, func() {
		err := w.shard.SetLimit(w.ctx, target, limit)
		w.trace(nil, "limit of %s: %+v %s", target, limit, trace.Reason(err))
		done(err == nil, w.now())
	})
}

// checkLimits judges the deliveries that the core has begun, from the nth that waits on.
func (w *World) checkLimits(n int) {
	if w.node != w.main || w.old {
		return
	}
	for ; n < w.shard.Waiting(); n++ {
		target, messages := w.shard.Handing(n)
		if wrong := w.limits.Claimed(target, messages, w.now()); wrong != "" {
			w.fail(nil, "%s", wrong)
		}
	}
	w.limits.Stepped()
}
