// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/position"
)

// TakeOp stores a batch of a source. However many batches of the store it takes, each holds the
// position that its items reach: a crash between two of them leaves no item behind and none twice
// (rule R17).
type TakeOp struct {
	Batch   *broker.Batch        // its items get an Err that is permanent
	Records map[delay.Key][]byte // of cold messages that may be cancelled or replaced
	Took    []Taken              // filled, unless refused before; as long as the items
	Next    int64                // set: the position that was reached
	Stored  bool                 // set: it is synced, with all below it
	Done    chan error           // capacity 1; answered after the sync

	failed error // of an item that may be taken later: its position was not passed
}

// ErrUncopied answers a TakeOp that stopped before an item which is refused: its copy is not kept
// yet (B6). Those behind it that would be refused as things stand have an Err too.
var ErrUncopied = errors.New("an item is refused that is not copied yet")

// Taken is what became of an item.
type Taken uint8

// What becomes of an item. The zero value is one that was not looked at.
const (
	TakenNot       Taken = iota // below the position, or not reached
	TakenNew                    // a message was stored
	TakenRepeated               // it was stored before
	TakenCancelled              // a message was cancelled now
	TakenVoid                   // a cancel that changed nothing
	TakenRefused                // see Item.Err
)

// reached is how far a partition was read in a batch, and the highest key of what it brought that
// is not for the tier.
type reached struct {
	next  int64
	short delay.Key
}

func (o *TakeOp) messages() int { return len(o.Batch.Items) }

func (o *TakeOp) stage(c *Committer) {
	name := string(o.Batch.Partition)
	next, known := c.read[name]
	o.Next = next
	for i := range o.Batch.Items {
		it := &o.Batch.Items[i]
		if known && it.Offset < next {
			continue // taken before
		}
		if c.full() {
			c.flush()
		}
		if c.failed != nil {
			return
		}
		var short delay.Key
		if o.Took[i] != TakenRefused {
			o.Took[i], short, o.failed = c.takeItem(it, o.Records)
			if o.failed != nil && !planted.Is(planted.CursorPassesFailed) {
				return
			}
		}
		if o.uncopied(i) {
			o.failed = ErrUncopied
			c.foresee(o.Batch.Items[i+1:])
			return
		}
		c.reach(name, it.Offset+1, short)
		o.Next = it.Offset + 1
	}
	if !known || o.Next < o.Batch.Next {
		o.Next = o.Batch.Next
		c.reach(name, o.Next, delay.Key{})
	}
}

// uncopied reports whether the position must not pass an item yet.
func (o *TakeOp) uncopied(i int) bool {
	return o.Took[i] == TakenRefused && o.Batch.Refused != nil && !o.Batch.Items[i].Copied &&
		!planted.Is(planted.RefusedUncopied)
}

// foresee sets the errors of messages whose ids name other content already, so that one call copies
// them all. What comes before them may still change that: they are looked at again.
func (c *Committer) foresee(items []broker.Item) {
	for i := range items {
		it := &items[i]
		if it.Err != nil || it.Copied || it.Cancel != "" || it.Draft.Replace {
			continue
		}
		old, found, err := c.store.LookupID(string(it.Draft.ID))
		ident := delay.IdentityOf(delay.Key{}, &it.Draft.Message)
		if err != nil || !found || c.outlived(&old) || old.Key.IsZero() || old.SameContent(ident) {
			continue
		}
		it.Err = differs(&it.Draft, &old)
	}
}

func (o *TakeOp) finish(_ localstore.Synced, err error) {
	o.Stored = err == nil
	if err == nil {
		err = o.failed
	}
	o.Done <- err
}

// reach notes how far a partition was read: it is stored with the batch.
func (c *Committer) reach(name string, next int64, short delay.Key) {
	c.read[name] = next
	at := c.reached[name]
	at.next = next
	if at.short.Less(short) {
		at.short = short
	}
	c.reached[name] = at
}

// putReached stores in the batch how far sources were read with it.
func (c *Committer) putReached() {
	for name, at := range c.reached {
		c.batch.PutCursor(name, position.Append(nil, at.next))
		c.next.Read.Add(name, position.Note{
			Next: at.next, Since: c.now(), Seq: c.lastSeq(), Outbox: c.meta.OutboxNext,
			Short: at.short,
		})
	}
	clear(c.reached)
}

// NoteLedger notes up to which entry a ledger is settled, unless next is 0, and that what nobody
// knows was delivered: what brings such an id again finds it so, whatever its content (rule R17).
// known is set for those that wait to be delivered. done has capacity 1.
func NoteLedger(name string, next int64, unheard []broker.Done, known []bool, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		for i, d := range unheard {
			c.distinct(string(d.ID))
			old, is, err := c.store.LookupID(string(d.ID))
			if known[i] = err != nil || is && !old.State.Finished(); known[i] || is &&
				old.Generation >= d.Generation {
				continue
			}
			ident := delay.Identity{Generation: d.Generation}
			c.outcome(d.ID, localstore.IDRecord{Identity: ident}, delay.Delivered)
			c.mark(&delay.Mark{
				State: delay.Delivered, At: c.now(), ID: string(d.ID), Identity: ident,
			}, true)
		}
		if next > c.read[name] {
			c.reach(name, next, delay.Key{})
		}
	}}
}

// takeItem stores one item. short is the key of its message when that is not for the tier.
func (c *Committer) takeItem(
	it *broker.Item, records map[delay.Key][]byte,
) (took Taken, short delay.Key, transient error) {
	if it.Err = nil; it.Cancel != "" {
		before := c.books.Cancelled
		r := c.change(&ChangeRequest{ID: it.Cancel, Change: Cancel, Sourced: true}, records)
		switch {
		case r.Err != nil:
			took, transient = refuse(it, r.Err)
			return took, short, transient
		case c.books.Cancelled > before:
			return TakenCancelled, short, nil
		default:
			return TakenVoid, short, nil
		}
	}
	var r Receipt
	c.acceptNamed(&it.Draft, &r, records)
	switch {
	case r.Err != nil:
		took, transient = refuse(it, r.Err)
		return took, short, transient
	case r.Duplicate:
		short, transient = c.shortOf(it.Draft.ID)
		return TakenRepeated, short, transient
	}
	if n := len(c.next.refs); n > 0 && c.next.refs[n-1].Meta&core.RefCold == 0 {
		short = c.next.refs[n-1].Key
	}
	return TakenNew, short, nil
}

// refuse tells errors of the item from those of the moment.
func refuse(it *broker.Item, err error) (Taken, error) {
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrExists, delay.ErrUnimplemented, delay.ErrTooLate,
		delay.ErrPrecondition,
	} {
		if errors.Is(err, kind) {
			it.Err = err
			return TakenRefused, nil
		}
	}
	return TakenNot, err
}

// shortOf is the key of a message that was stored before, unless it is for the tier or has ended.
func (c *Committer) shortOf(id delay.ID) (delay.Key, error) {
	loc, err := c.find.Locate(id)
	if err != nil || loc.Place != find.PlaceRow && loc.Place != find.PlaceParked {
		return delay.Key{}, err
	}
	if _, cold, err := delay.RecordTarget(loc.Record); err != nil || cold {
		return delay.Key{}, err
	}
	return loc.Key, nil
}
