// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Stepped is a shard without goroutines, for simulation: whoever drives it decides what happens
// next, so one seed gives one history. Everything that would run beside the caller is a Task; a
// method of Shard that waits calls yield until its answer is there, and yield does a task. It is
// confined to one goroutine. A crash is a panic through yield: the Stepped is then abandoned and
// its disk opened again.
type Stepped struct {
	*Shard
	flushing, hydrating, restoring, timing bool
	compacting, collecting                 bool
	counting                               bool
	delivering                             int // batches with sinks
}

// driver is what a stepped shard has instead of goroutines.
type driver struct {
	yield      func()
	deliveries []core.ActDeliver
}

// Task is one thing that can be done now.
type Task struct {
	Kind TaskKind
	At   int // which delivery
}

// TaskKind says what a task does.
type TaskKind uint8

// The tasks.
const (
	TaskCore    TaskKind = iota // step the core: events that wait, and the passing of time
	TaskCommit                  // apply what waits for the committer
	TaskSync                    // sync the oldest applied batch and tell everyone
	TaskRead                    // one load or read-ahead
	TaskDeliver                 // one batch to a sink
	TaskTimers                  // durable timers
	TaskFlush                   // upload to the tier
	TaskHydrate                 // bring back what comes near
	TaskDrop                    // drop what is far
	TaskIDs                     // restore ids from segments
	TaskCompact                 // one compaction of the tier, if one is due
	TaskCollect                 // retire and delete what the tier need not hold
	TaskSweep                   // look for orphans
	TaskCount                   // complete and count bulk cancels
	TaskLook                    // read the manifest, and end when that is overdue (rule R11)
)

// String is the word of a trace.
func (k TaskKind) String() string {
	return [...]string{"core", "commit", "sync", "read", "deliver", "timers", "flush", "hydrate",
		"drop", "ids", "compact", "collect", "sweep", "count", "look"}[k]
}

// OpenStepped opens a shard to be driven by tasks. seed makes its choices repeatable.
func OpenStepped(
	ctx context.Context, parts Parts, opts Options, seed uint64, yield func(),
) (*Stepped, error) {
	s, err := open(ctx, parts, opts, &driver{yield: yield}, seed)
	if err != nil {
		return nil, err
	}
	for _, ev := range s.firsts {
		s.execute(s.core.Step(s.clock.Now(), ev))
	}
	s.firsts = nil
	s.stop = func(error) {} // whoever drives it sees the error in Do
	return &Stepped{Shard: s}, nil
}

// Tasks appends what can be done now, in an order that depends on the history alone. Background
// work (timers, flush, hydrate, drop, ids, compact, collect, sweep) can always be done unless it is
// under way. TaskLook is never among them: a look is what happens while time passes.
func (s *Stepped) Tasks(dst []Task) []Task {
	add := func(on bool, k TaskKind) {
		if on {
			dst = append(dst, Task{Kind: k})
		}
	}
	s.events.mu.Lock()
	waiting := len(s.events.evs) > 0
	s.events.mu.Unlock()
	ops, batches := s.commit.Backlog()
	add(waiting || s.core.NextWake() <= s.clock.Now(), TaskCore)
	add(ops, TaskCommit)
	add(batches, TaskSync)
	add(len(s.reads) > 0, TaskRead)
	for i := range s.drive.deliveries {
		dst = append(dst, Task{Kind: TaskDeliver, At: i})
	}
	add(!s.timing && s.timersDue(s.Now()), TaskTimers)
	if s.parts.Tier != nil {
		add(!s.flushing, TaskFlush)
		add(!s.hydrating, TaskHydrate)
		add(!s.hydrating, TaskDrop)
		add(!s.restoring && !s.parts.Store.Meta().IDsComplete, TaskIDs)
		add(!s.compacting, TaskCompact)
		add(!s.collecting, TaskCollect)
		add(!s.collecting, TaskSweep)
		add(!s.counting && s.bulk.Busy(), TaskCount)
	}
	return dst
}

// NextWake is the instant at which time alone gives the core something to do.
func (s *Stepped) NextWake() delay.Due { return s.core.NextWake() }

// Do does one task. Only fatal errors are returned: a store that failed, or delay.ErrFenced.
func (s *Stepped) Do(ctx context.Context, t Task) error {
	switch t.Kind {
	case TaskCore:
		s.stepCore()
	case TaskCommit:
		return s.commit.CommitStep()
	case TaskSync:
		return s.commit.SyncStep()
	case TaskRead:
		ev := s.read(<-s.reads)
		s.drive.yield() // what was read may be old when the core hears of it
		s.post(ev)
	case TaskDeliver:
		a := s.drive.deliveries[t.At]
		s.drive.deliveries = append(s.drive.deliveries[:t.At:t.At],
			s.drive.deliveries[t.At+1:]...)
		s.delivering++
		defer func() { s.delivering-- }()
		s.deliver(ctx, a)
	case TaskTimers:
		s.timing = true
		defer func() { s.timing = false }()
		s.workTimers(s.Now())
	default:
		return s.background(ctx, t.Kind)
	}
	return nil
}

// background does the tasks that may be under way only once.
func (s *Stepped) background(ctx context.Context, kind TaskKind) error {
	guard := func(flag *bool, f func() error) error {
		*flag = true
		defer func() { *flag = false }()
		return f()
	}
	switch kind {
	case TaskFlush:
		return fencedOnly(guard(&s.flushing, func() error {
			_, err := s.flushOnce(ctx, false)
			return err
		}))
	case TaskHydrate:
		return fencedOnly(guard(&s.hydrating, func() error { return s.hydrator.Ahead(ctx) }))
	case TaskDrop:
		return fencedOnly(guard(&s.hydrating, func() error { return s.hydrator.Drop(ctx) }))
	case TaskIDs:
		return fencedOnly(guard(&s.restoring, func() error { return s.names.Restore(ctx) }))
	case TaskCompact:
		return fencedOnly(guard(&s.compacting, func() error {
			_, err := s.maintainer.Compact(ctx)
			return err
		}))
	case TaskCollect:
		return fencedOnly(guard(&s.collecting, func() error { return s.maintainer.Collect(ctx) }))
	case TaskSweep:
		return fencedOnly(guard(&s.collecting, func() error { return s.maintainer.Sweep(ctx) }))
	case TaskCount:
		return fencedOnly(guard(&s.counting, func() error { return s.bulk.Work(ctx) }))
	case TaskLook:
		return errors.Join(s.look(ctx, s.parts.Boot()), s.mayClaim(ctx, 0))
	default:
		panic(fmt.Sprintf("BUG: unknown task %d", kind))
	}
}

// stepCore gives the core its events.
func (s *Shard) stepCore() {
	now := s.clock.Now()
	if planted.Is(planted.EarlyByOne) {
		now++
	}
	evs := s.events.take(nil)
	for _, ev := range evs {
		s.execute(s.core.Step(now, ev))
	}
	if len(evs) == 0 {
		s.execute(s.core.Step(now, core.EvNothing{}))
	}
}

// Poll is Pull without waiting: it leases what is due and waiting now. The tasks that are needed
// to answer are done through yield.
func (s *Stepped) Poll(
	ctx context.Context, queue string, most int, lease time.Duration,
) ([]Lease, error) {
	return s.Pull(ctx, queue, most, 0, lease)
}

// wait receives from an answer channel of capacity 1. ok is false when the shard's loop ended and
// no answer will come.
func wait[T any](s *Shard, answer chan T) (v T, ok bool) { return await(s, answer, s.closed) }

func await[T any](s *Shard, answer chan T, ended chan struct{}) (v T, ok bool) {
	for s.drive != nil && len(answer) == 0 {
		s.drive.yield()
	}
	select {
	case v = <-answer:
		return v, true
	case <-ended:
	}
	select { // answered in the last moment
	case v = <-answer:
		return v, true
	default:
		return v, false
	}
}

// do hands o to the committer and waits for its outcome. The committer answers everything it took,
// and until then it reads what the caller lent: the end of the core's loop is no reason to return.
func (s *Shard) do(o commit.Op, weight int64, done chan error) error {
	if err := s.commit.Put(o, weight); err != nil {
		return err
	}
	return s.outcome(done, s.settled)
}

// outcome waits for the error, or nil, that is asked for; delay.ErrClosed when who answers ended
// before.
func (s *Shard) outcome(done chan error, ended chan struct{}) error {
	err, ok := await(s, done, ended)
	if !ok {
		return delay.ErrClosed
	}
	return err
}

// steppedSyncs is how many applied batches may wait for their sync in a simulation.
const steppedSyncs = 4096

func closedNow(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// fencedOnly keeps the error that ends a shard; the others are repeated by their loops.
func fencedOnly(err error) error {
	if errors.Is(err, delay.ErrFenced) || errors.Is(err, delay.ErrClosed) {
		return err
	}
	return nil
}
