// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/racing"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/scheduler"
)

// newRaces begins the races of clients.
func (w *World) newRaces() {
	w.races.World = racing.World{
		Rand: w.rng, Config: &w.cfg, Shard: func() *scheduler.Stepped { return w.shard }, Now: w.now,
		Far: w.due, Draft: w.draft, Look: w.look, Trace: w.trace,
		Spawn: func(name string, call func()) { w.spawn(name, swarm.Race, call) },
	}
}

// race makes one call about one of the hot ids.
func (w *World) race() {
	under := 0
	for _, s := range w.strands {
		if s.kind == swarm.Race {
			under++
		}
	}
	if under < w.cfg.Racers {
		w.races.Call(w.ctx, len(w.model.All))
	}
}

// beginChange notes a change in the history of its id.
func (w *World) beginChange(m *message, q *scheduler.ChangeRequest) *linear.Op {
	return m.Reg.Begin(linear.Call{Kind: linear.KindOf(q.Change), Due: q.Due})
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
