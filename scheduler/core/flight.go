// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// flight is a message that has been claimed at least once and is not finished.
type flight struct {
	ref     Ref
	pos     uint64 // in the open set; 0 when parked
	lease   uint64
	attempt uint32 // the last one made
	epoch   delay.Epoch
	state   flightState
	parked  bool
	parking bool        // its row is being parked: by the time it ends it may be
	noted   bool        // an attempt record exists
	last    bool        // the next failure is the last: out of attempts
	stop    bool        // no further attempt (S5)
	ending  delay.State // of a flight that is finishing
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

// FinishItem is the outcome of one message, to be committed.
type FinishItem struct {
	Ref      Ref
	Parked   bool // its row is parked
	Parking  bool // parked by now, unless the commit of that failed to find its row
	Noted    bool // an attempt record exists
	State    delay.State
	Attempts uint32 // made
	Reason   string // of death
	Detail   string // the last error
}

// ActFinish asks for outcomes to be committed; EvFinished answers when there are Items, and
// Settle.Done after the sync.
type ActFinish struct {
	Items  []FinishItem
	Leases []uint64   // lease records that are done with
	Notes  []NoteItem // attempts to be noted
	Settle *Settling  // nil unless a consumer waits for it
	Stop   chan bool  // nil unless a stop waits for it: capacity 1
}

// NoteItem is an attempt that failed: what must survive a restart.
type NoteItem struct {
	Key      delay.Key
	Attempts uint32    // made so far
	NextAt   delay.Due // of the next one
	Detail   string    // why it failed
	Stopped  bool      // no further attempt may follow
}

// EvFinished says that outcomes are synced.
type EvFinished struct{ Items []FinishItem }

func (e EvFinished) apply(c *Core) {
	for _, it := range e.Items {
		c.landed(it.Ref.Key)
	}
	c.finished = true
}

// landed forgets a flight.
func (c *Core) landed(key delay.Key) {
	if f, ok := c.flights[key]; ok {
		c.open.finish(f.pos)
		c.lane(f.ref.Lane).flying--
		delete(c.flights, key)
		if c.loads > 0 {
			c.gone[key] = struct{}{}
		}
	}
}

// finish takes the outcome of a flight to the next commit.
func (c *Core) finish(f flight, state delay.State, reason, detail string) {
	if f.state == flightRetrying {
		c.countRetrying(c.lane(f.ref.Lane), -1)
	}
	c.unlease(&f)
	f.state, f.ending = flightFinishing, state
	c.flights[f.ref.Key] = f
	c.finishes = append(c.finishes, FinishItem{
		Ref: f.ref, Parked: f.parked, Parking: f.parking, Noted: f.noted, State: state,
		Attempts: f.attempt, Reason: reason, Detail: detail,
	})
	if c.finishBy == 0 {
		c.finishBy = c.now + finishDelay
	}
}

// wantFinish commits outcomes in groups. A lease that is over goes last, after the outcomes and
// attempts it brought: without its record they would look as if nobody had claimed them (rule R8).
func (c *Core) wantFinish() {
	full := c.finishBy != 0 && (c.now >= c.finishBy || len(c.finishes) >= finishChunk)
	if full || c.finishBy != 0 && len(c.leasesOver) > 0 && !planted.Is(planted.LeaseGoesFirst) {
		c.do(ActFinish{Items: c.finishes})
		c.finishes, c.finishBy = nil, 0
	}
	if len(c.leasesOver) > 0 {
		c.do(ActFinish{Leases: c.leasesOver})
		c.leasesOver = nil
	}
}

// unlease takes f out of its lease.
func (c *Core) unlease(f *flight) {
	if f.lease == 0 {
		return
	}
	if ls := c.leases[f.lease]; ls != nil {
		ls.left--
		if ls.left == 0 {
			delete(c.leases, f.lease)
			c.leasesOver = append(c.leasesOver, f.lease)
		}
	}
	f.lease = 0
}

// Outcome is the result of one attempt at a push lane.
type Outcome struct {
	Key     delay.Key
	Result  broker.Outcome // when an attempt was made
	Expired bool           // its time had passed: no attempt was made
	Lost    bool           // no copy of it could be read
	Moved   bool           // a schedule that has moved on, or is gone: there is nothing to commit
	Untried bool           // nothing was tried, and nothing went wrong: it comes again in After
	Last    bool           // this was its last attempt
	Backoff time.Duration  // the message's own first pause; 0 is the default
	After   time.Duration  // the receiver's wish
	Reason  string         // why it failed
}

// EvOutcomes brings the results of deliveries of one lane.
type EvOutcomes struct {
	Lane     uint32
	Outcomes []Outcome
}

// unknown reports whether there is an unknown outcome among them.
func (e EvOutcomes) unknown() bool {
	return slices.ContainsFunc(e.Outcomes, func(o Outcome) bool { return o.Result == broker.Unknown })
}

func (e EvOutcomes) apply(c *Core) {
	l := c.lane(e.Lane)
	for _, o := range e.Outcomes {
		if planted.Is(planted.BatchAck) {
			o.Result = e.Outcomes[0].Result
		}
		if planted.Is(planted.UnknownSpreads) && e.unknown() {
			o.Result = broker.Unknown
		}
		f, ok := c.flights[o.Key]
		if !ok || f.state != flightDelivering {
			continue
		}
		c.handBack(l, f.ref)
		c.outcome(l, f, o)
	}
	c.touch(l)
}

func (c *Core) outcome(l *lane, f flight, o Outcome) {
	switch {
	case o.Moved:
		c.landed(o.Key)
		c.finished = true
	case o.Untried:
		f.attempt--
		c.wait(l, f, o.After)
	case o.Expired:
		f.attempt--
		c.finish(f, delay.Expired, "expired", "")
	case f.ref.Meta&RefOnce != 0 && !o.Lost:
		// Finished before it was handed over; whatever came of it, it is not repeated.
		c.landed(o.Key)
		c.note(l, f, o)
	case o.Result == broker.Delivered:
		c.note(l, f, o)
		c.finish(f, delay.Delivered, "", "")
	case o.Result == broker.Rejected:
		l.lastError = o.Reason
		c.finish(f, delay.Dead, "rejected", o.Reason)
	case f.stop:
		c.finish(f, delay.Dead, stopped, o.Reason)
	case o.Last:
		c.note(l, f, o)
		c.finish(f, delay.Dead, "max_attempts", o.Reason)
	default:
		c.note(l, f, o)
		c.retry(l, f, c.pause(f.attempt, o), o.Reason)
	}
}

// note keeps the lane's breaker: ten failures in a row open it, one success closes it. That a
// message fails again says something about the message; only of a probe it counts all the same.
func (c *Core) note(l *lane, f flight, o Outcome) {
	if o.Result == broker.Delivered {
		l.failures, l.trips, l.openUntil = 0, 0, 0
		c.grow(l)
		l.delivered++
		return
	}
	l.lastError = o.Reason
	if o.Lost {
		return // our own trouble, not the target's
	}
	if f.attempt > 1 && l.trips == 0 {
		return
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
	l.window = 1
	l.openUntil = c.now.Add(pause)
}

// pause is the time before the next attempt: exponential with full jitter above the half, or the
// receiver's wish.
func (c *Core) pause(attempt uint32, o Outcome) time.Duration {
	if o.After > 0 {
		return o.After
	}
	base := o.Backoff
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
func (c *Core) retry(l *lane, f flight, after time.Duration, detail string) {
	c.unlease(&f)
	f.noted = true
	at := c.wait(l, f, after)
	if planted.Is(planted.AttemptsForgotten) {
		return
	}
	c.do(ActFinish{Notes: []NoteItem{{
		Key: f.ref.Key, Attempts: f.attempt, NextAt: at, Detail: detail,
	}}})
}

// wait lets f wait and returns until when.
func (c *Core) wait(l *lane, f flight, after time.Duration) delay.Due {
	f.state = flightRetrying
	at := c.now.Add(after)
	c.flights[f.ref.Key] = f
	c.countRetrying(l, 1)
	c.timers.Add(int64(at), 0, timer{kind: timerRetry, key: f.ref.Key})
	return at
}

// retryDue puts a message back into the ready queue of its lane.
func (c *Core) retryDue(key delay.Key) {
	f, ok := c.flights[key]
	if !ok || f.state != flightRetrying {
		return
	}
	l := c.lane(f.ref.Lane)
	c.countRetrying(l, -1)
	c.again(l, f)
}

func (c *Core) again(l *lane, f flight) {
	f.state = flightWaiting
	c.flights[f.ref.Key] = f
	l.ready.push(waiting{ref: f.ref, pos: f.pos, again: true})
	c.ready++
	c.touch(l)
}

// leaseOver returns what a consumer did not settle in time.
func (c *Core) leaseOver(no uint64) {
	ls := c.leases[no]
	if ls == nil {
		return
	}
	delete(c.leases, no)
	l := c.lane(ls.lane)
	c.leasesOver = append(c.leasesOver, no)
	var done ActFinish
	for _, key := range ls.keys {
		f, ok := c.flights[key]
		if !ok || f.lease != no || f.state != flightLeased {
			continue
		}
		f.lease = 0
		switch {
		case f.ref.Meta&RefOnce != 0: // handed over or not, it is not repeated
			c.finish(f, delay.Delivered, "", "")
		case f.stop:
			c.finish(f, delay.Dead, stopped, "lease expired")
		case f.last:
			c.finish(f, delay.Dead, "max_attempts", "lease expired")
		default:
			f.noted = true
			done.Notes = append(done.Notes, NoteItem{
				Key: key, Attempts: f.attempt, NextAt: c.now, Detail: "lease expired",
			})
			c.again(l, f)
		}
	}
	if len(done.Notes) > 0 {
		c.do(done)
	}
}

// EvLast says of claimed messages that their current attempt is the last one allowed.
type EvLast struct{ Keys []delay.Key }

func (e EvLast) apply(c *Core) {
	for _, key := range e.Keys {
		if f, ok := c.flights[key]; ok {
			f.last = true
			c.flights[key] = f
		}
	}
}

// EvReleased gives claims back that were never handed over, and finishes what could not be handed
// over any more. No attempt was made.
type EvReleased struct {
	Lease   uint64 // what is not in this lease any more is none of its business
	Lane    uint32
	Keys    []delay.Key // given back
	Expired []delay.Key // whose time has passed
	Lost    []delay.Key // unreadable just now: tried again after a pause
}

func (e EvReleased) apply(c *Core) {
	l := c.lane(e.Lane)
	for _, key := range e.Expired {
		if f, ok := c.flights[key]; ok && f.lease == e.Lease && f.state == flightLeased {
			f.attempt--
			c.finish(f, delay.Expired, "expired", "")
		}
	}
	for _, key := range e.Lost {
		if f, ok := c.flights[key]; ok && f.lease == e.Lease && f.state == flightLeased {
			f.attempt--
			c.retry(l, f, c.opts.Backoff, "no readable copy")
		}
	}
	for _, key := range e.Keys {
		f, ok := c.flights[key]
		if !ok || f.lease != e.Lease || f.state != flightLeased {
			continue
		}
		c.unlease(&f)
		f.attempt--
		if f.attempt > 0 || f.parking { // its row is about to be elsewhere
			c.again(l, f)
			continue
		}
		delete(c.flights, key) // never claimed after all
		l.flying--
		l.ready.push(waiting{ref: f.ref, pos: f.pos})
		c.ready++
		c.touch(l)
	}
}
