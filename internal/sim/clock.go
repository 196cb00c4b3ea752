// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/scheduler"
)

// wrong is the wall clock of the processes.
func (w *World) wrong() time.Time { return w.wall().Add(w.hands.Off) }

// clocks makes the wall clock step, or has somebody confirm it.
func (w *World) clocks(o swarm.Op) {
	w.checkClock()
	if o == swarm.Confirm {
		w.trace(nil, "clock confirmed")
		w.shard.ConfirmClock()
		w.hands.Confirmed(w.wrong(), w.boot)
	} else {
		by := w.hands.Draw(w.rng, w.cfg.LongStep)
		w.hands.Off += by
		w.trace(nil, "the wall clock steps by %v", by)
	}
	w.checkClock()
	w.stood()
}

func (w *World) checkClock() {
	n := w.main
	if n.shard == nil || w.cfg.Weights[swarm.Step] == 0 {
		return
	}
	if problem := w.hands.Look(n.life, w.wrong(), n.born, w.boot, n.shard.Now()); problem != "" {
		w.fail(nil, "%s", problem)
	}
}

// rightClock ends all trouble with the clock: whoever repairs it sets it no further back than the
// shard has come.
func (w *World) rightClock() {
	w.hands.Off = max(w.hands.High.Time().Sub(w.wall()), 0)
	if w.main.shard != nil {
		w.main.shard.ConfirmClock()
		w.hands.Confirmed(w.wrong(), w.boot)
	}
	w.stood()
}

// looks lets every owner that stops without an answer look at the manifest: in a process of its own
// that happens all the time that has just passed.
func (w *World) looks() {
	if !w.cfg.Options.IsolatedStop || !w.cfg.Bucket || w.current != nil {
		return
	}
	before := w.node
	for _, w.node = range w.alive() {
		if !w.draining {
			w.taskDone(swarm.Flush, w.shard.Do(w.ctx, scheduler.Task{Kind: scheduler.TaskLook}))
		}
	}
	w.node = before
}
