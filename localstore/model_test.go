// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/ledger"
)

// model is what a store must hold, as plain maps.
type model struct {
	Batch    uint64
	LastSeq  delay.Seq
	Rows     map[delay.Key]string
	Cold     map[delay.Key]string
	Parked   map[uint64]map[delay.Key]string // flag and record
	IDs      map[string]IDRecord
	Progress map[delay.Key]delay.Progress
	Dead     map[delay.Key]string
	Leases   map[uint64]string
	Marks    map[delay.Key]delay.Mark
	Outbox   map[uint64]delay.Mark
	Timers   map[string]bool
	Cursors  map[string]string
	Targets  map[delay.Target]TargetState
	Bulk     map[delay.Seq]delay.Predicate
	Meta     Meta
	Books    delay.Books
}

func newModel() *model {
	return &model{
		Rows: map[delay.Key]string{}, Cold: map[delay.Key]string{},
		Parked: map[uint64]map[delay.Key]string{}, IDs: map[string]IDRecord{},
		Progress: map[delay.Key]delay.Progress{}, Dead: map[delay.Key]string{},
		Leases: map[uint64]string{}, Marks: map[delay.Key]delay.Mark{},
		Outbox: map[uint64]delay.Mark{}, Timers: map[string]bool{}, Cursors: map[string]string{},
		Targets: map[delay.Target]TargetState{}, Bulk: map[delay.Seq]delay.Predicate{},
	}
}

func (m *model) clone() *model {
	c := *m
	c.Rows, c.Cold, c.IDs = maps.Clone(m.Rows), maps.Clone(m.Cold), maps.Clone(m.IDs)
	c.Parked = map[uint64]map[delay.Key]string{}
	for lane, rows := range m.Parked {
		c.Parked[lane] = maps.Clone(rows)
	}
	c.Progress, c.Dead, c.Leases = maps.Clone(m.Progress), maps.Clone(m.Dead), maps.Clone(m.Leases)
	c.Marks, c.Outbox, c.Timers = maps.Clone(m.Marks), maps.Clone(m.Outbox), maps.Clone(m.Timers)
	c.Cursors, c.Targets = maps.Clone(m.Cursors), maps.Clone(m.Targets)
	c.Bulk = maps.Clone(m.Bulk)
	return &c
}

// targets are the lanes of the model.
var modelTargets = [...]delay.Target{"pull:a", "pull:b", "log:", "http://x/y"}

// world changes a model and a batch alike, at random.
type world struct {
	rng     *rand.Rand
	m       *model
	counter uint64
	base    delay.Due
}

func newWorld(seed uint64) *world {
	return &world{rng: rand.New(rand.NewPCG(seed, 1)), m: newModel(), base: 1_800_000_000_000}
}

func (w *world) newKey() delay.Key {
	w.counter++
	due := w.base + delay.Due(w.rng.Int64N(40*24*3_600_000))
	switch w.rng.IntN(20) {
	case 0: // decades ahead
		due += delay.Due(w.rng.Int64N(200*365)) * 24 * 3_600_000
	case 1:
		due = delay.MaxDue
	}
	return delay.Key{Due: due, Seq: delay.MakeSeq(3, w.counter)}
}

func pick[K comparable, V any](w *world, m map[K]V, less func(a, b K) int) (k K, ok bool) {
	if len(m) == 0 {
		return k, false
	}
	keys := slices.SortedFunc(maps.Keys(m), less)
	return keys[w.rng.IntN(len(keys))], true
}

func (w *world) row(m map[delay.Key]string) (delay.Key, bool) {
	return pick(w, m, delay.Key.Compare)
}

func (w *world) target() delay.Target { return modelTargets[w.rng.IntN(len(modelTargets))] }

func (w *world) record(k delay.Key) []byte {
	body := make([]byte, w.rng.IntN(300))
	for i := range body {
		body[i] = byte(w.rng.Uint32())
	}
	return delay.AppendRecord(nil, &delay.Message{
		Target: w.target(), Due: k.Due, AcceptedAt: w.base, Body: body,
	})
}

func (w *world) mark() delay.Mark {
	m := delay.Mark{Key: w.newKey(), State: delay.Cancelled, At: w.base}
	if w.rng.IntN(2) == 0 {
		m.State, m.Forward = delay.Scheduled, w.newKey()
	}
	if w.rng.IntN(2) == 0 {
		m.ID, m.Identity = fmt.Sprint("id-", w.rng.IntN(50)), w.identity()
	}
	return m
}

func (w *world) identity() delay.Identity {
	return delay.Identity{Key: w.newKey(), Generation: 1 + w.rng.Uint32N(9), Digest: w.rng.Uint64(),
		Given: w.base, AcceptedAt: w.base, FirstDue: w.base, ByDelay: w.rng.IntN(2) == 0}
}

// step fills one batch.
func (w *world) step(b *Batch) {
	for range w.rng.IntN(12) {
		steps[w.rng.IntN(len(steps))](w, b)
	}
	w.m.Batch++
}

var steps = []func(w *world, b *Batch){
	(*world).putRow, (*world).putRow, (*world).putRow, (*world).deleteRow, (*world).dropRow,
	(*world).hydrate, (*world).cold, (*world).park, (*world).park, (*world).unpark,
	(*world).putID, (*world).putID, (*world).deleteID, (*world).progress, (*world).dead,
	(*world).lease, (*world).marks, (*world).outbox, (*world).timer, (*world).target1,
	(*world).meta, (*world).deleteBelow,
}

func (w *world) seen(k delay.Key) { w.m.LastSeq = max(w.m.LastSeq, k.Seq) }

func (w *world) putRow(b *Batch) {
	k := w.newKey()
	rec := w.record(k)
	b.PutRow(k, rec)
	w.m.Rows[k] = string(rec)
	w.seen(k)
}

func (w *world) deleteRow(b *Batch) {
	if k, ok := w.row(w.m.Rows); ok {
		b.DeleteRow(k, len(w.m.Rows[k]))
		delete(w.m.Rows, k)
	}
}

func (w *world) dropRow(b *Batch) {
	if k, ok := w.row(w.m.Rows); ok {
		b.DropRow(k, len(w.m.Rows[k]))
		w.m.Cold[k] = w.m.Rows[k]
		delete(w.m.Rows, k)
	}
}

func (w *world) hydrate(b *Batch) {
	if k, ok := w.row(w.m.Cold); ok {
		b.HydrateRow(k, []byte(w.m.Cold[k]))
		w.m.Rows[k] = w.m.Cold[k]
		delete(w.m.Cold, k)
		w.seen(k)
	}
}

func (w *world) cold(b *Batch) {
	if k, ok := w.row(w.m.Cold); ok && w.rng.IntN(2) == 0 {
		b.ForgetCold(k.Due, len(w.m.Cold[k]))
		delete(w.m.Cold, k)
		return
	}
	k := w.newKey()
	rec := w.record(k)
	b.AddCold(k.Due, Tally{Messages: 1, Bytes: int64(len(rec))})
	w.m.Cold[k] = string(rec)
}

func (w *world) parked(lane uint64, k delay.Key, claimed bool, rec string) {
	if w.m.Parked[lane] == nil {
		w.m.Parked[lane] = map[delay.Key]string{}
	}
	flag := "\x00"
	if claimed {
		flag = "\x01"
	}
	w.m.Parked[lane][k] = flag + rec
	w.seen(k)
}

func (w *world) park(b *Batch) {
	claimed := w.rng.IntN(2) == 0
	k, ok := w.row(w.m.Rows)
	if !ok || w.rng.IntN(4) == 0 {
		k = w.newKey()
		rec := w.record(k)
		lane := laneOf(rec)
		b.PutParked(lane, k, claimed, rec)
		w.parked(lane, k, claimed, string(rec))
		return
	}
	rec := w.m.Rows[k]
	delete(w.m.Rows, k)
	b.Park(laneOf([]byte(rec)), k, claimed, []byte(rec))
	w.parked(laneOf([]byte(rec)), k, claimed, rec)
}

func laneOf(rec []byte) uint64 {
	t, _, err := delay.RecordTarget(rec)
	if err != nil {
		panic("BUG: record of the test: " + err.Error())
	}
	return t.Hash()
}

func (w *world) unpark(b *Batch) {
	for range w.rng.IntN(3) {
		lane := w.target().Hash()
		if k, ok := w.row(w.m.Parked[lane]); ok {
			b.DeleteParked(lane, k, len(w.m.Parked[lane][k])-1)
			delete(w.m.Parked[lane], k)
			if len(w.m.Parked[lane]) == 0 {
				delete(w.m.Parked, lane)
			}
		}
	}
}

func (w *world) putID(b *Batch) {
	id := fmt.Sprint("id-", w.rng.IntN(200))
	rec := IDRecord{Identity: w.identity(), State: delay.State(w.rng.IntN(6)),
		FinishedAt: w.base, Attempts: w.rng.Uint32()}
	b.PutID(id, rec)
	w.m.IDs[id] = rec
}

func (w *world) deleteID(b *Batch) {
	id := fmt.Sprint("id-", w.rng.IntN(200))
	b.DeleteID(id)
	delete(w.m.IDs, id)
}

func (w *world) progress(b *Batch) {
	if k, ok := w.row2(w.m.Progress); ok && w.rng.IntN(2) == 0 {
		b.DeleteProgress(k)
		delete(w.m.Progress, k)
		return
	}
	k := w.newKey()
	p := delay.Progress{State: delay.Claimed, Attempts: w.rng.Uint32(), LastError: "boom"}
	b.PutProgress(k, p)
	w.m.Progress[k] = p
}

func (w *world) row2(m map[delay.Key]delay.Progress) (delay.Key, bool) {
	return pick(w, m, delay.Key.Compare)
}

func (w *world) dead(b *Batch) {
	if k, ok := w.row(w.m.Dead); ok && w.rng.IntN(2) == 0 {
		b.DeleteDead(k)
		delete(w.m.Dead, k)
		return
	}
	k := w.newKey()
	rec := w.record(k)
	b.PutDead(k, delay.Progress{State: delay.Dead, Reason: "refused", DiedAt: w.base}, rec)
	w.m.Dead[k] = string(rec)
}

func (w *world) lease(b *Batch) {
	no := w.rng.Uint64N(20)
	if w.rng.IntN(3) == 0 {
		b.DeleteLease(no)
		delete(w.m.Leases, no)
		return
	}
	l := Lease{No: no, Target: w.target(), Epoch: 3, Expires: w.base}
	for range w.rng.IntN(5) {
		l.Entries = append(l.Entries, LeaseEntry{Key: w.newKey(), Attempt: w.rng.Uint32()})
	}
	b.PutLease(&l)
	w.m.Leases[no] = fmt.Sprint(l)
}

func (w *world) marks(b *Batch) {
	if w.rng.IntN(5) == 0 {
		lower, upper := w.newKey(), w.newKey()
		if upper.Less(lower) {
			lower, upper = upper, lower
		}
		b.DeleteMarks(lower, upper)
		maps.DeleteFunc(w.m.Marks, func(k delay.Key, _ delay.Mark) bool {
			return !k.Less(lower) && k.Less(upper)
		})
		return
	}
	m := w.mark()
	b.PutMark(&m)
	w.m.Marks[m.Key] = m
}

func (w *world) outbox(b *Batch) {
	m := w.mark()
	w.m.Meta.OutboxNext++
	b.PutOutbox(w.m.Meta.OutboxNext, &m)
	w.m.Outbox[w.m.Meta.OutboxNext] = m
	if w.rng.IntN(3) == 0 {
		w.m.Meta.OutboxDone += w.rng.Uint64N(w.m.Meta.OutboxNext - w.m.Meta.OutboxDone)
		b.DeleteOutboxThrough(w.m.Meta.OutboxDone)
		maps.DeleteFunc(w.m.Outbox, func(n uint64, _ delay.Mark) bool {
			return n <= w.m.Meta.OutboxDone
		})
	}
	b.SetMeta(w.m.Meta)
}

func timerName(at delay.Due, kind byte, payload []byte) string {
	return fmt.Sprintf("%016d %d %s", at, kind, payload)
}

func (w *world) timer(b *Batch) {
	at := w.base + delay.Due(w.rng.IntN(1000))
	kind, payload := byte(w.rng.IntN(2)), fmt.Append(nil, w.rng.IntN(5))
	if name := timerName(at, kind, payload); w.rng.IntN(3) == 0 {
		b.DeleteTimer(at, kind, payload)
		delete(w.m.Timers, name)
	} else {
		b.PutTimer(at, kind, payload)
		w.m.Timers[name] = true
	}
}

func (w *world) target1(b *Batch) {
	t := w.target()
	switch w.rng.IntN(6) {
	case 0:
		b.DeleteTarget(t)
		delete(w.m.Targets, t)
	case 2:
		p := delay.Predicate{
			Seq: delay.Seq(1 + w.rng.Uint64N(9)), Target: t, Cancelled: w.rng.Int64(),
		}
		b.PutPredicate(&p)
		w.m.Bulk[p.Seq] = p
	case 3:
		seq := delay.Seq(1 + w.rng.Uint64N(9))
		b.DeletePredicate(seq)
		delete(w.m.Bulk, seq)
	case 1:
		b.PutCursor(string(t), fmt.Append(nil, w.counter))
		w.m.Cursors[string(t)] = fmt.Sprint(w.counter)
	default:
		state := TargetState{Paused: w.rng.IntN(2) == 0, ClaimCursor: w.newKey()}
		b.PutTarget(t, state)
		w.m.Targets[t] = state
	}
}

func (w *world) meta(b *Batch) {
	w.m.Meta.Epoch = delay.Epoch(w.rng.Uint32N(100))
	w.m.Meta.Watermark, w.m.Meta.Clean = w.newKey(), w.rng.IntN(2) == 0
	w.m.Meta.ClusterID, w.m.Meta.Nonce[3] = "cluster", byte(w.rng.Uint32())
	b.SetMeta(w.m.Meta)
	w.m.Books = delay.Books{Accepted: w.rng.Int64(), Pending: w.rng.Int64(), Dead: -1}
	b.SetBooks(w.m.Books)
}

// deleteBelow clears a range whose rows are all gone: the one below the first row.
func (w *world) deleteBelow(b *Batch) {
	first := delay.MaxKey
	for k := range w.m.Rows {
		if k.Less(first) {
			first = k
		}
	}
	b.DeleteRowsBelow(delay.Key{}, first)
}

// readModel reads a whole store into a model; with an error it is what could be read.
func readModel(s *Store) (*model, error) {
	m := newModel()
	m.Batch, m.LastSeq = s.ledger.Base().Batch, s.LastSeq()
	m.Meta, m.Books = s.Meta(), s.Books()
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	keep(s.ScanRows(delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		m.Rows[k] = string(rec)
		return true
	}))
	keep(s.ParkedLanes(func(lane uint64, t delay.Target, n int64) bool {
		rows := map[delay.Key]string{}
		keep(s.ScanParked(lane, delay.Key{}, func(k delay.Key, claimed bool, rec []byte) bool {
			flag := "\x00"
			if claimed {
				flag = "\x01"
			}
			rows[k] = flag + string(rec)
			return true
		}))
		if t.Hash() != lane || int64(len(rows)) != n {
			errs = append(errs, fmt.Errorf("lane %q of %d rows: %d", t, n, len(rows)))
		}
		m.Parked[lane] = rows
		return true
	}))
	keep(s.ScanIDs("", func(id string, rec IDRecord) bool {
		m.IDs[id] = rec
		return true
	}))
	keep(s.ScanProgress(func(k delay.Key, p delay.Progress) bool {
		m.Progress[k] = p
		return true
	}))
	keep(s.ScanDead(delay.Key{}, func(k delay.Key, _ delay.Progress, rec []byte) bool {
		m.Dead[k] = string(rec)
		return true
	}))
	keep(s.ScanLeases(func(l Lease) bool {
		if len(l.Entries) == 0 {
			l.Entries = nil
		}
		m.Leases[l.No] = fmt.Sprint(l)
		return true
	}))
	keep(s.ScanMarks(delay.Key{}, delay.MaxKey, func(mk delay.Mark) bool {
		m.Marks[mk.Key] = mk
		return true
	}))
	keep(s.ScanOutbox(0, func(n uint64, mk delay.Mark) bool {
		m.Outbox[n] = mk
		return true
	}))
	keep(s.ScanTimers(delay.MaxDue, func(at delay.Due, kind byte, payload []byte) bool {
		m.Timers[timerName(at, kind, payload)] = true
		return true
	}))
	keep(s.ScanTargets(func(t delay.Target, state TargetState) bool {
		m.Targets[t] = state
		return true
	}))
	bulk, err := s.Predicates()
	keep(err)
	for i, p := range bulk {
		if i > 0 && p.Seq <= bulk[i-1].Seq {
			keep(fmt.Errorf("predicate %d after %d", p.Seq, bulk[i-1].Seq))
		}
		m.Bulk[p.Seq] = p
	}
	for _, t := range modelTargets {
		c, ok, err := s.Cursor(string(t))
		if keep(err); ok {
			m.Cursors[string(t)] = string(c)
		}
	}
	return m, errors.Join(errs...)
}

// counts is what Counts and Slots must say of m.
func (m *model) counts() (Counts, []Slot) {
	var c Counts
	slots := map[uint32]*Slot{}
	add := func(k delay.Key, rec string, cold bool) {
		n := ledger.SlotOf(k.Due)
		if slots[n] == nil {
			slots[n] = &Slot{}
			slots[n].From, slots[n].Width = ledger.Span(n)
		}
		t := Tally{Messages: 1, Bytes: int64(len(rec))}
		if cold {
			slots[n].Cold.Add(t)
			c.Cold.Add(t)
			return
		}
		slots[n].Warm.Add(t)
		c.Warm.Add(t)
	}
	for k, rec := range m.Rows {
		add(k, rec, false)
	}
	for k, rec := range m.Cold {
		add(k, rec, true)
	}
	for _, rows := range m.Parked {
		c.Parked += int64(len(rows))
	}
	c.Dead = int64(len(m.Dead))
	out := []Slot{}
	for _, n := range slices.Sorted(maps.Keys(slots)) {
		out = append(out, *slots[n])
	}
	return c, out
}
