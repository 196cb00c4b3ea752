// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/find"
)

// MaxBulk bounds the bulk cancels that are kept at a time: every cold message that is read is held
// against each of them.
const MaxBulk = 256

// setBulk replaces the list for everyone, and stores what has changed in it.
func (c *Committer) setBulk(all []delay.Predicate) {
	old := c.bulk.All()
	for i := range all {
		fresh := i >= len(old)
		if fresh || all[i] != old[i] && !planted.Is(planted.PredicateCountedTwice) {
			c.batch.PutPredicate(&all[i])
		}
	}
	c.bulk.Set(all)
}

// BulkOp makes a bulk cancel of what is cold now.
type BulkOp struct {
	// Predicate is the filter, and afterwards what was stored. Its Seq is set in any case: what is
	// accepted from now on has a higher one.
	Predicate delay.Predicate
	MayHold   func(p *delay.Predicate) bool // may the bucket hold a cold message of it?
	Made      bool                          // set: it was stored; otherwise nothing has changed
	Outbox    uint64                        // set: with the marks below it the bucket holds it too
	Done      chan error                    // capacity 1; answered after the sync
}

func (o *BulkOp) alone() {}

func (o *BulkOp) stage(c *Committer) {
	p := &o.Predicate
	p.Seq, p.Lower = c.nextSeq(), c.meta.Boundary
	p.At = max(c.now(), c.meta.Watermark.Due)
	p.Counted, p.Swept = p.Begin(), p.Begin()
	// What an earlier owner may have handed out must not be covered: its cancel cannot be promised.
	claimable := p.Lower.Due <= c.meta.LostUpTo
	all := c.bulk.All()
	if !c.tiered || claimable || len(all) >= MaxBulk || !o.MayHold(p) {
		return
	}
	o.Made = true
	// It takes a number of the outbox, so that whoever waits for that waits for it (rule R13).
	c.meta.OutboxNext++
	c.changed()
	o.Outbox = c.meta.OutboxNext
	c.unpassed[p.Seq] = struct{}{}
	c.setBulk(append(slices.Clone(all), *p))
}

func (o *BulkOp) finish(_ localstore.Synced, err error) { o.Done <- err }

// BulkPassed tells that the local rows which p covers were all cancelled.
func BulkPassed(seq delay.Seq, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) { delete(c.unpassed, seq) }}
}

// BulkRetire drops bulk cancels that are not needed any more.
func BulkRetire(seqs []delay.Seq, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		left := slices.DeleteFunc(slices.Clone(c.bulk.All()), func(p delay.Predicate) bool {
			return slices.Contains(seqs, p.Seq)
		})
		for _, seq := range seqs {
			c.batch.DeletePredicate(seq)
			delete(c.unpassed, seq)
		}
		c.bulk.Set(left)
	}}
}

// SweepOp counts what a bulk cancel covers in a range.
type SweepOp struct {
	Seq      delay.Seq   // of the bulk cancel
	From     delay.Key   // everything it covers in the bucket
	Next     delay.Key   // of [From, Next)
	Keys     []delay.Key // is here, sorted
	Recs     [][]byte    // the records
	Fresh    int         // set: messages counted now
	Finished bool        // set: there is nothing left to sweep
	Done     chan error  // capacity 1; answered after the sync

	failed error
}

func (o *SweepOp) alone() {}

func (o *SweepOp) stage(c *Committer) {
	all := slices.Clone(c.bulk.All())
	i := find.IndexOf(all, o.Seq)
	if i < 0 {
		o.Finished = true
		return
	}
	if all[i].Swept.Less(o.From) {
		panic(fmt.Sprintf("BUG: sweep from %s, swept up to %s", o.From, all[i].Swept))
	}
	lower := all[i].Swept
	if lower.Less(c.meta.Boundary) {
		lower = c.meta.Boundary // a hydrate has come first
	}
	at, _ := slices.BinarySearchFunc(o.Keys, lower, delay.Key.Compare)
	keys, recs := o.Keys[at:], o.Recs[at:]
	skip, err := c.present(keys)
	if o.failed = err; err != nil {
		return
	}
	before := c.books.Cancelled
	for n, key := range keys {
		if !skip[n] {
			c.cancelCold(all, key, recs[n], false)
		}
	}
	o.Fresh = int(c.books.Cancelled - before)
	advance(&all[i], o.Next)
	o.Finished = !all[i].Swept.Less(all[i].Upper())
	c.setBulk(all)
}

func (o *SweepOp) finish(_ localstore.Synced, err error) { o.Done <- errors.Join(o.failed, err) }

func advance(p *delay.Predicate, to delay.Key) {
	if p.Counted.Less(to) {
		p.Counted = to
	}
	if p.Swept.Less(to) {
		p.Swept = to
	}
}

// present tells which of the keys of cold messages must be left alone: their rows were not dropped
// yet, or they are marked.
func (c *Committer) present(keys []delay.Key) ([]bool, error) {
	skip := make([]bool, len(keys))
	if len(keys) == 0 {
		return skip, nil
	}
	err := c.store.ReadRows(keys, func(i int, rec []byte) { skip[i] = rec != nil })
	if err == nil && !planted.Is(planted.MarksForgotten) {
		err = c.store.Marked(keys, func(i int) { skip[i] = true })
	}
	if err != nil {
		return nil, fmt.Errorf("look for cold messages from %s: %w", keys[0], err)
	}
	return skip, nil
}

// cancelCold does for a cold message that all covers, or not, what is left to be done: it counts in
// the books unless one of its bulk cancels was counted up to here, and in the slots and the ids
// unless one was swept. It reports whether the message is cancelled. leaving says that the boundary
// passes it: from then on only an id record tells what became of it (R14).
func (c *Committer) cancelCold(
	all []delay.Predicate, key delay.Key, rec []byte, leaving bool,
) bool {
	var first *delay.Predicate
	counted, swept := false, false
	for i := range all {
		p := &all[i]
		if !p.Covers(c.ids, c.shard, key, rec) {
			continue
		}
		if first == nil {
			first = p
		}
		counted = counted || key.Less(p.Counted)
		swept = swept || key.Less(p.Swept)
	}
	if first == nil {
		return false
	}
	switch {
	case counted:
	case delay.RecordRecurs(rec):
		c.books.Schedules--
	default:
		c.books.Pending--
		c.books.Cancelled++
		first.Cancelled++
	}
	if !swept {
		c.batch.ForgetCold(key.Due, len(rec))
	}
	if !swept || leaving {
		c.coveredOutcome(first.At, key, rec, leaving)
	}
	return true
}

// coveredOutcome remembers the end of a covered message. The id of a client must not stay pending;
// one made by the server is known by the bulk cancel itself until the boundary passes it.
func (c *Committer) coveredOutcome(at delay.Due, key delay.Key, rec []byte, leaving bool) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return
	}
	over := at.Add(c.opts.DedupeWindow) <= c.now()
	id, named := m.ID, m.ID != ""
	ident := delay.IdentityOf(key, &m)
	if named {
		old, known, err := c.store.LookupID(string(id))
		switch {
		case err != nil || known && old.Key != key:
			named, id = false, "" // it names another generation by now
		case known && old.State.Finished():
			named = false
		case known:
			ident = old.Identity
		}
	}
	if over {
		if named {
			c.batch.DeleteID(string(id))
		}
		return
	}
	put := func(id delay.ID, ident delay.Identity) {
		c.batch.PutID(string(id), localstore.IDRecord{
			Identity: ident, State: delay.Cancelled, FinishedAt: at,
		})
		c.batch.PutTimer(at.Add(c.opts.DedupeWindow), TimerForget, []byte(id))
	}
	if named {
		put(id, ident)
	}
	if !leaving {
		return
	}
	switch made := c.ids.Make(c.shard, key); {
	case m.ID == "":
		id = made
		put(id, ident)
	case key.Seq.Epoch() < c.epoch:
		// A receipt of before a restore knows only the key, and must not find that all went well.
		put(made, delay.Identity{Key: key, Generation: 1})
	}
	c.mark(&delay.Mark{
		Key: key, State: delay.Cancelled, At: at, ID: string(id), Identity: ident,
	}, true)
}

// passBulk is what a hydrate does before the boundary rises to upper: the local rows that an
// unfinished bulk cancel covers are cancelled while none of them can have been claimed. Without it
// one of them might be, and live on, and a restore would take it for cancelled.
func (c *Committer) passBulk(all []delay.Predicate, upper delay.Key) error {
	if len(c.unpassed) == 0 || planted.Is(planted.BulkRowsPassed) {
		return nil
	}
	type coveredRow struct {
		find.Located
		by int
	}
	var found []coveredRow
	err := c.store.ScanRows(c.meta.Boundary, upper, func(k delay.Key, rec []byte) bool {
		for i := range all {
			p := &all[i]
			if _, open := c.unpassed[p.Seq]; open && p.Covers(c.ids, c.shard, k, rec) {
				loc := find.Located{Key: k, Place: find.PlaceRow, Record: slices.Clone(rec)}
				found = append(found, coveredRow{loc, i})
				break
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("rows below %s: %w", upper, err)
	}
	for _, row := range found {
		if err := c.identify(&row.Located); err != nil {
			return err
		}
		if c.claimable(row.Located) {
			c.cancel(row.Located)
			all[row.by].Cancelled++
		}
	}
	return nil
}

// identify adds what the index knows of a row's id.
func (c *Committer) identify(loc *find.Located) error {
	_, _, id, err := delay.RecordHead(loc.Record)
	if err != nil {
		return nil //nolint:nilerr // unreadable rows are reported by whoever needs them
	}
	if loc.ID = delay.ID([]byte(id)); loc.ID == "" {
		loc.ID = c.ids.Make(c.shard, loc.Key)
	}
	loc.Rec, loc.Known, err = c.store.LookupID(string(loc.ID))
	if err != nil {
		return fmt.Errorf("look up id: %w", err)
	}
	return nil
}
