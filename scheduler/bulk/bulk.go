// SPDX-License-Identifier: Apache-2.0

package bulk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/query"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

// Bounds of a bulk cancel.
const (
	chunk       = 1000             // local messages cancelled in one op
	sweepKeys   = 4096             // cold messages counted in one op
	sweepBytes  = 4 << 20          // of their records
	sweepLooked = 100_000          // messages looked at before the position is stored
	countFor    = time.Second      // a purge waits this long for its count
	workEvery   = time.Second      // between two rounds of the background
	retireEvery = 10 * time.Second // between two looks for what is not needed any more
)

// Config is what a Canceller works with. All fields must be set, but Tier, which is nil without a
// bucket.
type Config struct {
	Store        *localstore.Store
	Tier         *tiered.Tier
	Bulk         *find.Bulk
	Query        *query.Reader
	DedupeWindow time.Duration
	Now          func() delay.Due
	Boot         func() time.Duration
	// Do has the committer do an op and waits for its sync, which done answers.
	Do func(o Op, done chan error) error
	// Change applies changes; marks below outbox belong to them. It does not wait for the bucket.
	Change func(
		ctx context.Context, requests []commit.ChangeRequest, results []commit.ChangeResult,
	) (outbox uint64, err error)
	// Confirm waits until the bucket holds the marks below outbox.
	Confirm func(ctx context.Context, outbox uint64) error
	// Report tells the metrics of messages that were counted as cancelled.
	Report func(n int)
}

// Op is one request to the committer.
type Op = commit.Op

// Canceller cancels everything that passes a filter, and counts what it cancelled. It is safe for
// concurrent use.
type Canceller struct {
	Config
	retired time.Duration // when Work looked last for what is not needed; Work's alone

	mu struct {
		sync.Mutex
		// passed: the local rows of a bulk cancel are all cancelled (true), or not (false). One
		// that is missing is in the hands of the purge that made it.
		passed map[delay.Seq]bool
	}
}

// New makes a canceller. The bulk cancels that exist are completed by Work.
func New(c Config) *Canceller {
	out := &Canceller{Config: c}
	out.mu.passed = make(map[delay.Seq]bool)
	for _, p := range c.Bulk.All() {
		out.mu.passed[p.Seq] = false
	}
	return out
}

// Result is what a purge has done.
type Result struct {
	Count      int64            // messages cancelled and counted, or that would be
	Cancelling bool             // more were cancelled and are not counted yet
	Durability delay.Durability // Tier when the bucket holds the bulk cancel
}

// Purge cancels everything that is scheduled now and passes f, schedules only if f asks for them,
// and never what belongs to another broker (rule R19); what is accepted while it runs is not
// touched. dryRun only counts. delay.ErrUnavailable after it has begun: it holds here, and whether
// it would survive the loss of the disk is unknown.
func (c *Canceller) Purge(ctx context.Context, f query.Filter, dryRun bool) (Result, error) {
	scheduled := delay.Scheduled
	if f.State != nil && *f.State != scheduled {
		return Result{}, delay.Invalid("state", "only scheduled messages can be purged")
	}
	if f.Only != nil && (f.Target == "" || !f.Only.Has(f.Target)) {
		return Result{}, delay.Invalid("target", "one of the allowed targets must be named")
	}
	f.State = &scheduled
	switch f.Kind {
	case query.AnyKind, query.Messages:
		f.Kind = query.Own
	case query.Guarded:
		return Result{}, delay.Invalid("kind", "guarded messages belong to their brokers")
	}
	if dryRun {
		n, err := c.Query.Count(ctx, f)
		return Result{Count: n}, err
	}
	o := &commit.BulkOp{Done: make(chan error, 1)}
	o.Predicate = delay.Predicate{
		Target: delay.Target(strings.Clone(string(f.Target))), IDPrefix: strings.Clone(f.IDPrefix),
		From: f.DueFrom, To: f.DueTo,
	}
	// A level is no property of a message, so a predicate cannot say it; and it covers no schedules.
	o.MayHold = func(p *delay.Predicate) bool {
		return f.Level == nil && f.Kind == query.Own && c.mayHold(p)
	}
	if err := c.Do(o, o.Done); err != nil {
		return Result{}, err
	}
	if !o.Made {
		return c.purgeEach(ctx, f, o.Predicate.Seq)
	}
	return c.purgeBulk(ctx, f, o)
}

// mayHold reports whether a segment may hold a cold message of p.
func (c *Canceller) mayHold(p *delay.Predicate) bool {
	state := c.Tier.State()
	lower, upper := p.Begin(), p.Upper()
	return slices.ContainsFunc(state.Segments, func(s tiered.SegmentInfo) bool {
		return s.MinSeq <= p.Seq && s.Overlaps(lower, upper)
	})
}

// purgeEach cancels one by one.
func (c *Canceller) purgeEach(
	ctx context.Context, f query.Filter, cut delay.Seq,
) (Result, error) {
	done, err := c.cancelEach(ctx, f, cut, c.Query.Pending)
	if err == nil && done.tier {
		err = c.Confirm(ctx, done.outbox)
	}
	return Result{Count: done.count}, err
}

// purgeBulk completes a bulk cancel that was made.
func (c *Canceller) purgeBulk(
	ctx context.Context, f query.Filter, o *commit.BulkOp,
) (Result, error) {
	p := &o.Predicate
	done, err := c.pass(ctx, f, p)
	out := Result{Count: done.count, Durability: delay.Tier}
	if err != nil {
		return out, err
	}
	until := c.Boot() + countFor
	finished, err := c.sweep(ctx, p.Seq, func() bool { return c.Boot() < until })
	if err != nil && !errors.Is(err, delay.ErrUnavailable) && !errors.Is(err, delay.ErrCorrupt) {
		return out, err
	}
	// What could not be read will be counted later; it is cancelled all the same.
	out.Cancelling = !finished
	if now, ok := c.Bulk.Find(p.Seq); ok {
		out.Count += now.Cancelled
	}
	return out, c.Confirm(ctx, max(o.Outbox, done.outbox))
}

// pass cancels the local rows that a bulk cancel covers (C18), and those below it that pass its
// filter.
func (c *Canceller) pass(
	ctx context.Context, f query.Filter, p *delay.Predicate,
) (cancelled, error) {
	done, err := c.cancelEach(ctx, f, p.Seq, c.Query.PendingLocal)
	if err == nil {
		synced := make(chan error, 1)
		err = c.Do(commit.BulkPassed(p.Seq, synced), synced)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.passed[p.Seq] = err == nil
	return done, err
}

// cancelled is what cancelEach has done.
type cancelled struct {
	count  int64
	outbox uint64 // marks below it belong to it
	tier   bool   // one of the messages was of durability tier
}

// scan is one of the ways to go through the messages that are pending.
type scan func(context.Context, query.Filter, delay.Key, func(query.Item) bool) error

// cancelEach cancels the messages that scan gives, up to the cut.
func (c *Canceller) cancelEach(
	ctx context.Context, f query.Filter, cut delay.Seq, scan scan,
) (done cancelled, err error) {
	requests := make([]commit.ChangeRequest, 0, chunk)
	results := make([]commit.ChangeResult, chunk)
	flush := func() error {
		if len(requests) == 0 {
			return nil
		}
		outbox, err := c.Change(ctx, requests, results[:len(requests)])
		if err != nil {
			return err
		}
		done.outbox = max(done.outbox, outbox)
		for i := range requests {
			if r := &results[i]; r.Verdict == commit.Cancelled {
				done.count++
				done.tier = done.tier || r.Durability == delay.Tier
			}
			results[i] = commit.ChangeResult{}
		}
		requests = requests[:0]
		return nil
	}
	var failed error
	err = scan(ctx, f, delay.Key{}, func(it query.Item) bool {
		if it.Key.Seq > cut {
			return true
		}
		requests = append(requests, commit.ChangeRequest{
			ID: it.Info.ID, Change: commit.Cancel, Cut: cut,
		})
		if len(requests) == chunk {
			failed = flush()
		}
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return done, err
	}
	return done, flush()
}

// Run does the background's work until ctx is done; note hears how each round went.
func (c *Canceller) Run(ctx context.Context, note func(error)) {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.Work(ctx)
		if ctx.Err() != nil {
			return
		}
		note(err)
	}
}

// Busy reports whether there is anything that Work might do.
func (c *Canceller) Busy() bool { return len(c.Bulk.All()) > 0 }

// Work completes what is left of bulk cancels: local rows after a crash, the count, and dropping
// what is not needed any more. It is called by one goroutine at a time.
func (c *Canceller) Work(ctx context.Context) error {
	for _, p := range c.Bulk.All() {
		passed, known := c.phase(p.Seq)
		if !known || !p.Swept.Less(p.Upper()) {
			continue
		}
		if !passed {
			f := query.Filter{
				Target: p.Target, IDPrefix: p.IDPrefix, DueFrom: p.From, DueTo: p.To,
				Kind: query.Own,
			}
			if _, err := c.pass(ctx, f, &p); err != nil {
				return err
			}
		}
		if _, err := c.sweep(ctx, p.Seq, func() bool { return true }); err != nil {
			return err
		}
	}
	return c.retire()
}

func (c *Canceller) phase(seq delay.Seq) (passed, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed, known = c.mu.passed[seq]
	return passed, known
}

// retire drops what is not needed any more (rule R6). Until then it covers what segments may still
// hold (C16).
func (c *Canceller) retire() error {
	if boot := c.Boot(); boot < c.retired+retireEvery && c.retired > 0 {
		return nil
	}
	c.retired = c.Boot()
	var seqs []delay.Seq
	state, now := c.Tier.State(), c.Now()
	settled := true
	for _, p := range c.Bulk.All() {
		_, known := c.phase(p.Seq)
		swept := known && !p.Swept.Less(p.Upper())
		settled = settled && swept
		// One that has cancelled nothing may have counted for an earlier one, which has to come as
		// far first (C17).
		if swept && (p.Cancelled > 0 || settled) &&
			!upkeep.PredicateNeeded(&state, &p, now, c.DedupeWindow) {
			seqs = append(seqs, p.Seq)
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	done := make(chan error, 1)
	if err := c.Do(commit.BulkRetire(seqs, done), done); err != nil {
		return fmt.Errorf("drop bulk cancels: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range seqs {
		delete(c.mu.passed, seq)
	}
	return nil
}
