// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// GuardOp ends guarded messages as they were judged, each only if its row still stands: its source
// may have recalled it, or moved it, while it was judged (rule R18).
type GuardOp struct {
	Lane  delay.Target
	Items []GuardItem
	Done  chan error // capacity 1; answered after the sync
}

// GuardItem is one guarded message and its fate. Without a message, of which no copy could be read,
// it is only looked for.
type GuardItem struct {
	Key     delay.Key
	Message *delay.Message // as it was read
	Fate    broker.Fate    // not Held
	Reason  string
	Ended   bool // set: it ended now
	Gone    bool // set: its row stands no longer, now or before
}

// endOf is what becomes of a message that is not held any longer.
var endOf = [...]delay.State{
	broker.Suppressed: delay.Suppressed, broker.Released: delay.Delivered,
	broker.Refused: delay.Dead,
}

func (*GuardOp) alone() {}

func (o *GuardOp) stage(c *Committer) {
	now := c.now()
	keys := make([]delay.Key, len(o.Items))
	for i := range keys {
		keys[i] = o.Items[i].Key
	}
	rows := c.find.Rows(o.Lane, keys)
	for i := range o.Items {
		if c.full() {
			c.flush()
			if c.failed != nil {
				return
			}
		}
		c.endGuarded(now, &o.Items[i], rows)
	}
}

func (o *GuardOp) finish(_ localstore.Synced, err error) { o.Done <- err }

func (c *Committer) endGuarded(now delay.Due, it *GuardItem, rows find.Rows) {
	m := it.Message
	if m != nil {
		c.distinct(string(m.ID)) // what it reads next must see what this op has done to the id
	}
	loc, stands := c.standing(it.Key, m, rows)
	if it.Gone = !stands; m == nil || it.Gone && !planted.Is(planted.GuardedUnchecked) {
		return
	}
	ref := core.Ref{Key: it.Key, Lane: c.lanes.Number(m.Lane()), Meta: core.RefID}
	if m.Cold {
		ref.Meta |= core.RefCold
	}
	c.finishItem(now, &core.FinishItem{
		Ref: ref, Parked: loc.Place == find.PlaceParked, State: endOf[it.Fate], Attempts: 1,
		Reason: refused(it.Fate), Detail: it.Reason,
	}, loc.Record)
	it.Ended, it.Gone = true, true
}

func refused(f broker.Fate) string {
	if f == broker.Refused {
		return "rejected"
	}
	return ""
}

// guarded reports whether loc is a guarded message.
func guarded(loc find.Located) bool {
	return loc.Known && loc.Rec.Guarded || delay.RecordGuarded(loc.Record)
}

// mayTouch reports whether the guarded message at loc may be changed: by its source, or because its
// broker has lost it (rule R19).
func (q *ChangeRequest) mayTouch(loc find.Located) bool {
	return q.Sourced || !q.Lost.IsZero() && q.Lost == loc.Key || planted.Is(planted.GuardedChanged)
}

// notOurs answers a change of what belongs to another broker. A purge leaves it alone.
func (q *ChangeRequest) notOurs() ChangeResult {
	if q.Cut > 0 {
		return ChangeResult{Verdict: NotFound}
	}
	return ChangeResult{Err: fmt.Errorf("%w: message %s belongs to its broker until that has lost it",
		delay.ErrPrecondition, q.ID)}
}
