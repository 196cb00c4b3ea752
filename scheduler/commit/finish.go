// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// FinishOp commits outcomes, attempts and the end of leases.
type FinishOp struct {
	core.ActFinish
	Report func(FinishOp) // metrics; may be nil
	Done   chan error     // capacity 1, or nil; answered after the sync
	Quiet  bool           // the core must not be told: it has forgotten the flights already
}

func (o *FinishOp) stage(c *Committer) {
	if o.Settle != nil && planted.Is(planted.AckWithLease) {
		o.Items = nil
	}
	c.findParked(o.Items)
	records := c.recordsOf(o.Items)
	now := c.now() // once: a look at the clock costs as much as all else that an outcome needs
	for i := range o.Items {
		if it := &o.Items[i]; it.Ref.Meta&core.RefOnce == 0 || c.unfinished(it) {
			c.finishItem(now, it, records[it.Ref.Key])
		}
	}
	for _, n := range o.Notes {
		c.batch.PutProgress(n.Key, delay.Progress{
			State: delay.Claimed, Attempts: n.Attempts, NextAt: n.NextAt, LastError: n.Detail,
			Reason: reasonOf(n),
		})
	}
	for _, no := range o.Leases {
		c.batch.DeleteLease(no)
	}
	if o.Settle != nil {
		for _, g := range o.Settle.Grants {
			c.batch.PutLease(LeaseOf(g, c.lanes.Target(o.Settle.Lane)))
		}
	}
	if len(o.Items) > 0 && !o.Quiet {
		c.then(core.EvFinished{Items: o.Items})
	}
}

// StoppedReason is the reason in the progress of a message that must not be attempted again (S5).
const StoppedReason = "stopped"

func reasonOf(n core.NoteItem) string {
	if n.Stopped {
		return StoppedReason
	}
	return ""
}

func (o *FinishOp) finish(_ localstore.Synced, err error) {
	if o.Report != nil && err == nil {
		o.Report(*o)
	}
	if o.Settle != nil {
		o.Settle.Done <- err
	}
	if o.Stop != nil {
		o.Stop <- err == nil
	}
	if o.Done != nil {
		o.Done <- err
	}
}

// Runs tells fn of runs of equal outcomes, each run at once.
func (o *FinishOp) Runs(
	table *lanes.Table, fn func(target delay.Target, state delay.State, reason string, n int),
) {
	for i := 0; i < len(o.Items); {
		it, n := &o.Items[i], 1
		for i+n < len(o.Items) && sameEnd(it, &o.Items[i+n]) {
			n++
		}
		fn(table.Target(it.Ref.Lane), it.State, it.Reason, n)
		i += n
	}
}

// sameEnd reports whether two outcomes count as one.
func sameEnd(a, b *core.FinishItem) bool {
	return a.Ref.Lane == b.Ref.Lane && a.State == b.State && a.Reason == b.Reason
}

// LeaseOf is the durable record of a grant (rule R8).
func LeaseOf(g core.Grant, target delay.Target) *localstore.Lease {
	l := &localstore.Lease{
		No: g.Lease, Target: target, Epoch: g.Epoch, Expires: g.Expires,
		Entries: make([]localstore.LeaseEntry, len(g.Claims)),
	}
	for i, cl := range g.Claims {
		l.Entries[i] = localstore.LeaseEntry{Key: cl.Ref.Key, Attempt: cl.Attempt}
	}
	slices.SortFunc(l.Entries, func(a, b localstore.LeaseEntry) int { return a.Key.Compare(b.Key) })
	return l
}

// unfinished reports whether the row of an at-most-once message still stands: it may have been
// finished when it was handed over, or when its lease ended first.
func (c *Committer) unfinished(it *core.FinishItem) bool {
	c.flush()
	_, err := c.store.Row(it.Ref.Key)
	if err == nil {
		return true
	}
	_, parked, err := c.store.ParkedLane(it.Ref.Key)
	return err == nil && parked
}

// findParked looks for the rows that were being parked when their messages ended: the park was
// committed before this op, and the core did not know it yet.
func (c *Committer) findParked(items []core.FinishItem) {
	for i := range items {
		it := &items[i]
		if !it.Parking || it.Parked || planted.Is(planted.OutcomeMisplaced) {
			continue
		}
		_, parked, err := c.store.ParkedLane(it.Ref.Key)
		if err != nil {
			c.log.Error("parked row unreadable", zap.Stringer("key", it.Ref.Key), zap.Error(err))
		}
		it.Parked = parked
	}
}

// recordsOf reads the records that finishing needs: of ids, of dead letters, of unknown size.
func (c *Committer) recordsOf(items []core.FinishItem) map[delay.Key][]byte {
	var keys []delay.Key
	var records map[delay.Key][]byte
	for i := range items {
		it := &items[i]
		if it.Ref.Meta&core.RefID == 0 && it.State == delay.Delivered && it.Ref.Size() > 0 {
			continue
		}
		if records == nil {
			records = make(map[delay.Key][]byte)
		}
		if it.Parked {
			lane := c.lanes.Target(it.Ref.Lane).Hash()
			if rec, _, err := c.store.Parked(lane, it.Ref.Key); err == nil {
				records[it.Ref.Key] = rec
			}
			continue
		}
		keys = append(keys, it.Ref.Key)
	}
	if len(keys) == 0 {
		return records
	}
	slices.SortFunc(keys, delay.Key.Compare)
	var all []byte
	err := c.store.ReadRows(keys, func(i int, rec []byte) {
		if rec != nil {
			at := len(all)
			all = append(all, rec...)
			records[keys[i]] = all[at:len(all):len(all)]
		}
	})
	if err != nil {
		c.log.Error("records of finished messages unreadable", zap.Error(err))
	}
	return records
}

func (c *Committer) finishItem(now delay.Due, it *core.FinishItem, rec []byte) {
	key := it.Ref.Key
	size := it.Ref.Size()
	if rec != nil {
		size = len(rec)
	}
	if it.Parked {
		c.batch.DeleteParked(c.lanes.Target(it.Ref.Lane).Hash(), key, size)
	} else {
		c.batch.DeleteRow(key, size)
	}
	if it.Noted {
		c.batch.DeleteProgress(key)
	}
	c.books.Pending--
	if !it.Parked && it.Ref.Meta&core.RefCold == 0 {
		c.uncold--
	}
	switch it.State {
	case delay.Delivered:
		c.books.Delivered++
	case delay.Expired:
		c.books.Expired++
	case delay.Suppressed:
		c.books.Suppressed++
	default:
		if !planted.Is(planted.DeadUncounted) {
			c.books.Dead++
		}
	}
	if rec == nil || it.State == delay.Delivered && it.Ref.Meta&core.RefID == 0 {
		if it.Attempts > 1 {
			// Only then can a receipt of an earlier attempt turn up: tell it from the last one.
			c.outcomeAt(now, c.ids.Make(c.shard, key), localstore.IDRecord{
				Identity: delay.Identity{Key: key, Generation: 1}, Attempts: it.Attempts,
			}, it.State)
		}
		switch {
		case it.Parked: // a kept segment may hold it (rule R5)
			c.mark(&delay.Mark{Key: key, State: it.State, At: now}, true)
		case it.Ref.Meta&core.RefCold != 0:
			c.next.Done = append(c.next.Done, key)
		}
		return
	}
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		c.log.Error("record of a finished message is corrupt", zap.Stringer("key", key),
			zap.Error(err))
		return
	}
	c.finishNamed(now, it, &m, rec)
}

// finishNamed finishes what leaves more than nothing: an id's outcome, a dead letter, a mark.
func (c *Committer) finishNamed(
	now delay.Due, it *core.FinishItem, m *delay.Message, record []byte,
) {
	key := it.Ref.Key
	id := m.ID
	if id == "" {
		id = c.ids.Make(c.shard, key)
	}
	ident := delay.IdentityOf(key, m)
	if m.ID != "" && m.FirstDue != 0 { // it was moved or replaced another: the index knows better
		if old, ok, err := c.store.LookupID(string(id)); err == nil && ok && old.Key == key {
			ident = old.Identity
		}
	}
	over := it.State == delay.Delivered || it.State == delay.Suppressed
	if !over {
		died := delay.Progress{
			State: it.State, Attempts: it.Attempts, LastError: it.Detail, Reason: it.Reason,
			DiedAt: now,
		}
		c.batch.PutDead(key, died, record)
		c.batch.PutTimer(died.DiedAt.Add(c.opts.DeadRetention), TimerBury,
			delay.AppendKey(nil, key))
		c.keep(upload.Kept{Key: key, Dead: true})
		if c.tiered && !key.Less(c.meta.Boundary) {
			// Its segment is still to be hydrated, and must not bring it back (rule R1). The tier
			// gets no mark: that would bury the dead letter.
			c.batch.PutMark(&delay.Mark{Key: key, State: it.State, At: died.DiedAt})
		}
	}
	rec := localstore.IDRecord{Identity: ident, Attempts: it.Attempts}
	c.outcomeAt(now, id, rec, it.State)
	if made := c.ids.Make(c.shard, key); it.Attempts > 1 && made != id {
		// A receipt of an earlier attempt knows only the key.
		c.outcomeAt(now, made, rec, it.State)
	}
	if over {
		c.mark(&delay.Mark{
			Key: key, State: it.State, At: now, ID: string(id), Identity: ident,
			Attempts: it.Attempts,
		}, it.Ref.Meta&core.RefCold != 0 || it.Parked)
	}
}

// keep has a message uploaded again (rule R5).
func (c *Committer) keep(r upload.Kept) {
	c.next.Kept = append(c.next.Kept, r)
	c.upload.Owe()
}

// ParkOp moves rows to the parked rows of their lanes (rule R8 for the claimed flag).
type ParkOp struct{ Items []core.ParkItem }

func (o *ParkOp) stage(c *Committer) {
	items := slices.Clone(o.Items)
	slices.SortFunc(items, func(a, b core.ParkItem) int { return a.Ref.Key.Compare(b.Ref.Key) })
	keys := make([]delay.Key, len(items))
	for i := range items {
		keys[i] = items[i].Ref.Key
	}
	err := c.store.ReadRows(keys, func(i int, rec []byte) {
		if rec == nil {
			return // finished or changed since
		}
		lane := c.lanes.Target(items[i].Ref.Lane).Hash()
		claimed := items[i].Claimed || c.maybeClaimed(c.lanes.Target(items[i].Ref.Lane), keys[i])
		claimed = claimed && !planted.Is(planted.ParkedUnclaimed)
		c.batch.Park(lane, keys[i], claimed, rec)
		if items[i].Ref.Meta&core.RefCold == 0 {
			c.uncold--
		}
		c.keep(upload.Kept{Key: keys[i], Lane: lane})
	})
	if err != nil {
		c.fail(err)
		return
	}
	c.then(core.EvParked{Items: o.Items})
}

func (o *ParkOp) finish(localstore.Synced, error) {}
