// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/timewheel"
)

// Options of the core. All of them must be set, but Wide.
type Options struct {
	HotWindow  time.Duration // how far ahead the wheel is loaded
	Backoff    time.Duration // first pause between attempts of messages that do not say
	MaxBackoff time.Duration // longest pause that doubling leads to
	Window     int           // messages in flight per push lane
	// Wide tells the push lanes whose messages cannot come twice: they have a wider window. It may
	// be nil.
	Wide func(delay.Target) bool
}

// Start is where a core begins: what the local store says, and where claims may begin.
type Start struct {
	Epoch     delay.Epoch // of this owner; it makes leases and receipts unique
	Watermark delay.Key   // every row below is finished or parked
	Boundary  delay.Key   // L of rule R1
	Horizon   delay.Due   // the durable claim horizon H (rule R8)
	ClaimFrom delay.Due   // no claim before this instant (rule R11); 0 is no bound
	Last      delay.Seq   // the highest seq of a stored row
}

// Bounds of the core. They are constants because no operator could judge them.
const (
	fireChunk     = 1000             // references taken from the wheel in one step
	claimBytes    = 16 << 20         // records handed out in one claim: bodies are held in memory
	deliverChunk  = 256              // messages in one call of a sink
	LoadChunk     = 10_000           // rows read in one load
	parkChunk     = 1000             // rows moved in one park
	ParkedLoad    = 1000             // parked rows read ahead per lane
	finishChunk   = 1000             // outcomes in one commit
	maxReady      = 1 << 20          // due references waiting in memory, all lanes together
	maxHot        = 4 << 20          // references in the wheel
	breakerTrips  = 10               // consecutive failures that open a lane's breaker
	finishDelay   = 20               // ms: outcomes of push lanes wait this long for company
	parkAfter     = 10_000           // ms: an open reference this old is parked
	horizonAhead  = 10_000           // ms: how far ahead the claim horizon is written
	horizonRenew  = 5_000            // ms: renew it when less than this is left
	watermarkStep = 1_000            // ms between proposals of the watermark
	watermarkIdle = 10_000           // ms between them when nothing finished
	crowdedStep   = 100              // ms between looks for what to park when memory is short
	breakerBase   = time.Second      // first pause of an open breaker
	breakerMax    = 60 * time.Second // longest
)

// Ref is a reference to a message: what the wheel and the queues hold instead of it.
type Ref struct {
	Key  delay.Key
	Lane uint32 // number of its target
	Meta uint32 // size of the record in the low 24 bits, flags above
}

// Flags of Ref.Meta.
const (
	sizeMask = 1<<24 - 1
	RefCold  = 1 << 24 // a segment may hold it: finishing needs a mark
	RefID    = 1 << 25 // its record names an id: finishing updates the id index
	RefOnce  = 1 << 26 // at most once: finished before it is handed over
)

// Size is the length of the record in bytes; 0 when it is not known.
func (r Ref) Size() int { return int(r.Meta & sizeMask) }

// Event is something that happened: one of the Ev types of this package. It belongs to the core
// once it is given to Step; answers come through channels of capacity 1 in the event.
type Event interface{ apply(c *Core) }

// Action is something the runner has to do; one of the Act types of this package.
type Action any

// Core is the state machine of one shard, made by New. It is confined to one goroutine.
type Core struct {
	opts  Options
	lanes laneTable
	rng   *rand.Rand // jitter only

	now     delay.Due
	epoch   delay.Epoch
	actions []Action

	wheel        *timewheel.Wheel[Ref]
	timers       *timewheel.Wheel[timer]
	due          []Ref // scratch of fire
	fired        []timer
	touched      []*lane // lanes to dispatch at the end of the step
	moreDue      bool
	firedThrough delay.Due // every loaded reference due up to here left the wheel

	boundary  delay.Key // L: loads stay below it (rule R1)
	loadedTo  delay.Key // every row below it has been loaded or was added
	load      *loadState
	lastSeq   delay.Seq // highest seq that the committer has announced
	withdrawn map[delay.Key]withdrawal
	sweeping  []delay.Key            // withdrawn keys to forget when the running loads are done
	gone      map[delay.Key]struct{} // landed while a load was under way that may still return them
	moving    map[delay.Key]struct{} // unclaimed, being parked: a read may see them there already
	loads     int                    // loads and parked loads under way

	live    Sparse[lane] // by lane number; idle ones are let go (C9)
	ready   int          // references in ready queues, all lanes
	flights map[delay.Key]flight
	leases  map[uint64]*leaseState
	leaseNo uint64
	open    openSet

	leasesOver []uint64 // their records are to be deleted
	finishes   []FinishItem
	finishBy   delay.Due // when to commit finishes; 0 when there are none
	parking    int       // references in park commits under way
	claimFrom  delay.Due // no claim before this instant (rule R11)
	horizon    delay.Due // durable claim horizon H
	horizonReq delay.Due // H being written
	pushed     bool      // a push lane had something to claim since the last renewal
	held       []*lane   // lanes that wait for the horizon

	out      int          // messages with sinks, all push lanes
	outBytes int          // their records
	busy     int          // push lanes that have something out
	retrying int          // messages between attempts, all push lanes
	hungry   queue[*lane] // lanes that wait for room, in turn

	roundAt delay.Due // when to look for idle lanes again
	handAt  uint32    // the number to look at next
	handOn  bool      // a round is under way

	watermark   delay.Key // as proposed last
	watermarkAt delay.Due // when to look again
	crowdedAt   delay.Due // when to look again for what to park
	finished    bool      // something finished since the last proposal
	draining    bool
}

// New makes a core at instant now. rng decides about jitter only; with the same seed the same
// events give the same actions.
func New(opts Options, lanes laneTable, rng *rand.Rand, now delay.Due, s Start) *Core {
	c := &Core{
		opts: opts, lanes: lanes, rng: rng, now: now,
		wheel: timewheel.New(timewheel.Config[Ref]{
			Start:   int64(now),
			Compare: func(a, b Ref) int { return a.Key.Compare(b.Key) },
		}),
		timers:    timewheel.New(timewheel.Config[timer]{Start: int64(now)}),
		withdrawn: make(map[delay.Key]withdrawal),
		gone:      make(map[delay.Key]struct{}),
		moving:    make(map[delay.Key]struct{}),
		flights:   make(map[delay.Key]flight),
		leases:    make(map[uint64]*leaseState),
		epoch:     s.Epoch,
		boundary:  s.Boundary,
		loadedTo:  s.Watermark,
		watermark: s.Watermark,
		horizon:   s.Horizon,
		claimFrom: s.ClaimFrom,
		lastSeq:   s.Last,
	}
	if planted.Is(planted.ReplayTooHigh) {
		c.loadedTo = s.Watermark.Next()
	}
	return c
}

// Step applies one event at instant now and returns what is to be done. The slice is valid until
// the next step. now never goes back: the guarded clock sees to that.
func (c *Core) Step(now delay.Due, ev Event) []Action {
	if now > c.now {
		c.now = now
	}
	c.actions = c.actions[:0]
	if ev != nil {
		ev.apply(c)
	}
	c.fireTimers()
	c.fire()
	c.feed()
	for i := 0; i < len(c.touched); i++ { //nolint:intrange // dispatch may touch more lanes
		l := c.touched[i]
		l.touched = false
		c.dispatch(l)
	}
	c.touched = c.touched[:0]
	c.wantLoad()
	c.wantHorizon()
	c.wantFinish()
	c.wantWatermark()
	c.wantRound()
	return c.actions
}

func (c *Core) do(a Action) { c.actions = append(c.actions, a) }

// touch has l dispatched at the end of the step.
func (c *Core) touch(l *lane) {
	if !l.touched {
		l.touched = true
		c.touched = append(c.touched, l)
	}
}

// NextWake is the instant at which a step without an event is due. The runner looks at the wall
// clock at least every 100 ms anyway.
func (c *Core) NextWake() delay.Due {
	if c.moreDue || c.handOn {
		return c.now
	}
	wake := c.watermarkAt
	earlier := func(at delay.Due) {
		if at != 0 && (wake == 0 || at < wake) {
			wake = at
		}
	}
	if at, ok := c.wheel.Next(); ok {
		earlier(delay.Due(at))
	}
	if at, ok := c.timers.Next(); ok {
		earlier(delay.Due(at))
	}
	earlier(c.finishBy)
	return wake
}

// fire moves what is due (C1) from the wheel to the ready queues, at most fireChunk references a
// step, so that other events get their turn in between.
func (c *Core) fire() {
	if c.ready >= maxReady {
		c.moreDue = false // parking makes room
		return
	}
	c.due = c.wheel.Advance(int64(c.now), c.due[:0], fireChunk)
	c.moreDue = len(c.due) == fireChunk
	for _, r := range c.due {
		l := c.lane(r.Lane)
		l.hot--
		if c.skip(r.Key) {
			continue
		}
		l.ready.push(waiting{ref: r, pos: c.open.add(r, c.now)})
		c.ready++
		c.touch(l)
	}
	if !c.moreDue {
		c.firedThrough = c.now
	}
}

// timer is what the core wants to be reminded of.
type timer struct {
	kind  timerKind
	lane  uint32
	key   delay.Key // timerRetry
	lease uint64    // timerLease
}

type timerKind uint8

const (
	timerRetry timerKind = iota
	timerLease
	timerLane // look at the lane again: breaker, start of claims
)

func (c *Core) fireTimers() {
	for {
		c.fired = c.timers.Advance(int64(c.now), c.fired[:0], fireChunk)
		for _, t := range c.fired {
			switch t.kind {
			case timerRetry:
				c.retryDue(t.key)
			case timerLease:
				c.leaseOver(t.lease)
			case timerLane:
				l := c.lane(t.lane)
				l.timer = false
				c.touch(l)
			}
		}
		if len(c.fired) < fireChunk {
			return
		}
	}
}

// remindLane has l looked at again at the instant at.
func (c *Core) remindLane(l *lane, at delay.Due) {
	if !l.timer {
		l.timer = true
		c.timers.Add(int64(at), 0, timer{kind: timerLane, lane: l.no})
	}
}

// ActHorizon asks for the claim horizon to be written; EvHorizon answers.
type ActHorizon struct{ Horizon delay.Due }

// EvHorizon says that the claim horizon is durable up to Horizon (rule R8).
type EvHorizon struct{ Horizon delay.Due }

func (e EvHorizon) apply(c *Core) {
	c.horizon = max(c.horizon, e.Horizon)
	c.horizonReq = 0
	for _, l := range c.held {
		l.held = false
		c.touch(l)
	}
	c.held = c.held[:0]
}

// wantHorizon keeps H ahead of now while push lanes are claiming (C6).
func (c *Core) wantHorizon() {
	if c.pushed && c.horizonReq == 0 && c.horizon < c.now+horizonRenew {
		c.horizonReq = c.now + horizonAhead
		c.pushed = false
		c.do(ActHorizon{Horizon: c.horizonReq})
	}
}

// EvNothing only lets time pass.
type EvNothing struct{}

func (EvNothing) apply(*Core) {}

// EvDrain stops all claims.
type EvDrain struct{}

func (EvDrain) apply(c *Core) {
	c.draining = true
	for _, l := range c.live.From(0, c.live.End()) {
		for l.waiters.len() > 0 {
			c.do(ActGrant{Waiter: l.waiters.pop()})
		}
	}
}

// EvBoundary says that every cold message below the boundary is a local row now (rule R1).
type EvBoundary struct{ Boundary delay.Key }

func (e EvBoundary) apply(c *Core) {
	if c.boundary.Less(e.Boundary) {
		c.boundary = e.Boundary
	}
}
