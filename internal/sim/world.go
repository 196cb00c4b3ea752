// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// World is one history under way. It is confined to one goroutine; strands borrow it one at a
// time (W1).
type World struct {
	ctx context.Context
	cfg Config
	rng *rand.Rand
	log trace

	boot time.Duration // since the beginning of the world

	disk   *disk
	objs   *memory.Bucket // what the bucket really holds
	bucket *faulty.Bucket
	store  *localstore.Store
	tier   *tiered.Tier
	shard  *scheduler.Stepped // nil while the process is down

	strands []*strand
	current *strand
	turn    uint64 // counts resumes, to tell one visit to the bucket from another
	runable []*strand
	tasks   []scheduler.Task
	choices []choice

	model    model
	sink     *sink
	held     []*held
	polled   time.Duration // when the consumers looked last, in the liveness phase
	healed   bool          // the liveness phase has begun
	down     bool          // the bucket
	steps    int
	boots    int // incarnations of the process
	disks    int // disks lost before this one
	draining bool
	barrier  uint64

	seenMark     delay.Key // highest watermark that was synced on this disk
	manifestMark delay.Key
	stats        Stats
	watched      string // where the watched message was last
}

// Stats count what a history was made of.
type Stats struct {
	Steps, Messages, Attempts, Boots, Disks, Duplicates int
	Virtual                                             time.Duration
	Hash                                                uint64
}

// Add sums histories up.
func (s *Stats) Add(o Stats) {
	s.Steps, s.Messages, s.Attempts = s.Steps+o.Steps, s.Messages+o.Messages, s.Attempts+o.Attempts
	s.Boots, s.Disks, s.Duplicates = s.Boots+o.Boots, s.Disks+o.Disks, s.Duplicates+o.Duplicates
	s.Virtual += o.Virtual
}

// epochStart is when every world begins.
var epochStart = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func newWorld(ctx context.Context, cfg Config) *World {
	w := &World{ctx: ctx, cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5eed))}
	w.log.init(cfg.Verbose)
	w.model.init()
	w.sink = newSink(w)
	w.newDisk()
	w.newBucket()
	return w
}

// wall is the time. All clocks of the world are right; what the guarded clock does with wrong ones
// is tested in scheduler/clock.
func (w *World) wall() time.Time { return epochStart.Add(w.boot) }
func (w *World) now() delay.Due  { return delay.InstantOf(w.wall()) }

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

// between is a duration in [a, b].
func (w *World) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// trace writes one line; m may be nil.
func (w *World) trace(m *message, format string, args ...any) {
	no := -1
	if m != nil {
		no = m.no
	}
	w.log.add(w.boot, no, format, args...)
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
		v.about = m.no
		v.text = fmt.Sprintf("message %d (id %q): %s", m.no, m.id, v.text)
	}
	w.trace(m, "VIOLATION %s", v.text)
	panic(v)
}

// choice is an action that could be done now.
type choice struct {
	op     op
	weight int
	task   scheduler.Task
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
	add := func(o op, t scheduler.Task) {
		if n := w.cfg.Weights[o]; n > 0 {
			w.choices = append(w.choices, choice{op: o, weight: n, task: t})
		}
	}
	w.runable = w.ready(w.runable[:0])
	if len(w.runable) > 0 {
		w.choices = append(w.choices, choice{op: opResume, weight: w.cfg.Weights[opResume]})
	}
	for o := opTick; o < ops; o++ {
		if w.possible(o) {
			add(o, scheduler.Task{})
		}
	}
	if w.shard == nil {
		return
	}
	w.tasks = w.shard.Tasks(w.tasks[:0])
	for _, t := range w.tasks {
		add(opOfTask(t.Kind), t)
	}
	if w.draining || len(w.strands) > maxStrands {
		return
	}
	for o := opSend; o < opTick; o++ {
		add(o, scheduler.Task{})
	}
}

// maxStrands bounds what is under way at once.
const maxStrands = 40

// possible reports whether o makes sense now.
func (w *World) possible(o op) bool {
	switch o {
	case opOpen:
		return w.store == nil
	case opCrash, opPowerLoss, opLoseDisk:
		return w.store != nil && !w.healed
	case opDrain:
		return w.shard != nil && !w.draining && !w.healed
	case opBucketDown:
		return !w.down && !w.healed
	case opBucketUp:
		return w.down
	case opTargetDown:
		return !w.sink.down && !w.healed
	case opTargetUp:
		return w.sink.down
	default:
		return true
	}
}

func opOfTask(k scheduler.TaskKind) op { return opCore + op(k) }

// act does one action.
func (w *World) act(c choice) {
	switch {
	case c.op == opResume:
		w.resume(w.runable[w.rng.IntN(len(w.runable))])
	case c.op < opSend:
		w.do(c.op, c.task)
	case c.op < opTick:
		w.request(c.op)
	default:
		w.happen(c.op)
	}
	w.watch()
}

// do does one task of the shard. Those that may wait become strands.
func (w *World) do(o op, t scheduler.Task) {
	w.turn++
	switch o {
	case opCommit:
		w.disk.hold()
	case opSync:
		w.settleDisk()
	case opRead, opDeliver, opTimers, opFlush, opHydrate, opDrop, opIDs:
		w.spawn(opNames[o], o, func() { w.doing(o, t) })
		return
	}
	w.trace(nil, "%s", opNames[o])
	if err := w.shard.Do(w.ctx, t); err != nil {
		w.fail(nil, "%s: %v", opNames[o], err)
	}
}

// doing is the body of a task's strand.
func (w *World) doing(o op, t scheduler.Task) {
	if o == opFlush {
		w.flushing()
		return
	}
	w.trace(nil, "%s", opNames[o])
	if err := w.shard.Do(w.ctx, t); err != nil {
		w.fail(nil, "%s: %v", opNames[o], err)
	}
}

// happen lets time pass or trouble come.
func (w *World) happen(o op) {
	switch o {
	case opTick:
		w.advance(w.between(100*time.Microsecond, 300*time.Millisecond))
	case opWake:
		w.advance(w.untilWake())
	case opJump:
		w.advance(w.between(time.Second, w.cfg.Options.Horizon/2))
	case opCrash, opPowerLoss, opLoseDisk:
		w.crash(o)
	case opDrain:
		w.drain()
	case opBucketDown, opBucketUp:
		w.down = o == opBucketDown
		w.bucket.SetDown(w.down)
		w.trace(nil, "%s", opNames[o])
	case opTargetDown, opTargetUp:
		w.sink.down = o == opTargetDown
		w.trace(nil, "%s", opNames[o])
	case opOpen:
		w.open()
	}
}

// advance lets time pass.
func (w *World) advance(d time.Duration) {
	w.boot += max(d, time.Microsecond)
	w.trace(nil, "time %v", w.boot)
}

// untilWake is how long nothing would happen by itself.
func (w *World) untilWake() time.Duration {
	wait := 10 * time.Second
	if w.shard != nil {
		wait = min(wait, w.shard.NextWake().Time().Sub(w.wall()))
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
	if w.store == nil || !w.disk.held() {
		return
	}
	if err := w.disk.release(); err != nil {
		w.fail(nil, "disk: %v", err)
	}
	w.barrier++
	b := w.store.NewBatch()
	b.PutCursor("simulation", []byte{byte(w.barrier)})
	pending, err := w.store.Apply(b)
	if err == nil {
		_, err = pending.Wait()
	}
	if err != nil {
		w.fail(nil, "disk: %v", err)
	}
	w.noteSynced()
}
