// SPDX-License-Identifier: Apache-2.0

package hydrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/tiered"
)

// Bounds of the work.
const (
	hydrateBytes  = 1 << 20     // rows brought back in one commit
	hydrateRows   = 4000        //
	hydratesAhead = 4           // commits of them under way
	dropRows      = 1000        // rows dropped in one commit
	hydrateRetry  = time.Second //
	minStep       = time.Second // hydrate at least this much at once
	maxStepAhead  = time.Hour   // and at most
	lookEvery     = 200 * time.Millisecond
)

// Config is what a Hydrator works with. All but Hydrated must be set.
type Config struct {
	Store   *localstore.Store
	Tier    *tiered.Tier
	Horizon time.Duration // how far ahead rows stay local
	DropLag time.Duration // a row is dropped this long after its upload
	Now     func() delay.Due
	Wall    func() time.Time            // for measuring
	Put     func(commit.Op) error       // hands an op to the committer
	Wait    func(done chan error) error // for its answer
	// Hydrated tells of a hydrate that did something, or failed. It may be nil.
	Hydrated func(d time.Duration, messages int, err error)
}

// Hydrator does the work of one shard.
type Hydrator struct {
	c  Config
	mu struct {
		sync.Mutex
		history []uploadedAt
	}
}

// uploadedAt remembers when a prefix of the seqs was in the bucket, for the drop lag.
type uploadedAt struct {
	at  delay.Due
	seq delay.Seq
}

// New makes a Hydrator.
func New(c Config) *Hydrator { return &Hydrator{c: c} }

// Uploaded tells that at this instant a committed manifest held the rows up to seq.
func (h *Hydrator) Uploaded(at delay.Due, seq delay.Seq) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.history = append(h.mu.history, uploadedAt{at: at, seq: seq})
}

// Run works until ctx is done. What came of each round is told to hydrated and dropped.
func (h *Hydrator) Run(ctx context.Context, hydrated, dropped func(error)) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	last := h.c.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		next := lookEvery
		err := h.Ahead(ctx)
		if ctx.Err() != nil {
			return
		}
		if hydrated(err); err != nil {
			next = hydrateRetry
		}
		if now := h.c.Now(); now >= last.Add(min(h.c.DropLag/4, time.Minute)) {
			last = now
			if err := h.Drop(ctx); ctx.Err() == nil {
				dropped(err)
			}
		}
		tick.Reset(next)
	}
}

// step is how far one hydrate goes beyond the horizon, so that it has something to do.
func (h *Hydrator) step() time.Duration {
	return min(max(h.c.Horizon/24, minStep), maxStepAhead)
}

// Ahead raises L to now + horizon + a step, in order of due.
func (h *Hydrator) Ahead(ctx context.Context) error {
	for ctx.Err() == nil {
		l := h.c.Store.Meta().Boundary
		now := h.c.Now()
		if l == delay.MaxKey || l.Due >= now.Add(h.c.Horizon) {
			return nil
		}
		to := delay.Key{Due: now.Add(h.c.Horizon + h.step())}
		start, n := h.c.Wall(), 0
		err := h.Range(ctx, l, to, &n)
		if h.c.Hydrated != nil && (n > 0 || err != nil) {
			h.c.Hydrated(h.c.Wall().Sub(start), n, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Range brings the messages of [from, to) back, adds their number to n, and raises L as it goes:
// what has been brought back can be loaded while the rest still comes.
func (h *Hydrator) Range(ctx context.Context, from, to delay.Key, n *int) error {
	scan := hydration{c: &h.c, n: n}
	scan.begin(from)
	err := h.c.Tier.Scan(ctx, from, to, scan.add)
	if err != nil {
		err = fmt.Errorf("scan the tier from %s: %w", from, err)
	} else if scan.err == nil {
		scan.put(to)
	}
	return errors.Join(scan.err, err, scan.wait(0))
}

// hydration is a scan on its way into the store. Ops follow each other without waiting for the sync
// of the one before: one that fails fails those behind it, because L stays below them.
type hydration struct {
	c     *Config
	n     *int
	op    *commit.HydrateOp // being filled
	arena []byte            // its records, one after the other
	sent  []*commit.HydrateOp
	err   error
}

func (h *hydration) begin(from delay.Key) {
	h.op = &commit.HydrateOp{
		Keys: make([]delay.Key, 0, hydrateRows), Recs: make([][]byte, 0, hydrateRows), From: from,
		Done: make(chan error, 1),
	}
	h.arena = make([]byte, 0, hydrateBytes)
}

// add takes a message of the scan; false ends that.
func (h *hydration) add(k delay.Key, rec []byte) bool {
	full := len(h.op.Keys) >= hydrateRows || len(h.arena)+len(rec) > hydrateBytes
	if full && len(h.op.Keys) > 0 {
		if h.put(k); h.err != nil {
			return false
		}
		h.begin(k)
	}
	at := len(h.arena)
	h.arena = append(h.arena, rec...)
	h.op.Keys = append(h.op.Keys, k)
	h.op.Recs = append(h.op.Recs, h.arena[at:len(h.arena):len(h.arena)])
	return true
}

// put hands the op over, and waits while too many are under way.
func (h *hydration) put(boundary delay.Key) {
	h.op.Boundary = boundary
	if h.err = h.c.Put(h.op); h.err == nil {
		h.sent = append(h.sent, h.op)
		h.err = h.wait(hydratesAhead)
	}
}

// wait waits until at most so many ops are under way, and returns the first error.
func (h *hydration) wait(most int) (failed error) {
	for len(h.sent) > most {
		err := h.c.Wait(h.sent[0].Done)
		if err == nil {
			*h.n += len(h.sent[0].Keys)
		} else if failed == nil {
			failed = err
		}
		h.sent = h.sent[1:]
	}
	return failed
}

// Drop drops rows beyond the horizon that have been in the bucket for the drop lag.
func (h *Hydrator) Drop(ctx context.Context) error {
	now := h.c.Now()
	seq, ok := h.droppable(now)
	if !ok {
		return nil
	}
	from := delay.Key{Due: now.Add(h.c.Horizon + 2*h.step())}
	o := &commit.DropOp{Seq: seq, Done: make(chan error, 1)}
	put := func() error {
		err := h.c.Put(o)
		if err == nil {
			err = h.c.Wait(o.Done)
		}
		o = &commit.DropOp{Seq: seq, Done: make(chan error, 1)}
		return err
	}
	for more := true; more && ctx.Err() == nil; {
		more = false
		err := h.c.Store.ScanRows(from, delay.MaxKey, func(k delay.Key, rec []byte) bool {
			if k.Seq > seq {
				return true
			}
			if _, cold, err := delay.RecordTarget(rec); err != nil || !cold {
				return true
			}
			o.Keys = append(o.Keys, k)
			if len(o.Keys) < dropRows {
				return true
			}
			more, from = true, k.Next()
			return false
		})
		if err != nil {
			return err
		}
		if len(o.Keys) > 0 {
			if err := put(); err != nil {
				return err
			}
		}
	}
	return nil
}

// droppable is the highest seq whose upload is older than the drop lag, when there is a new one.
func (h *Hydrator) droppable(now delay.Due) (delay.Seq, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if planted.Is(planted.DropBeforeNoted) {
		return h.c.Store.LastSeq(), true
	}
	n := 0
	for n < len(h.mu.history) && h.mu.history[n].at.Add(h.c.DropLag) <= now {
		n++
	}
	if n == 0 {
		return 0, false
	}
	seq := h.mu.history[n-1].seq
	h.mu.history = slices.Delete(h.mu.history, 0, n)
	return seq, true
}
