// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/audit"
	"github.com/cicadamq/cicada/internal/sim/disk"
	"github.com/cicadamq/cicada/internal/sim/hands"
	"github.com/cicadamq/cicada/internal/sim/limits"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/racing"
	"github.com/cicadamq/cicada/internal/sim/recurring"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

type (
	message = model.Message
	answer  = model.Answer
	// Failure is a broken promise.
	Failure = swarm.Failure
)

const (
	no    = model.No
	maybe = model.Maybe
	yes   = model.Yes
)

// World is one history under way. It is confined to one goroutine; strands borrow it one at a
// time (W1).
type World struct {
	ctx context.Context
	cfg swarm.Config
	rng *rand.Rand
	log trace.Trace

	boot time.Duration // since the beginning of the world

	objs   *memory.Bucket // what the bucket really holds
	truth  *audit.Bucket  // who looks at what is done to it
	bucket *faulty.Bucket

	*node                // whose turn it is: the main one, unless a strand or task of another runs
	main    *node        // who took the shard last: clients talk to it
	others  []*node      // who had it before and still runs, or is about to take it
	shelf   []*disk.Disk // of owners that ended
	joined  int          // processes that came so far
	gone    bool         // the manifest has vanished
	came    uint64       // the turn in which it came back
	began   uint64       // the turn in which the last process began to open
	strands []*strand
	current *strand
	turn    uint64 // counts resumes, to tell one visit to the bucket from another
	runable []*strand
	tasks   []scheduler.Task
	choices []choice

	model    model.Model
	recurs   recurring.Book
	limits   limits.Book
	hist     linear.History
	regs     map[delay.ID]*linear.Register // of clients' ids
	races    racing.Races
	sink     *sink
	held     []*held
	polled   time.Duration // when the consumers looked last, in the liveness phase
	healedAt delay.Due     // by the clock of the shard
	healed   bool          // the liveness phase has begun
	down     bool          // the bucket
	steps    int
	boots    int // incarnations of processes
	disks    int // disks lost or replaced before this one
	hands    hands.Clock
	stats    swarm.Stats
	watched  string // where the watched message was last
}

// epochStart is when every world begins.
var epochStart = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func newWorld(ctx context.Context, cfg swarm.Config) *World {
	w := &World{ctx: ctx, cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5eed))}
	w.log.Init(cfg.Verbose)
	w.model.Init()
	w.regs = make(map[delay.ID]*linear.Register)
	w.hands.Hold = cfg.Options.ClockMaxHold
	w.hist.Margin = 3*cfg.Options.FlushInterval + 11*time.Second
	w.hist.Forgets = cfg.Options.DedupeWindow < forever
	w.sink = newSink(w)
	w.newBucket()
	w.main, w.joined = w.newNode(), 1
	w.node = w.main
	w.newSchedules()
	w.newRaces()
	return w
}

// wall is the time, as the bucket and whoever watches it know it.
func (w *World) wall() time.Time { return epochStart.Add(w.boot) }

// now is the time of the shard: it decides what is due, however its wall clock steps (R21).
func (w *World) now() delay.Due {
	if w.shard != nil {
		return w.shard.Now()
	}
	return delay.InstantOf(w.wrong())
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// between is a duration in [a, b].
func (w *World) between(a, b time.Duration) time.Duration { return swarm.Between(w.rng, a, b) }

// trace writes one line; m may be nil.
func (w *World) trace(m *message, format string, args ...any) {
	no := -1
	if m != nil {
		no = m.No
	}
	w.log.Add(w.boot, no, format, args...)
}

// violation is a broken promise. It ends the history.
type violation struct {
	about int // message, or -1
	text  string
}

// fail reports a broken promise about m, which may be nil.
func (w *World) fail(m *message, format string, args ...any) {
	v := violation{about: -1, text: fmt.Sprintf(format, args...)}
	if m != nil {
		v.about = m.No
		v.text = fmt.Sprintf("message %d (id %q): %s", m.No, m.ID, v.text)
	}
	w.trace(m, "VIOLATION %s", v.text)
	panic(v)
}

// choice is an action that could be done now.
type choice struct {
	op     swarm.Op
	weight int
	task   scheduler.Task
	node   *node
}

// step does one action of the safety phase.
func (w *World) step() {
	w.steps++
	w.gather()
	total := 0
	for _, c := range w.choices {
		total += c.weight
	}
	if total == 0 {
		w.advance(time.Millisecond)
		return
	}
	n := w.rng.IntN(total)
	for _, c := range w.choices {
		if n -= c.weight; n < 0 {
			w.act(c)
			return
		}
	}
}

// gather lists what could be done now.
func (w *World) gather() {
	w.choices = w.choices[:0]
	who := w.main
	add := func(o swarm.Op, t scheduler.Task) {
		if n := w.cfg.Weights[o]; n > 0 {
			w.choices = append(w.choices, choice{op: o, weight: n, task: t, node: who})
		}
	}
	w.runable = w.ready(w.runable[:0])
	if len(w.runable) > 0 {
		add(swarm.Resume, scheduler.Task{})
	}
	for o := swarm.Tick; o < swarm.Ops; o++ {
		if w.possible(o) {
			add(o, scheduler.Task{})
		}
	}
	for _, who = range w.alive() {
		w.tasks = who.shard.Tasks(w.tasks[:0])
		for _, t := range w.tasks {
			add(opOfTask(t.Kind), t)
		}
	}
	who = w.main
	if w.shard == nil || w.draining || w.frozen || len(w.strands) > maxStrands {
		return
	}
	for o := swarm.Send; o < swarm.Tick; o++ {
		add(o, scheduler.Task{})
	}
}

// maxStrands bounds what is under way at once.
const maxStrands = 40

// possible reports whether o makes sense now.
func (w *World) possible(o swarm.Op) bool {
	switch o {
	case swarm.Open:
		return w.store == nil
	case swarm.Crash, swarm.PowerLoss:
		return w.store != nil && !w.healed
	case swarm.LoseDisk: // who has neither disk nor manifest knows nothing of before
		return w.store != nil && !w.healed && !w.gone
	case swarm.Drain:
		return w.shard != nil && !w.draining && !w.healed
	case swarm.BucketDown:
		return !w.down && !w.healed
	case swarm.BucketUp:
		return w.down
	case swarm.TargetDown:
		return !w.sink.down && !w.healed
	case swarm.TargetUp:
		return w.sink.down
	case swarm.Step, swarm.Confirm:
		return !w.healed && w.shard != nil
	default:
		return o < swarm.Join || w.possibleOwner(o)
	}
}

func opOfTask(k scheduler.TaskKind) swarm.Op { return swarm.Core + swarm.Op(k) }

// act does one action.
func (w *World) act(c choice) {
	w.node = c.node
	switch {
	case c.op == swarm.Resume:
		w.resume(w.runable[w.rng.IntN(len(w.runable))])
	case c.op < swarm.Send:
		w.do(c.op, c.task)
	case c.op < swarm.Tick:
		w.request(c.op)
	default:
		w.happen(c.op)
	}
	w.watch()
	w.sample()
	w.node = w.main
	w.noteSettled()
}

// do does one task of the shard. Those that may wait become strands.
func (w *World) do(o swarm.Op, t scheduler.Task) {
	w.turn++
	switch o {
	case swarm.Commit:
		w.disk.Hold()
	case swarm.Sync:
		w.settleDisk()
	case swarm.Read, swarm.Deliver, swarm.Timers, swarm.Flush, swarm.Hydrate, swarm.Drop, swarm.IDs,
		swarm.Compact, swarm.Collect, swarm.Sweep, swarm.Bulk:
		w.spawn(o.String(), o, func() { w.doing(o, t) })
		return
	}
	w.traceNode("%s", o.String())
	before := w.shard.Waiting()
	w.taskDone(o, w.shard.Do(w.ctx, t))
	if o == swarm.Core && w.shard != nil {
		w.checkLimits(before)
	}
}

// taskDone looks at how a task has ended: an owner that was replaced stops when it learns of it.
func (w *World) taskDone(o swarm.Op, err error) {
	switch {
	case err == nil:
		if w.old && w.saw && !w.draining {
			w.fail(nil, "%s: the owner has seen that it was replaced, and goes on", o.String())
		}
	case w.cfg.Options.IsolatedStop && errors.Is(err, delay.ErrUnavailable):
		w.isolated()
	case w.old && errors.Is(err, delay.ErrFenced):
		w.stats.Fenced++
		w.traceNode("fenced")
		w.retire(w.node)
	default:
		w.fail(nil, "%s: %v", o.String(), err)
	}
}

// doing is the body of a task's strand.
func (w *World) doing(o swarm.Op, t scheduler.Task) {
	if o == swarm.Flush {
		w.flushing()
		return
	}
	w.traceNode("%s", o.String())
	if o == swarm.Collect || o == swarm.Sweep { // one at a time
		w.link.Reread = false
	}
	w.taskDone(o, w.shard.Do(w.ctx, t))
}

// happen lets time pass or trouble come.
func (w *World) happen(o swarm.Op) {
	switch o {
	case swarm.Tick:
		w.advance(w.between(100*time.Microsecond, 300*time.Millisecond))
	case swarm.Wake:
		w.advance(w.untilWake())
	case swarm.Jump:
		w.advance(w.between(time.Second, w.cfg.Options.Horizon/2))
	case swarm.Age:
		w.advance(w.between(20*time.Hour, 100*time.Hour))
	case swarm.Crash, swarm.PowerLoss, swarm.LoseDisk:
		w.crash(o)
	case swarm.Drain:
		w.drain()
	case swarm.BucketDown, swarm.BucketUp:
		w.down = o == swarm.BucketDown
		w.bucket.SetDown(w.down)
		w.trace(nil, "%s", o.String())
	case swarm.TargetDown, swarm.TargetUp:
		w.sink.down = o == swarm.TargetDown
		w.trace(nil, "%s", o.String())
	case swarm.Open:
		w.open()
	case swarm.Step, swarm.Confirm:
		w.clocks(o)
	default:
		w.happenOwner(o)
	}
}

// advance lets time pass.
func (w *World) advance(d time.Duration) {
	w.boot += max(d, time.Microsecond)
	w.trace(nil, "time %v", w.boot)
	w.checkClock()
	w.stood()
	w.looks()
}

// untilWake is how long nothing would happen by itself.
func (w *World) untilWake() time.Duration {
	wait := 10 * time.Second
	if w.shard != nil {
		wait = min(wait, w.shard.NextWake().Sub(w.now()))
	}
	for _, s := range w.strands {
		if s.until > w.boot {
			wait = min(wait, s.until-w.boot)
		}
	}
	return max(wait, time.Millisecond)
}

// settleDisk makes everything that was applied durable.
func (w *World) settleDisk() {
	if w.store == nil || !w.disk.Held() {
		return
	}
	if err := w.disk.Release(); err != nil {
		w.fail(nil, "disk: %v", err)
	}
	b := w.store.NewBatch()
	b.PutCursor("simulation", []byte{1, 0}) // a position: anything whose sync can be waited for
	pending, err := w.store.Apply(b)
	if err == nil {
		_, err = pending.Wait()
	}
	if err != nil {
		w.fail(nil, "disk: %v", err)
	}
	w.noteSynced()
}
