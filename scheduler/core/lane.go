// SPDX-License-Identifier: Apache-2.0

package core

import (
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// laneTable numbers targets. Numbers are never reused while the process lives.
type laneTable interface {
	// Target is the target with the number no, which the table has given out and not released.
	Target(no uint32) delay.Target
	// Round begins a round.
	Round()
	// Release forgets a number unless it was given out since the round before this one began, and
	// reports whether it did. The target gets another one when it is used again.
	Release(no uint32) bool
}

// lane is the queue of one target (S9): its due messages, its window, its breaker, its consumers.
type lane struct {
	no     uint32
	target delay.Target
	pull   bool
	paused bool
	timer  bool // a timerLane is set
	rate   bucket

	touched bool
	ready   queue[waiting] // due, unclaimed, in memory
	hot     int            // references in the wheel
	flying  int            // flights
	moving  int            // unclaimed, being parked
	waiters queue[*Waiter] // pulls waiting for messages

	parked   queue[Ref] // read ahead from the parked rows
	backlog  int64      // parked and unclaimed, as far as known
	more     bool       // there are parked rows beyond the read-ahead
	cursor   delay.Key  // read-ahead continues here
	loading  bool
	rewind   bool      // rows were parked behind the cursor
	claimed  delay.Key // durable claim cursor (rule R8)
	claiming bool      // the claim cursor is being written
	drain    bool      // parked before fresh, alternating

	most      int // in flight at most
	inflight  int
	bytes     int  // of the records in flight
	window    int  // in flight at most, while it grows after an outage; 0 is most
	hungry    bool // waits for room
	held      bool // waits for the claim horizon
	retrying  int
	patience  int // how many may be between attempts before it takes nothing new
	failures  int // consecutive
	trips     int
	openUntil delay.Due
	delivered int64
	lastError string
}

// waiting is an entry of a ready queue: a reference and its position in the open set, 0 when it is
// parked. again is set for a message that has been claimed before: its flight knows the rest.
type waiting struct {
	ref   Ref
	pos   uint64
	again bool
}

// Waiter is one pull that waits.
type Waiter struct {
	Lane  uint32
	Max   int           // messages
	Lease time.Duration // from the grant on
	Grant chan Grant    // capacity 1
}

// Grant is what a pull gets: claims under one lease.
type Grant struct {
	Epoch   delay.Epoch // of the receipts
	Lease   uint64      // its number: the epoch above 40 bits of a counter
	Expires delay.Due
	Claims  []Claim // empty: nothing came
}

// Claim is one attempt to be made.
type Claim struct {
	Ref     Ref
	Attempt uint32 // its number, from 1
	Parked  bool   // its row is parked
}

// lane finds or makes the lane of a number.
func (c *Core) lane(no uint32) *lane {
	l := c.live.Get(no)
	if l == nil {
		t := c.lanes.Target(no)
		l = &lane{
			no: no, target: t, pull: t.IsPull(), most: c.opts.Window, patience: maxRetrying,
		}
		if c.opts.Wide != nil && c.opts.Wide(t) {
			l.most = max(l.most, wideWindow)
		}
		if t.IsGuard() {
			l.patience = maxGuarded
		}
		c.live.Put(no, l)
	}
	return l
}

// ActDeliver asks for one attempt at each claim; EvOutcomes answers, in one or more parts.
type ActDeliver struct {
	Lane   uint32
	Claims []Claim
}

// ActGrant answers a waiter; an empty grant says that nothing will come.
type ActGrant struct {
	Waiter *Waiter
	Grant  Grant
}

// dispatch claims what the lane may claim now.
func (c *Core) dispatch(l *lane) {
	if l.paused || c.draining || l.ready.len()+l.parked.len() == 0 && !l.more {
		return
	}
	if c.now < c.claimFrom {
		c.remindLane(l, c.claimFrom)
		return
	}
	c.readAhead(l)
	if l.pull {
		c.dispatchPull(l)
		return
	}
	c.dispatchPush(l)
}

// leaseBits are the low bits of a lease's number, which count within an epoch.
const leaseBits = 40

// newLease is a number that no lease has had.
func (c *Core) newLease() uint64 {
	c.leaseNo++
	return uint64(c.epoch)<<leaseBits | c.leaseNo
}

func (c *Core) dispatchPull(l *lane) {
	for l.waiters.len() > 0 {
		w := l.waiters.items[l.waiters.head]
		most := l.rate.may(w.Max, c.now)
		if most == 0 {
			c.remindLane(l, l.rate.next())
			return
		}
		claims := c.claim(l, most, claimBytes)
		if len(claims) == 0 {
			return
		}
		l.rate.spend(len(claims))
		l.waiters.pop()
		g := Grant{
			Epoch:   c.epoch,
			Lease:   c.newLease(),
			Expires: c.leaseEnd(w.Lease),
			Claims:  claims,
		}
		ls := &leaseState{lane: l.no, left: len(claims)}
		for _, cl := range claims {
			f := c.flights[cl.Ref.Key]
			f.state, f.lease, f.epoch = flightLeased, g.Lease, c.epoch
			c.flights[cl.Ref.Key] = f
			ls.keys = append(ls.keys, cl.Ref.Key)
		}
		c.leases[g.Lease] = ls
		c.timers.Add(int64(g.Expires), 0, timer{kind: timerLease, lease: g.Lease})
		c.do(ActGrant{Waiter: w, Grant: g})
	}
}

func (c *Core) dispatchPush(l *lane) {
	c.pushed = true
	if c.horizon < c.now && !planted.Is(planted.HorizonNotAwaited) {
		if !l.held {
			l.held = true
			c.held = append(c.held, l)
		}
		return // EvHorizon comes back to it
	}
	if c.now < l.openUntil {
		c.remindLane(l, l.openUntil)
		return
	}
	for {
		if c.full() {
			c.queueUp(l)
			return
		}
		messages, bytes := c.room(l)
		if messages <= 0 || bytes <= 0 {
			return
		}
		most := l.rate.may(min(messages, deliverChunk), c.now)
		if most == 0 {
			c.remindLane(l, l.rate.next())
			return
		}
		claims := c.claim(l, most, min(bytes, claimBytes))
		if len(claims) == 0 {
			return
		}
		l.rate.spend(len(claims))
		c.handOut(l, claims)
		c.do(ActDeliver{Lane: l.no, Claims: claims})
	}
}

// claim takes up to n references of the lane, until they have most bytes, parked and fresh in turn
// so that a backlog does not starve what comes due now, nor the other way round (C8).
func (c *Core) claim(l *lane, n, most int) []Claim {
	var claims []Claim
	for bytes := 0; len(claims) < n && bytes < most; {
		fresh := l.ready.len() > 0
		old := l.parked.len() > 0 &&
			(l.pull || !l.claiming || planted.Is(planted.CursorNotAwaited))
		if !fresh && !old {
			break
		}
		if claims == nil {
			claims = make([]Claim, 0, min(n, l.ready.len()+l.parked.len()))
		}
		if old && (l.drain || !fresh || planted.Is(planted.BacklogFirst)) {
			r := l.parked.pop()
			l.backlog--
			l.drain = false
			bytes += r.Size()
			claims = c.claimOne(l, claims, waiting{ref: r})
			continue
		}
		w := l.ready.pop()
		c.ready--
		l.drain = true
		bytes += w.ref.Size()
		claims = c.claimOne(l, claims, w)
	}
	c.readAhead(l)
	return claims
}

func (c *Core) claimOne(l *lane, claims []Claim, w waiting) []Claim {
	key := w.ref.Key
	f, flying := c.flights[key]
	switch {
	case flying && f.state != flightWaiting, !flying && w.again:
		return claims // settled while it waited here
	case !flying && c.skip(key):
		c.open.finish(w.pos)
		return claims
	case !flying:
		f = flight{ref: w.ref, pos: w.pos, parked: w.pos == 0}
		l.flying++
	}
	f.attempt++
	f.state = flightDelivering
	c.flights[key] = f
	return append(claims, Claim{Ref: f.ref, Attempt: f.attempt, Parked: f.parked})
}

// EvPull lets a pull wait for messages.
type EvPull struct{ Waiter *Waiter }

func (e EvPull) apply(c *Core) {
	if c.draining {
		c.do(ActGrant{Waiter: e.Waiter})
		return
	}
	l := c.lane(e.Waiter.Lane)
	if planted.Is(planted.PullTakesOver) {
		for no := range c.leases {
			c.leaseOver(no)
		}
	}
	l.waiters.push(e.Waiter)
	c.touch(l)
}

// EvPullGone takes a waiter back. It is always answered: by an empty grant now, or by the grant
// that was already under way.
type EvPullGone struct{ Waiter *Waiter }

func (e EvPullGone) apply(c *Core) {
	l := c.lane(e.Waiter.Lane)
	before := l.waiters.len()
	l.waiters.filter(func(w *Waiter) bool { return w != e.Waiter })
	if l.waiters.len() < before {
		c.do(ActGrant{Waiter: e.Waiter})
	}
}

// EvPause pauses or resumes a lane.
type EvPause struct {
	Lane   uint32
	Paused bool
}

func (e EvPause) apply(c *Core) {
	l := c.lane(e.Lane)
	if l.paused && !e.Paused {
		c.slowStart(l)
	}
	l.paused = e.Paused
	c.touch(l)
}

// EvParkedLanes tells, at start, which lanes have parked rows, which are paused and which limited.
type EvParkedLanes struct{ Lanes []ParkedLane }

// ParkedLane is a lane as the local store knows it.
type ParkedLane struct {
	Lane    uint32
	Rows    int64 // parked
	Paused  bool
	Limit   delay.Limit
	Claimed delay.Key // the durable claim cursor (rule R8)
}

func (e EvParkedLanes) apply(c *Core) {
	for _, p := range e.Lanes {
		l := c.lane(p.Lane)
		l.more, l.backlog = p.Rows > 0, p.Rows
		l.paused, l.claimed = p.Paused, p.Claimed
		l.rate.set(p.Limit, c.now)
		c.touch(l)
	}
}

// ActReadParked asks for up to ParkedLoad parked rows of the lane from cursor on.
type ActReadParked struct {
	Lane uint32
	From delay.Key
}

// EvParkedRead answers: every parked row of the lane below Next was returned, and there are rows
// beyond it when More is set.
type EvParkedRead struct {
	Lane uint32
	Refs []Ref
	Next delay.Key
	More bool
	Err  error // nothing was read
}

func (e EvParkedRead) apply(c *Core) {
	l := c.lane(e.Lane)
	l.loading = false
	c.loads--
	if e.Err == nil {
		for _, r := range e.Refs {
			if _, moving := c.moving[r.Key]; moving {
				continue // EvParked is about to announce it
			}
			_, flying := c.flights[r.Key]
			_, gone := c.gone[r.Key]
			if flying || gone || c.skip(r.Key) {
				l.backlog--
				continue
			}
			l.parked.push(r)
		}
		// Rows that were parked meanwhile may lie behind: then start over, flights are skipped.
		if l.rewind {
			l.cursor, l.more = delay.Key{}, true
		} else {
			l.cursor, l.more = e.Next, e.More
		}
		l.rewind = false
	}
	c.sweep()
	if !l.pull && l.parked.len() > 0 {
		last := l.parked.items[len(l.parked.items)-1].Key
		if l.claimed.Less(last) {
			l.claiming = true
			c.do(ActClaimCursor{Lane: l.no, Key: last})
			return
		}
	}
	c.touch(l)
}

// ActClaimCursor asks for the lane's durable claim cursor to be written; EvClaimCursor answers.
type ActClaimCursor struct {
	Lane uint32
	Key  delay.Key
}

// EvClaimCursor says that the lane's claim cursor is durable up to Key (C6).
type EvClaimCursor struct {
	Lane uint32
	Key  delay.Key
}

func (e EvClaimCursor) apply(c *Core) {
	l := c.lane(e.Lane)
	l.claiming = false
	l.claimed = e.Key
	c.touch(l)
}

// readAhead asks for parked rows when the lane runs out of them.
func (c *Core) readAhead(l *lane) {
	if !l.more || l.loading || l.parked.len() > 0 {
		return
	}
	l.loading = true
	c.loads++
	c.do(ActReadParked{Lane: l.no, From: l.cursor})
}

// leaseEnd is when a lease granted now ends. The instant now is cut to a millisecond: one more, or
// the lease could be shorter than what was asked for.
func (c *Core) leaseEnd(lease time.Duration) delay.Due {
	return c.now.Add(lease + time.Millisecond)
}
