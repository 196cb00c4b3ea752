// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objio"
)

// Row is a message as a local row holds it.
type Row struct {
	Key    delay.Key
	Record []byte
}

// Cut is one flush: what is new for the tier, and how far the shard has come at that moment. The
// scalar fields replace those of the manifest, also when they are zero.
type Cut struct {
	Rows  []Row        // ascending keys
	Kept  []delay.Kept // ascending keys; a key may come again in a later cut (rule R5)
	Marks []delay.Mark // ascending keys, those of an id alone (zero key) first

	Watermark    delay.Key // never below the committed one
	ClaimHorizon delay.Due
	Uploaded     delay.Seq
	Books        delay.Books
	NotUploaded  int64
	Cursors      map[string][]byte // those that have moved; the others stay (rule R16)
	Released     bool
	Predicates   []delay.Predicate   // all that are not retired, ascending seqs (rule R6)
	Paused       []delay.Target      // all, ascending
	Limits       []delay.TargetLimit // likewise
}

// Commit uploads the cut and commits a manifest that lists it: all of it or, on an error, none of
// it as far as is known. delay.ErrFenced: the shard is lost. delay.ErrUnavailable: no answer, the
// outcome is unknown; commit again, with the same or a larger cut. A cut that says nothing new only
// reads the manifest (rule R11). Rows, records and marks must stay unchanged until it returns.
func (t *Tier) Commit(ctx context.Context, cut Cut) (State, error) {
	if !cut.Released { // the last words of an owner are tried whatever was before
		ctx = objio.As(ctx, objio.Write)
	}
	if err := t.lock(ctx); err != nil {
		return State{}, err
	}
	defer t.unlock()
	written, err := t.commitCut(ctx, &cut)
	t.meter.committed(t.opts.Now(), written, err)
	if t.opts.Events.Commit != nil {
		t.opts.Events.Commit(commitResult(written, err))
	}
	if err != nil {
		return State{}, fmt.Errorf("commit cut: %w", err)
	}
	return t.current.Load().State.Clone(), nil
}

func (t *Tier) commitCut(ctx context.Context, cut *Cut) (written bool, err error) {
	if err := t.owning(); err != nil {
		return false, err
	}
	state := &t.current.Load().State
	if cut.Watermark.Less(state.Watermark) {
		return false, fmt.Errorf("%w: watermark %s below the committed %s", delay.ErrInvalid,
			cut.Watermark, state.Watermark)
	}
	unchanged := cut.unchanged(state)
	if unchanged && planted.Is(planted.IdleOwnerBlind) {
		return false, nil
	}
	if unchanged || t.client.Paused(objio.Write) {
		// The owner looks, also when nothing can be written (rule R11). The answer may end the pause.
		if _, err := t.check(objio.As(ctx, objio.Read)); err != nil || unchanged {
			return false, err
		}
	}
	objects, err := t.upload(ctx, cut)
	if err != nil {
		return false, err
	}
	err = t.commit(ctx, func(base *State) (State, error) {
		return cut.apply(base, objects, t.now()), nil
	})
	if err != nil {
		return false, err
	}
	for _, o := range objects {
		if o.index != nil {
			t.indexes.Put(o.info.Name, o.index, o.index.MemoryBytes())
		}
	}
	t.noteCut(cut, objects)
	t.staged = t.staged[:0]
	t.opts.Logger.Debug("tier committed", zap.Uint64("version", t.current.Load().State.Version),
		zap.Int("rows", len(cut.Rows)), zap.Int("kept", len(cut.Kept)),
		zap.Int("marks", len(cut.Marks)), zap.Int("objects", len(objects)))
	return true, nil
}

// unchanged reports whether the cut says nothing that s does not say.
func (c *Cut) unchanged(s *State) bool {
	return len(c.Rows) == 0 && len(c.Kept) == 0 && len(c.Marks) == 0 &&
		c.Watermark == s.Watermark && c.ClaimHorizon == s.ClaimHorizon &&
		c.Uploaded == s.Uploaded && c.Books == s.Books && c.NotUploaded == s.NotUploaded &&
		c.Released == s.Released && slices.Equal(c.Predicates, s.Predicates) &&
		slices.Equal(c.Paused, s.Paused) && slices.Equal(c.Limits, s.Limits) &&
		!c.moves(s.Cursors)
}

// moves reports whether the cut moves a cursor.
func (c *Cut) moves(old map[string][]byte) bool {
	for name, cursor := range c.Cursors {
		if at, ok := old[name]; !ok || !bytes.Equal(at, cursor) {
			return true
		}
	}
	return false
}

// apply is the state after the cut. An object that base lists already, because an earlier attempt
// landed, is not listed twice.
func (c *Cut) apply(base *State, objects []stagedObject, now delay.Due) State {
	next := base.Clone()
	next.WrittenAt, next.Released = now, c.Released
	next.Watermark, next.ClaimHorizon, next.Uploaded = c.Watermark, c.ClaimHorizon, c.Uploaded
	next.Books, next.NotUploaded = c.Books, c.NotUploaded
	next.Predicates = append([]delay.Predicate(nil), c.Predicates...) // nil when there are none
	next.Paused = append([]delay.Target(nil), c.Paused...)
	next.Limits = append([]delay.TargetLimit(nil), c.Limits...)
	for name, cursor := range c.Cursors {
		if next.Cursors == nil {
			next.Cursors = make(map[string][]byte, len(c.Cursors)) // never empty: it would not come back
		}
		next.Cursors[name] = bytes.Clone(cursor)
	}
	listed := base.Names(false)
	for i := range objects {
		o := &objects[i]
		if listed[o.info.Name] {
			continue
		}
		info := o.info
		info.CommittedAt = now
		switch o.folder {
		case keptFolder:
			next.Kept = append(next.Kept, info)
		case marksFolder:
			next.Marks = append(next.Marks, info)
		default:
			next.Segments = append(next.Segments, info)
		}
	}
	return next
}
