// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/cicadamq/cicada/delay"
)

// laneTable numbers targets. Numbers are never reused while the process lives.
type laneTable interface {
	target(no uint32) delay.Target
}

// lane is the queue of one target (S9): its due messages, its window, its breaker, its consumers.
type lane struct {
	no     uint32
	target delay.Target
	pull   bool
	paused bool
	timer  bool // a timerLane is set

	touched bool
	ready   queue[waiting] // due, unclaimed, in memory
	waiters queue[*waiter] // pulls waiting for messages

	parked   queue[ref] // read ahead from the parked rows
	backlog  int64      // parked and unclaimed, as far as known
	more     bool       // there are parked rows beyond the read-ahead
	cursor   delay.Key  // read-ahead continues here
	loading  bool
	rewind   bool      // rows were parked behind the cursor
	claimed  delay.Key // durable claim cursor (rule R8)
	claiming bool      // the claim cursor is being written
	drain    bool      // parked before fresh, alternating

	inflight  int
	retrying  int
	failures  int // consecutive
	trips     int
	openUntil delay.Due
	delivered int64
	lastError string
}

// waiting is an entry of a ready queue: a reference and its position in the open set, 0 when it is
// parked. again is set for a message that has been claimed before: its flight knows the rest.
type waiting struct {
	ref   ref
	pos   uint64
	again bool
}

// waiter is one pull that waits.
type waiter struct {
	lane  uint32
	max   int
	lease time.Duration
	grant chan grant // capacity 1
}

// grant is what a pull gets: claims under one lease.
type grant struct {
	lease   uint64
	expires delay.Due
	claims  []claim
}

// claim is one attempt to be made.
type claim struct {
	ref     ref
	attempt uint32
	parked  bool
}

// lane finds or makes the lane of a number.
func (c *core) lane(no uint32) *lane {
	for int(no) >= len(c.live) {
		c.live = append(c.live, nil)
	}
	l := c.live[no]
	if l == nil {
		t := c.lanes.target(no)
		l = &lane{no: no, target: t, pull: t.IsPull()}
		c.live[no] = l
	}
	return l
}

// actDeliver asks for one attempt at each claim; evOutcomes answers, in one or more parts.
type actDeliver struct {
	lane   uint32
	claims []claim
}

// actGrant answers a waiter; an empty grant says that nothing will come.
type actGrant struct {
	waiter *waiter
	grant  grant
}

// dispatch claims what the lane may claim now.
func (c *core) dispatch(l *lane) {
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

func (c *core) dispatchPull(l *lane) {
	for l.waiters.len() > 0 {
		w := l.waiters.items[l.waiters.head]
		claims := c.claim(l, w.max)
		if len(claims) == 0 {
			return
		}
		l.waiters.pop()
		c.leaseNo++
		g := grant{
			lease:   uint64(c.epoch)<<40 | c.leaseNo,
			expires: c.now.Add(w.lease),
			claims:  claims,
		}
		ls := &leaseState{lane: l.no, left: len(claims)}
		for _, cl := range claims {
			f := c.flights[cl.ref.key]
			f.state, f.lease, f.epoch = flightLeased, g.lease, c.epoch
			c.flights[cl.ref.key] = f
			ls.keys = append(ls.keys, cl.ref.key)
		}
		c.leases[g.lease] = ls
		c.timers.Add(int64(g.expires), 0, timer{kind: timerLease, lease: g.lease})
		c.do(actGrant{waiter: w, grant: g})
	}
}

func (c *core) dispatchPush(l *lane) {
	c.pushed = true
	if c.horizon < c.now {
		return // evHorizon comes back to it
	}
	for {
		room := min(c.opts.Window-l.inflight, maxRetrying-l.retrying)
		if c.now < l.openUntil {
			c.remindLane(l, l.openUntil)
			return
		}
		if l.trips > 0 { // half open: one probe at a time
			room = min(room, 1-l.inflight)
		}
		if room <= 0 {
			return
		}
		claims := c.claim(l, min(room, deliverChunk))
		if len(claims) == 0 {
			return
		}
		l.inflight += len(claims)
		c.do(actDeliver{lane: l.no, claims: claims})
	}
}

// claim takes up to n references of the lane, parked and fresh in turn so that a backlog does not
// starve what comes due now, nor the other way round.
func (c *core) claim(l *lane, n int) []claim {
	var claims []claim
	for len(claims) < n {
		fresh := l.ready.len() > 0
		old := l.parked.len() > 0 && (l.pull || !l.claiming)
		if !fresh && !old {
			break
		}
		if claims == nil {
			claims = make([]claim, 0, min(n, l.ready.len()+l.parked.len()))
		}
		if old && (l.drain || !fresh) {
			r := l.parked.pop()
			l.backlog--
			l.drain = false
			claims = c.claimOne(claims, waiting{ref: r})
			continue
		}
		w := l.ready.pop()
		c.ready--
		l.drain = true
		claims = c.claimOne(claims, w)
	}
	c.readAhead(l)
	return claims
}

func (c *core) claimOne(claims []claim, w waiting) []claim {
	key := w.ref.key
	f, flying := c.flights[key]
	switch {
	case flying && f.state != flightWaiting, !flying && w.again:
		return claims // settled while it waited here
	case !flying && c.skip(key):
		c.open.finish(w.pos)
		return claims
	case !flying:
		f = flight{ref: w.ref, pos: w.pos, parked: w.pos == 0}
	}
	f.attempt++
	f.state = flightDelivering
	c.flights[key] = f
	return append(claims, claim{ref: f.ref, attempt: f.attempt, parked: f.parked})
}

// evPull lets a pull wait for messages.
type evPull struct{ w *waiter }

func (e evPull) apply(c *core) {
	if c.draining {
		c.do(actGrant{waiter: e.w})
		return
	}
	l := c.lane(e.w.lane)
	l.waiters.push(e.w)
	c.touch(l)
}

// evPullGone takes a waiter back. It is always answered: by an empty grant now, or by the grant
// that was already under way.
type evPullGone struct{ w *waiter }

func (e evPullGone) apply(c *core) {
	l := c.lane(e.w.lane)
	before := l.waiters.len()
	l.waiters.filter(func(w *waiter) bool { return w != e.w })
	if l.waiters.len() < before {
		c.do(actGrant{waiter: e.w})
	}
}

// evPause pauses or resumes a lane.
type evPause struct {
	lane   uint32
	paused bool
}

func (e evPause) apply(c *core) {
	l := c.lane(e.lane)
	l.paused = e.paused
	c.touch(l)
}

// evParkedLanes tells, at start, which lanes have parked rows and which are paused.
type evParkedLanes struct{ lanes []parkedLane }

type parkedLane struct {
	lane    uint32
	rows    int64
	paused  bool
	claimed delay.Key
}

func (e evParkedLanes) apply(c *core) {
	for _, p := range e.lanes {
		l := c.lane(p.lane)
		l.more, l.backlog = p.rows > 0, p.rows
		l.paused, l.claimed = p.paused, p.claimed
		c.touch(l)
	}
}

// actReadParked asks for up to parkedLoad parked rows of the lane from cursor on.
type actReadParked struct {
	lane uint32
	from delay.Key
}

// evParkedRead answers. more says that there are rows beyond next.
type evParkedRead struct {
	lane uint32
	refs []ref
	next delay.Key
	more bool
	err  error
}

func (e evParkedRead) apply(c *core) {
	l := c.lane(e.lane)
	l.loading = false
	c.loads--
	if e.err == nil {
		for _, r := range e.refs {
			if _, flying := c.flights[r.key]; flying || c.skip(r.key) {
				l.backlog--
				continue
			}
			l.parked.push(r)
		}
		// Rows that were parked meanwhile may lie behind: then start over, flights are skipped.
		if l.rewind {
			l.cursor, l.more = delay.Key{}, true
		} else {
			l.cursor, l.more = e.next, e.more
		}
		l.rewind = false
	}
	c.sweep()
	if !l.pull && l.parked.len() > 0 {
		last := l.parked.items[len(l.parked.items)-1].key
		if l.claimed.Less(last) {
			l.claiming = true
			c.do(actClaimCursor{lane: l.no, key: last})
			return
		}
	}
	c.touch(l)
}

// actClaimCursor asks for the lane's durable claim cursor to be written; evClaimCursor answers.
type actClaimCursor struct {
	lane uint32
	key  delay.Key
}

type evClaimCursor struct {
	lane uint32
	key  delay.Key
}

func (e evClaimCursor) apply(c *core) {
	l := c.lane(e.lane)
	l.claiming = false
	l.claimed = e.key
	c.touch(l)
}

// readAhead asks for parked rows when the lane runs out of them.
func (c *core) readAhead(l *lane) {
	if !l.more || l.loading || l.parked.len() > 0 {
		return
	}
	l.loading = true
	c.loads++
	c.do(actReadParked{lane: l.no, from: l.cursor})
}
