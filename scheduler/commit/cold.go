// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// HydrateOp brings cold messages back into rows, unless they are marked (the race with a cancel is
// decided here, rule R1) or still there.
type HydrateOp struct {
	Keys     []delay.Key // sorted
	Recs     [][]byte    // their records
	From     delay.Key   // everything cold in [From, Boundary) is in this op
	Boundary delay.Key   // L is raised to it
	Fresh    int         // set: messages that a bulk cancel had cancelled, counted now
	Done     chan error  // capacity 1; answered after the sync

	failed error
}

func (o *HydrateOp) stage(c *Committer) {
	if c.meta.Boundary.Less(o.From) {
		// The op before this one failed: raising L now would pass over what it held.
		o.failed = fmt.Errorf("%w: hydrate from %s, the boundary is %s", delay.ErrUnavailable,
			o.From, c.meta.Boundary)
		return
	}
	skip, err := c.present(o.Keys)
	bulk, before := slices.Clone(c.bulk.All()), c.books.Cancelled
	if err == nil {
		err = c.passBulk(bulk, o.Boundary)
	}
	if o.failed = err; err != nil {
		return // L stays where it is, and the caller tries again
	}
	for i, key := range o.Keys {
		if skip[i] || !planted.Is(planted.PredicateForgotten) &&
			c.cancelCold(bulk, key, o.Recs[i], true) {
			continue
		}
		c.batch.HydrateRow(key, o.Recs[i])
	}
	o.Fresh = int(c.books.Cancelled - before)
	if c.meta.Boundary.Less(o.Boundary) {
		c.meta.Boundary = o.Boundary
		c.changed()
		c.then(core.EvBoundary{Boundary: o.Boundary})
	}
	for i := range bulk {
		advance(&bulk[i], o.Boundary)
	}
	c.setBulk(bulk)
}

func (o *HydrateOp) finish(_ localstore.Synced, err error) { o.Done <- errors.Join(o.failed, err) }

// DropOp turns warm rows cold. The committer looks again: a row may be finished by now. What a bulk
// cancel covers stays, to be cancelled one by one: it would be counted as cold otherwise.
type DropOp struct {
	Keys []delay.Key // sorted
	Seq  delay.Seq   // the upload that holds them all
	Done chan error  // capacity 1; answered after the sync
}

func (o *DropOp) stage(c *Committer) {
	if c.meta.Uploaded < o.Seq && !planted.Is(planted.DropBeforeNoted) {
		return // the upload is not noted locally yet (C7)
	}
	err := c.store.ReadRows(o.Keys, func(i int, rec []byte) {
		far := !o.Keys[i].Less(c.meta.Boundary) || planted.Is(planted.DropBelowBoundary)
		if rec != nil && far && !c.bulk.Covers(o.Keys[i], rec) {
			c.batch.DropRow(o.Keys[i], len(rec))
		}
	})
	if err != nil {
		c.log.Error("rows unreadable while dropping", zap.Error(err))
	}
}

func (o *DropOp) finish(_ localstore.Synced, err error) { o.Done <- err }

// IDsOp stores ids of pending messages, unless something newer is known of them.
type IDsOp struct {
	IDs      []string
	Idents   []delay.Identity // what they name
	Complete bool             // these are the last ones
	Done     chan error       // capacity 1; answered after the sync
}

func (o *IDsOp) stage(c *Committer) {
	for i, id := range o.IDs {
		c.distinct(id)
		old, known, err := c.store.LookupID(id)
		if err != nil {
			c.log.Error("id unreadable", zap.Error(err))
			continue
		}
		ident := o.Idents[i]
		if known && (old.Generation > ident.Generation || ident.Key.Seq < old.Key.Seq ||
			old.State.Finished() && ident.Key.Seq == old.Key.Seq) {
			continue // an outcome stands only for its own generation
		}
		if loc, err := c.find.LocateKey(ident.Key); err != nil || loc.Place == find.PlaceNone {
			continue
		}
		c.batch.PutID(id, localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	}
	if o.Complete {
		c.meta.IDsComplete = true
		c.changed()
	}
}

func (o *IDsOp) finish(_ localstore.Synced, err error) { o.Done <- err }
