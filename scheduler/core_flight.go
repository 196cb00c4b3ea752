// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// flight is a message that has been claimed at least once and is not finished.
type flight struct {
	ref     ref
	pos     uint64 // in the open set; 0 when parked
	lease   uint64
	attempt uint32 // the last one made
	epoch   delay.Epoch
	state   flightState
	parked  bool
	parking bool // its row is being parked: by the time it ends it may be
	noted   bool // an attempt record exists
	last    bool // the next failure is the last: out of attempts
	stop    bool // no further attempt (S5)
}

type flightState uint8

const (
	flightDelivering flightState = iota // handed to a sink
	flightLeased                        // handed to a puller
	flightRetrying                      // its pause between attempts runs
	flightWaiting                       // in a ready queue again
	flightFinishing                     // its outcome is being committed
)

// leaseState is one pull's lease: the keys that were handed out together.
type leaseState struct {
	lane uint32
	left int // keys not yet settled
	keys []delay.Key
}

// finishItem is the outcome of one message, to be committed.
type finishItem struct {
	ref      ref
	parked   bool
	parking  bool // parked by now, unless the commit of that failed to find its row
	noted    bool
	state    delay.State
	attempts uint32
	reason   string // of death
	detail   string // the last error
}

// actFinish asks for outcomes to be committed. settle is answered after the sync.
type actFinish struct {
	items  []finishItem
	leases []uint64 // lease records that are done with
	notes  []noteItem
	settle *settling
}

// noteItem is an attempt that failed: what must survive a restart.
type noteItem struct {
	key      delay.Key
	attempts uint32
	nextAt   delay.Due
	detail   string
}

// evFinished says that outcomes are synced.
type evFinished struct{ items []finishItem }

func (e evFinished) apply(c *core) {
	for _, it := range e.items {
		c.landed(it.ref.key)
	}
	c.finished = true
}

// landed forgets a flight.
func (c *core) landed(key delay.Key) {
	if f, ok := c.flights[key]; ok {
		c.open.finish(f.pos)
		delete(c.flights, key)
	}
}

// finish takes the outcome of a flight to the next commit.
func (c *core) finish(f flight, state delay.State, reason, detail string) {
	if f.state == flightRetrying {
		c.lane(f.ref.lane).retrying--
	}
	c.unlease(&f)
	f.state = flightFinishing
	c.flights[f.ref.key] = f
	c.finishes = append(c.finishes, finishItem{
		ref: f.ref, parked: f.parked, parking: f.parking, noted: f.noted, state: state,
		attempts: f.attempt,
		reason:   reason, detail: detail,
	})
	if c.finishBy == 0 {
		c.finishBy = c.now + finishDelay
	}
}

// wantFinish commits outcomes in groups.
func (c *core) wantFinish() {
	if c.finishBy == 0 || c.now < c.finishBy && len(c.finishes) < finishChunk {
		return
	}
	c.do(actFinish{items: c.finishes})
	c.finishes, c.finishBy = nil, 0
}

// unlease takes f out of its lease.
func (c *core) unlease(f *flight) {
	if f.lease == 0 {
		return
	}
	if ls := c.leases[f.lease]; ls != nil {
		ls.left--
		if ls.left == 0 {
			delete(c.leases, f.lease)
			c.do(actFinish{leases: []uint64{f.lease}})
		}
	}
	f.lease = 0
}

// outcome is the result of one attempt at a push lane.
type outcome struct {
	key     delay.Key
	result  broker.Outcome
	expired bool // its time had passed: no attempt was made
	lost    bool // no copy of it could be read
	last    bool // this was its last attempt
	backoff time.Duration
	after   time.Duration // the receiver's wish
	reason  string
}

// evOutcomes brings the results of deliveries of one lane.
type evOutcomes struct {
	lane     uint32
	outcomes []outcome
}

func (e evOutcomes) apply(c *core) {
	l := c.lane(e.lane)
	for _, o := range e.outcomes {
		f, ok := c.flights[o.key]
		if !ok || f.state != flightDelivering {
			continue
		}
		l.inflight--
		c.outcome(l, f, o)
	}
	c.touch(l)
}

func (c *core) outcome(l *lane, f flight, o outcome) {
	switch {
	case o.expired:
		f.attempt--
		c.finish(f, delay.Expired, "expired", "")
	case f.ref.meta&refOnce != 0 && !o.lost:
		// Finished before it was handed over; whatever came of it, it is not repeated.
		c.landed(o.key)
		c.note(l, o)
	case o.result == broker.Delivered:
		c.note(l, o)
		c.finish(f, delay.Delivered, "", "")
	case o.result == broker.Rejected:
		l.lastError = o.reason
		c.finish(f, delay.Dead, "rejected", o.reason)
	case f.stop:
		c.finish(f, delay.Dead, "stopped", o.reason)
	case o.last:
		c.note(l, o)
		c.finish(f, delay.Dead, "max_attempts", o.reason)
	default:
		c.note(l, o)
		c.retry(l, f, c.pause(f.attempt, o), o.reason)
	}
}

// note keeps the lane's breaker: ten failures in a row open it, one success closes it.
func (c *core) note(l *lane, o outcome) {
	if o.result == broker.Delivered {
		l.failures, l.trips, l.openUntil = 0, 0, 0
		l.delivered++
		return
	}
	l.lastError = o.reason
	if o.lost {
		return // our own trouble, not the target's
	}
	l.failures++
	if l.failures < breakerTrips && l.trips == 0 {
		return
	}
	if c.now < l.openUntil {
		return // others of the same batch have opened it
	}
	pause := min(breakerBase<<min(l.trips, 10), breakerMax)
	l.trips++
	l.openUntil = c.now.Add(pause)
}

// pause is the time before the next attempt: exponential with full jitter above the half, or the
// receiver's wish.
func (c *core) pause(attempt uint32, o outcome) time.Duration {
	if o.after > 0 {
		return o.after
	}
	base := o.backoff
	if base <= 0 {
		base = c.opts.Backoff
	}
	p := c.opts.MaxBackoff
	if shift := min(attempt-1, 30); base < p>>shift {
		p = base << shift
	}
	return p/2 + time.Duration(c.rng.Int64N(int64(p/2)+1))
}

// retry lets f wait for its next attempt; the attempt made is written down (S7).
func (c *core) retry(l *lane, f flight, after time.Duration, detail string) {
	c.unlease(&f)
	f.state, f.noted = flightRetrying, true
	at := c.now.Add(after)
	c.flights[f.ref.key] = f
	l.retrying++
	c.timers.Add(int64(at), 0, timer{kind: timerRetry, key: f.ref.key})
	c.do(actFinish{notes: []noteItem{{
		key: f.ref.key, attempts: f.attempt, nextAt: at, detail: detail,
	}}})
}

// retryDue puts a message back into the ready queue of its lane.
func (c *core) retryDue(key delay.Key) {
	f, ok := c.flights[key]
	if !ok || f.state != flightRetrying {
		return
	}
	l := c.lane(f.ref.lane)
	l.retrying--
	c.again(l, f)
}

func (c *core) again(l *lane, f flight) {
	f.state = flightWaiting
	c.flights[f.ref.key] = f
	l.ready.push(waiting{ref: f.ref, pos: f.pos, again: true})
	c.ready++
	c.touch(l)
}

// leaseOver returns what a consumer did not settle in time.
func (c *core) leaseOver(no uint64) {
	ls := c.leases[no]
	if ls == nil {
		return
	}
	delete(c.leases, no)
	l := c.lane(ls.lane)
	done := actFinish{leases: []uint64{no}}
	for _, key := range ls.keys {
		f, ok := c.flights[key]
		if !ok || f.lease != no || f.state != flightLeased {
			continue
		}
		f.lease = 0
		switch {
		case f.ref.meta&refOnce != 0:
			c.landed(key)
		case f.stop:
			c.finish(f, delay.Dead, "stopped", "lease expired")
		case f.last:
			c.finish(f, delay.Dead, "max_attempts", "lease expired")
		default:
			f.noted = true
			done.notes = append(done.notes, noteItem{
				key: key, attempts: f.attempt, nextAt: c.now, detail: "lease expired",
			})
			c.again(l, f)
		}
	}
	c.do(done)
}

// evLast says of claimed messages that their current attempt is the last one allowed.
type evLast struct{ keys []delay.Key }

func (e evLast) apply(c *core) {
	for _, key := range e.keys {
		if f, ok := c.flights[key]; ok {
			f.last = true
			c.flights[key] = f
		}
	}
}

// evReleased gives claims back that were never handed over, and finishes what could not be handed
// over any more. No attempt was made.
type evReleased struct {
	lane    uint32
	keys    []delay.Key
	expired []delay.Key
	lost    []delay.Key // unreadable just now: tried again after a pause
}

func (e evReleased) apply(c *core) {
	l := c.lane(e.lane)
	for _, key := range e.expired {
		if f, ok := c.flights[key]; ok && f.state != flightFinishing {
			f.attempt--
			c.finish(f, delay.Expired, "expired", "")
		}
	}
	for _, key := range e.lost {
		if f, ok := c.flights[key]; ok && f.state == flightLeased {
			f.attempt--
			c.retry(l, f, c.opts.Backoff, "no readable copy")
		}
	}
	for _, key := range e.keys {
		f, ok := c.flights[key]
		if !ok || f.state == flightFinishing {
			continue
		}
		c.unlease(&f)
		f.attempt--
		if f.attempt > 0 {
			c.again(l, f)
			continue
		}
		delete(c.flights, key) // never claimed after all
		l.ready.push(waiting{ref: f.ref, pos: f.pos})
		c.ready++
		c.touch(l)
	}
}
