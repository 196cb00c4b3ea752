// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// Bounds of what may be held, and of how long the end may take.
const (
	sampleEvery, sampled = 16, 8 // actions between two looks for live messages, and how many

	outcomesWait = 1000 // outcomes that may wait for their commit, beside what is in flight (S6)
	rowsBeside   = 200  // rows beside two for each message

	// calmEnd is within what time after the last due all is over without faults (R10).
	calmEnd = 30 * time.Minute
)

// incident: the process ended in disorder (R5).
func (w *World) incident(lost bool) {
	if told := w.model.Incident(lost); told > outcomesWait {
		w.fail(nil, "%d outcomes were not durable", told)
	}
}

// sample looks whether every message that is accepted, and neither finished nor lost, is somewhere:
// in the store, in the bucket, or on its way between them (R8 of the simulation).
func (w *World) sample() {
	if w.steps%sampleEvery != 0 || w.shard == nil || w.old || w.model.Losses > 0 {
		return
	}
	w.checkHeld()
	if len(w.strands) > 0 {
		return // a request under way may be changing it
	}
	boundary := w.store.Meta().Boundary
	for i := range min(sampled, len(w.model.All)) {
		m := w.model.All[(w.steps/sampleEvery*sampled+i)%len(w.model.All)]
		if !m.Live(w.cfg.Options.MaxAttempts) {
			continue
		}
		key, pending := w.pendingKey(m)
		if !pending && !key.IsZero() && key.Less(boundary) {
			w.fail(m, "live, and its row %s is gone: nobody would deliver it", key)
		}
	}
}

// checkHeld: what the process and its store hold is bounded by the messages that there are (R11).
func (w *World) checkHeld() {
	c, n := w.store.Counts(), int64(len(w.model.All))
	if rows := c.Warm.Messages + c.Parked; rows > 2*n+rowsBeside {
		w.fail(nil, "%d rows for %d messages", rows, n)
	}
	if len(w.tasks) > rowsBeside+w.cfg.Pushes*w.cfg.Options.Window {
		w.fail(nil, "%d tasks wait", len(w.tasks))
	}
}

// checkCalm: without faults the backlog is gone soon after the last due (R10 of the simulation).
// healed is when the faults ended.
func (w *World) checkCalm(healed time.Duration) {
	last := w.healedAt
	for _, m := range w.model.All {
		if m.Accepted > no {
			last = max(last, slices.Max(m.Every))
		}
	}
	calm := w.boot - healed - last.Sub(w.healedAt)
	w.stats.Calm = max(calm, 0)
	if calm > calmEnd && w.cfg.Weights[swarm.Step] == 0 { // what a step moved may be far away
		w.fail(nil, "finished only %v after the last due, without faults", calm)
	}
}
