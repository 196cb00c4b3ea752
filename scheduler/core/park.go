// SPDX-License-Identifier: Apache-2.0

package core

import (
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// ParkItem is one row to be moved to its lane's parked rows.
type ParkItem struct {
	Ref     Ref
	pos     uint64 // in the open set
	Claimed bool
}

// ActPark asks for rows to be parked; EvParked answers when that is synced.
type ActPark struct{ Items []ParkItem }

// EvParked says that rows are parked, durably.
type EvParked struct{ Items []ParkItem }

func (e EvParked) apply(c *Core) {
	c.parking -= len(e.Items)
	for _, it := range e.Items {
		key := it.Ref.Key
		l := c.lane(it.Ref.Lane)
		if _, moving := c.moving[key]; moving {
			delete(c.moving, key)
			l.moving--
		}
		c.open.finish(it.pos)
		if f, ok := c.flights[key]; ok {
			f.parked, f.parking, f.pos = true, false, 0
			c.flights[key] = f
			continue
		}
		if it.Claimed || c.skip(key) {
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

// ActWatermark asks for the low watermark to be raised. Seen is the cut of rule R7: the committer
// lowers Mark to the first key it accepted after Seen (C3).
type ActWatermark struct {
	Mark delay.Key
	Seen delay.Seq
}

// wantWatermark proposes the low watermark about once a second and parks what holds it back.
func (c *Core) wantWatermark() {
	crowded := c.ready > maxReady*3/4 && c.parking == 0 && c.now >= c.crowdedAt
	if c.now < c.watermarkAt && !crowded {
		return
	}
	if crowded {
		c.crowdedAt = c.now + crowdedStep
	}
	c.watermarkAt = c.now + watermarkIdle
	if c.draining {
		return // what is parked after the last flush would not be uploaded
	}
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
		if planted.Is(planted.WatermarkTooHigh) {
			mark = mark.Next()
		}
		c.watermarkAt = c.now + watermarkStep
	}
	if c.finished || len(c.flights) > 0 || c.ready > 0 {
		c.watermarkAt = c.now + watermarkStep
	}
	c.finished = false
	if c.watermark.Less(mark) {
		c.watermark = mark
		c.do(ActWatermark{Mark: mark, Seen: c.lastSeq})
	}
}

// parkOld parks references that have been open for long, or the oldest ones when memory is short.
func (c *Core) parkOld(crowded bool) {
	var items []ParkItem
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
		key := it.ref.Key
		f, claimed := c.flights[key]
		if claimed && f.state == flightFinishing {
			continue
		}
		if !claimed {
			if !old && !c.lane(it.ref.Lane).blocked(c) {
				continue
			}
			taken[key] = struct{}{}
			c.moving[key] = struct{}{}
			c.lane(it.ref.Lane).moving++
		}
		if claimed {
			f.parking = true
			c.flights[key] = f
		}
		it.asked = true
		items = append(items, ParkItem{
			Ref: it.ref, pos: c.open.base + uint64(i) + 1, Claimed: claimed,
		})
	}
	if len(items) == 0 {
		return
	}
	c.unready(items, taken)
	c.parking += len(items)
	for len(items) > parkChunk {
		c.do(ActPark{Items: items[:parkChunk]})
		items = items[parkChunk:]
	}
	c.do(ActPark{Items: items})
}

// blocked reports whether the lane could not claim now anyway.
func (l *lane) blocked(c *Core) bool {
	if l.rate.dry(c.now) {
		return true
	}
	if l.pull {
		return l.paused || l.waiters.len() == 0
	}
	messages, _ := c.room(l)
	return l.paused || l.hungry || messages <= 0 || c.now < l.openUntil || l.trips > 0
}

// unready takes unclaimed references out of the ready queues of their lanes.
func (c *Core) unready(items []ParkItem, taken map[delay.Key]struct{}) {
	if len(taken) == 0 {
		return
	}
	seen := make(map[uint32]struct{})
	for _, it := range items {
		if _, done := seen[it.Ref.Lane]; done || it.Claimed {
			continue
		}
		seen[it.Ref.Lane] = struct{}{}
		l := c.lane(it.Ref.Lane)
		before := l.ready.len()
		l.ready.filter(func(w waiting) bool {
			_, gone := taken[w.ref.Key]
			return !gone
		})
		c.ready -= before - l.ready.len()
	}
}
