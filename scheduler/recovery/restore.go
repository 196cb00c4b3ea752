// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/tiered"
)

// Bounds of what a restore holds: the bytes of a batch, and the batches that wait for their sync.
// With millions of marks the syncs are what takes the time.
const (
	restoreBytes = 1 << 20
	restoreSyncs = 8
	keptChunk    = 1000 // kept messages whose marks are looked for together
)

// Restore fills a new local store with what the manifest's cut says, but for the cold messages:
// those come back with hydrate, in the order of their dues, while the shard serves (R5, R14, R15).
// meta and books are filled and stored last: then the store is believed.
func (r *Recoverer) Restore(
	ctx context.Context, st *tiered.State, meta *localstore.Meta, books *delay.Books,
) error {
	meta.Watermark, meta.Boundary = st.Watermark, st.Watermark
	if planted.Is(planted.RestoreTooHigh) {
		meta.Boundary = st.Watermark.Next()
	}
	meta.Uploaded, meta.IDsComplete = st.Uploaded, false
	if !planted.Is(planted.BooksForgotten) {
		*books = st.Books
	}
	if !planted.Is(planted.LostUncounted) {
		books.Pending -= st.NotUploaded
		books.LostWithDisk += st.NotUploaded
	}
	w := &restorer{
		Recoverer: r, b: r.Store.NewBatch(), watermark: st.Watermark,
		ids: make(map[string]delay.Seq),
	}
	if err := errors.Join(w.fill(ctx, st), w.await(0)); err != nil {
		return err
	}
	meta.Adopted = true // from here on the store is believed (C13)
	w.b.SetMeta(*meta)
	w.b.SetBooks(*books)
	if err := r.apply(w.b); err != nil {
		return err
	}
	r.Log.Info("restored from the bucket",
		zap.Uint64("manifest_version", st.Version), zap.Int64("pending", books.Pending),
		zap.Int64("lost_with_disk", books.LostWithDisk), zap.Int("segments", len(st.Segments)))
	return nil
}

// restorer writes in batches.
type restorer struct {
	*Recoverer
	b         *localstore.Batch
	ids       map[string]delay.Seq // in b: which message each was of
	unsynced  []localstore.Pending
	err       error
	watermark delay.Key
}

// fill brings back everything but the meta and the books.
func (r *restorer) fill(ctx context.Context, st *tiered.State) error {
	if err := r.countCold(ctx, st); err != nil {
		return fmt.Errorf("count cold messages: %w", err)
	}
	for _, p := range st.Predicates {
		p.Swept = p.Begin() // slots and ids of this store do not know of it yet
		r.b.PutPredicate(&p)
	}
	for name, cursor := range st.Cursors {
		if !planted.Is(planted.CursorsUnrestored) {
			r.b.PutCursor(name, cursor)
		}
	}
	targets := make(map[delay.Target]localstore.TargetState)
	for _, l := range st.Limits {
		targets[l.Target] = localstore.TargetState{Limit: l.Limit}
	}
	for _, t := range st.Paused {
		if !planted.Is(planted.PausesForgotten) {
			targets[t] = localstore.TargetState{Paused: true, Limit: targets[t].Limit}
		}
	}
	for t, state := range targets {
		r.b.PutTarget(t, state)
	}
	if planted.Is(planted.KeptUnrestored) {
		return r.marks(ctx, st)
	}
	if planted.Is(planted.MarksUnrestored) {
		return r.kept(ctx)
	}
	if err := r.marks(ctx, st); err != nil {
		return fmt.Errorf("marks: %w", err)
	}
	if err := r.kept(ctx); err != nil {
		return fmt.Errorf("kept messages: %w", err)
	}
	return nil
}

// more hands a full batch on and reports whether to continue.
func (r *restorer) more() bool {
	if r.b.Bytes() >= restoreBytes {
		r.err = errors.Join(r.err, r.send())
	}
	return r.err == nil
}

// send applies the batch, without waiting for its sync.
func (r *restorer) send() error {
	pending, err := r.Store.Apply(r.b)
	r.b = r.Store.NewBatch()
	clear(r.ids)
	if err != nil {
		return err
	}
	r.unsynced = append(r.unsynced, pending)
	return r.await(restoreSyncs)
}

// await waits until at most most batches are not synced. Every one is waited for, also after an
// error.
func (r *restorer) await(most int) (err error) {
	for len(r.unsynced) > most {
		_, failed := r.unsynced[0].Wait()
		r.unsynced = r.unsynced[1:]
		err = errors.Join(err, failed)
	}
	return err
}

// countCold fills the cold side of the slots from the segments' directories.
func (r *restorer) countCold(ctx context.Context, st *tiered.State) error {
	days, err := r.Tier.Count(ctx, st.Watermark, delay.MaxKey)
	if err != nil {
		return err
	}
	for _, d := range days {
		r.b.AddCold(max(d.Day, st.Watermark.Due),
			localstore.Tally{Messages: d.Count, Bytes: d.Bytes})
	}
	return nil
}

// marks brings back what is finished: keys that segments still hold, and outcomes of ids.
func (r *restorer) marks(ctx context.Context, st *tiered.State) error {
	err := r.Tier.ScanMarks(ctx, func(m delay.Mark) bool {
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
			r.putID(m.ID, rec)
			r.b.PutTimer(m.At.Add(r.DedupeWindow), commit.TimerForget, []byte(m.ID))
		}
		return r.more()
	})
	if err == nil {
		err = r.err
	}
	if err != nil {
		return err
	}
	return r.send() // kept looks at the marks
}

// putID remembers what became of an id, unless more is known of it: marks come in the order of
// their keys, and the later of two messages with one id may be due before the earlier.
func (r *restorer) putID(id string, rec localstore.IDRecord) {
	if last, ok := r.ids[id]; ok && rec.Key.Seq < last {
		return
	}
	old, ok, err := r.Store.LookupID(id)
	if err != nil {
		r.err = errors.Join(r.err, fmt.Errorf("look up id: %w", err))
	}
	if ok && rec.Key.Seq < old.Key.Seq {
		return
	}
	r.ids[id] = rec.Key.Seq
	r.b.PutID(id, rec)
}

// kept brings back what was unfinished or dead behind the watermark (rule R5).
func (r *restorer) kept(ctx context.Context) error {
	var chunk []delay.Kept
	bytes := 0
	err := r.Tier.ScanKept(ctx, func(k delay.Kept) bool {
		k.Record = slices.Clone(k.Record)
		chunk, bytes = append(chunk, k), bytes+len(k.Record)
		if len(chunk) < keptChunk && bytes < restoreBytes {
			return true
		}
		r.err = r.keepUnmarked(chunk)
		chunk, bytes = chunk[:0], 0
		return r.err == nil
	})
	if err == nil {
		err = r.err
	}
	if err != nil {
		return err
	}
	return r.keepUnmarked(chunk)
}

// keepUnmarked keeps those of chunk, which is in key order, that have no mark. One scan finds the
// marks of all: among millions of them a lookup for each takes far longer.
func (r *restorer) keepUnmarked(chunk []delay.Kept) error {
	if len(chunk) == 0 {
		return nil
	}
	marked := make(map[delay.Key]bool)
	first, last := chunk[0].Key, chunk[len(chunk)-1].Key
	i := 0
	err := r.Store.ScanMarks(first, last.Next(), func(m delay.Mark) bool {
		for i < len(chunk) && chunk[i].Key.Less(m.Key) {
			i++
		}
		if i < len(chunk) && chunk[i].Key == m.Key {
			marked[m.Key] = true
		}
		return i < len(chunk)
	})
	if err != nil {
		return err
	}
	for _, k := range chunk {
		if marked[k.Key] && !planted.Is(planted.KeptThoughMarked) {
			continue
		}
		if err := r.keep(k); err != nil {
			return err
		}
		if !r.more() {
			return r.err
		}
	}
	return nil
}

func (r *restorer) keep(k delay.Kept) error {
	m, err := delay.DecodeRecord(k.Record)
	if err != nil {
		return fmt.Errorf("kept message %s: %w", k.Key, err)
	}
	id := m.ID
	if id == "" {
		id = r.IDs.Make(r.Shard, k.Key)
	}
	rec := localstore.IDRecord{Identity: delay.IdentityOf(k.Key, &m), Attempts: k.Progress.Attempts}
	if !k.Key.Less(r.watermark) {
		// It was kept before the manifest's watermark passed it: a segment holds it too, which is
		// still to be hydrated and must not bring it back (rule R1).
		r.b.PutMark(&delay.Mark{Key: k.Key, State: k.Progress.State, At: k.Progress.DiedAt})
		if m.Cold {
			r.b.ForgetCold(k.Key.Due, 0)
		}
	}
	if k.Progress.State.Finished() {
		rec.State, rec.FinishedAt = k.Progress.State, k.Progress.DiedAt
		r.b.PutDead(k.Key, k.Progress, k.Record)
		r.b.PutTimer(k.Progress.DiedAt.Add(r.DeadRetention), commit.TimerBury,
			delay.AppendKey(nil, k.Key))
		r.putID(string(id), rec)
		r.b.PutTimer(rec.FinishedAt.Add(r.DedupeWindow), commit.TimerForget, []byte(id))
		return nil
	}
	claimed := k.Progress.State == delay.Claimed
	r.b.PutParked(m.Lane().Hash(), k.Key, claimed, k.Record)
	if k.Progress.Attempts > 0 {
		r.b.PutProgress(k.Key, k.Progress)
	}
	if m.ID != "" {
		r.putID(string(m.ID), rec)
	}
	if at := m.Expires(); at > 0 {
		r.b.PutTimer(at, commit.TimerExpire, delay.AppendKey(nil, k.Key))
	}
	return nil
}
