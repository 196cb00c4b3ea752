// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Bounds of the committer.
const (
	batchBytes    = 1 << 20 // a batch is applied when it holds this much
	batchMessages = 1000    // or this many messages
	syncsInFlight = 8       // batches applied and not yet synced
)

// op is one request to the committer: the only writer of ids, keys and rows (C5).
type op interface {
	// stage adds the op's writes to the batch, flushing it where it must.
	stage(c *committer)
	// finish is called once, after the sync of the op's last write, with a token or an error.
	finish(s localstore.Synced, err error)
}

// loner is an op that must not share a batch: it decides by reading rows and marks, which show only
// what has been applied, and what follows it must see what it did (rule R1).
type loner interface{ alone() }

func (*parkOp) alone()    {}
func (*expireOp) alone()  {}
func (*timersOp) alone()  {}
func (*hydrateOp) alone() {}
func (*dropOp) alone()    {}

// committer turns ops into batches of the local store, in order, one at a time, and pipelines
// their syncs. All fields below inbox are confined to its goroutine.
type committer struct {
	store  *localstore.Store
	ids    delay.IDMaker
	find   *finder
	opts   Options
	log    *zap.Logger
	events Events
	lanes  *laneNames
	tiered bool
	shard  delay.Shard
	now    func() delay.Due
	post   func(event)                   // to the core
	ask    func(delay.Key, *uint32) bool // core.withdraw, answered at once; lane if parked
	broken func(error)                   // ends the shard
	wall   func() time.Time
	upload *uploadBuffer
	inbox  *inbox
	synced chan flushed // to the syncer

	batch   *localstore.Batch
	staged  []op
	next    flushed // what goes with the batch
	touched map[string]struct{}
	scratch []byte
	meta    localstore.Meta
	metaSet bool // meta changed since the last batch
	books   delay.Books
	counter uint64
	handed  atomic.Uint64              // the last seq given out, for readers
	uncold  int64                      // pending rows that no segment holds (rule R15)
	recent  []accepted                 // batches that the core may not have seen yet
	lowest  delay.Key                  // of the batch
	ranged  delay.Key                  // rows below were removed by range
	retired delay.Key                  // marks below were removed
	horizon delay.Due                  // H as recovered (rule R8)
	cursors map[delay.Target]delay.Key // claim cursors as recovered after a crash
	failed  error
}

// accepted is the lowest key of a batch and its last seq.
type accepted struct {
	last delay.Seq
	low  delay.Key
}

// flushed is a batch on its way to the disk and what waits for it.
type flushed struct {
	pending localstore.Pending
	ops     []op
	refs    []ref
	events  []event
	rows    []uploadRow
	kept    []keptRef
	done    []delay.Key // delivered without a mark of their own
	last    delay.Seq
	outbox  uint64
	mark    delay.Key // watermark as of this batch
	books   delay.Books
	uncold  int64
	at      time.Time // when it was applied
}

// inbox is the committer's queue. Intake is bounded by Options.MaxPending; what the core asks for
// is bounded by what is in flight.
type inbox struct {
	mu struct {
		sync.Mutex
		ops    []op
		bytes  int64
		closed bool
	}
	most int64
	wake chan struct{}
}

func newInbox(most int64) *inbox { return &inbox{most: most, wake: make(chan struct{}, 1)} }

// put adds o. weight counts against the bound; 0 is always taken.
func (q *inbox) put(o op, weight int64) error {
	q.mu.Lock()
	switch {
	case q.mu.closed:
		q.mu.Unlock()
		return delay.ErrClosed
	case weight > 0 && q.mu.bytes > 0 && q.mu.bytes+weight > q.most:
		q.mu.Unlock()
		return fmt.Errorf("%w: %d bytes wait to be stored", delay.ErrOverloaded, q.most)
	}
	q.mu.ops = append(q.mu.ops, o)
	q.mu.bytes += weight
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take empties the queue.
func (q *inbox) take(reuse []op) (ops []op, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops, q.mu.ops = q.mu.ops, reuse[:0]
	q.mu.bytes = 0
	return ops, q.mu.closed
}

func (q *inbox) close() {
	q.mu.Lock()
	q.mu.closed = true
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run commits until the inbox is closed and empty. A store error ends it: everything that waits
// and everything that follows is refused.
func (c *committer) run() error {
	var ops []op
	for {
		var closed bool
		ops, closed = c.inbox.take(ops)
		if len(ops) == 0 {
			if closed {
				c.flush()
				close(c.synced)
				return c.failed
			}
			<-c.inbox.wake
			continue
		}
		c.work(ops)
		clear(ops)
	}
}

// work stages ops and applies what is left.
func (c *committer) work(ops []op) {
	for _, o := range ops {
		if c.failed != nil {
			o.finish(localstore.Synced{}, c.failed)
			continue
		}
		_, alone := o.(loner)
		if alone || c.full() {
			c.flush()
		}
		o.stage(c)
		c.staged = append(c.staged, o)
		if alone {
			c.flush()
		}
	}
	c.flush()
}

func (c *committer) full() bool {
	return c.batch.Bytes() >= batchBytes || len(c.next.refs) >= batchMessages
}

// flush applies the batch and hands it to the syncer.
func (c *committer) flush() {
	if c.batch.Len() == 0 && len(c.staged) == 0 && len(c.next.events) == 0 {
		return
	}
	if c.metaSet {
		c.batch.SetMeta(c.meta)
		c.metaSet = false
	}
	c.batch.SetBooks(c.books)
	start, rows := c.wall(), len(c.next.refs)
	pending, err := c.store.Apply(c.batch)
	c.batch = c.store.NewBatch()
	f := c.next
	f.ops, f.pending, f.books, f.uncold = c.staged, pending, c.books, c.uncold
	f.last, f.outbox, f.mark = c.lastSeq(), c.meta.OutboxNext, c.meta.Watermark
	if len(f.refs) > 0 {
		c.recent = append(c.recent, accepted{last: f.last, low: c.lowest})
	}
	c.lowest = delay.MaxKey
	if f.at = c.wall(); c.events.Commit != nil {
		c.events.Commit(f.at.Sub(start), rows)
	}
	c.staged, c.next = nil, flushed{}
	clear(c.touched)
	if err != nil {
		c.fail(err)
		for _, o := range f.ops {
			o.finish(localstore.Synced{}, c.failed)
		}
		return
	}
	c.synced <- f
}

func (c *committer) fail(err error) {
	if c.failed == nil {
		c.failed = fmt.Errorf("commit: %w", err)
		c.broken(c.failed)
	}
}

// runSyncs waits for each batch's sync, in order, and then tells everyone. Nothing before the sync
// leaves this package: not the replies, not the references, not the uploads (S4, S7).
func (c *committer) runSyncs() error {
	var failed error
	for f := range c.synced {
		if failed == nil {
			if failed = c.settle(f); failed != nil {
				c.broken(failed)
			}
			continue
		}
		for _, o := range f.ops {
			o.finish(localstore.Synced{}, failed)
		}
	}
	return failed
}

func (c *committer) lastSeq() delay.Seq { return delay.MakeSeq(c.meta.Epoch, c.counter) }

func (c *committer) nextSeq() delay.Seq {
	c.counter++
	seq := c.lastSeq()
	c.handed.Store(uint64(seq))
	return seq
}

// then has ev posted to the core after the sync of the current batch.
func (c *committer) then(ev event) { c.next.events = append(c.next.events, ev) }

// changed notes a change of meta for the current batch.
func (c *committer) changed() { c.metaSet = true }

// distinct makes sure that id was not touched in the current batch: reads see only what has been
// applied.
func (c *committer) distinct(id string) {
	if _, ok := c.touched[id]; ok {
		c.flush()
	}
	c.touched[id] = struct{}{}
}

// insert stores m as a fresh row and returns its reference.
func (c *committer) insert(m *delay.Message) ref {
	key := delay.Key{Due: m.Due, Seq: c.nextSeq()}
	if key.Due < c.meta.Watermark.Due {
		key.Due = c.meta.Watermark.Due // rule R2
	}
	m.Cold = c.tiered && (m.Durability == delay.Tier || m.Due.Sub(m.AcceptedAt) > c.opts.MinWait)
	c.scratch = delay.AppendRecord(c.scratch[:0], m)
	c.batch.PutRow(key, c.scratch)
	r := ref{key: key, lane: c.lanes.number(m.Target), meta: uint32(len(c.scratch))}
	if m.Cold {
		r.meta |= refCold
		c.next.rows = append(c.next.rows, c.upload.row(key, c.scratch))
	} else {
		c.uncold++
	}
	if m.ID != "" {
		r.meta |= refID
	}
	if m.Mode == delay.AtMostOnce {
		r.meta |= refOnce
	}
	if at := m.Expires(); at > 0 {
		c.batch.PutTimer(at, timerExpire, delay.AppendKey(nil, key))
	}
	c.next.refs = append(c.next.refs, r)
	if key.Less(c.lowest) {
		c.lowest = key
	}
	return r
}

// acceptOp stores drafts.
type acceptOp struct {
	drafts   []delay.Draft
	receipts []Receipt
	made     []byte // the server-made ids, 26 bytes each, in the order of the receipts
	done     chan error
}

func (a *acceptOp) stage(c *committer) {
	a.made = make([]byte, 0, 26*len(a.drafts))
	for i := range a.drafts {
		if c.full() {
			c.flush()
			if c.failed != nil {
				break
			}
		}
		c.accept(&a.drafts[i], &a.receipts[i], a)
	}
	// One string for all ids of the request: an allocation per request, not per message.
	made := string(a.made)
	at := 0
	for i := range a.receipts {
		if r := &a.receipts[i]; r.Err == nil && r.ID == "" && at+26 <= len(made) {
			r.ID = delay.ID(made[at : at+26])
			at += 26
		}
	}
}

func (a *acceptOp) finish(_ localstore.Synced, err error) { a.done <- err }

func (c *committer) accept(d *delay.Draft, r *Receipt, a *acceptOp) {
	if d.ID != "" {
		c.acceptNamed(d, r)
		return
	}
	d.Generation = 1
	rf := c.insert(&d.Message)
	c.books.Accepted++
	c.books.Pending++
	a.made = c.ids.AppendID(a.made, c.shard, rf.key)
	r.ID, r.Due, r.Durability, r.Generation = "", d.Due, d.Durability, 1
	r.seq = rf.key.Seq
}

// acceptNamed accepts a message with a client's id (S4).
func (c *committer) acceptNamed(d *delay.Draft, r *Receipt) {
	id := string(d.ID)
	if !c.meta.IDsComplete {
		r.Err = fmt.Errorf("%w: ids are being restored from the bucket", delay.ErrUnavailable)
		return
	}
	if delay.LooksServerMade(d.ID) {
		kind, _, key := c.ids.Parse(d.ID)
		if kind != delay.ReservedID || !c.issued(key.Seq) {
			r.Err = delay.Invalid("id", "looks like an id of the server but was not reserved")
			return
		}
	}
	c.distinct(id)
	old, found, err := c.store.LookupID(id)
	if err != nil {
		r.Err = fmt.Errorf("look up id: %w", err)
		return
	}
	d.Generation = 1
	if found {
		if c.repeated(d, r, &old) || !c.replace(d, r, &old) {
			return
		}
	}
	rf := c.insert(&d.Message)
	ident := delay.IdentityOf(rf.key, &d.Message)
	c.batch.PutID(id, localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	if !found || old.State.Finished() {
		c.books.Accepted++
		c.books.Pending++
	}
	r.ID, r.Due, r.Durability, r.Generation = d.ID, d.Due, d.Durability, d.Generation
	r.seq = rf.key.Seq
}

// repeated answers a request that repeats an earlier one.
func (c *committer) repeated(d *delay.Draft, r *Receipt, old *localstore.IDRecord) bool {
	if !old.SameContent(delay.IdentityOf(delay.Key{}, &d.Message)) {
		return false
	}
	r.ID, r.Duplicate, r.State = d.ID, true, old.State
	r.Due = old.Given.Add(d.Due.Sub(d.GivenDue())) // the same id has the same spread
	r.Durability, r.Generation = old.Durability, old.Generation
	r.seq = old.Key.Seq
	return true
}

// replace clears the way for another content under the same id.
func (c *committer) replace(d *delay.Draft, r *Receipt, old *localstore.IDRecord) bool {
	if !d.Replace {
		r.Err = fmt.Errorf("%w: id %q names another message", delay.ErrExists, d.ID)
		return false
	}
	d.Generation = old.Generation + 1
	if old.State.Finished() {
		return true
	}
	loc, err := c.find.locateKey(old.Key)
	if err != nil {
		r.Err = err
		return false
	}
	if !c.claimable(loc) {
		r.Err = fmt.Errorf("%w: id %q is claimed", delay.ErrTooLate, d.ID)
		return false
	}
	d.FirstDue = old.FirstDue
	if d.MaxWait > 0 {
		if most := old.FirstDue.Add(d.MaxWait); d.Due > most {
			d.Due = most
		}
	}
	forward := delay.Key{Due: max(d.Due, c.meta.Watermark.Due), Seq: c.lastSeq() + 1}
	c.remove(loc, &delay.Mark{Key: loc.key, State: delay.Scheduled, At: c.now(), Forward: forward})
	return true
}

// issued reports whether seq has been handed out, by this epoch or an earlier one.
func (c *committer) issued(s delay.Seq) bool {
	return s.Counter() != 0 && s <= delay.Seq(c.handed.Load())
}

// Accept stores drafts and fills receipts, which has the same length. Items are independent: what
// is wrong with one is in its receipt. The error of the call means that nothing is promised:
// ErrOverloaded, ErrDiskFull and ErrClosed say that nothing was stored, anything else that the
// outcome is unknown. Strings and bytes of the drafts must stay unchanged until it returns.
func (s *Shard) Accept(ctx context.Context, drafts []delay.Draft, receipts []Receipt) error {
	if err := s.accepting(); err != nil {
		return err
	}
	weight, tier := int64(0), false
	for i := range drafts {
		d := &drafts[i]
		weight += int64(len(d.Body)) + 256
		if d.Durability == delay.Tier {
			if s.parts.Tier == nil {
				return delay.Invalid("durability", "tier needs a bucket (--bucket none)")
			}
			tier = true
		}
	}
	a := &acceptOp{drafts: drafts, receipts: receipts, done: make(chan error, 1)}
	if err := s.do(a, weight, a.done); err != nil {
		return err
	}
	s.countAccepted(receipts)
	if tier {
		return s.waitTier(ctx, receipts)
	}
	return nil
}

func (s *Shard) accepting() error {
	switch {
	case s.draining.Load():
		return fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	case s.parts.Store.Refusing():
		return fmt.Errorf("%w: %d bytes free", delay.ErrDiskFull, s.parts.Store.DiskFree())
	}
	return nil
}

func (s *Shard) countAccepted(receipts []Receipt) {
	accepted, repeated := 0, 0
	for i := range receipts {
		switch {
		case receipts[i].Err != nil:
			if s.parts.Events.Rejected != nil {
				s.parts.Events.Rejected("api", kindOf(receipts[i].Err), 1)
			}
		case receipts[i].Duplicate:
			repeated++
		default:
			accepted++
		}
	}
	if s.parts.Events.Accepted != nil && accepted > 0 {
		s.parts.Events.Accepted("api", accepted)
	}
	if s.parts.Events.Duplicate != nil && repeated > 0 {
		s.parts.Events.Duplicate("api", repeated)
	}
}

// kindOf is the label of an error in metrics.
func kindOf(err error) string {
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrExists, delay.ErrTooLate, delay.ErrUnavailable,
		delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrUnimplemented,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "internal"
}

// Reserve makes n ids to be used by later sends. A reserved id costs nothing until it is used.
func (s *Shard) Reserve(ctx context.Context, n int) ([]delay.ID, error) {
	if err := s.accepting(); err != nil {
		return nil, err
	}
	o := &reserveOp{n: n, done: make(chan error, 1)}
	err := s.do(o, 1, o.done)
	return o.ids, err
}

// reserveOp takes fresh seqs for ids. Seqs of a crashed epoch are never issued again, so the op
// needs no row.
type reserveOp struct {
	n    int
	ids  []delay.ID
	done chan error
}

func (o *reserveOp) stage(c *committer) {
	now := c.now()
	for range o.n {
		key := delay.Key{Due: now, Seq: c.nextSeq()}
		o.ids = append(o.ids, c.ids.Reserve(c.shard, key))
	}
}

func (o *reserveOp) finish(_ localstore.Synced, err error) { o.done <- err }
