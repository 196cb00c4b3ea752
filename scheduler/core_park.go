// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"github.com/cicadamq/cicada/delay"
)

// parkItem is one row to be moved to its lane's parked rows.
type parkItem struct {
	ref     ref
	pos     uint64 // in the open set
	claimed bool
}

// actPark asks for rows to be parked; evParked answers when that is synced.
type actPark struct{ items []parkItem }

type evParked struct{ items []parkItem }

func (e evParked) apply(c *core) {
	c.parking -= len(e.items)
	for _, it := range e.items {
		key := it.ref.key
		l := c.lane(it.ref.lane)
		c.open.finish(it.pos)
		if f, ok := c.flights[key]; ok {
			f.parked, f.parking, f.pos = true, false, 0
			c.flights[key] = f
			continue
		}
		if it.claimed || c.skip(key) {
			continue // finished or changed while it was being parked
		}
		l.backlog++
		l.more = true
		switch {
		case l.loading:
			l.rewind = true
		case key.Less(l.cursor):
			l.cursor = key
		}
		c.touch(l)
	}
	c.finished = true
}

// actWatermark asks for the low watermark to be raised. seen is the cut of rule R7: the committer
// lowers mark to the first key it accepted after seen.
type actWatermark struct {
	mark delay.Key
	seen delay.Seq
}

// wantWatermark proposes the low watermark about once a second and parks what holds it back.
func (c *core) wantWatermark() {
	crowded := c.ready > maxReady*3/4
	if c.now < c.watermarkAt && !(crowded && c.parking == 0) {
		return
	}
	c.watermarkAt = c.now + watermarkIdle
	c.parkOld(crowded)
	c.open.shift()
	mark := c.loadedTo
	if fired := (delay.Key{Due: c.firedThrough + 1}); fired.Less(mark) {
		mark = fired
	}
	if low, ok := c.open.lowest(); ok {
		if low.Less(mark) {
			mark = low
		}
		c.watermarkAt = c.now + watermarkStep
	}
	if c.finished || len(c.flights) > 0 || c.ready > 0 {
		c.watermarkAt = c.now + watermarkStep
	}
	c.finished = false
	if c.watermark.Less(mark) {
		c.watermark = mark
		c.do(actWatermark{mark: mark, seen: c.lastSeq})
	}
}

// parkOld parks references that have been open for long, or the oldest ones when memory is short.
func (c *core) parkOld(crowded bool) {
	var items []parkItem
	taken := make(map[delay.Key]struct{})
	for i := range c.open.items {
		it := &c.open.items[i]
		if it.done || it.asked {
			continue
		}
		old := c.now >= it.firedAt+parkAfter
		if !old && !(crowded && len(taken) < maxReady/4) {
			break // the open set is in the order of firing
		}
		key := it.ref.key
		f, claimed := c.flights[key]
		if claimed && f.state == flightFinishing {
			continue
		}
		if !claimed {
			if !old && !c.lane(it.ref.lane).blocked(c) {
				continue
			}
			taken[key] = struct{}{}
		}
		if claimed {
			f.parking = true
			c.flights[key] = f
		}
		it.asked = true
		items = append(items, parkItem{
			ref: it.ref, pos: c.open.base + uint64(i) + 1, claimed: claimed,
		})
	}
	if len(items) == 0 {
		return
	}
	c.unready(items, taken)
	c.parking += len(items)
	for len(items) > parkChunk {
		c.do(actPark{items: items[:parkChunk]})
		items = items[parkChunk:]
	}
	c.do(actPark{items: items})
}

// blocked reports whether the lane could not claim now anyway.
func (l *lane) blocked(c *core) bool {
	if l.pull {
		return l.paused || l.waiters.len() == 0
	}
	return l.paused || l.inflight >= c.opts.Window || c.now < l.openUntil || l.trips > 0
}

// unready takes unclaimed references out of the ready queues of their lanes.
func (c *core) unready(items []parkItem, taken map[delay.Key]struct{}) {
	if len(taken) == 0 {
		return
	}
	seen := make(map[uint32]struct{})
	for _, it := range items {
		if _, done := seen[it.ref.lane]; done || it.claimed {
			continue
		}
		seen[it.ref.lane] = struct{}{}
		l := c.lane(it.ref.lane)
		before := l.ready.len()
		l.ready.filter(func(w waiting) bool {
			_, gone := taken[w.ref.key]
			return !gone
		})
		c.ready -= before - l.ready.len()
	}
}
