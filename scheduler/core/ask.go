// SPDX-License-Identifier: Apache-2.0

package core

import "github.com/cicadamq/cicada/delay"

// EvTargets asks the core for its lanes.
type EvTargets struct{ Done chan []LaneStatus } // capacity 1

// LaneStatus is a lane as the core sees it.
type LaneStatus struct {
	Target    delay.Target
	InFlight  int    // with the sink, leased or between attempts
	Backlog   int64  // due and waiting: in memory and parked
	Delivered int64  // since the start
	LastError string // of an attempt
	Paused    bool
	Open      bool // the breaker is open
	Limit     delay.Limit
}

func (e EvTargets) apply(c *Core) {
	var out []LaneStatus
	at := make(map[uint32]int)
	for no, l := range c.live.From(0, c.live.End()) {
		at[no] = len(out)
		out = append(out, LaneStatus{
			Target: l.target, InFlight: l.inflight, Paused: l.paused, LastError: l.lastError,
			Backlog: int64(l.ready.len()) + l.backlog, Open: c.now < l.openUntil,
			Delivered: l.delivered, Limit: l.rate.limit,
		})
	}
	for _, f := range c.flights {
		if f.state != flightLeased && f.state != flightRetrying {
			continue
		}
		out[at[f.ref.Lane]].InFlight++
	}
	e.Done <- out
}

// Glance is how much the core holds in memory: messages, and bytes of the records of those in the
// wheel.
type Glance struct{ Hot, HotBytes int64 }

// EvGlance asks the core how much it holds.
type EvGlance struct{ Done chan Glance } // capacity 1

func (e EvGlance) apply(c *Core) {
	e.Done <- Glance{
		Hot:      int64(c.wheel.Len() + c.ready + len(c.flights)),
		HotBytes: c.wheel.Bytes(),
	}
}

// EvInspect asks the core about keys.
type EvInspect struct {
	Keys []delay.Key
	Done chan []Sight // capacity 1
}

// Sight is what the core sees of a key.
type Sight struct {
	Claimed  bool
	Hot      bool   // in memory, if its row is local
	Attempts uint32 // made so far; 0 when it is not claimed
}

func (e EvInspect) apply(c *Core) {
	out := make([]Sight, len(e.Keys))
	for i, k := range e.Keys {
		f, ok := c.flights[k]
		out[i] = Sight{Claimed: ok, Hot: ok || k.Less(c.loadedTo), Attempts: f.attempt}
	}
	e.Done <- out
}

// EvSync commits pending outcomes at once and says when that is on its way.
type EvSync struct{ Done chan struct{} }

func (e EvSync) apply(c *Core) {
	if c.finishBy != 0 {
		c.finishBy = c.now
		c.wantFinish()
	}
	close(e.Done)
}

// EvWithdraw is the committer's question before a change: may the message be taken away from
// delivery? A key that is granted must be followed by EvWithdrawn (C2).
type EvWithdraw struct {
	Key     delay.Key
	Parked  bool      // its row is parked
	Lane    uint32    // of a parked row
	Granted chan bool // capacity 1
}

func (e EvWithdraw) apply(c *Core) {
	var l *lane
	if e.Parked {
		l = c.lane(e.Lane)
	}
	e.Granted <- c.withdraw(e.Key, l)
}
