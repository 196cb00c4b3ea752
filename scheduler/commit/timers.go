// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// Kinds of durable timers.
const (
	TimerForget byte = 1 // payload: an id whose outcome need not be remembered any more
	TimerExpire byte = 2 // payload: the key of a message with a ttl or not_after
	TimerBury   byte = 3 // payload: the key of a dead letter to be deleted
)

// ExpireOp finishes an unclaimed message whose time has passed.
type ExpireOp struct {
	core.ActExpire
	Report func() // metrics: the message expired; may be nil
	gone   bool   // it was finished otherwise
}

func (o *ExpireOp) stage(c *Committer) {
	loc, err := c.find.LocateKey(o.Ref.Key)
	if err != nil || loc.Place != find.PlaceRow && loc.Place != find.PlaceParked {
		o.gone = true
		c.then(core.EvWithdrawn{Keys: []delay.Key{o.Ref.Key}})
		return
	}
	it := core.FinishItem{
		Ref: o.Ref, Parked: loc.Place == find.PlaceParked, State: delay.Expired, Reason: "expired",
	}
	c.finishItem(c.now(), &it, loc.Record)
	c.then(core.EvWithdrawn{Keys: []delay.Key{o.Ref.Key}})
}

func (o *ExpireOp) finish(_ localstore.Synced, err error) {
	if err == nil && !o.gone && o.Report != nil {
		o.Report()
	}
}

// TimersOp works off durable timers that have come due.
type TimersOp struct {
	UpTo delay.Due
	Done chan int // capacity 1: how many were worked off; TimersChunk says that there may be more
}

// TimersChunk bounds the timers of one op.
const TimersChunk = 1000

func (o *TimersOp) stage(c *Committer) {
	n := 0
	var expire []core.Expiring
	err := c.store.ScanTimers(o.UpTo, func(at delay.Due, kind byte, payload []byte) bool {
		n++
		c.batch.DeleteTimer(at, kind, payload)
		switch kind {
		case TimerForget:
			c.forget(string(payload), at)
		case TimerBury:
			if key, ok := delay.DecodeKey(payload); ok {
				c.bury(key)
			}
		case TimerExpire:
			if key, ok := delay.DecodeKey(payload); ok {
				expire = c.expiring(expire, key)
			}
		}
		return n < TimersChunk
	})
	if err != nil {
		c.log.Error("timers unreadable", zap.Error(err))
	}
	if len(expire) > 0 {
		c.then(core.EvExpire{Refs: expire})
	}
	o.Done <- n
}

func (o *TimersOp) finish(localstore.Synced, error) {}

// forget drops an id whose dedupe window is over, unless it was used again or is still needed.
func (c *Committer) forget(id string, at delay.Due) {
	c.distinct(id)
	rec, ok, err := c.store.LookupID(id)
	over := rec.FinishedAt.Add(c.opts.DedupeWindow) <= at || planted.Is(planted.ReusedForgotten)
	if err != nil || !ok || !rec.State.Finished() || !over {
		return
	}
	if again := c.neededUntil(id, &rec, at); again > at {
		c.batch.PutTimer(again, TimerForget, []byte(id))
		return
	}
	c.batch.DeleteID(id)
}

// neededUntil is when to look again whether a finished id is still needed, 0 when it is not. The
// owner of a dead letter finds it by its id for as long as it is kept. And while a message that
// went on under another key may be delivered, receipts of its old key must find that out (S6).
func (c *Committer) neededUntil(id string, rec *localstore.IDRecord, at delay.Due) delay.Due {
	if p, _, err := c.store.Dead(rec.Key); err == nil {
		return max(at, p.DiedAt.Add(c.opts.DeadRetention)) + 1
	}
	made := c.ids.Make(c.shard, rec.Key)
	if string(made) == id {
		return 0
	}
	loc, err := c.find.LocateKey(rec.Key)
	next, known, err2 := c.store.LookupID(string(made))
	if err == nil && err2 == nil && loc.Place == find.PlaceNone && !(known && next.Key != rec.Key) {
		return 0
	}
	return max(at, c.now()).Add(c.opts.DedupeWindow)
}

// bury deletes a dead letter for good.
func (c *Committer) bury(key delay.Key) {
	if _, _, err := c.store.Dead(key); err != nil {
		return
	}
	c.batch.DeleteDead(key)
	c.mark(&delay.Mark{Key: key, State: delay.Dead, At: c.now()}, true)
}

// expiring adds the message of key to list, if it is still there.
func (c *Committer) expiring(list []core.Expiring, key delay.Key) []core.Expiring {
	loc, err := c.find.LocateKey(key)
	if err != nil || loc.Place != find.PlaceRow && loc.Place != find.PlaceParked {
		return list
	}
	m, err := delay.DecodeRecord(loc.Record)
	if err != nil {
		return list
	}
	return append(list, core.Expiring{
		Ref:    c.lanes.RefOf(key, &m, len(loc.Record)),
		Parked: loc.Place == find.PlaceParked,
	})
}
