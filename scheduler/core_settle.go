// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"maps"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// settling is a consumer's request to settle receipts, on its way through the core.
type settling struct {
	kind     Settlement
	lane     uint32
	receipts []settleKey
	results  []SettleResult
	missing  []int // receipts of which the core knows nothing
	after    time.Duration
	hasAfter bool
	lease    time.Duration
	reason   string
	grant    grant      // Extend: the new lease record to be written
	done     chan error // capacity 1
}

type settleKey struct {
	key     delay.Key
	epoch   delay.Epoch
	attempt uint32
}

// evSettle settles. Results that change something are answered after the commit (S6).
type evSettle struct{ s *settling }

func (e evSettle) apply(c *core) {
	s := e.s
	l := c.lane(s.lane)
	before := len(c.finishes)
	act := actFinish{settle: s}
	var extended []delay.Key
	for i, r := range s.receipts {
		f, ok := c.flights[r.key]
		switch {
		case !ok:
			s.missing = append(s.missing, i)
		case f.ref.lane != s.lane:
			s.results[i] = SettleNotFound
		case f.attempt != r.attempt || f.epoch != r.epoch:
			s.results[i] = Superseded
		case f.state == flightFinishing:
			// Settled before, perhaps not yet synced: our commit comes after that one.
			s.results[i] = Superseded
			if s.kind == Ack {
				s.results[i] = Acked
			}
		case s.kind == Ack:
			s.results[i] = Acked
			c.ack(l, f)
		case s.kind == Nack:
			s.results[i] = Nacked
			c.nack(l, f, s)
		case f.state != flightLeased:
			s.results[i] = Superseded // the lease is over
		default:
			s.results[i] = Extended
			extended = append(extended, r.key)
		}
	}
	if len(extended) > 0 {
		s.grant = c.extend(l, extended, s.lease)
	}
	act.items = c.finishes[before:len(c.finishes):len(c.finishes)]
	c.finishes = c.finishes[:before:before]
	if before == 0 {
		c.finishes, c.finishBy = nil, 0
	}
	c.do(act)
	c.touch(l)
}

func (c *core) ack(l *lane, f flight) {
	l.delivered++
	if f.ref.meta&refOnce != 0 {
		c.unlease(&f)
		c.landed(f.ref.key)
		return
	}
	c.finish(f, delay.Delivered, "", "")
}

func (c *core) nack(l *lane, f flight, s *settling) {
	if f.state != flightLeased {
		return // it is on its way to the next attempt anyway
	}
	if s.reason != "" {
		l.lastError = s.reason
	}
	switch {
	case f.ref.meta&refOnce != 0:
		c.unlease(&f)
		c.landed(f.ref.key)
	case f.stop:
		c.finish(f, delay.Dead, "stopped", s.reason)
	case f.last:
		c.finish(f, delay.Dead, "max_attempts", s.reason)
	default:
		after := s.after
		if !s.hasAfter {
			after = c.pause(f.attempt, outcome{})
		}
		c.retry(l, f, after, s.reason)
	}
}

// extend moves keys to a new lease.
func (c *core) extend(l *lane, keys []delay.Key, lease time.Duration) grant {
	c.leaseNo++
	g := grant{lease: uint64(c.epoch)<<40 | c.leaseNo, expires: c.now.Add(lease)}
	for _, key := range keys {
		f := c.flights[key]
		c.unlease(&f)
		f.lease = g.lease
		c.flights[key] = f
		g.claims = append(g.claims, claim{ref: f.ref, attempt: f.attempt})
	}
	c.leases[g.lease] = &leaseState{lane: l.no, left: len(keys), keys: keys}
	c.timers.Add(int64(g.expires), 0, timer{kind: timerLease, lease: g.lease})
	return g
}

// evStop stops further attempts of claimed messages (S5): what waits between attempts is dead at
// once, what is being attempted when the attempt fails.
type evStop struct {
	key  delay.Key
	done chan bool // capacity 1: whether the message was claimed
}

func (e evStop) apply(c *core) {
	f, ok := c.flights[e.key]
	if !ok || f.state == flightFinishing {
		e.done <- false
		return
	}
	if f.state == flightRetrying || f.state == flightWaiting {
		c.finish(f, delay.Dead, "stopped", "")
	} else {
		f.stop = true
		c.flights[e.key] = f
	}
	e.done <- true
}

// evExpire finishes messages whose time has passed and that nobody is working on. The rest is
// looked at when its attempt ends.
type evExpire struct{ refs []expiring }

type expiring struct {
	ref    ref
	parked bool
}

func (e evExpire) apply(c *core) {
	for _, x := range e.refs {
		f, claimed := c.flights[x.ref.key]
		switch {
		case claimed && (f.state == flightRetrying || f.state == flightWaiting):
			c.finish(f, delay.Expired, "expired", "")
		case claimed:
		default:
			var l *lane
			if x.parked {
				l = c.lane(x.ref.lane)
			}
			if c.withdraw(x.ref.key, l) {
				c.do(actExpire(x))
			}
		}
	}
}

// actExpire asks for an unclaimed message to be finished as expired; evWithdrawn answers.
type actExpire struct {
	ref    ref
	parked bool
}

// evRecovered brings back, at start, what was in flight before: leases and attempts.
type evRecovered struct {
	flights []flight
	leases  map[uint64]recoveredLease
	nextAt  map[delay.Key]delay.Due
}

type recoveredLease struct {
	lane    uint32
	expires delay.Due
	keys    []delay.Key
}

func (e evRecovered) apply(c *core) {
	for _, f := range e.flights {
		c.flights[f.ref.key] = f
		if f.state == flightRetrying {
			c.lane(f.ref.lane).retrying++
			at := max(e.nextAt[f.ref.key], c.now)
			c.timers.Add(int64(at), 0, timer{kind: timerRetry, key: f.ref.key})
		}
	}
	for _, no := range slices.Sorted(maps.Keys(e.leases)) { // one history, one order
		r := e.leases[no]
		c.leases[no] = &leaseState{lane: r.lane, left: len(r.keys), keys: r.keys}
		c.timers.Add(int64(r.expires), 0, timer{kind: timerLease, lease: no})
	}
}
