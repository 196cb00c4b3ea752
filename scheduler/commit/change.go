// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
)

// claimable reports whether loc may be changed, and if so takes it away from delivery: the core is
// asked last (C5). Everything granted must be followed by remove or giveBack.
func (c *Committer) claimable(loc find.Located) bool {
	if recurs(loc) || guarded(loc) {
		return c.takeOwn(loc)
	}
	if c.untraced(loc.Key) {
		return false
	}
	if loc.Place == find.PlaceCold {
		return true
	}
	if loc.Claimed {
		return false
	}
	_, noted, err := c.store.Progress(loc.Key)
	if err != nil || noted && !planted.Is(planted.AttemptUnasked) {
		return false
	}
	target, _, err := delay.RecordTarget(loc.Record)
	if err != nil {
		return false
	}
	if loc.Place == find.PlaceRow {
		if c.maybeClaimed(target, loc.Key) {
			return false
		}
		return c.ask(loc.Key, nil) || planted.Is(planted.ClaimUnasked)
	}
	lane := c.lanes.Number(target)
	if !target.IsPull() && c.beforeCursor(target, loc.Key) {
		return false
	}
	return c.ask(loc.Key, &lane)
}

// maybeClaimed reports whether an unparked message may have been handed over just before the last
// crash (rule R8): one that was accepted since was not. When it is parked later, that is remembered
// with it. At or above the boundary nothing is ever claimed, however far the horizon has run ahead
// of it (rule R1).
func (c *Committer) maybeClaimed(target delay.Target, key delay.Key) bool {
	return !target.IsPull() && key.Due <= c.horizon && key.Seq <= c.first &&
		key.Less(c.meta.Boundary) && !planted.Is(planted.IgnoreHorizon)
}

// untraced reports whether an earlier owner may have handed the message over, with the lease, the
// ack or the claim cursor on a disk that is not this one (rule R12).
func (c *Committer) untraced(key delay.Key) bool {
	return key.Due <= c.meta.LostUpTo && key.Seq.Epoch() < c.meta.LostBefore &&
		!planted.Is(planted.LostClaimsForgotten)
}

// beforeCursor reports whether a parked push message may have been claimed before the last crash.
func (c *Committer) beforeCursor(target delay.Target, key delay.Key) bool {
	cursor, ok := c.cursors[target]
	return ok && !cursor.Less(key) && !planted.Is(planted.CursorForgotten)
}

// remove takes a granted message out of the local store, with a mark where a segment may hold it.
func (c *Committer) remove(loc find.Located, mark *delay.Mark) {
	switch loc.Place {
	case find.PlaceRow:
		c.batch.DeleteRow(loc.Key, len(loc.Record))
	case find.PlaceParked:
		c.batch.DeleteParked(loc.Lane, loc.Key, len(loc.Record))
	case find.PlaceCold:
		c.batch.ForgetCold(loc.Key.Due, len(loc.Record))
	}
	lane, cold, _ := delay.RecordTarget(loc.Record)
	c.crowd.Drop(lane, loc.Key)
	if loc.Place == find.PlaceRow && !cold {
		c.uncold--
	}
	c.mark(mark, cold || loc.Place != find.PlaceRow)
	if made := c.ids.Make(c.shard, loc.Key); made != loc.ID && loc.Key.Seq.Epoch() < c.epoch {
		// A disk that was lost may have known an attempt, whose receipt knows only the key: an ack
		// must not find that all went well.
		c.outcome(made, localstore.IDRecord{
			Identity: delay.Identity{Key: successor(mark), Generation: 1},
		}, delay.Cancelled)
	}
	if loc.Place != find.PlaceCold {
		c.then(core.EvWithdrawn{Keys: []delay.Key{loc.Key}})
	}
}

// successor is the key under which the message of m goes on, or that of m when it does not.
func successor(m *delay.Mark) delay.Key {
	if m.Forward.IsZero() {
		return m.Key
	}
	return m.Forward
}

// mark writes m where it is needed: beside the rows while its segment may be hydrated (rule R1),
// and to the outbox when the tier must know (rules R12, R14).
func (c *Committer) mark(m *delay.Mark, uploaded bool) {
	if !c.tiered || m.State == delay.Cancelled && planted.Is(planted.CancelUnmarked) ||
		m.State == delay.Scheduled && planted.Is(planted.MoveUnmarked) {
		return
	}
	if !m.Key.Less(c.meta.Boundary) && !m.Key.IsZero() {
		// Also when no segment holds it: once its id is forgotten, nothing else tells a key above
		// the boundary from that of a cold message.
		c.batch.PutMark(m)
	}
	if uploaded || m.ID != "" {
		c.batch.PutOutbox(c.meta.OutboxNext, m)
		c.meta.OutboxNext++
		c.changed()
	}
}

// outcome remembers how a message ended, for the dedupe window (S4, S5).
func (c *Committer) outcome(id delay.ID, rec localstore.IDRecord, state delay.State) {
	c.outcomeAt(c.now(), id, rec, state)
}

func (c *Committer) outcomeAt(
	now delay.Due, id delay.ID, rec localstore.IDRecord, state delay.State,
) {
	rec.State, rec.FinishedAt = state, now
	c.touched[string(id)] = struct{}{} // what reads it next must see this
	c.batch.PutID(string(id), rec)
	c.batch.PutTimer(rec.FinishedAt.Add(c.opts.DedupeWindow), TimerForget, []byte(id))
}

// locate is finder.locate for the committer: its own batch is applied first if it touched id.
func (c *Committer) locate(id delay.ID) (find.Located, error) {
	c.distinct(string(id))
	return c.find.Locate(id)
}

// ChangeOp applies changes.
type ChangeOp struct {
	Requests []ChangeRequest
	Results  []ChangeResult       // filled; as long as Requests
	Records  map[delay.Key][]byte // of cold messages; empty for one that is in no segment
	Outbox   uint64               // set: marks below it belong to the changes (rule R13)
	Fresh    int64                // set: messages cancelled now, repeated answers left out
	Done     chan error           // capacity 1; answered after the sync
}

func (o *ChangeOp) stage(c *Committer) {
	before := c.books.Cancelled
	defer func() { o.Fresh += c.books.Cancelled - before }()
	for i := range o.Requests {
		if c.full() || c.batch.Len() >= 4*batchMessages {
			c.flush()
			if c.failed != nil {
				return
			}
		}
		o.Results[i] = c.change(&o.Requests[i], o.Records)
	}
	o.Outbox = c.meta.OutboxNext
}

func (o *ChangeOp) finish(_ localstore.Synced, err error) { o.Done <- err }

func (c *Committer) change(q *ChangeRequest, records map[delay.Key][]byte) ChangeResult {
	loc, err := c.locate(q.ID)
	if err != nil {
		return ChangeResult{Err: err}
	}
	if loc.Place == find.PlaceNone {
		return c.changeFinished(q, loc)
	}
	if q.Cut > 0 && loc.Key.Seq > q.Cut {
		return ChangeResult{Verdict: NotFound}
	}
	if loc.Place == find.PlaceCold {
		if r, done := c.changeCold(q, &loc, records); done {
			return r
		}
	}
	if guarded(loc) && !q.mayTouch(loc) {
		return q.notOurs()
	}
	if q.Change > StopRetrying && (recurs(loc) || q.Change > Fire) {
		return c.changeSchedule(q, loc)
	}
	if !c.claimable(loc) {
		return ChangeResult{Verdict: TooLate, State: delay.Claimed}
	}
	switch q.Change {
	case Cancel, StopRetrying:
		return c.cancel(loc)
	case Fire:
		return c.move(loc, c.now(), Fired)
	default:
		return c.move(loc, q.Due, Rescheduled)
	}
}

// changeCold gives the message its record, and the answer when that is already clear.
func (c *Committer) changeCold(
	q *ChangeRequest, loc *find.Located, records map[delay.Key][]byte,
) (ChangeResult, bool) {
	rec, fetched := records[loc.Key]
	may := c.bulk.MayCover(loc.Key, loc.ID)
	switch {
	case len(rec) > 0:
		loc.Record = rec
	case fetched:
		// No segment holds it: it was lost with a disk, before it was uploaded, or cancelled so long
		// ago that its segment was written without it (rule R14).
		return ChangeResult{Verdict: NotFound}, true
	case may || q.Change > StopRetrying:
		return ChangeResult{Err: ErrRefetch}, true
	}
	if !may || !c.bulk.Covers(loc.Key, rec) {
		return ChangeResult{}, false
	}
	if q.Change > StopRetrying {
		return ChangeResult{Verdict: TooLate, State: delay.Cancelled}, true
	}
	r := ChangeResult{Verdict: Cancelled}
	if m, err := delay.DecodeRecord(rec); err == nil {
		r.Durability = m.Durability
	}
	return r, true
}

// ErrRefetch is the Err of a ChangeResult whose message became cold between the fetch of its record
// and the change: fetch it and ask again.
var ErrRefetch = errors.New("scheduler: record of a cold message is missing")

// changeFinished answers for what has no row.
func (c *Committer) changeFinished(q *ChangeRequest, loc find.Located) ChangeResult {
	switch {
	case !loc.Known:
		return ChangeResult{Verdict: NotFound}
	case loc.Rec.State == delay.Cancelled && q.Change <= StopRetrying:
		return ChangeResult{Verdict: Cancelled, Durability: loc.Rec.Durability}
	default:
		return ChangeResult{Verdict: TooLate, State: loc.Rec.State}
	}
}

func (c *Committer) cancel(loc find.Located) ChangeResult {
	durability := loc.Rec.Durability
	rec := loc.Rec
	if m, err := delay.DecodeRecord(loc.Record); err == nil {
		durability = m.Durability
		if !loc.Known {
			rec = localstore.IDRecord{Identity: delay.IdentityOf(loc.Key, &m)}
		}
	} else if !loc.Known {
		// Unreadable just now: a cancel that waits for the bucket is never less than was asked for.
		durability = delay.Tier
		rec = localstore.IDRecord{Identity: delay.Identity{
			Key: loc.Key, Generation: 1, Durability: durability,
		}}
	}
	c.remove(loc, &delay.Mark{
		Key: loc.Key, State: delay.Cancelled, At: c.now(),
		ID: string(loc.ID), Identity: rec.Identity,
	})
	if !planted.Is(planted.OutcomeForgotten) {
		c.outcome(loc.ID, rec, delay.Cancelled)
	}
	c.uncounted(rec.Recurs)
	return ChangeResult{Verdict: Cancelled, Durability: durability}
}

// move gives a message a new due under a fresh key (rule R3); the id keeps its generation.
func (c *Committer) move(loc find.Located, due delay.Due, verdict Verdict) ChangeResult {
	m, err := delay.DecodeRecord(loc.Record)
	if err != nil {
		if loc.Place == find.PlaceRow {
			c.then(core.EvWithdrawn{Back: []core.Ref{{Key: loc.Key, Lane: 0}}})
		}
		return ChangeResult{Err: fmt.Errorf("message %s: %w", loc.ID, err)}
	}
	asked := m.Cold && m.Due.Sub(m.AcceptedAt) <= c.opts.MinWait // by its source (rule R16)
	m.Due, m.Cold = due, asked
	c.relocate(loc, &m)
	return ChangeResult{Verdict: verdict, Due: due, Durability: m.Durability}
}

// relocate stores m, the message of loc with another due, under a fresh key.
func (c *Committer) relocate(loc find.Located, m *delay.Message) {
	ident := loc.Rec.Identity
	if !loc.Known {
		ident = delay.IdentityOf(loc.Key, m)
	}
	// The record goes on saying what was asked for first: after a restore it is all that is left. It
	// always has a first due, which is how finishNamed knows that it was moved.
	m.ID, m.Given, m.FirstDue = loc.ID, ident.Given, max(ident.FirstDue, 1)
	r := c.insert(m)
	c.remove(loc, &delay.Mark{Key: loc.Key, State: delay.Scheduled, At: c.now(), Forward: r.Key})
	ident.Key = r.Key
	c.batch.PutID(string(loc.ID), localstore.IDRecord{Identity: ident, State: delay.Scheduled})
}
