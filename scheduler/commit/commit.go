// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/crowd"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/inbox"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// Bounds of the committer.
const (
	batchBytes    = 1 << 20 // a batch is applied when it holds this much
	batchMessages = 1000    // or this many messages
	syncsInFlight = 8       // batches applied and not yet synced
)

// Op is one request to the committer: the only writer of ids, keys and rows (C5). The pointers to
// the Op types of this package are ops; they must not be touched from Put until they are answered.
type Op interface {
	// stage adds the op's writes to the batch, flushing it where it must.
	stage(c *Committer)
	// finish is called once, after the sync of the op's last write, with a token or an error (C4).
	finish(s localstore.Synced, err error)
}

// Options are what the committer decides by. All but Syncs must be set.
type Options struct {
	MinWait       time.Duration // only messages that wait longer are uploaded
	DedupeWindow  time.Duration // how long ids are remembered after the end
	DeadRetention time.Duration // how long dead letters are kept
	MaxPending    int64         // bytes of intake in the queue
	// MaxPendingMessages bounds the same in messages.
	MaxPendingMessages int
	Syncs              int // batches applied and not yet synced; 0 is 8
}

// Config is what a committer works with and where it begins. Of the functions only OnCommit
// and OnSync may be nil; all are called from the committer's goroutines.
type Config struct {
	Store    *localstore.Store
	IDs      delay.IDMaker
	Shard    delay.Shard
	Lanes    *lanes.Table
	Upload   *upload.Buffer
	Crowd    *crowd.Book // may be nil
	Log      *zap.Logger
	Options  Options
	Tiered   bool                          // there is a bucket
	Now      func() delay.Due              // the guarded clock (rule R21)
	Wall     func() time.Time              // for measuring
	Post     func(core.Event)              // to the core
	Ask      func(delay.Key, *uint32) bool // may the key be withdrawn? lane if parked (C5)
	Broken   func(error)                   // the store failed: the shard must end
	OnCommit func(d time.Duration, messages int)
	OnSync   func(d time.Duration)

	Meta    localstore.Meta
	First   delay.Seq // seqs above it are handed out; all are of its epoch
	Books   delay.Books
	Bulk    []delay.Predicate // bulk cancels, ascending seqs
	Uncold  int64             // pending rows that no segment holds (rule R15)
	Horizon delay.Due         // push messages up to it may have been claimed before (rule R8)
	Targets map[delay.Target]localstore.TargetState
	Read    map[string]int64 // how far sources were read
	Crashed bool             // the claim cursors of Targets may be behind what was handed over
}

// loner is an op that must not share a batch: it decides by reading rows and marks, which show only
// what has been applied, and what follows it must see what it did (rule R1).
type loner interface{ alone() }

func (*ParkOp) alone()    {}
func (*ExpireOp) alone()  {}
func (*TimersOp) alone()  {}
func (*HydrateOp) alone() {}
func (*DropOp) alone()    {}

// Committer turns ops into batches of the local store, in order, one at a time, and pipelines
// their syncs. All fields below inbox are confined to its goroutine.
type Committer struct {
	store   *localstore.Store
	ids     delay.IDMaker
	find    *find.Finder
	opts    Options
	log     *zap.Logger
	lanes   *lanes.Table
	tiered  bool
	shard   delay.Shard
	now     func() delay.Due
	post    func(core.Event)
	ask     func(delay.Key, *uint32) bool
	broken  func(error)
	wall    func() time.Time
	onWrite func(time.Duration, int)
	onSync  func(time.Duration)
	upload  *upload.Buffer
	crowd   *crowd.Book
	inbox   *inbox.Box[Op]
	bulk    *find.Bulk
	synced  chan flushed // to the syncer

	batch   *localstore.Batch
	staged  []Op
	next    flushed // what goes with the batch
	touched map[string]struct{}
	scratch []byte
	meta    localstore.Meta
	metaSet bool // meta changed since the last batch
	books   delay.Books
	epoch   delay.Epoch // of the seqs handed out
	counter uint64
	handed  atomic.Uint64                           // the last seq given out, for readers
	uncold  int64                                   // pending rows that no segment holds (rule R15)
	recent  []accepted                              // batches that the core may not have seen yet
	lowest  delay.Key                               // of the batch
	ranged  delay.Key                               // rows below were removed by range
	retired delay.Key                               // marks below were removed
	horizon delay.Due                               // H as recovered (rule R8)
	first   delay.Seq                               // seqs above it are of this process
	targets map[delay.Target]localstore.TargetState // as written last
	paused  []delay.Target                          // never changed, but replaced
	limits  []delay.TargetLimit                     // likewise
	cursors map[delay.Target]delay.Key              // claim cursors as recovered after a crash
	read    map[string]int64                        // how far sources were read, this batch included
	reached map[string]reached                      // how far with this batch, unless it is told
	failed  error

	// unpassed: bulk cancels of which local rows may still have to be cancelled one by one.
	unpassed map[delay.Seq]struct{}
}

// New makes a committer; it works while run and RunSyncs run, or by CommitStep and
// SyncStep.
func New(cfg Config) *Committer {
	syncs := cfg.Options.Syncs
	if syncs == 0 {
		syncs = syncsInFlight
	}
	c := &Committer{
		store: cfg.Store, ids: cfg.IDs, opts: cfg.Options, log: cfg.Log, lanes: cfg.Lanes,
		tiered: cfg.Tiered, shard: cfg.Shard, now: cfg.Now, post: cfg.Post, ask: cfg.Ask,
		broken: cfg.Broken, wall: cfg.Wall, onWrite: cfg.OnCommit, onSync: cfg.OnSync,
		upload: cfg.Upload, crowd: cfg.Crowd,
		inbox:   inbox.New[Op](cfg.Options.MaxPending, cfg.Options.MaxPendingMessages),
		synced:  make(chan flushed, syncs),
		batch:   cfg.Store.NewBatch(),
		touched: make(map[string]struct{}),
		epoch:   cfg.First.Epoch(), counter: cfg.First.Counter(),
		meta: cfg.Meta, books: cfg.Books, uncold: cfg.Uncold, horizon: cfg.Horizon, first: cfg.First,
		lowest: delay.MaxKey, ranged: cfg.Meta.Watermark,
		targets: make(map[delay.Target]localstore.TargetState),
		cursors: make(map[delay.Target]delay.Key),
		read:    make(map[string]int64), reached: make(map[string]reached),

		bulk:     find.NewBulk(cfg.IDs, cfg.Shard, cfg.Bulk),
		unpassed: make(map[delay.Seq]struct{}),
		paused:   PausedOf(cfg.Targets),
		limits:   LimitsOf(cfg.Targets),
	}
	for i := range cfg.Bulk {
		if p := &cfg.Bulk[i]; p.Swept.Less(p.Upper()) {
			c.unpassed[p.Seq] = struct{}{}
		}
	}
	for t, st := range cfg.Targets {
		c.targets[t] = st
		if cfg.Crashed && !st.ClaimCursor.IsZero() {
			c.cursors[t] = st.ClaimCursor
		}
	}
	maps.Copy(c.read, cfg.Read)
	c.handed.Store(uint64(max(c.lastSeq(), cfg.Store.LastSeq())))
	c.find = find.New(cfg.Store, cfg.IDs, cfg.Shard, c.issued, c.bulk)
	return c
}

// Finder looks messages up in the same store.
func (c *Committer) Finder() *find.Finder { return c.find }

// HandedOut is the highest seq given out so far. It is safe for concurrent use.
func (c *Committer) HandedOut() delay.Seq { return delay.Seq(c.handed.Load()) }

// Put hands o to the committer, which calls it back as the op says. weight counts against
// MaxPending, and the messages of o against MaxPendingMessages; weight 0 is always taken.
// ErrOverloaded or ErrClosed: the op is not taken. It is safe for concurrent use.
func (c *Committer) Put(o Op, weight int64) error {
	count := 0
	if in, ok := o.(interface{ messages() int }); ok {
		count = in.messages()
	}
	return c.inbox.Put(o, weight, count)
}

// Enqueue is put for what must not be refused. After the committer has closed, the op is answered
// with ErrClosed, and the store holds what is true.
func (c *Committer) Enqueue(o Op) {
	if err := c.Put(o, 0); err != nil {
		o.finish(localstore.Synced{}, err)
	}
}

// Close lets run end when everything that was put is committed. It is safe for concurrent use.
func (c *Committer) Close() { c.inbox.Close() }

// Backlog tells whether ops wait for CommitStep and batches for SyncStep.
func (c *Committer) Backlog() (ops, batches bool) {
	return c.inbox.Waiting(), len(c.synced) > 0
}

// CommitStep applies what was put, in place of run. Its error ends the shard.
func (c *Committer) CommitStep() error {
	ops, _ := c.inbox.Take(nil)
	c.work(ops)
	return c.failed
}

// SyncStep syncs the oldest applied batch and tells everyone, in place of RunSyncs. There must be
// one. Its error ends the shard.
func (c *Committer) SyncStep() error { return c.settle(<-c.synced) }

// accepted is the lowest key of a batch and its last seq.
type accepted struct {
	last delay.Seq
	low  delay.Key
}

// flushed is a batch on its way to the disk and what waits for it.
type flushed struct {
	upload.Part
	pending localstore.Pending
	ops     []Op
	refs    []core.Ref
	events  []core.Event
	at      time.Time // when it was applied
}

// Run commits until Close was called and everything is committed. A store error ends it: everything
// that waits and everything that follows is refused. It is called once.
func (c *Committer) Run() error {
	var ops []Op
	for {
		var closed bool
		ops, closed = c.inbox.Take(ops)
		if len(ops) == 0 {
			if closed {
				c.flush()
				close(c.synced)
				return c.failed
			}
			<-c.inbox.Wake()
			continue
		}
		c.work(ops)
		clear(ops)
	}
}

// work stages ops and applies what is left.
func (c *Committer) work(ops []Op) {
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

func (c *Committer) full() bool {
	return c.batch.Bytes() >= batchBytes || len(c.next.refs) >= batchMessages
}

// flush applies the batch and hands it to the syncer.
func (c *Committer) flush() {
	if c.batch.Len() == 0 && len(c.staged) == 0 && len(c.next.events) == 0 {
		return
	}
	c.putReached()
	if c.metaSet {
		c.batch.SetMeta(c.meta)
		c.metaSet = false
	}
	c.batch.SetBooks(c.books)
	start, rows := c.wall(), len(c.next.refs)
	pending, err := c.store.Apply(c.batch)
	c.batch = c.store.NewBatch()
	f := c.next
	f.ops, f.pending, f.Books, f.Uncold = c.staged, pending, c.books, c.uncold
	f.Bulk, f.Paused, f.Limits = c.bulk.All(), c.paused, c.limits
	f.Last, f.Outbox, f.Mark = c.lastSeq(), c.meta.OutboxNext, c.meta.Watermark
	if len(f.refs) > 0 {
		c.recent = append(c.recent, accepted{last: f.Last, low: c.lowest})
	}
	c.lowest = delay.MaxKey
	if f.at = c.wall(); c.onWrite != nil {
		c.onWrite(f.at.Sub(start), rows)
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
	f.ops = slices.DeleteFunc(f.ops, answeredEarly)
	if planted.Is(planted.UploadBeforeSync) {
		c.upload.Add(f.Part)
	}
	c.synced <- f
}

// answeredEarly answers o before the sync, in the exam alone.
func answeredEarly(o Op) bool {
	early := planted.Is(planted.AckWithoutSync)
	switch o := o.(type) {
	case *ChangeOp:
		early = early || planted.Is(planted.CancelWithoutSync)
	case *FinishOp:
		early = early || o.Settle != nil && planted.Is(planted.PullAckWithoutSync)
	}
	if early {
		o.finish(localstore.Synced{}, nil)
	}
	return early
}

func (c *Committer) fail(err error) {
	if c.failed == nil {
		c.failed = fmt.Errorf("commit: %w", err)
		c.broken(c.failed)
	}
}

// RunSyncs waits for each batch's sync, in order, and then tells everyone. Nothing before the sync
// leaves this package: not the replies, not the references, not the uploads (S4, S7).
func (c *Committer) RunSyncs() error {
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

func (c *Committer) lastSeq() delay.Seq { return delay.MakeSeq(c.epoch, c.counter) }

func (c *Committer) nextSeq() delay.Seq {
	c.counter++
	seq := c.lastSeq()
	c.handed.Store(uint64(seq))
	return seq
}

// then has ev posted to the core after the sync of the current batch.
func (c *Committer) then(ev core.Event) { c.next.events = append(c.next.events, ev) }

// changed notes a change of meta for the current batch.
func (c *Committer) changed() { c.metaSet = true }

// distinct makes sure that id was not touched in the current batch: reads see only what has been
// applied.
func (c *Committer) distinct(id string) {
	if _, ok := c.touched[id]; ok && !planted.Is(planted.BatchUnseen) {
		c.flush()
	}
	c.touched[id] = struct{}{}
}

// issued reports whether seq has been handed out, by this epoch or an earlier one.
func (c *Committer) issued(s delay.Seq) bool {
	return s.Counter() != 0 && s <= delay.Seq(c.handed.Load())
}

// settle waits for the sync of one batch and tells everyone who waits for it.
func (c *Committer) settle(f flushed) error {
	token, err := f.pending.Wait()
	if err != nil {
		err = fmt.Errorf("sync: %w", err)
		for _, o := range f.ops {
			o.finish(localstore.Synced{}, err)
		}
		return err
	}
	if c.onSync != nil {
		c.onSync(c.wall().Sub(f.at))
	}
	c.upload.Add(f.Part)
	if len(f.refs) > 0 {
		c.post(core.EvAccepted{Refs: f.refs, Last: f.Last})
	}
	for _, ev := range f.events {
		c.post(ev)
	}
	for _, o := range f.ops {
		o.finish(token, nil)
	}
	return nil
}
