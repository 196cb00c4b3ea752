// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// Run plays one history: the safety phase with faults, then the liveness phase without, at whose
// end everything must be finished. The error is a *Failure, or that of ctx.
func Run(ctx context.Context, cfg swarm.Config) (stats swarm.Stats, err error) {
	w := newWorld(ctx, cfg)
	defer func() {
		switch v := recover().(type) {
		case nil:
		case violation:
			err = &Failure{Config: cfg, Text: v.text, Trace: w.log.About(v.about), Step: w.steps}
		default:
			panic(v)
		}
		stats = w.stats
		stats.Steps, stats.Boots, stats.Disks = w.steps, w.boots, w.disks
		stats.Virtual, stats.Hash = w.boot, w.log.Hash
		if err != nil {
			// A promise may break inside of a read: Pebble minds that its iterator is open.
			defer func() { _ = recover() }()
		}
		w.end()
	}()
	for w.steps < cfg.Steps && ctx.Err() == nil {
		w.step()
	}
	w.heal()
	healed := w.boot
	w.healedAt = w.now()
	w.live()
	w.checkCalm(healed)
	w.finish()
	w.giveBack()
	return stats, ctx.Err()
}

// end lets go of everything.
func (w *World) end() {
	w.kill(func(*strand) bool { return true })
	for _, n := range append(w.others, w.main) {
		w.node = n
		w.closeAll()
	}
}

// heal ends all faults.
func (w *World) heal() {
	w.healed, w.down, w.sink.down = true, false, false
	w.bucket.SetDown(false)
	w.bucket.SetQuiet(true)
	if w.gone {
		w.happenOwner(swarm.Return)
	}
	w.rightClock()
	w.trace(nil, "healed")
	w.endOld()
}

// Bounds of the liveness phase.
const (
	liveSteps = 200_000
	livePatch = 15 * time.Second // with nothing due so soon, time jumps
)

// live lets the shard finish everything.
func (w *World) live() {
	resumed := false
	lines, same := 0, 0 // strands that only wait must not keep time from passing
	for n := 0; ; n++ {
		w.steps++
		if same++; w.log.Count != lines {
			lines, same = w.log.Count, 0
		}
		switch {
		case n > liveSteps:
			w.stuck()
		case w.store == nil:
			w.open()
			continue
		case w.shard == nil:
			w.resumeAny()
			continue
		}
		if same < 10+3*len(w.strands) && w.busy() {
			continue
		}
		if !resumed && !w.underWay(swarm.Pause) {
			resumed = true
			w.resumeLanes()
			continue
		}
		w.noteFinal()
		if w.endSchedules() {
			continue
		}
		if w.empty() {
			return
		}
		if w.consume() {
			continue
		}
		w.pass()
	}
}

// resumeAny lets one of the strands that can run do so, or time pass.
func (w *World) resumeAny() {
	w.runable = w.ready(w.runable[:0])
	if len(w.runable) == 0 {
		w.advance(w.untilWake())
		return
	}
	w.resume(w.runable[w.rng.IntN(len(w.runable))])
}

// busy does what is under way or waiting, but for what can always be done.
func (w *World) busy() bool {
	w.tasks = w.shard.Tasks(w.tasks[:0])
	tasks := w.tasks[:0]
	for _, t := range w.tasks {
		// Ids can be tried for ever while the bucket has still to be asked for its manifest.
		if t.Kind < scheduler.TaskFlush || t.Kind == scheduler.TaskIDs && w.chance(0.5) {
			tasks = append(tasks, t)
		}
	}
	w.runable = w.ready(w.runable[:0])
	n := len(tasks) + len(w.runable)
	if n == 0 {
		return false
	}
	if i := w.rng.IntN(n); i < len(tasks) {
		w.do(opOfTask(tasks[i].Kind), tasks[i])
	} else {
		w.resume(w.runable[i-len(tasks)])
	}
	w.watch()
	return true
}

// consume lets the consumers take and settle what there is.
func (w *World) consume() bool {
	if len(w.held) > 0 {
		w.settle()
		return true
	}
	if w.polled == w.boot {
		return false
	}
	w.polled = w.boot
	for n := range w.cfg.Queues {
		w.poll(fmt.Sprintf("queue-%d", n))
	}
	return true
}

// pass lets time pass up to the next thing that happens, with some work of the tier on the way.
func (w *World) pass() {
	if w.can(scheduler.TaskFlush) && (w.chance(0.3) || len(w.strands) > 0) {
		w.do(swarm.Flush, scheduler.Task{Kind: scheduler.TaskFlush})
	}
	if w.can(scheduler.TaskHydrate) {
		w.do(swarm.Hydrate, scheduler.Task{Kind: scheduler.TaskHydrate})
	}
	for t := scheduler.TaskCompact; t <= scheduler.TaskCount; t++ {
		if w.chance(0.1) && w.can(t) {
			w.do(opOfTask(t), scheduler.Task{Kind: t})
		}
	}
	next := delay.MaxDue
	for _, m := range w.model.All {
		if m.Accepted == no || m.Done || m.Cancelled == yes {
			continue
		}
		for _, due := range m.Every {
			if due > w.now() {
				next = min(next, due)
			}
		}
	}
	wait := w.untilWake()
	if ahead := next.Sub(w.now()); next < delay.MaxDue && ahead > livePatch {
		wait = max(wait, ahead-time.Duration(w.rng.Int64N(int64(livePatch))))
	}
	w.advance(wait)
}

// empty reports whether nothing is pending any more. After the loss of a disk the books count what
// was lost only roughly, so the rows decide.
func (w *World) empty() bool {
	if w.model.Losses == 0 {
		return w.store.Books().Pending == 0
	}
	c := w.store.Counts()
	if c.Warm.Messages != 0 || c.Parked != 0 {
		return false
	}
	last := delay.Due(0)
	for _, m := range w.model.All {
		if m.Accepted > no {
			last = max(last, slices.Max(m.Every))
		}
	}
	return last < w.now() && last < w.store.Meta().Boundary.Due
}

// underWay reports whether a strand of a kind is alive.
func (w *World) underWay(o swarm.Op) bool {
	return slices.ContainsFunc(w.strands, func(s *strand) bool { return s.kind == o })
}

// can reports whether the shard offers a task.
func (w *World) can(kind scheduler.TaskKind) bool {
	w.tasks = w.shard.Tasks(w.tasks[:0])
	return slices.Contains(w.tasks, scheduler.Task{Kind: kind})
}

// resumeLanes lets every target go on.
func (w *World) resumeLanes() {
	for _, target := range w.limits.Targets() {
		w.limit(target, delay.Limit{})
	}
	for _, target := range w.model.Pauses {
		w.spawn("unpause", swarm.Unpause, func() {
			err := w.shard.SetPaused(w.ctx, target, false)
			w.trace(nil, "unpaused %s: %s", target, trace.Reason(err))
		})
	}
}

// stuck reports what is not finished in spite of everything.
func (w *World) stuck() {
	for _, m := range w.model.All {
		if m.Owed() && m.Cancelled != yes {
			if key, pending := w.pendingKey(m); pending {
				w.fail(m, "not finished after %v without faults; its row is %s", w.boot, key)
			}
		}
	}
	w.fail(nil, "not finished after %v without faults: %+v", w.boot, w.store.Books())
}

// get reads a message at the end.
func (w *World) get(id delay.ID) (info scheduler.Info, err error) {
	done := false
	w.spawn("get", swarm.Get, func() {
		info, err = w.shard.Get(w.ctx, id, true)
		done = true
	})
	for !done {
		w.busy()
	}
	return info, err
}
