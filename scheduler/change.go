// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// place is where the row of a pending message is.
type place uint8

const (
	placeNone   place = iota // finished or never there
	placeRow                 // a local row
	placeParked              // a parked row
	placeCold                // only in the bucket
)

// located is what the committer knows of a message before it changes it.
type located struct {
	id      delay.ID
	rec     localstore.IDRecord
	known   bool // rec is of the id index
	key     delay.Key
	place   place
	lane    uint64 // of a parked row
	claimed bool   // of a parked row: it was claimed before it was parked
	record  []byte // of a local row
}

// finder looks messages up in the local store. It is safe for concurrent use; what it finds may
// have changed by the time the caller acts, so the committer looks again.
type finder struct {
	store  *localstore.Store
	ids    delay.IDMaker
	shard  delay.Shard
	issued func(delay.Seq) bool
}

// locate finds the current generation of id. place is placeNone for what is finished or unknown;
// then rec.State tells which, with known.
func (f *finder) locate(id delay.ID) (located, error) {
	rec, known, err := f.store.LookupID(string(id))
	if err != nil {
		return located{}, fmt.Errorf("look up id: %w", err)
	}
	if known {
		if rec.State.Finished() {
			return located{id: id, rec: rec, known: true, key: rec.Key}, nil
		}
		loc, err := f.locateKey(rec.Key)
		loc.id, loc.rec, loc.known = id, rec, true
		return loc, err
	}
	kind, shard, key := f.ids.Parse(id)
	if kind != delay.ServerID || shard != f.shard || !f.issued(key.Seq) {
		if kind != delay.ServerID && !f.store.Meta().IDsComplete {
			return located{}, fmt.Errorf("%w: ids are being restored", delay.ErrUnavailable)
		}
		return located{id: id}, nil
	}
	loc, err := f.locateKey(key)
	loc.id = id
	if loc.place == placeNone && err == nil {
		// Authentic, issued, without a trace: delivered. Other outcomes leave an id record (R14).
		loc.known, loc.rec.State = true, delay.Delivered
		loc.rec.Key, loc.rec.Generation = key, 1
	}
	return loc, err
}

// locateKey finds the row of a key that is not known to be finished.
func (f *finder) locateKey(key delay.Key) (located, error) {
	loc := located{key: key}
	rec, err := f.store.Row(key)
	switch {
	case err == nil:
		loc.place, loc.record = placeRow, rec
		return loc, nil
	case !errors.Is(err, delay.ErrNotFound):
		return loc, fmt.Errorf("read row %s: %w", key, err)
	}
	lane, parked, err := f.store.ParkedLane(key)
	if err != nil {
		return loc, fmt.Errorf("read parked row %s: %w", key, err)
	}
	if parked {
		loc.place, loc.lane = placeParked, lane
		loc.record, loc.claimed, err = f.store.Parked(lane, key)
		return loc, err
	}
	if key.Less(f.store.Meta().Boundary) {
		return loc, nil
	}
	_, marked, err := f.store.Mark(key)
	if err == nil && !marked {
		loc.place = placeCold
	}
	return loc, err
}

// locate is finder.locate for the committer: its own batch is applied first if it touched id.
func (c *committer) locate(id delay.ID) (located, error) {
	c.distinct(string(id))
	return c.find.locate(id)
}

// claimable reports whether loc may be changed, and if so takes it away from delivery: the core is
// asked last (C5). Everything granted must be followed by remove or giveBack.
func (c *committer) claimable(loc located) bool {
	if loc.place == placeCold {
		return true
	}
	if loc.claimed {
		return false
	}
	if _, noted, err := c.store.Progress(loc.key); err != nil || noted {
		return false
	}
	target, _, err := delay.RecordTarget(loc.record)
	if err != nil {
		return false
	}
	if loc.place == placeRow {
		if !target.IsPull() && loc.key.Due <= c.horizon {
			return false // it may have been handed over just before the crash (rule R8)
		}
		return c.ask(loc.key, nil)
	}
	lane := c.lanes.number(target)
	if !target.IsPull() && c.beforeCursor(target, loc.key) {
		return false
	}
	return c.ask(loc.key, &lane)
}

// beforeCursor reports whether a parked push message may have been claimed before the last crash.
func (c *committer) beforeCursor(target delay.Target, key delay.Key) bool {
	cursor, ok := c.cursors[target]
	return ok && !cursor.Less(key)
}

// remove takes a granted message out of the local store, with a mark where a segment may hold it.
func (c *committer) remove(loc located, mark *delay.Mark) {
	switch loc.place {
	case placeRow:
		c.batch.DeleteRow(loc.key, len(loc.record))
	case placeParked:
		c.batch.DeleteParked(loc.lane, loc.key, len(loc.record))
	case placeCold:
		c.batch.ForgetCold(loc.key.Due, len(loc.record))
	}
	_, cold, _ := delay.RecordTarget(loc.record)
	if loc.place == placeRow && !cold {
		c.uncold--
	}
	c.mark(mark, cold || loc.place != placeRow)
	if loc.place != placeCold {
		c.then(evWithdrawn{keys: []delay.Key{loc.key}})
	}
}

// mark writes m where it is needed: beside the rows while its segment may be hydrated (rule R1),
// and to the outbox when the tier must know (rules R12, R14).
func (c *committer) mark(m *delay.Mark, uploaded bool) {
	if !c.tiered {
		return
	}
	if uploaded && !m.Key.Less(c.meta.Boundary) {
		c.batch.PutMark(m)
	}
	if uploaded || m.ID != "" {
		c.batch.PutOutbox(c.meta.OutboxNext, m)
		c.meta.OutboxNext++
		c.changed()
	}
}

// outcome remembers how a message ended, for the dedupe window (S4, S5).
func (c *committer) outcome(id delay.ID, rec localstore.IDRecord, state delay.State) {
	rec.State, rec.FinishedAt = state, c.now()
	c.batch.PutID(string(id), rec)
	c.batch.PutTimer(rec.FinishedAt.Add(c.opts.DedupeWindow), timerForget, []byte(id))
}

// changeOp applies changes; records holds what Change fetched of cold messages.
type changeOp struct {
	requests []ChangeRequest
	results  []ChangeResult
	records  map[delay.Key][]byte
	outbox   uint64
	done     chan error
}

func (o *changeOp) stage(c *committer) {
	for i := range o.requests {
		if c.full() || c.batch.Len() >= 4*batchMessages {
			c.flush()
			if c.failed != nil {
				return
			}
		}
		o.results[i] = c.change(&o.requests[i], o.records)
	}
	o.outbox = c.meta.OutboxNext
}

func (o *changeOp) finish(_ localstore.Synced, err error) { o.done <- err }

func (c *committer) change(q *ChangeRequest, records map[delay.Key][]byte) ChangeResult {
	loc, err := c.locate(q.ID)
	if err != nil {
		return ChangeResult{Err: err}
	}
	if loc.place == placeNone {
		return c.changeFinished(q, loc)
	}
	if loc.place == placeCold {
		loc.record = records[loc.key]
		if loc.record == nil && q.Change != Cancel {
			return ChangeResult{Err: errRefetch}
		}
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

// errRefetch says that a message became cold between the fetch of its record and the change.
var errRefetch = errors.New("scheduler: record of a cold message is missing")

// changeFinished answers for what has no row.
func (c *committer) changeFinished(q *ChangeRequest, loc located) ChangeResult {
	switch {
	case !loc.known:
		return ChangeResult{Verdict: NotFound}
	case loc.rec.State == delay.Cancelled && q.Change <= StopRetrying:
		return ChangeResult{Verdict: Cancelled, Durability: loc.rec.Durability}
	default:
		return ChangeResult{Verdict: TooLate, State: loc.rec.State}
	}
}

func (c *committer) cancel(loc located) ChangeResult {
	durability := loc.rec.Durability
	rec := loc.rec
	if m, err := delay.DecodeRecord(loc.record); err == nil {
		durability = m.Durability
		if !loc.known {
			rec = localstore.IDRecord{Identity: delay.IdentityOf(loc.key, &m)}
		}
	} else if !loc.known {
		rec = localstore.IDRecord{Identity: delay.Identity{Key: loc.key, Generation: 1}}
	}
	c.remove(loc, &delay.Mark{
		Key: loc.key, State: delay.Cancelled, At: c.now(),
		ID: string(loc.id), Identity: rec.Identity,
	})
	c.outcome(loc.id, rec, delay.Cancelled)
	c.books.Pending--
	c.books.Cancelled++
	return ChangeResult{Verdict: Cancelled, Durability: durability}
}

// move gives a message a new due under a fresh key (rule R3); the id keeps its generation.
func (c *committer) move(loc located, due delay.Due, verdict Verdict) ChangeResult {
	m, err := delay.DecodeRecord(loc.record)
	if err != nil {
		if loc.place == placeRow {
			c.then(evWithdrawn{back: []ref{{key: loc.key, lane: 0}}})
		}
		return ChangeResult{Err: fmt.Errorf("message %s: %w", loc.id, err)}
	}
	ident := loc.rec.Identity
	if !loc.known {
		ident = delay.IdentityOf(loc.key, &m)
	}
	m.ID, m.Due, m.Given = loc.id, due, 0
	r := c.insert(&m)
	c.remove(loc, &delay.Mark{Key: loc.key, State: delay.Scheduled, At: c.now(), Forward: r.key})
	ident.Key = r.key
	c.batch.PutID(string(loc.id), localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	return ChangeResult{Verdict: verdict, Due: due, Durability: m.Durability}
}

// Change applies changes (S5); results[i] answers requests[i] after it is synced, and, for a
// message of durability tier, after the bucket holds it (rule R13).
func (s *Shard) Change(
	ctx context.Context, requests []ChangeRequest, results []ChangeResult,
) error {
	if s.draining.Load() {
		return fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	o := &changeOp{requests: requests, results: results, done: make(chan error, 1)}
	for try := 0; ; try++ {
		var err error
		if o.records, err = s.fetchCold(ctx, requests); err != nil {
			return err
		}
		if err := s.do(o, 0, o.done); err != nil {
			return err
		}
		if try > 0 || !anyRefetch(results) {
			break
		}
		// A retry repeats only what was not answered: the others answer the same again.
	}
	if err := s.stopRetrying(requests, results); err != nil {
		return err
	}
	for i := range results {
		if errors.Is(results[i].Err, errRefetch) {
			results[i].Err = fmt.Errorf("%w: message %s moves between tiers", delay.ErrUnavailable,
				requests[i].ID)
		}
	}
	return s.waitTierChanges(ctx, o.outbox, results)
}

func anyRefetch(results []ChangeResult) bool {
	for i := range results {
		if errors.Is(results[i].Err, errRefetch) {
			return true
		}
	}
	return false
}

// stopRetrying turns TOO_LATE into STOPPED for claimed messages when asked for (S5).
func (s *Shard) stopRetrying(requests []ChangeRequest, results []ChangeResult) error {
	for i := range requests {
		r := &results[i]
		if requests[i].Change != StopRetrying || r.Verdict != TooLate || r.State.Finished() {
			continue
		}
		loc, err := s.find.locate(requests[i].ID)
		if err != nil {
			continue
		}
		done := make(chan bool, 1)
		s.post(evStop{key: loc.key, done: done})
		if claimed, _ := wait(s, done); claimed {
			*r = ChangeResult{Verdict: Stopped, State: delay.Dead}
		}
	}
	return nil
}

// fetchCold reads the records of cold messages that are to be moved.
func (s *Shard) fetchCold(
	ctx context.Context, requests []ChangeRequest,
) (map[delay.Key][]byte, error) {
	if s.parts.Tier == nil {
		return nil, nil
	}
	var keys []delay.Key
	for i := range requests {
		if requests[i].Change <= StopRetrying {
			continue
		}
		if loc, err := s.find.locate(requests[i].ID); err == nil && loc.place == placeCold {
			keys = append(keys, loc.key)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	records := make(map[delay.Key][]byte, len(keys))
	err := s.parts.Tier.Fetch(ctx, keys, func(i int, rec []byte, err error) {
		if err == nil {
			records[keys[i]] = append([]byte(nil), rec...)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("fetch cold messages: %w", err)
	}
	return records, nil
}
