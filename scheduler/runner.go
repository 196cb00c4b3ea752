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

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
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
	parts  Parts
	opts   Options
	log    *zap.Logger
	clock  *guardedClock
	ids    delay.IDMaker
	shard  delay.Shard
	lanes  *laneNames
	core   *core
	commit *committer
	upload *uploadBuffer
	find   *finder
	rates  rateMeter
	tier   tierState

	events   eventQueue
	reads    chan action // actLoad, actReadParked
	flying   sync.WaitGroup
	draining atomic.Bool
	closed   chan struct{} // the core's loop has ended
	stop     context.CancelCauseFunc
	life     context.Context // of the core's loop; deliveries end with it
	drive    *driver         // set in a simulation: there are no goroutines then
	firsts   []event         // what Open found, for the first steps of Run
}

// eventQueue carries events to the core. It is bounded by what is in flight: every event answers
// an action or belongs to a request that waits.
type eventQueue struct {
	mu   sync.Mutex
	evs  []event
	wake chan struct{}
}

func (q *eventQueue) put(ev event) {
	q.mu.Lock()
	q.evs = append(q.evs, ev)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) take(reuse []event) []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	evs := q.evs
	q.evs = reuse[:0]
	return evs
}

func (s *Shard) post(ev event) { s.events.put(ev) }

// Now is the guarded clock: the only one that resolves delays and decides what is due.
func (s *Shard) Now() delay.Due { return s.clock.now() }

// ConfirmClock accepts the wall clock after a step that is held (rule R21).
func (s *Shard) ConfirmClock() { s.clock.confirm() }

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
	core := context.WithoutCancel(ctx)
	core, stopCore := context.WithCancel(core)
	s.life = core
	end("commit", s.commit.run)
	end("sync", func() error { defer stopCore(); return s.commit.runSyncs() })
	end("core", func() error { defer close(s.closed); return s.runCore(core) })
	for range readers {
		end("load", func() error { return s.runReads(core) })
	}
	end("timers", func() error { return s.runTimers(ctx) })
	if s.parts.Tier != nil {
		end("flush", func() error { return s.runFlush(ctx) })
		end("hydrate", func() error { return s.runHydrate(ctx) })
		if !s.parts.Store.Meta().IDsComplete {
			end("ids", func() error { return s.runIDs(ctx) })
		}
	}
	end("close", func() error {
		<-ctx.Done()
		s.commit.inbox.close()
		return nil
	})
	err := g.Wait()
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
	var evs []event
	for _, ev := range s.firsts {
		s.execute(s.core.step(s.clock.now(), ev))
	}
	s.firsts = nil
	for ctx.Err() == nil {
		evs = s.events.take(evs)
		now := s.clock.now()
		for _, ev := range evs {
			s.execute(s.core.step(now, ev))
		}
		if len(evs) == 0 {
			s.execute(s.core.step(now, evNothing{}))
		}
		clear(evs)
		wait := min(s.core.nextWake().Sub(now), maxWait)
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
func (s *Shard) execute(actions []action) {
	for _, a := range actions {
		switch a := a.(type) {
		case actGrant:
			a.waiter.grant <- a.grant
		case actDeliver:
			if s.drive != nil {
				s.drive.deliveries = append(s.drive.deliveries, a)
				continue
			}
			s.flying.Add(1)
			go func() { defer s.flying.Done(); s.deliver(s.life, a) }()
		case actLoad, actReadParked:
			s.reads <- a
		case actFinish:
			s.enqueue(&finishOp{actFinish: a, report: s.reportFinished})
		case actPark:
			s.enqueue(&parkOp{items: a.items})
		case actWatermark:
			s.enqueue(raiseWatermark(a))
		case actHorizon:
			s.enqueue(raiseHorizon(a.horizon))
		case actClaimCursor:
			s.enqueue(s.claimCursor(a))
		case actExpire:
			s.enqueue(&expireOp{actExpire: a})
		default:
			panic(fmt.Sprintf("BUG: unknown action %T", a))
		}
	}
}

// enqueue hands an op to the committer. After the committer has closed, the op is answered with
// ErrClosed, and the store holds what is true.
func (s *Shard) enqueue(o op) {
	if err := s.commit.inbox.put(o, 0); err != nil {
		o.finish(localstore.Synced{}, err)
	}
}

func (s *Shard) claimCursor(a actClaimCursor) op {
	target := s.lanes.target(a.lane)
	return &metaOp{change: func(c *committer) {
		st := localstore.TargetState{Paused: s.tier.paused(target), ClaimCursor: a.key}
		c.batch.PutTarget(target, st)
		c.then(evClaimCursor(a))
	}}
}

func (s *Shard) reportFinished(o finishOp) {
	if s.parts.Events.Finished == nil {
		return
	}
	for i := range o.items {
		it := &o.items[i]
		// Runs of equal outcomes are reported together.
		n := 1
		for i+n < len(o.items) && o.items[i+n].ref.lane == it.ref.lane &&
			o.items[i+n].state == it.state && o.items[i+n].reason == it.reason {
			n++
		}
		if i > 0 && o.items[i-1].ref.lane == it.ref.lane && o.items[i-1].state == it.state &&
			o.items[i-1].reason == it.reason {
			continue
		}
		s.parts.Events.Finished(s.lanes.target(it.ref.lane), it.state, it.reason, n)
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

func (s *Shard) read(a action) event {
	switch a := a.(type) {
	case actLoad:
		return s.loadRows(a)
	case actReadParked:
		return s.readParked(a)
	default:
		panic(fmt.Sprintf("BUG: unknown read %T", a))
	}
}

// loadRows reads the references of a range (rule R7).
func (s *Shard) loadRows(a actLoad) event {
	done := evLoaded{next: a.upper}
	err := s.parts.Store.ScanRows(a.lower, a.upper, func(k delay.Key, rec []byte) bool {
		if len(done.refs) >= loadChunk {
			done.next = k
			return false
		}
		if k.Seq > a.cut {
			return true
		}
		if r, err := s.refOfRecord(k, rec); err == nil {
			done.refs = append(done.refs, r)
		} else {
			s.log.Error("row is corrupt", zap.Stringer("key", k), zap.Error(err))
		}
		return true
	})
	if err != nil {
		s.log.Error("load failed", zap.Error(err))
		return evLoadFailed{}
	}
	return done
}

func (s *Shard) refOfRecord(k delay.Key, rec []byte) (ref, error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return ref{}, err
	}
	return refOf(s.lanes, k, &m, len(rec)), nil
}

func (s *Shard) readParked(a actReadParked) event {
	lane := s.lanes.target(a.lane).Hash()
	done := evParkedRead{lane: a.lane}
	done.err = s.parts.Store.ScanParked(lane, a.from,
		func(k delay.Key, _ bool, rec []byte) bool {
			if len(done.refs) >= parkedLoad {
				done.more, done.next = true, k
				return false
			}
			done.next = k.Next()
			if r, err := s.refOfRecord(k, rec); err == nil && r.lane == a.lane {
				done.refs = append(done.refs, r)
			}
			return true
		})
	if done.err != nil {
		s.log.Error("parked rows unreadable", zap.Error(done.err))
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
	for n := timersChunk; n == timersChunk; {
		o := &timersOp{upTo: now, done: make(chan int, 1)}
		if err := s.commit.inbox.put(o, 0); err != nil {
			return
		}
		n, _ = wait(s, o.done)
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
	s.post(evDrain{})
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
		errs = append(errs, s.lastFlush(ctx))
	}
	done := make(chan error, 1)
	s.enqueue(&metaOp{done: done, change: func(c *committer) { c.meta.Clean = clean }})
	werr, _ := wait(s, done)
	errs = append(errs, werr)
	s.stop(errDrained)
	return errors.Join(errs...)
}

// settleDown waits until the core has handed its last outcomes to the committer.
func (s *Shard) settleDown(ctx context.Context) {
	for range 2 {
		done := make(chan struct{})
		s.post(evSync{done: done})
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		fence := make(chan error, 1)
		s.enqueue(&metaOp{done: fence, change: func(*committer) {}})
		_, _ = wait(s, fence)
	}
}

// evSync commits pending outcomes at once and says when that is on its way.
type evSync struct{ done chan struct{} }

func (e evSync) apply(c *core) {
	if c.finishBy != 0 {
		c.finishBy = c.now
		c.wantFinish()
	}
	close(e.done)
}
