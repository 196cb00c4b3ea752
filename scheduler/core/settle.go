// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// Settling is a consumer's request to settle receipts, on its way through the core.
type Settling struct {
	Kind     Settlement
	Lane     uint32         // the queue's number
	Receipts []SettleKey    // what is settled
	Results  []SettleResult // filled; as long as Receipts
	Missing  []int          // filled: receipts of which the core knows nothing
	After    time.Duration  // Nack: pause before the next attempt
	HasAfter bool           // After is set; otherwise the pause of the attempt's number
	Lease    time.Duration  // Extend: from now
	Reason   string         // Nack
	Grants   []Grant        // filled for Extend: the new lease records to be written
	Done     chan error     // capacity 1; answered after the sync
}

// SettleKey is what a receipt names: one attempt at one message, under one owner of the shard.
type SettleKey struct {
	Key     delay.Key
	Epoch   delay.Epoch
	Attempt uint32
}

// EvSettle settles. Results that change something are answered after the commit (S6).
type EvSettle struct{ Settling *Settling }

func (e EvSettle) apply(c *Core) {
	s := e.Settling
	l := c.lane(s.Lane)
	before := len(c.finishes)
	act := ActFinish{Settle: s}
	var extended []delay.Key
	for i, r := range s.Receipts {
		f, ok := c.flights[r.Key]
		switch {
		case !ok:
			s.Missing = append(s.Missing, i)
		case f.ref.Lane != s.Lane:
			s.Results[i] = SettleNotFound
		case (f.attempt != r.Attempt && !planted.Is(planted.ReceiptUnread)) ||
			f.epoch != r.Epoch && !planted.Is(planted.EpochUnread):
			s.Results[i] = Superseded
			if planted.Is(planted.RefusalHidden) {
				s.Results[i] = Acked
			}
		case f.state == flightFinishing:
			// Settled before, perhaps not yet synced: our commit comes after that one.
			s.Results[i] = Superseded
			if s.Kind == Ack && f.ending == delay.Delivered {
				s.Results[i] = Acked
			}
		case s.Kind == Ack:
			s.Results[i] = Acked
			c.ack(l, f)
		case s.Kind == Nack:
			s.Results[i] = Nacked
			c.nack(l, f, s)
		case f.state != flightLeased:
			s.Results[i] = Superseded // the lease is over
		default:
			s.Results[i] = Extended
			extended = append(extended, r.Key)
		}
	}
	if len(extended) > 0 {
		s.Grants = c.extend(l, extended, s.Lease)
	}
	if planted.Is(planted.AcksOnTimer) {
		s.Done <- nil
		return
	}
	act.Items = c.finishes[before:len(c.finishes):len(c.finishes)]
	c.finishes = c.finishes[:before:before]
	if before == 0 {
		c.finishes, c.finishBy = nil, 0
	}
	c.do(act)
	c.touch(l)
}

func (c *Core) ack(l *lane, f flight) {
	l.delivered++
	if f.ref.Meta&RefOnce != 0 {
		c.unlease(&f)
		c.landed(f.ref.Key)
		return
	}
	c.finish(f, delay.Delivered, "", "")
}

func (c *Core) nack(l *lane, f flight, s *Settling) {
	if f.state != flightLeased {
		return // it is on its way to the next attempt anyway
	}
	if s.Reason != "" {
		l.lastError = s.Reason
	}
	switch {
	case planted.Is(planted.NackWholeLease):
		c.leaseOver(f.lease)
	case f.ref.Meta&RefOnce != 0:
		c.unlease(&f)
		c.landed(f.ref.Key)
	case f.stop:
		c.finish(f, delay.Dead, stopped, s.Reason)
	case f.last:
		c.finish(f, delay.Dead, "max_attempts", s.Reason)
	default:
		after := s.After
		if !s.HasAfter {
			after = c.pause(f.attempt, Outcome{})
		}
		c.retry(l, f, after, s.Reason)
	}
}

// extend moves keys to a new lease.
// Receipts name the epoch that made them, so those of one epoch share a lease.
func (c *Core) extend(l *lane, keys []delay.Key, lease time.Duration) []Grant {
	var grants []Grant
	for _, key := range keys {
		f := c.flights[key]
		at := slices.IndexFunc(grants, func(g Grant) bool { return g.Epoch == f.epoch })
		if at < 0 {
			at = len(grants)
			grants = append(grants, Grant{
				Epoch: f.epoch, Lease: c.newLease(),
				Expires: c.leaseEnd(lease),
			})
		}
		g := &grants[at]
		c.unlease(&f)
		f.lease = g.Lease
		c.flights[key] = f
		g.Claims = append(g.Claims, Claim{Ref: f.ref, Attempt: f.attempt})
	}
	for _, g := range grants {
		ls := &leaseState{lane: l.no, left: len(g.Claims)}
		for _, cl := range g.Claims {
			ls.keys = append(ls.keys, cl.Ref.Key)
		}
		c.leases[g.Lease] = ls
		c.timers.Add(int64(g.Expires), 0, timer{kind: timerLease, lease: g.Lease})
	}
	return grants
}

// EvStop stops further attempts of claimed messages (S5): what waits between attempts is dead at
// once, what is being attempted when the attempt fails. A crash does not undo it: it is answered
// after it is synced.
type EvStop struct {
	Key  delay.Key // the message
	Done chan bool // capacity 1: whether the message was claimed
}

func (e EvStop) apply(c *Core) {
	f, ok := c.flights[e.Key]
	if !ok || f.state == flightFinishing {
		e.Done <- false
		return
	}
	if f.state == flightRetrying || f.state == flightWaiting {
		at := len(c.finishes)
		c.finish(f, delay.Dead, stopped, "")
		act := ActFinish{Items: []FinishItem{c.finishes[at]}, Stop: e.Done}
		if c.finishes = c.finishes[:at]; at == 0 {
			c.finishes, c.finishBy = nil, 0
		}
		c.do(act)
		return
	}
	f.stop, f.noted = true, true
	c.flights[e.Key] = f
	c.do(ActFinish{
		Notes: []NoteItem{{Key: e.Key, Attempts: f.attempt, NextAt: c.now, Stopped: true}},
		Stop:  e.Done,
	})
}

// stopped is the reason of death of what was stopped.
const stopped = "stopped"

// EvExpire finishes messages whose time has passed and that nobody is working on. The rest is
// looked at when its attempt ends.
type EvExpire struct{ Refs []Expiring }

// Expiring is a message whose time has passed.
type Expiring struct {
	Ref    Ref
	Parked bool // its row is parked
}

func (e EvExpire) apply(c *Core) {
	for _, x := range e.Refs {
		f, claimed := c.flights[x.Ref.Key]
		switch {
		case claimed && (f.state == flightRetrying || f.state == flightWaiting ||
			planted.Is(planted.ExpiredInHand)):
			c.finish(f, delay.Expired, "expired", "")
		case claimed:
		default:
			var l *lane
			if x.Parked {
				l = c.lane(x.Ref.Lane)
			}
			if c.withdraw(x.Ref.Key, l) {
				c.do(ActExpire(x))
			}
		}
	}
}

// ActExpire asks for an unclaimed message to be finished as expired; EvWithdrawn answers (C2).
type ActExpire struct {
	Ref    Ref
	Parked bool
}

// EvRecovered brings back, at start, what was in flight before: leases and attempts.
type EvRecovered struct {
	Flights []RecoveredFlight
	Leases  map[uint64]RecoveredLease // by number
}

// RecoveredFlight is a message that was claimed and not finished before the restart: under a lease
// when it has one, otherwise between attempts.
type RecoveredFlight struct {
	Ref     Ref
	Lease   uint64      // number of its lease; 0 is none
	Epoch   delay.Epoch // of the lease
	Attempt uint32      // the last one made
	NextAt  delay.Due   // without a lease: when the next attempt is due
	Parked  bool
	Noted   bool // an attempt record exists
	Stopped bool // no further attempt may follow (S5)
	Last    bool // the attempt is the last one allowed
}

// RecoveredLease is a lease that was durable before the restart.
type RecoveredLease struct {
	Lane    uint32
	Expires delay.Due
	Keys    []delay.Key // those that are not settled
}

func (e EvRecovered) apply(c *Core) {
	for _, r := range e.Flights {
		f := flight{
			ref: r.Ref, lease: r.Lease, attempt: r.Attempt, epoch: r.Epoch, state: flightLeased,
			parked: r.Parked, noted: r.Noted, stop: r.Stopped, last: r.Last,
		}
		if r.Lease == 0 && r.Stopped {
			c.finish(f, delay.Dead, stopped, "")
			continue
		}
		if r.Lease == 0 {
			f.state = flightRetrying
			c.countRetrying(c.lane(r.Ref.Lane), 1)
			at := max(r.NextAt, c.now)
			c.timers.Add(int64(at), 0, timer{kind: timerRetry, key: r.Ref.Key})
		}
		c.flights[r.Ref.Key] = f
		c.lane(r.Ref.Lane).flying++
	}
	for _, no := range slices.Sorted(maps.Keys(e.Leases)) { // one history, one order
		r := e.Leases[no]
		c.leases[no] = &leaseState{lane: r.Lane, left: len(r.Keys), keys: r.Keys}
		c.timers.Add(int64(r.Expires), 0, timer{kind: timerLease, lease: no})
		if delay.Epoch(no>>leaseBits) == c.epoch {
			// The last epoch goes on (rule R11): the number of a lease is that of its record.
			c.leaseNo = max(c.leaseNo, no&(1<<leaseBits-1))
		}
	}
}

// Settlement is what a consumer says of a lease.
type Settlement uint8

// The settlements.
const (
	Ack Settlement = iota
	Nack
	Extend
)

// String is the word of the API.
func (k Settlement) String() string { return [...]string{"ack", "nack", "extend"}[k] }

// SettleResult is the answer to one receipt.
type SettleResult uint8

// The results of settling; each settlement has its own word for success.
const (
	SettleNotFound SettleResult = iota
	Acked
	Nacked
	Extended
	Superseded
	SettleUnknown // not committed in time; repeat
)

// String is the word of the API.
func (r SettleResult) String() string {
	return [...]string{"NOT_FOUND", "ACKED", "NACKED", "EXTENDED", "SUPERSEDED", "UNKNOWN"}[r]
}
