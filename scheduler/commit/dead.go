// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// DeadOp retries or deletes a dead letter.
type DeadOp struct {
	ID      delay.ID
	Retry   bool       // otherwise it is deleted
	Receipt Receipt    // filled by a retry
	Outbox  uint64     // set: marks below it belong to the change (rule R13)
	Done    chan error // capacity 1; answered after the sync, with ErrNotFound when there is none

	err error
}

func (o *DeadOp) stage(c *Committer) {
	c.distinct(string(o.ID))
	rec, known, err := c.store.LookupID(string(o.ID))
	key := rec.Key
	if err == nil && !known {
		_, _, key = c.ids.Parse(o.ID)
	}
	var p delay.Progress
	var record []byte
	if err == nil {
		p, record, err = c.store.Dead(key)
	}
	if err != nil {
		o.err = fmt.Errorf("dead letter %s: %w", o.ID, err)
		return
	}
	mark := &delay.Mark{Key: key, State: delay.Dead, At: c.now()}
	if o.Retry {
		mark = o.again(c, key, p, record, &rec)
	}
	if o.err != nil {
		return
	}
	c.batch.DeleteDead(key)
	if made := c.ids.Make(c.shard, key); made != o.ID {
		// A receipt that comes late knows only the key, and must not find that all went well, as
		// long as the message may come back under its new key.
		c.outcome(made, localstore.IDRecord{
			Identity: delay.Identity{Key: successor(mark), Generation: 1}, Attempts: p.Attempts,
		}, p.State)
	}
	c.mark(mark, true)
	o.Outbox = c.meta.OutboxNext
}

// again starts the message over, due now, with its own id and generation.
func (o *DeadOp) again(
	c *Committer, key delay.Key, p delay.Progress, record []byte, rec *localstore.IDRecord,
) *delay.Mark {
	m, err := delay.DecodeRecord(record)
	if err != nil {
		o.err = fmt.Errorf("dead letter %s: %w", o.ID, err)
		return nil
	}
	ident := delay.IdentityOf(key, &m)
	if rec.Key == key { // as it was asked for first, which the record may not say any more
		ident = rec.Identity
	}
	now := c.now()
	m.ID, m.Due, m.Given, m.NotAfter = o.ID, now, ident.Given, 0
	m.FirstDue = max(ident.FirstDue, 1) // it was moved, see finishNamed
	m.Cold = false
	r := c.insert(&m)
	ident.Key = r.Key
	c.batch.PutID(string(o.ID), localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	if p.State == delay.Expired {
		c.books.Expired--
	} else {
		c.books.Dead--
	}
	c.books.Pending++
	o.Receipt = Receipt{
		ID: o.ID, Due: now, Durability: m.Durability, Generation: ident.Generation,
	}
	return &delay.Mark{Key: key, State: delay.Scheduled, At: now, Forward: r.Key}
}

func (o *DeadOp) finish(_ localstore.Synced, err error) { o.Done <- errors.Join(err, o.err) }
