// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// insert stores m as a fresh row and returns its reference. m.Cold may ask for the tier.
func (c *Committer) insert(m *delay.Message) core.Ref {
	key := delay.Key{Due: m.Due, Seq: c.nextSeq()}
	if m.Recurrence != nil && m.Recurrence.Paused {
		key.Due = delay.MaxDue // until it is resumed
	}
	if key.Due < c.meta.Watermark.Due && !planted.Is(planted.KeyBehindWatermark) {
		key.Due = c.meta.Watermark.Due // rule R2
	}
	m.Cold = c.tiered && (m.Cold || m.Recurrence != nil || m.Durability == delay.Tier ||
		m.Due.Sub(m.AcceptedAt) > c.opts.MinWait)
	c.scratch = delay.AppendRecord(c.scratch[:0], m)
	c.batch.PutRow(key, c.scratch)
	r := core.Ref{Key: key, Lane: c.lanes.Number(m.Lane()), Meta: uint32(len(c.scratch))}
	if m.Cold {
		r.Meta |= core.RefCold
		c.next.Rows = append(c.next.Rows, c.upload.Row(key, c.scratch))
	} else {
		c.uncold++
	}
	if m.ID != "" {
		r.Meta |= core.RefID
	}
	if m.Mode == delay.AtMostOnce || planted.Is(planted.DoneBeforeSent) {
		r.Meta |= core.RefOnce
	}
	if at := m.Expires(); at > 0 {
		c.batch.PutTimer(at, TimerExpire, delay.AppendKey(nil, key))
	}
	c.next.refs = append(c.next.refs, r)
	c.crowd.Add(m.Lane(), key)
	if key.Less(c.lowest) {
		c.lowest = key
	}
	return r
}

// draftBytes is what a draft takes beside its strings and its body.
const draftBytes = 256

// Weight is what a draft counts against Options.MaxPending: about its bytes in memory.
func Weight(d *delay.Draft) int64 {
	n := draftBytes + len(d.Body) + len(d.ID) + len(d.Target) + len(d.RoutingKey)
	for i := range d.Headers {
		n += len(d.Headers[i].Name) + len(d.Headers[i].Value)
	}
	return int64(n)
}

// AcceptOp stores drafts.
type AcceptOp struct {
	Drafts   []delay.Draft
	Receipts []Receipt            // filled, unless it has an Err; as long as Drafts
	Records  map[delay.Key][]byte // of cold messages that may be replaced
	TierSeq  delay.Seq            // set: what the bucket must hold before the reply (S3)
	Done     chan error           // capacity 1; answered after the sync

	made []byte // the server-made ids, 26 bytes each, in the order of the receipts
}

func (a *AcceptOp) messages() int { return len(a.Drafts) }

func (a *AcceptOp) stage(c *Committer) {
	a.made = make([]byte, 0, 26*len(a.Drafts))
	for i := range a.Drafts {
		if c.full() {
			c.flush()
			if c.failed != nil {
				break
			}
		}
		r, d, seq := &a.Receipts[i], &a.Drafts[i], delay.Seq(0)
		switch {
		case r.Err == nil:
			seq = c.accept(d, r, a)
		case d.ID != "" && d.Recurrence != nil && d.Recurrence.Start > 0:
			seq = c.acceptOver(d, r)
		}
		repeated := r.Duplicate && planted.Is(planted.DuplicateUnwaited)
		if r.Err == nil && r.Durability == delay.Tier && !repeated {
			a.TierSeq = max(a.TierSeq, seq)
		}
	}
	// One string for all ids of the request: an allocation per request, not per message.
	made := string(a.made)
	at := 0
	for i := range a.Receipts {
		if r := &a.Receipts[i]; r.Err == nil && r.ID == "" && at+26 <= len(made) {
			r.ID = delay.ID(made[at : at+26])
			at += 26
		}
	}
}

func (a *AcceptOp) finish(_ localstore.Synced, err error) { a.Done <- err }

// accept stores one draft and returns its seq, or that of the message it repeats.
func (c *Committer) accept(d *delay.Draft, r *Receipt, a *AcceptOp) delay.Seq {
	if d.ID != "" {
		return c.acceptNamed(d, r, a.Records)
	}
	d.Generation = 1
	if !c.admit(d, r, nil) {
		return 0
	}
	rf := c.insert(&d.Message)
	c.counted(&d.Message)
	a.made = c.ids.AppendID(a.made, c.shard, rf.Key)
	if d.Recurrence != nil { // it will move, and be asked for by name
		c.batch.PutID(string(c.ids.Make(c.shard, rf.Key)), localstore.IDRecord{
			Identity: delay.IdentityOf(rf.Key, &d.Message), State: delay.Scheduled,
		})
	}
	r.ID, r.Due, r.Durability, r.Generation = "", d.Due, d.Durability, 1
	return rf.Key.Seq
}

// admit notes when the second of d is full, and reports whether d is stored all the same. old is
// what d would replace, or nil.
func (c *Committer) admit(d *delay.Draft, r *Receipt, old *localstore.IDRecord) bool {
	replaced := delay.Due(0)
	if old != nil && !old.State.Finished() {
		replaced = old.Key.Due
	}
	if c.crowd.Room(&d.Message, replaced) {
		return true
	}
	if r.Crowded = true; d.RefuseCrowded {
		r.Err = &delay.CrowdedError{Target: d.Target, Due: d.Due}
	}
	return !d.RefuseCrowded
}

// counted takes a new message into the books. A schedule is none (S10).
func (c *Committer) counted(m *delay.Message) {
	if m.Recurrence != nil {
		c.books.Schedules++
		return
	}
	c.books.Accepted++
	c.books.Pending++
}

// uncounted takes a message, or a schedule, that is cancelled out of what is pending.
func (c *Committer) uncounted(schedule bool) {
	if schedule {
		c.books.Schedules--
		return
	}
	c.books.Pending--
	c.books.Cancelled++
}

// acceptOver answers a schedule that was refused because its end has passed: one that was accepted
// in time may be repeated later (S4).
func (c *Committer) acceptOver(d *delay.Draft, r *Receipt) delay.Seq {
	old, found, err := c.lookUp(d)
	switch {
	case err != nil:
		r.Err = err
	case found && c.repeated(d, r, &old):
		r.Err = nil
		return old.Key.Seq
	}
	return 0
}

// lookUp finds the message that the client's id of d names, if it is remembered.
func (c *Committer) lookUp(d *delay.Draft) (old localstore.IDRecord, found bool, err error) {
	if !c.meta.IDsComplete && !planted.Is(planted.IDsAnsweredEarly) {
		return old, false, fmt.Errorf("%w: ids are being restored from the bucket",
			delay.ErrUnavailable)
	}
	if delay.LooksServerMade(d.ID) {
		kind, _, key := c.ids.Parse(d.ID)
		issued := c.issued(key.Seq) || planted.Is(planted.ReservedUnissued)
		if kind != delay.ReservedID || !issued {
			return old, false, delay.Invalid("id",
				"looks like an id of the server but was not reserved")
		}
	}
	c.distinct(string(d.ID))
	if old, found, err = c.store.LookupID(string(d.ID)); err != nil {
		return old, false, fmt.Errorf("look up id: %w", err)
	}
	if found && c.outlived(&old) && !planted.Is(planted.WindowByTimer) {
		found = false // its timer has not come yet, or a dead letter is found by it
	}
	return old, found, nil
}

// acceptNamed accepts a message with a client's id (S4).
func (c *Committer) acceptNamed(
	d *delay.Draft, r *Receipt, records map[delay.Key][]byte,
) delay.Seq {
	id := string(d.ID)
	old, found, err := c.lookUp(d)
	if err != nil {
		r.Err = err
		return 0
	}
	d.Generation = 1
	if found && !planted.Is(planted.IDsUnchecked) {
		if c.repeated(d, r, &old) {
			return old.Key.Seq
		}
		if d.Replace && !c.admit(d, r, &old) || !c.replace(d, r, &old, records) {
			return 0
		}
	} else if !c.admit(d, r, nil) {
		return 0
	}
	rf := c.insert(&d.Message)
	ident := delay.IdentityOf(rf.Key, &d.Message)
	if planted.Is(planted.IDStoredLater) {
		c.flush()
	}
	c.batch.PutID(id, localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	if !found || old.State.Finished() {
		c.counted(&d.Message)
	}
	r.ID, r.Due, r.Durability, r.Generation = d.ID, d.Due, d.Durability, d.Generation
	return rf.Key.Seq
}

// outlived reports whether an id names nothing any more (S4).
func (c *Committer) outlived(old *localstore.IDRecord) bool {
	return old.State.Finished() && old.FinishedAt.Add(c.opts.DedupeWindow) <= c.now()
}

// differs is the error of a message whose id names other content.
func differs(d *delay.Draft, old *localstore.IDRecord) error {
	why := old.Differs(delay.IdentityOf(delay.Key{}, &d.Message))
	return fmt.Errorf("%w: id %q names another message: %s", delay.ErrExists, d.ID, why)
}

// repeated answers a request that repeats an earlier one.
func (c *Committer) repeated(d *delay.Draft, r *Receipt, old *localstore.IDRecord) bool {
	listed := old.Key.IsZero() // by a ledger, which knows no content
	same := listed || old.SameContent(delay.IdentityOf(delay.Key{}, &d.Message))
	if !same && !planted.Is(planted.ContentUnread) {
		return false
	}
	r.ID, r.Duplicate, r.State = d.ID, true, old.State
	r.Due = old.Given.Add(d.Due.Sub(d.GivenDue())) // the same id has the same spread
	r.Durability, r.Generation = old.Durability, old.Generation
	switch {
	case listed:
		r.Due = d.Due
	case d.Recurrence != nil:
		r.Due = old.Key.Due // the next firing, as far as the index knows
	case d.MaxWait > 0:
		r.Due = min(r.Due, old.FirstDue.Add(d.MaxWait))
	}
	return true
}

// replace clears the way for another content under the same id. old becomes cancelled when it is
// found to be.
func (c *Committer) replace(
	d *delay.Draft, r *Receipt, old *localstore.IDRecord, records map[delay.Key][]byte,
) bool {
	if !d.Replace {
		r.Err = differs(d, old)
		return false
	}
	d.Generation = old.Generation + 1
	if old.State.Finished() {
		return true
	}
	loc, err := c.find.LocateKey(old.Key)
	if err != nil {
		r.Err = err
		return false
	}
	loc.ID, loc.Rec, loc.Known = d.ID, *old, true
	if loc.Place == find.PlaceCold && (old.Recurs || c.bulk.MayCover(loc.Key, d.ID)) {
		rec, fetched := records[loc.Key]
		switch {
		case !fetched:
			r.Err = fmt.Errorf("%w: message %s moves between tiers", delay.ErrUnavailable, d.ID)
			return false
		case len(rec) == 0 || c.bulk.Covers(loc.Key, rec):
			old.State = delay.Cancelled // and counted, or to be counted, as such
			return true
		}
		loc.Record = rec
	}
	if d.Recurrence != nil {
		if r.Err = d.Recurrence.Continue(loc.Record); r.Err != nil {
			return false
		}
	}
	if !c.claimable(loc) {
		r.Err = fmt.Errorf("%w: id %q is claimed", delay.ErrTooLate, d.ID)
		return false
	}
	d.FirstDue = old.FirstDue
	if d.MaxWait > 0 {
		if most := old.FirstDue.Add(d.MaxWait); d.Due > most &&
			!planted.Is(planted.MaxWaitIgnored) {
			d.Given, d.Due = d.GivenDue(), most // repeated, it is told by what was asked for (S4)
		}
	}
	forward := delay.Key{Due: max(d.Due, c.meta.Watermark.Due), Seq: c.lastSeq() + 1}
	c.remove(loc, &delay.Mark{Key: loc.Key, State: delay.Scheduled, At: c.now(), Forward: forward})
	if isNow := d.Recurrence != nil; old.Recurs != isNow {
		c.uncounted(old.Recurs)
		c.counted(&d.Message)
	}
	return true
}

// ReserveOp takes fresh seqs for ids. Seqs of a crashed epoch are never issued again, so the op
// needs no row.
type ReserveOp struct {
	N    int        // how many
	IDs  []delay.ID // filled
	Done chan error // capacity 1
}

func (o *ReserveOp) messages() int { return o.N }

func (o *ReserveOp) stage(c *Committer) {
	now := c.now()
	for range o.N {
		key := delay.Key{Due: now, Seq: c.nextSeq()}
		o.IDs = append(o.IDs, c.ids.Reserve(c.shard, key))
	}
}

func (o *ReserveOp) finish(_ localstore.Synced, err error) { o.Done <- err }
