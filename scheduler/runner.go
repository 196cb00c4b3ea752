// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/bulk"
	"github.com/cicadamq/cicada/scheduler/clock"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/crowd"
	"github.com/cicadamq/cicada/scheduler/cut"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/guard"
	"github.com/cicadamq/cicada/scheduler/hydrate"
	"github.com/cicadamq/cicada/scheduler/intake"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/ledger"
	"github.com/cicadamq/cicada/scheduler/maintain"
	"github.com/cicadamq/cicada/scheduler/parcel"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/scheduler/query"
	"github.com/cicadamq/cicada/scheduler/rates"
	"github.com/cicadamq/cicada/scheduler/recur"
	"github.com/cicadamq/cicada/scheduler/trouble"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// Bounds of the runner.
const (
	maxWait       = 100 * time.Millisecond // the wall clock is looked at this often (R21)
	loadsInFlight = 64                     // loads and read-aheads that wait for a reader
	readers       = 2                      // goroutines that load and read ahead
	timersEvery   = 200 * time.Millisecond // durable timers are looked at this often
)

// Shard owns the messages of one shard: it is opened by Open, works while Run runs, and is drained
// by Drain. All its methods are safe for concurrent use.
type Shard struct {
	parts   Parts
	opts    Options
	log     *zap.Logger
	clock   *clock.Guarded
	ids     delay.IDMaker
	shard   delay.Shard
	lanes   *lanes.Table
	core    *core.Core
	commit  *commit.Committer
	upload  *upload.Buffer
	find    *find.Finder
	parcels parcel.Reader
	query   *query.Reader
	bulk    *bulk.Canceller
	rates   rates.Meter
	crowd   *crowd.Book
	tier    tierState
	cuts    *cut.Maker

	planner *recur.Planner
	since   atomic.Int64 // when the shard began to run without a gap: a delay.Due

	maintainer *maintain.Maintainer // nil without a bucket
	hydrator   *hydrate.Hydrator    // nil without a bucket
	names      *hydrate.IDs         // those of the bucket
	positions  *position.Table      // how far sources were read
	intake     *intake.Intake
	guards     guard.Keepers
	ledgers    ledger.Keepers // by the part of a target before its slash
	receipts   pull.Maker

	events   eventQueue
	reads    chan core.Action // ActLoad, ActReadParked
	loading  trouble.Loop     // of whoever takes the reads
	flying   sync.WaitGroup
	draining atomic.Bool
	closed   chan struct{} // the core's loop has ended
	settled  chan struct{} // the committer has, and has answered everything
	stop     context.CancelCauseFunc
	life     context.Context // of the core's loop; deliveries end with it
	drive    *driver         // set in a simulation: there are no goroutines then
	firsts   []core.Event    // what Open found, for the first steps of Run
}

// eventQueue carries events to the core. It is bounded by what is in flight: every event answers
// an action or belongs to a request that waits.
type eventQueue struct {
	mu   sync.Mutex
	evs  []core.Event
	wake chan struct{}
}

func (q *eventQueue) put(ev core.Event) {
	q.mu.Lock()
	q.evs = append(q.evs, ev)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take(reuse []core.Event) []core.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	evs := q.evs
	q.evs = reuse[:0]
	return evs
}

func (s *Shard) post(ev core.Event) { s.events.put(ev) }

// Now is the guarded clock: the only one that resolves delays and decides what is due.
func (s *Shard) Now() delay.Due { return s.clock.Now() }

// ConfirmClock accepts the wall clock after a step that is held (rule R21).
func (s *Shard) ConfirmClock() { s.clock.Confirm() }

// Run works until ctx is done or something ends the shard: a store that failed, or another owner
// (delay.ErrFenced). It returns nil after Drain.
func (s *Shard) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.stop = cancel
	var g errgroup.Group
	end := func(name string, f func() error) {
		g.Go(func() error {
			if err := f(); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
				cancel(err)
				return err
			}
			return nil
		})
	}
	inner, stopCore := context.WithCancel(context.WithoutCancel(ctx))
	s.life = inner
	end("commit", s.commit.Run)
	end("sync", func() error { defer stopCore(); defer close(s.settled); return s.commit.RunSyncs() })
	end("core", func() error { defer close(s.closed); return s.runCore(inner) })
	for range readers {
		end("load", func() error { return s.runReads(inner) })
	}
	for _, k := range s.ledgers {
		end("ledger", func() error { return k.Run(ctx) })
	}
	end("timers", func() error { return s.runTimers(ctx) })
	if s.parts.Tier != nil {
		end("flush", func() error { return s.runFlush(ctx) })
		end("look", func() error { return s.runLooks(ctx) })
		end("hydrate", func() error { return s.runHydrate(ctx) })
		end("maintain", func() error { return s.maintainer.Run(ctx) })
		end("bulk", func() error { return s.runBulk(ctx) })
		if !s.parts.Store.Meta().IDsComplete {
			end("ids", func() error { s.names.Run(ctx); return nil })
		}
	}
	end("close", func() error {
		<-ctx.Done()
		s.post(core.EvDrain{}) // whatever the reason, nothing more is claimed (rule R11)
		s.commit.Close()
		return nil
	})
	err := g.Wait()
	s.flying.Wait() // no sink and no store is closed under a delivery
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, errDrained) &&
		!errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

var errDrained = errors.New("scheduler: drained")

// runCore is the loop around the core: events in, actions out.
func (s *Shard) runCore(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var evs []core.Event
	for _, ev := range s.firsts {
		s.execute(s.core.Step(s.clock.Now(), ev))
	}
	s.firsts = nil
	stepped, now := s.parts.Boot(), s.clock.Now()
	for ctx.Err() == nil {
		if err := s.mayClaim(ctx, s.parts.Boot()-stepped); err != nil {
			return err
		}
		stepped = s.parts.Boot()
		evs = s.events.take(evs)
		before := now
		now = s.clock.Now()
		s.noteStep(before, now)
		for _, ev := range evs {
			s.execute(s.core.Step(now, ev))
		}
		if len(evs) == 0 {
			s.execute(s.core.Step(now, core.EvNothing{}))
		}
		clear(evs)
		wait := min(s.core.NextWake().Sub(now), maxWait)
		if wait <= 0 {
			runtime.Gosched()
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.events.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// execute carries actions out or hands them on. It never blocks on I/O.
func (s *Shard) execute(actions []core.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case core.ActGrant:
			a.Waiter.Grant <- a.Grant
		case core.ActDeliver:
			if s.drive != nil {
				s.drive.deliveries = append(s.drive.deliveries, a)
				continue
			}
			s.flying.Go(func() { s.deliver(s.life, a) })
		case core.ActLoad, core.ActReadParked:
			s.reads <- a
		case core.ActFinish:
			s.commit.Enqueue(&commit.FinishOp{ActFinish: a, Report: s.reportFinished})
		case core.ActPark:
			s.commit.Enqueue(&commit.ParkOp{Items: a.Items})
		case core.ActWatermark:
			s.commit.Enqueue(commit.RaiseWatermark(a))
		case core.ActHorizon:
			s.commit.Enqueue(commit.RaiseHorizon(a.Horizon))
		case core.ActClaimCursor:
			s.commit.Enqueue(commit.RaiseCursor(a))
		case core.ActFence:
			s.commit.Enqueue(commit.FenceCore())
		case core.ActForget:
			s.commit.Enqueue(commit.ForgetTarget(a))
		case core.ActExpire:
			s.commit.Enqueue(&commit.ExpireOp{ActExpire: a, Report: func() {
				s.reportEnded(s.lanes.Target(a.Ref.Lane), delay.Expired, "expired", 1)
			}})
		default:
			panic(fmt.Sprintf("BUG: unknown action %T", a))
		}
	}
}

func (s *Shard) reportFinished(o commit.FinishOp) {
	if s.parts.Events.Finished != nil {
		o.Runs(s.lanes, s.parts.Events.Finished)
	}
}

// runReads loads ranges and reads parked rows ahead.
func (s *Shard) runReads(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-s.reads:
			s.post(s.read(a))
		}
	}
}

func (s *Shard) read(a core.Action) core.Event {
	switch a := a.(type) {
	case core.ActLoad:
		return s.loadRows(a)
	case core.ActReadParked:
		return s.readParked(a)
	default:
		panic(fmt.Sprintf("BUG: unknown read %T", a))
	}
}

// loadRows reads the references of a range (rule R7).
func (s *Shard) loadRows(a core.ActLoad) core.Event {
	done := core.EvLoaded{Next: a.Upper}
	err := s.parts.Store.ScanRows(a.Lower, a.Upper, func(k delay.Key, rec []byte) bool {
		if len(done.Refs) >= core.LoadChunk {
			done.Next = k
			return false
		}
		if k.Seq > a.Cut && !planted.Is(planted.LoadUncut) {
			return true
		}
		if r, err := s.lanes.RefOfRecord(k, rec); err == nil {
			done.Refs = append(done.Refs, r)
		} else {
			s.log.Error("row is corrupt", zap.Stringer("key", k), zap.Error(err))
		}
		return true
	})
	s.loading.Note(err)
	if err != nil {
		return core.EvLoadFailed{}
	}
	return done
}

func (s *Shard) readParked(a core.ActReadParked) core.Event {
	done := core.EvParkedRead{Lane: a.Lane}
	done.Err = s.parts.Store.ScanParked(s.lanes.Target(a.Lane).Hash(), a.From,
		func(k delay.Key, _ bool, rec []byte) bool {
			if len(done.Refs) >= core.ParkedLoad {
				done.More, done.Next = true, k
				return false
			}
			done.Next = k.Next()
			if r, err := s.lanes.RefOfRecord(k, rec); err == nil && r.Lane == a.Lane {
				done.Refs = append(done.Refs, r)
			}
			return true
		})
	if done.Err != nil {
		s.log.Error("parked rows unreadable", zap.Error(done.Err))
	}
	return done
}

// runTimers works off durable timers: ids to forget, messages to expire, dead letters to bury.
func (s *Shard) runTimers(ctx context.Context) error {
	tick := time.NewTicker(timersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now := s.Now(); s.timersDue(now) {
			s.workTimers(now)
		}
	}
}

// workTimers works off what is due.
func (s *Shard) workTimers(now delay.Due) {
	for n := commit.TimersChunk; n == commit.TimersChunk; {
		o := &commit.TimersOp{UpTo: now, Done: make(chan int, 1)}
		if err := s.commit.Put(o, 0); err != nil {
			return
		}
		n, _ = wait(s, o.Done)
	}
}

// timersDue looks without troubling the committer.
func (s *Shard) timersDue(now delay.Due) bool {
	due := false
	err := s.parts.Store.ScanTimers(now, func(delay.Due, byte, []byte) bool {
		due = true
		return false
	})
	return err == nil && due
}

// Drain ends the shard in order: intake stops, long polls are answered, what is with the sinks may
// finish until ctx is done, outcomes are synced, the bucket gets a last flush, and the store is
// marked clean. Run returns nil afterwards. Leases stay: their holders may ack after the restart.
func (s *Shard) Drain(ctx context.Context) error {
	if s.draining.Swap(true) {
		return nil
	}
	s.post(core.EvDrain{})
	s.settleDown(ctx) // from now on nothing is handed to a sink
	landed := make(chan struct{})
	go func() { defer close(landed); s.flying.Wait() }()
	clean := true
	select {
	case <-landed:
	case <-ctx.Done():
		clean = false
	}
	s.settleDown(ctx)
	var errs []error
	if s.parts.Tier != nil {
		err := s.lastFlush(ctx)
		clean = clean && err == nil && s.uploadedAll()
		errs = append(errs, err)
	}
	done := make(chan error, 1)
	s.commit.Enqueue(commit.SetClean(clean, done))
	werr, _ := wait(s, done)
	errs = append(errs, werr)
	s.stop(errDrained)
	return errors.Join(errs...)
}

// uploadedAll reports whether the last flush left nothing for another. If it did, the shard does
// not end clean, and the next start looks for what was not uploaded.
func (s *Shard) uploadedAll() bool {
	return len(s.tier.pending.Kept) == 0 && s.tier.pending.Behind == 0
}

// settleDown waits until the core has handed its last outcomes to the committer.
func (s *Shard) settleDown(ctx context.Context) {
	if planted.Is(planted.DrainUnsettled) {
		return
	}
	for range 2 {
		if s.syncOutcomes(ctx) != nil {
			return
		}
	}
}
