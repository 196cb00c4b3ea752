// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Kinds of durable timers.
const (
	timerForget byte = 1 // payload: an id whose outcome need not be remembered any more
	timerExpire byte = 2 // payload: the key of a message with a ttl or not_after
	timerBury   byte = 3 // payload: the key of a dead letter to be deleted
)

// finishOp commits outcomes, attempts and the end of leases.
type finishOp struct {
	actFinish
	report func(finishOp) // metrics; may be nil
	done   chan error     // may be nil
	quiet  bool           // the core must not be told: it has forgotten the flights already
}

func (o *finishOp) stage(c *committer) {
	c.findParked(o.items)
	records := c.recordsOf(o.items)
	for i := range o.items {
		c.finishItem(&o.items[i], records[o.items[i].ref.key])
	}
	for _, n := range o.notes {
		c.batch.PutProgress(n.key, delay.Progress{
			State: delay.Claimed, Attempts: n.attempts, NextAt: n.nextAt, LastError: n.detail,
		})
	}
	for _, no := range o.leases {
		c.batch.DeleteLease(no)
	}
	if o.settle != nil && len(o.settle.grant.claims) > 0 {
		c.batch.PutLease(leaseOf(o.settle.grant, c.lanes.target(o.settle.lane)))
	}
	if len(o.items) > 0 && !o.quiet {
		c.then(evFinished{items: o.items})
	}
}

func (o *finishOp) finish(_ localstore.Synced, err error) {
	if o.report != nil && err == nil {
		o.report(*o)
	}
	if o.settle != nil {
		o.settle.done <- err
	}
	if o.done != nil {
		o.done <- err
	}
}

// leaseOf is the durable record of a grant (rule R8).
func leaseOf(g grant, target delay.Target) *localstore.Lease {
	l := &localstore.Lease{
		No: g.lease, Target: target, Epoch: delay.Epoch(g.lease >> 40), Expires: g.expires,
		Entries: make([]localstore.LeaseEntry, len(g.claims)),
	}
	for i, cl := range g.claims {
		l.Entries[i] = localstore.LeaseEntry{Key: cl.ref.key, Attempt: cl.attempt}
	}
	slices.SortFunc(l.Entries, func(a, b localstore.LeaseEntry) int { return a.Key.Compare(b.Key) })
	return l
}

// findParked looks for the rows that were being parked when their messages ended: the park was
// committed before this op, and the core did not know it yet.
func (c *committer) findParked(items []finishItem) {
	for i := range items {
		it := &items[i]
		if !it.parking || it.parked {
			continue
		}
		_, parked, err := c.store.ParkedLane(it.ref.key)
		if err != nil {
			c.log.Error("parked row unreadable", zap.Stringer("key", it.ref.key), zap.Error(err))
		}
		it.parked = parked
	}
}

// recordsOf reads the records that finishing needs: of ids, of dead letters, of unknown size.
func (c *committer) recordsOf(items []finishItem) map[delay.Key][]byte {
	var keys []delay.Key
	var records map[delay.Key][]byte
	for i := range items {
		it := &items[i]
		if it.ref.meta&refID == 0 && it.state == delay.Delivered && it.ref.size() > 0 {
			continue
		}
		if records == nil {
			records = make(map[delay.Key][]byte)
		}
		if it.parked {
			lane := c.lanes.target(it.ref.lane).Hash()
			if rec, _, err := c.store.Parked(lane, it.ref.key); err == nil {
				records[it.ref.key] = rec
			}
			continue
		}
		keys = append(keys, it.ref.key)
	}
	if len(keys) == 0 {
		return records
	}
	slices.SortFunc(keys, delay.Key.Compare)
	err := c.store.ReadRows(keys, func(i int, rec []byte) {
		if rec != nil {
			records[keys[i]] = slices.Clone(rec)
		}
	})
	if err != nil {
		c.log.Error("records of finished messages unreadable", zap.Error(err))
	}
	return records
}

func (c *committer) finishItem(it *finishItem, rec []byte) {
	key := it.ref.key
	size := it.ref.size()
	if rec != nil {
		size = len(rec)
	}
	if it.parked {
		c.batch.DeleteParked(c.lanes.target(it.ref.lane).Hash(), key, size)
	} else {
		c.batch.DeleteRow(key, size)
	}
	if it.noted {
		c.batch.DeleteProgress(key)
	}
	c.books.Pending--
	if !it.parked && it.ref.meta&refCold == 0 {
		c.uncold--
	}
	switch it.state {
	case delay.Delivered:
		c.books.Delivered++
	case delay.Expired:
		c.books.Expired++
	default:
		c.books.Dead++
	}
	if rec == nil || it.state == delay.Delivered && it.ref.meta&refID == 0 {
		if it.attempts > 1 {
			// Only then can a receipt of an earlier attempt turn up: tell it from the last one.
			c.outcome(c.ids.Make(c.shard, key), localstore.IDRecord{
				Identity: delay.Identity{Key: key, Generation: 1}, Attempts: it.attempts,
			}, it.state)
		}
		switch {
		case it.parked: // a kept segment may hold it (rule R5)
			c.mark(&delay.Mark{Key: key, State: it.state, At: c.now()}, true)
		case it.ref.meta&refCold != 0:
			c.next.done = append(c.next.done, key)
		}
		return
	}
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		c.log.Error("record of a finished message is corrupt", zap.Stringer("key", key),
			zap.Error(err))
		return
	}
	c.finishNamed(it, &m, rec)
}

// finishNamed finishes what leaves more than nothing: an id's outcome, a dead letter, a mark.
func (c *committer) finishNamed(it *finishItem, m *delay.Message, rec []byte) {
	key := it.ref.key
	id := m.ID
	if id == "" {
		id = c.ids.Make(c.shard, key)
	}
	ident := delay.IdentityOf(key, m)
	if m.ID != "" {
		if old, ok, err := c.store.LookupID(string(id)); err == nil && ok && old.Key == key {
			ident = old.Identity
		}
	}
	if it.state != delay.Delivered {
		died := delay.Progress{
			State: it.state, Attempts: it.attempts, LastError: it.detail, Reason: it.reason,
			DiedAt: c.now(),
		}
		c.batch.PutDead(key, died, rec)
		c.batch.PutTimer(died.DiedAt.Add(c.opts.DeadRetention), timerBury,
			delay.AppendKey(nil, key))
		c.next.kept = append(c.next.kept, keptRef{key: key, dead: true})
	}
	c.outcome(id, localstore.IDRecord{Identity: ident, Attempts: it.attempts}, it.state)
	if it.state == delay.Delivered {
		c.mark(&delay.Mark{
			Key: key, State: it.state, At: c.now(), ID: string(id), Identity: ident,
			Attempts: it.attempts,
		}, it.ref.meta&refCold != 0 || it.parked)
	}
}

// parkOp moves rows to the parked rows of their lanes (rule R8 for the claimed flag).
type parkOp struct{ items []parkItem }

func (o *parkOp) stage(c *committer) {
	items := slices.Clone(o.items)
	slices.SortFunc(items, func(a, b parkItem) int { return a.ref.key.Compare(b.ref.key) })
	keys := make([]delay.Key, len(items))
	for i := range items {
		keys[i] = items[i].ref.key
	}
	err := c.store.ReadRows(keys, func(i int, rec []byte) {
		if rec == nil {
			return // finished or changed since
		}
		lane := c.lanes.target(items[i].ref.lane).Hash()
		c.batch.Park(lane, keys[i], items[i].claimed, rec)
		if items[i].ref.meta&refCold == 0 {
			c.uncold--
		}
		c.next.kept = append(c.next.kept, keptRef{key: keys[i], lane: lane})
	})
	if err != nil {
		c.fail(err)
		return
	}
	c.then(evParked{items: o.items})
}

func (o *parkOp) finish(localstore.Synced, error) {}

// metaOp changes the shard's scalar state.
type metaOp struct {
	change func(c *committer)
	done   chan error // may be nil
}

func (o *metaOp) stage(c *committer) {
	o.change(c)
	c.changed()
}

func (o *metaOp) finish(_ localstore.Synced, err error) {
	if o.done != nil {
		o.done <- err
	}
}

// raiseHorizon writes the claim horizon ahead (rule R8).
func raiseHorizon(h delay.Due) op {
	return &metaOp{change: func(c *committer) {
		c.meta.ClaimHorizon = max(c.meta.ClaimHorizon, h)
		c.then(evHorizon{horizon: c.meta.ClaimHorizon})
	}}
}

// raiseWatermark writes the low watermark, lowered to what was accepted after the core looked, and
// removes the drained rows by range: scanning point tombstones costs 0.5 s per million.
func raiseWatermark(a actWatermark) op {
	return &metaOp{change: func(c *committer) {
		mark := a.mark
		left := c.recent[:0]
		for _, r := range c.recent {
			if r.last <= a.seen {
				continue
			}
			left = append(left, r)
			if r.low.Less(mark) {
				mark = r.low
			}
		}
		c.recent = left
		if c.lowest.Less(mark) {
			mark = c.lowest
		}
		if c.meta.Boundary.Less(mark) {
			mark = c.meta.Boundary
		}
		if !c.meta.Watermark.Less(mark) {
			return
		}
		c.meta.Watermark = mark
		if mark.Due-c.ranged.Due >= rangeStep {
			c.batch.DeleteRowsBelow(c.ranged, mark)
			c.ranged = mark
		}
	}}
}

// rangeStep is how far the watermark moves, in ms, between removals of drained rows by range.
const rangeStep = 10_000

// expireOp finishes an unclaimed message whose time has passed.
type expireOp struct{ actExpire }

func (o *expireOp) stage(c *committer) {
	loc, err := c.find.locateKey(o.ref.key)
	if err != nil || loc.place != placeRow && loc.place != placeParked {
		c.then(evWithdrawn{keys: []delay.Key{o.ref.key}})
		return
	}
	it := finishItem{
		ref: o.ref, parked: loc.place == placeParked, state: delay.Expired, reason: "expired",
	}
	c.finishItem(&it, loc.record)
	c.then(evWithdrawn{keys: []delay.Key{o.ref.key}})
}

func (o *expireOp) finish(localstore.Synced, error) {}

// timersOp works off durable timers that have come due.
type timersOp struct {
	upTo delay.Due
	done chan int // how many
}

// timersChunk bounds one op.
const timersChunk = 1000

func (o *timersOp) stage(c *committer) {
	n := 0
	var expire []expiring
	err := c.store.ScanTimers(o.upTo, func(at delay.Due, kind byte, payload []byte) bool {
		n++
		c.batch.DeleteTimer(at, kind, payload)
		switch kind {
		case timerForget:
			c.forget(string(payload), at)
		case timerBury:
			if key, ok := delay.DecodeKey(payload); ok {
				c.bury(key)
			}
		case timerExpire:
			if key, ok := delay.DecodeKey(payload); ok {
				expire = c.expiring(expire, key)
			}
		}
		return n < timersChunk
	})
	if err != nil {
		c.log.Error("timers unreadable", zap.Error(err))
	}
	if len(expire) > 0 {
		c.then(evExpire{refs: expire})
	}
	o.done <- n
}

func (o *timersOp) finish(localstore.Synced, error) {}

// forget drops an id whose dedupe window is over, unless it was used again.
func (c *committer) forget(id string, at delay.Due) {
	c.distinct(id)
	rec, ok, err := c.store.LookupID(id)
	if err == nil && ok && rec.State.Finished() && rec.FinishedAt.Add(c.opts.DedupeWindow) <= at {
		c.batch.DeleteID(id)
	}
}

// bury deletes a dead letter for good.
func (c *committer) bury(key delay.Key) {
	if _, _, err := c.store.Dead(key); err != nil {
		return
	}
	c.batch.DeleteDead(key)
	c.mark(&delay.Mark{Key: key, State: delay.Dead, At: c.now()}, true)
}

func (c *committer) expiring(list []expiring, key delay.Key) []expiring {
	loc, err := c.find.locateKey(key)
	if err != nil || loc.place != placeRow && loc.place != placeParked {
		return list
	}
	m, err := delay.DecodeRecord(loc.record)
	if err != nil {
		return list
	}
	return append(list, expiring{
		ref:    c.refOf(key, &m, len(loc.record)),
		parked: loc.place == placeParked,
	})
}

// refOf is the reference of a stored message.
func (c *committer) refOf(key delay.Key, m *delay.Message, size int) ref {
	return refOf(c.lanes, key, m, size)
}

func refOf(lanes *laneNames, key delay.Key, m *delay.Message, size int) ref {
	r := ref{key: key, lane: lanes.number(m.Target), meta: uint32(size)}
	if m.Cold {
		r.meta |= refCold
	}
	if m.ID != "" {
		r.meta |= refID
	}
	if m.Mode == delay.AtMostOnce {
		r.meta |= refOnce
	}
	return r
}
