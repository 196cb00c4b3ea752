// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
)

// restoreBatch bounds the batches that a restore writes.
const restoreBatch = 1000

// restore fills a new local store with what the manifest's cut says, but for the cold messages:
// those come back with hydrate, in the order of their dues, while the shard serves (R5, R14, R15).
func (s *Shard) restore(ctx context.Context, st *tiered.State) error {
	c := s.commit
	c.meta.Watermark, c.meta.Boundary = st.Watermark, st.Watermark
	c.meta.Uploaded, c.meta.IDsComplete = st.Uploaded, false
	c.books = st.Books
	c.books.Pending -= st.NotUploaded
	c.books.LostWithDisk += st.NotUploaded
	r := &restorer{s: s, b: s.parts.Store.NewBatch()}
	if err := r.countCold(ctx, st); err != nil {
		return fmt.Errorf("count cold messages: %w", err)
	}
	if err := r.marks(ctx, st); err != nil {
		return fmt.Errorf("marks: %w", err)
	}
	if err := r.kept(ctx); err != nil {
		return fmt.Errorf("kept messages: %w", err)
	}
	c.meta.Adopted = true // from here on the store is believed
	r.b.SetMeta(c.meta)
	r.b.SetBooks(c.books)
	if err := s.apply(r.b); err != nil {
		return err
	}
	s.tier.mu.restored = true
	s.log.Info("restored from the bucket",
		zap.Uint64("manifest_version", st.Version), zap.Int64("pending", c.books.Pending),
		zap.Int64("lost_with_disk", c.books.LostWithDisk), zap.Int("segments", len(st.Segments)))
	return nil
}

// restorer writes in batches.
type restorer struct {
	s   *Shard
	b   *localstore.Batch
	err error
}

func (r *restorer) more() bool {
	if r.b.Len() < restoreBatch {
		return true
	}
	r.err = r.s.apply(r.b)
	r.b = r.s.parts.Store.NewBatch()
	return r.err == nil
}

// countCold fills the cold side of the slots from the segments' directories.
func (r *restorer) countCold(ctx context.Context, st *tiered.State) error {
	days, err := r.s.parts.Tier.Count(ctx, st.Watermark, delay.MaxKey)
	if err != nil {
		return err
	}
	for _, d := range days {
		at := max(d.Day, st.Watermark.Due)
		for n := range d.Count {
			r.b.AddCold(at, int(d.Bytes/d.Count))
			if n%65536 == 65535 { // a batch has few writes here, but its counts must land
				if err := r.s.apply(r.b); err != nil {
					return err
				}
				r.b = r.s.parts.Store.NewBatch()
			}
		}
	}
	return nil
}

// marks brings back what is finished: keys that segments still hold, and outcomes of ids.
func (r *restorer) marks(ctx context.Context, st *tiered.State) error {
	c := r.s.commit
	err := r.s.parts.Tier.ScanMarks(ctx, func(m delay.Mark) bool {
		if !m.Key.IsZero() {
			r.b.PutMark(&m)
			if !m.Key.Less(st.Watermark) {
				r.b.ForgetCold(m.Key.Due, 0)
			}
		}
		if m.ID != "" {
			rec := localstore.IDRecord{
				Identity: m.Identity, State: m.State, FinishedAt: m.At, Attempts: m.Attempts,
			}
			r.b.PutID(m.ID, rec)
			r.b.PutTimer(m.At.Add(c.opts.DedupeWindow), timerForget, []byte(m.ID))
		}
		return r.more()
	})
	if err == nil {
		err = r.err
	}
	if err != nil {
		return err
	}
	err = r.s.apply(r.b) // kept looks at the marks
	r.b = r.s.parts.Store.NewBatch()
	return err
}

// kept brings back what was unfinished or dead behind the watermark (rule R5).
func (r *restorer) kept(ctx context.Context) error {
	store := r.s.parts.Store
	err := r.s.parts.Tier.ScanKept(ctx, func(k delay.Kept) bool {
		_, marked, err := store.Mark(k.Key)
		if err != nil {
			r.err = err
			return false
		}
		if marked {
			return true
		}
		if r.err = r.keep(k); r.err != nil {
			return false
		}
		return r.more()
	})
	if err == nil {
		err = r.err
	}
	return err
}

func (r *restorer) keep(k delay.Kept) error {
	c := r.s.commit
	m, err := delay.DecodeRecord(k.Record)
	if err != nil {
		return fmt.Errorf("kept message %s: %w", k.Key, err)
	}
	id := m.ID
	if id == "" {
		id = c.ids.Make(c.shard, k.Key)
	}
	rec := localstore.IDRecord{Identity: delay.IdentityOf(k.Key, &m), Attempts: k.Progress.Attempts}
	if k.Progress.State.Finished() {
		rec.State, rec.FinishedAt = k.Progress.State, k.Progress.DiedAt
		r.b.PutDead(k.Key, k.Progress, k.Record)
		r.b.PutTimer(k.Progress.DiedAt.Add(c.opts.DeadRetention), timerBury,
			delay.AppendKey(nil, k.Key))
		r.b.PutID(string(id), rec)
		r.b.PutTimer(rec.FinishedAt.Add(c.opts.DedupeWindow), timerForget, []byte(id))
		return nil
	}
	claimed := k.Progress.State == delay.Claimed
	r.b.PutParked(m.Target.Hash(), k.Key, claimed, k.Record)
	if k.Progress.Attempts > 0 {
		r.b.PutProgress(k.Key, k.Progress)
	}
	if m.ID != "" {
		r.b.PutID(string(m.ID), rec)
	}
	if at := m.Expires(); at > 0 {
		r.b.PutTimer(at, timerExpire, delay.AppendKey(nil, k.Key))
	}
	return nil
}

// idChunk is how many ids of segments are restored in one commit.
const idChunk = 1000

// runIDs brings back the ids that segments name, while the shard serves; until it is done,
// requests with client ids are answered "unavailable" (rule R14).
func (s *Shard) runIDs(ctx context.Context) error {
	for {
		err := s.restoreIDs(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, delay.ErrClosed) {
			return nil
		}
		s.log.Error("ids could not be restored yet", zap.Error(err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(hydrateRetry):
		}
	}
}

func (s *Shard) restoreIDs(ctx context.Context) error {
	o := &idsOp{done: make(chan error, 1)}
	var failed error
	put := func() bool {
		failed = s.do(o, 0, o.done)
		o = &idsOp{done: make(chan error, 1)}
		return failed == nil
	}
	err := s.parts.Tier.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
		o.ids = append(o.ids, id)
		o.idents = append(o.idents, ident)
		return len(o.ids) < idChunk || put()
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	o.complete = true
	if put() {
		s.log.Info("ids restored")
	}
	return failed
}

// idsOp stores ids of pending messages, unless something newer is known of them.
type idsOp struct {
	ids      []string
	idents   []delay.Identity
	complete bool
	done     chan error
}

func (o *idsOp) stage(c *committer) {
	for i, id := range o.ids {
		c.distinct(id)
		old, known, err := c.store.LookupID(id)
		if err != nil {
			c.log.Error("id unreadable", zap.Error(err))
			continue
		}
		ident := o.idents[i]
		if known && (old.Generation > ident.Generation || old.State.Finished() ||
			ident.Key.Seq < old.Key.Seq) {
			continue
		}
		if loc, err := c.find.locateKey(ident.Key); err != nil || loc.place == placeNone {
			continue
		}
		c.batch.PutID(id, localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	}
	if o.complete {
		c.meta.IDsComplete = true
		c.changed()
	}
}

func (o *idsOp) finish(_ localstore.Synced, err error) { o.done <- err }
