// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"errors"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/recur"
)

// RecurOp makes the firings of schedules that are due and moves the schedules on, each in one
// batch, and only if its row still stands (rule R20).
type RecurOp struct {
	Items []RecurItem
	Done  chan error // capacity 1; answered after the sync
}

// RecurItem is one schedule and what it does.
type RecurItem struct {
	Key     delay.Key
	ID      delay.ID
	Message *delay.Message // the schedule as it was read; nil if it could not be
	Plan    recur.Plan
	Fired   int    // set: firings made; others existed already
	Missed  uint64 // set
	Wait    bool   // set: it is not known yet whether it has fired: ask again
}

func (*RecurOp) alone() {}

func (o *RecurOp) stage(c *Committer) {
	keys := make([]delay.Key, len(o.Items))
	for i := range keys {
		keys[i] = o.Items[i].Key
	}
	rows := c.find.Rows(delay.Schedules, keys)
	for i := range o.Items {
		if c.full() {
			c.flush()
			if c.failed != nil {
				return
			}
		}
		c.recur(&o.Items[i], rows)
	}
}

func (o *RecurOp) finish(_ localstore.Synced, err error) { o.Done <- err }

// recur does what one schedule does at its due.
func (c *Committer) recur(it *RecurItem, rows find.Rows) {
	if !c.meta.IDsComplete && it.Key.Due <= c.meta.LostUpTo {
		it.Wait = true // the owner before may have made these firings (rule R14)
		return
	}
	loc, stands := c.standing(it.Key, it.Message, rows)
	switch {
	case !stands:
		c.batch.DeleteProgress(it.Key) // cancelled, paused or replaced since
		return
	case it.Message == nil:
		it.Wait = true
		return
	}
	ids := make([]delay.ID, len(it.Plan.Firings))
	for i, f := range it.Plan.Firings {
		ids[i] = delay.FiringID(it.ID, f.Due)
		c.distinct(string(ids[i]))
	}
	c.distinct(string(it.ID)) // from here on all is one batch
	loc.ID = it.ID
	var err error
	if loc.Rec, loc.Known, err = c.store.LookupID(string(it.ID)); err != nil {
		it.Wait = true
		return
	}
	for i, f := range it.Plan.Firings {
		if c.fireSchedule(it.Message, it.ID, ids[i], f) {
			it.Fired++
		}
	}
	it.Missed = it.Plan.Missed
	c.batch.DeleteProgress(it.Key)
	if it.Plan.End {
		c.endSchedule(loc, it.Message)
		return
	}
	m, next := *it.Message, it.Plan.Next
	m.Due, m.Recurrence = it.Plan.Due, &next
	if planted.Is(planted.SuccessorLost) {
		return
	}
	c.relocate(loc, &m)
}

// standing finds the row of what was read as m, and reports whether it is still there. A row that
// cannot be read here is: m was read from the tier then, or is nil. rows are those that were there
// when the op began, which is alone and changes each once.
func (c *Committer) standing(
	key delay.Key, m *delay.Message, rows find.Rows,
) (loc find.Located, stands bool) {
	if loc, ok := rows[key]; ok {
		return loc, true
	}
	loc, err := c.find.LocateKey(key)
	if err == nil && loc.Place != find.PlaceRow && loc.Place != find.PlaceParked {
		return loc, false
	}
	loc.Place = max(loc.Place, find.PlaceRow)
	if loc.Record == nil && m != nil {
		loc.Record = delay.AppendRecord(nil, m)
	}
	return loc, true
}

// fireSchedule stores a firing of the schedule m, unless that exists.
func (c *Committer) fireSchedule(m *delay.Message, schedule, id delay.ID, f recur.Firing) bool {
	old, found, err := c.store.LookupID(string(id))
	over := old.State.Finished() && old.FinishedAt.Add(c.opts.DedupeWindow) <= c.now()
	if err != nil || found && !over && !planted.Is(planted.FiringRepeated) {
		if err != nil || old.Given != f.Due {
			c.log.Error("firing not made, its id is taken", zap.String("id", string(id)),
				zap.Error(err))
		}
		return false
	}
	one := delay.Message{
		ID: id, Target: m.Target, Due: f.Due, AcceptedAt: c.now(), Generation: 1,
		Durability: m.Durability, Mode: m.Mode, RoutingKey: m.RoutingKey, Body: m.Body,
		TTL: m.TTL, MaxAttempts: m.MaxAttempts, Backoff: m.Backoff,
	}
	one.Headers = append(slices.Clip(slices.Clone(m.Headers)),
		delay.Header{Name: delay.HeaderScheduleID, Value: string(schedule)})
	if f.Missed > 0 {
		one.Headers = append(one.Headers,
			delay.Header{Name: delay.HeaderMissed, Value: strconv.FormatUint(f.Missed, 10)})
	}
	r := c.insert(&one)
	c.counted(&one)
	c.batch.PutID(string(id), localstore.IDRecord{
		Identity: delay.IdentityOf(r.Key, &one), State: delay.Scheduled,
	})
	return true
}

// endSchedule finishes a schedule that has fired for the last time.
func (c *Committer) endSchedule(loc find.Located, m *delay.Message) {
	if !loc.Known {
		loc.Rec = localstore.IDRecord{Identity: delay.IdentityOf(loc.Key, m)}
	}
	c.remove(loc, &delay.Mark{
		Key: loc.Key, State: delay.Delivered, At: c.now(), ID: string(loc.ID),
		Identity: loc.Rec.Identity,
	})
	c.outcome(loc.ID, loc.Rec, delay.Delivered)
	c.books.Schedules--
}

// recurs reports whether loc is a schedule.
func recurs(loc find.Located) bool {
	return loc.Known && loc.Rec.Recurs || delay.RecordRecurs(loc.Record)
}

// takeOwn takes a schedule or a guarded message away from the core. It may always be taken: one
// that is firing or judged at this moment finds its row gone, or has moved on before.
func (c *Committer) takeOwn(loc find.Located) bool {
	switch loc.Place {
	case find.PlaceRow:
		c.ask(loc.Key, nil)
	case find.PlaceParked:
		if target, _, err := delay.RecordTarget(loc.Record); err == nil {
			lane := c.lanes.Number(target)
			c.ask(loc.Key, &lane)
		}
	}
	return true
}

// changeSchedule applies what changes a schedule without ending it.
func (c *Committer) changeSchedule(q *ChangeRequest, loc find.Located) ChangeResult {
	m, err := delay.DecodeRecord(loc.Record)
	if err != nil {
		return ChangeResult{Err: err}
	}
	if m.Recurrence == nil {
		return ChangeResult{Err: delay.Invalid("id", "%s is no schedule", q.ID)}
	}
	next := *m.Recurrence
	r := ChangeResult{Durability: m.Durability, Due: m.Due}
	switch q.Change {
	case Fire:
		return c.trigger(loc, &m)
	case PauseSchedule:
		r.Verdict, r.Due = Paused, 0
		if next.Paused {
			return r
		}
		next.Paused = true
	case ResumeSchedule:
		r.Verdict = Resumed
		if !next.Paused {
			return r
		}
		next.Paused, next.Since = false, c.now()
	default:
		return ChangeResult{Err: delay.Invalid("deliver_at",
			"%s is a schedule: replace it to change when it fires", q.ID)}
	}
	c.takeOwn(loc)
	m.Recurrence = &next
	c.relocate(loc, &m)
	return r
}

// triggersPerTick bounds the firings by hand of one schedule in one millisecond.
const triggersPerTick = 1000

// trigger makes a firing that is due now, beside those of the calendar.
func (c *Committer) trigger(loc find.Located, m *delay.Message) ChangeResult {
	now := c.now()
	for n := range delay.Due(triggersPerTick) {
		// Made a moment ago in the same millisecond, or by the calendar: take the one before.
		id := delay.FiringID(loc.ID, now-n)
		c.distinct(string(id))
		if _, found, err := c.store.LookupID(string(id)); err != nil {
			return ChangeResult{Err: err}
		} else if found {
			continue
		}
		c.fireSchedule(m, loc.ID, id, recur.Firing{Due: now - n})
		return ChangeResult{Verdict: Fired, Due: now - n, Durability: m.Durability}
	}
	return ChangeResult{Err: errors.New("too many firings by hand in one millisecond")}
}
