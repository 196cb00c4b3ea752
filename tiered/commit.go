// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/segment"
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
	Cursors      map[string][]byte
	Released     bool
}

// stagedObject is an upload that is not committed yet.
type stagedObject struct {
	folder string
	digest [sha256.Size]byte // of the content, without the name
	info   SegmentInfo
	index  *segment.Index // nil for marks
	at     time.Time      // when its upload began
}

// Commit uploads the cut and commits a manifest that lists it: all of it or, on an error, none of
// it as far as is known. delay.ErrFenced: the shard is lost. delay.ErrUnavailable: no answer, the
// outcome is unknown; commit again, with the same or a larger cut. A cut that says nothing new only
// reads the manifest (rule R11). Rows, records and marks must stay unchanged until it returns.
func (t *Tier) Commit(ctx context.Context, cut Cut) (State, error) {
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
	if cut.unchanged(state) {
		_, err := t.check(ctx)
		return false, err
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
			t.indexes.put(o.info.Name, o.index, o.index.MemoryBytes())
		}
	}
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
		c.Released == s.Released && maps.EqualFunc(c.Cursors, s.Cursors, bytes.Equal)
}

// apply is the state after the cut. An object that base lists already, because an earlier attempt
// landed, is not listed twice.
func (c *Cut) apply(base *State, objects []stagedObject, now delay.Due) State {
	next := base.Clone()
	next.WrittenAt, next.Released = now, c.Released
	next.Watermark, next.ClaimHorizon, next.Uploaded = c.Watermark, c.ClaimHorizon, c.Uploaded
	next.Books, next.NotUploaded = c.Books, c.NotUploaded
	next.Cursors = nil // never an empty map, which would not come back from its bytes
	for name, cursor := range c.Cursors {
		if next.Cursors == nil {
			next.Cursors = make(map[string][]byte, len(c.Cursors))
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

// upload stores everything of the cut and gives what the manifest must list. Uploads that take too
// long to be committed are made again once (T4).
func (t *Tier) upload(ctx context.Context, cut *Cut) ([]stagedObject, error) {
	for range 2 {
		objects, err := t.uploadAll(ctx, cut)
		if err != nil {
			return nil, err
		}
		if !t.tooOld(objects) {
			return objects, nil
		}
	}
	return nil, fmt.Errorf("%w: the upload took longer than %s", delay.ErrUnavailable, commitWithin)
}

func (t *Tier) tooOld(objects []stagedObject) bool {
	now := t.opts.Now()
	for i := range objects {
		if age := now.Sub(objects[i].at); age > commitWithin || age < 0 {
			return true
		}
	}
	return false
}

func (t *Tier) uploadAll(ctx context.Context, cut *Cut) ([]stagedObject, error) {
	var objects []stagedObject
	add := func(o stagedObject, err error) error {
		objects = append(objects, o)
		return err
	}
	for from := 0; from < len(cut.Rows); {
		meta := t.begin(false)
		t.writer.Reset(meta)
		for ; from < len(cut.Rows) && t.writer.Stored() < t.opts.SegmentBytes; from++ {
			if err := t.writer.Add(cut.Rows[from].Key, cut.Rows[from].Record); err != nil {
				return nil, err
			}
		}
		if err := add(t.uploadSegment(ctx, l0Folder, meta)); err != nil {
			return nil, err
		}
	}
	for from := 0; from < len(cut.Kept); {
		meta := t.begin(true)
		t.writer.Reset(meta)
		for ; from < len(cut.Kept) && t.writer.Stored() < t.opts.SegmentBytes; from++ {
			if err := t.writer.AddKept(&cut.Kept[from]); err != nil {
				return nil, err
			}
		}
		if err := add(t.uploadSegment(ctx, keptFolder, meta)); err != nil {
			return nil, err
		}
	}
	for from := 0; from < len(cut.Marks); from += marksPerObject {
		marks := cut.Marks[from:min(from+marksPerObject, len(cut.Marks))]
		if err := add(t.uploadMarks(ctx, marks)); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// marksPerObject bounds a marks object, which is read as a whole: about 8 MiB.
const marksPerObject = 100_000

func (t *Tier) begin(kept bool) segment.Meta {
	return segment.Meta{
		Cluster: t.hash, Shard: t.opts.Shard, Epoch: t.current.Load().State.Epoch,
		ID: t.dice.id(t.now()), Kept: kept,
	}
}

func (t *Tier) uploadSegment(
	ctx context.Context, folder string, meta segment.Meta,
) (stagedObject, error) {
	body, x, err := t.writer.Finish()
	if err != nil {
		return stagedObject{}, err
	}
	o := stagedObject{
		folder: folder, index: x, digest: sha256.Sum256(body[segment.HeaderSize:x.TailOffset]),
		info: SegmentInfo{
			Name: objectName(folder, meta.Epoch, meta.ID), Epoch: meta.Epoch,
			First: x.First, Last: x.Last, MinSeq: x.MinSeq, MaxSeq: x.MaxSeq,
			Count: x.Count, Bytes: x.RawBytes, Stored: x.Size, TailOffset: x.TailOffset,
			Checksum: x.BodyCRC, IDs: x.IDs,
		},
	}
	if x.IDs > 0 {
		o.info.LastID = x.Last.Due
	}
	return t.stage(ctx, o, body, segment.FooterSize)
}

func (t *Tier) uploadMarks(ctx context.Context, marks []delay.Mark) (stagedObject, error) {
	meta := t.begin(false)
	body, m, err := segment.EncodeMarks(t.z, meta, marks)
	if err != nil {
		return stagedObject{}, err
	}
	o := stagedObject{
		folder: marksFolder,
		digest: sha256.Sum256(body[segment.HeaderSize : len(body)-segment.MarksFooterSize]),
		info: SegmentInfo{
			Name: objectName(marksFolder, meta.Epoch, meta.ID), Epoch: meta.Epoch,
			First: m.First, Last: m.Last, MinSeq: m.MinSeq, MaxSeq: m.MaxSeq, Count: m.Count,
			Stored: int64(len(body)), Checksum: segment.MarksChecksum(body), IDs: m.IDs,
			LastID: m.LastID,
		},
	}
	return t.stage(ctx, o, body, segment.MarksFooterSize)
}

// stage uploads an object and reads its footer back, unless the same content was uploaded by an
// attempt that failed, not too long ago: then that object is used.
func (t *Tier) stage(
	ctx context.Context, o stagedObject, body []byte, footer int,
) (stagedObject, error) {
	o.at = t.opts.Now()
	for i := range t.staged {
		s := t.staged[i]
		if s.folder == o.folder && s.digest == o.digest && s.info.Epoch == o.info.Epoch {
			if !t.tooOld(t.staged[i : i+1]) {
				return s, nil
			}
		}
	}
	key := t.prefix + o.info.Name
	if err := t.client.Put(ctx, key, body); err != nil {
		return stagedObject{}, err
	}
	if err := t.verifyStored(ctx, key, body[len(body)-footer:], int64(len(body)-footer)); err != nil {
		return stagedObject{}, err
	}
	if len(t.staged) == maxStaged {
		t.staged = t.staged[:copy(t.staged, t.staged[1:])] // the oldest becomes an orphan
	}
	t.staged = append(t.staged, o)
	return o, nil
}

// maxStaged bounds the uploads that a failed Commit leaves to the next.
const maxStaged = 256

// verifyStored reads the end of a new object back (T1): it holds the checksum of the rest. One
// answer may be spoilt on its way.
func (t *Tier) verifyStored(ctx context.Context, key string, end []byte, at int64) error {
	for range 2 {
		stored, err := t.client.GetRange(ctx, key, at, int64(len(end)))
		switch {
		case err == nil && bytes.Equal(stored, end):
			return nil
		case err != nil && !objio.Certain(err):
			return fmt.Errorf("verify: %w", err)
		}
	}
	return fmt.Errorf("verify %s: %w: it is not what was written", key, delay.ErrUnavailable)
}
