// SPDX-License-Identifier: Apache-2.0

package core

import (
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// loadState is the load under way (rule R7): rows of [lower, upper) with seq <= cut. What is
// accepted into the range meanwhile waits in added until the load says how far it came.
type loadState struct {
	lower, upper delay.Key
	cut          delay.Seq
	added        []Ref
}

// ActLoad asks for the references of at most LoadChunk rows of [lower, upper) with seq <= cut.
type ActLoad struct {
	Lower, Upper delay.Key
	Cut          delay.Seq
}

// EvLoaded answers: every row of the range below next was returned.
type EvLoaded struct {
	Refs []Ref
	Next delay.Key // Upper of the load when it was read to its end
}

func (e EvLoaded) apply(c *Core) {
	ld := c.load
	c.load = nil
	c.loads--
	for _, r := range e.Refs {
		c.enter(r)
	}
	for _, r := range ld.added {
		if r.Key.Less(e.Next) {
			c.enter(r)
		}
	}
	c.loadedTo = e.Next
	if c.watermark.Due < c.now-watermarkIdle {
		c.watermarkAt = c.now // after a start it is far behind
	}
	c.sweep()
}

// EvLoadFailed lets the load be asked for again after a pause.
type EvLoadFailed struct{}

func (EvLoadFailed) apply(c *Core) {
	c.load = nil
	c.loads--
	c.watermarkAt = c.now.Add(100 * time.Millisecond)
	c.sweep()
}

// enter puts a row into the wheel, unless it is known already: withdrawn, or in flight since
// before a restart.
func (c *Core) enter(r Ref) {
	if _, gone := c.gone[r.Key]; gone && !planted.Is(planted.FinishedLoaded) {
		return // recovered, and finished while it was being read
	}
	if w, ok := c.withdrawn[r.Key]; ok && !planted.Is(planted.WithdrawnLoaded) {
		w.entered = false
		c.withdrawn[r.Key] = w
		return
	}
	if len(c.flights) > 0 {
		if f, ok := c.flights[r.Key]; ok {
			f.ref = r
			f.pos = c.open.add(r, c.now)
			c.flights[r.Key] = f
			return
		}
	}
	c.lane(r.Lane).hot++
	c.wheel.Add(int64(r.Key.Due), int64(r.Size()), r)
}

// wantLoad keeps the wheel filled for the hot window, below the boundary and within the bounds.
func (c *Core) wantLoad() {
	if c.load != nil || c.wheel.Len() > maxHot || c.ready >= maxReady {
		return
	}
	want := delay.Key{Due: c.now.Add(c.opts.HotWindow)}
	if c.boundary.Less(want) && !planted.Is(planted.LoadPastBoundary) {
		want = c.boundary
	}
	// Loading in steps of a quarter of the window saves loads; what is due now is always loaded.
	slack := delay.Key{Due: c.now.Add(c.opts.HotWindow * 3 / 4)}
	if !c.loadedTo.Less(want) || slack.Less(c.loadedTo) && want != c.boundary {
		return
	}
	lower := c.loadedTo
	if planted.Is(planted.WindowFromNow) {
		lower = delay.Key{Due: c.now}
	}
	c.load = &loadState{lower: lower, upper: want, cut: c.lastSeq}
	c.loads++
	c.do(ActLoad{Lower: lower, Upper: want, Cut: c.lastSeq})
}

// EvAccepted announces committed and synced rows, in the order of their seqs. Rows that are due
// beyond what has been loaded are none of the core's business yet.
type EvAccepted struct {
	Refs []Ref
	Last delay.Seq // every seq up to here is announced by now
}

func (e EvAccepted) apply(c *Core) {
	c.lastSeq = max(c.lastSeq, e.Last)
	for _, r := range e.Refs {
		switch {
		case r.Key.Less(c.loadedTo):
			c.enter(r)
		case planted.Is(planted.LoadMissesFresh):
		case c.load != nil && r.Key.Less(c.load.upper):
			c.load.added = append(c.load.added, r)
		}
	}
}

// withdrawal remembers a key that was taken away by a change, until it cannot come up any more:
// the change is committed, no load can still return the row, and the wheel let go of it.
type withdrawal struct {
	entered   bool // in the wheel or a ready queue
	committed bool
}

// withdraw takes key away from delivery for a change. It reports false when the message is
// claimed. Every granted key is followed by an EvWithdrawn (C2). parked is set for a parked row.
func (c *Core) withdraw(key delay.Key, parked *lane) bool {
	if _, claimed := c.flights[key]; claimed {
		return false
	}
	if parked != nil {
		before := parked.parked.len()
		parked.parked.filter(func(r Ref) bool { return r.Key != key })
		c.withdrawn[key] = withdrawal{}
		parked.backlog -= int64(before - parked.parked.len())
		return true
	}
	c.withdrawn[key] = withdrawal{entered: key.Less(c.loadedTo) && key.Seq <= c.lastSeq}
	return true
}

// EvWithdrawn says that the change of a granted key is committed (or was given up: then the row
// still lives and must be taken back in).
type EvWithdrawn struct {
	Keys []delay.Key
	Back []Ref // not parked
}

func (e EvWithdrawn) apply(c *Core) {
	for _, k := range e.Keys {
		w, ok := c.withdrawn[k]
		if !ok {
			continue
		}
		w.committed = true
		switch {
		case w.entered:
			c.withdrawn[k] = w
		case c.loads > 0 || k.Seq > c.lastSeq:
			c.withdrawn[k] = w
			c.sweeping = append(c.sweeping, k)
		default:
			delete(c.withdrawn, k)
		}
	}
	for _, r := range e.Back {
		if w, ok := c.withdrawn[r.Key]; ok {
			delete(c.withdrawn, r.Key)
			if !w.entered && r.Key.Less(c.loadedTo) {
				c.enter(r)
			}
		}
	}
}

// sweep forgets withdrawn keys that the finished loads could have returned.
func (c *Core) sweep() {
	if c.loads > 0 {
		return
	}
	clear(c.gone)
	left := c.sweeping[:0]
	for _, k := range c.sweeping {
		switch w, ok := c.withdrawn[k]; {
		case !ok || w.entered:
		case k.Seq > c.lastSeq:
			left = append(left, k)
		default:
			delete(c.withdrawn, k)
		}
	}
	c.sweeping = left
}

// skip reports whether a reference that comes up was withdrawn, and forgets it.
func (c *Core) skip(key delay.Key) bool {
	if len(c.withdrawn) == 0 {
		return false
	}
	w, ok := c.withdrawn[key]
	if !ok {
		return false
	}
	if w.committed {
		delete(c.withdrawn, key)
	} else {
		w.entered = false
		c.withdrawn[key] = w
	}
	return true
}
