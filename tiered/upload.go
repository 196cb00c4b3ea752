// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/segment"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

const (
	// uploadsAhead is how many segments may be on their way while the next is built. Each has a
	// buffer of SegmentBytes, which stays for the next Commit.
	uploadsAhead   = 2
	marksPerObject = upkeep.MarksPerObject
	// maxStaged bounds the uploads that a failed Commit leaves to the next.
	maxStaged = 256
)

// stagedObject is an upload that is not committed yet.
type stagedObject struct {
	folder string
	digest [sha256.Size]byte // of the content, without the name
	info   SegmentInfo
	index  *segment.Index // nil for marks
	at     time.Time      // when its upload began
}

// upload stores everything of the cut and gives what the manifest must list. Uploads that take too
// long to be committed are made again once (T4).
func (t *Tier) upload(ctx context.Context, cut *Cut) ([]stagedObject, error) {
	for range 2 {
		objects, err := t.uploadAll(ctx, cut)
		if err != nil {
			return nil, err
		}
		if !t.tooOld(objects...) {
			return objects, nil
		}
	}
	return nil, fmt.Errorf("%w: the upload took longer than %s", delay.ErrUnavailable, commitWithin)
}

func (t *Tier) tooOld(objects ...stagedObject) bool {
	now := t.opts.Now()
	for i := range objects {
		age := now.Sub(objects[i].at)
		if (age > commitWithin || age < 0) && !planted.Is(planted.CommittedLate) {
			return true
		}
	}
	return false
}

// uploads is one pass over a cut: objects are built one after the other, each in the next slot,
// and stored while the following ones are built.
type uploads struct {
	t       *Tier
	ctx     context.Context
	slots   [uploadsAhead]slot
	next    int // of slots, modulo their number
	objects []stagedObject
	wg      sync.WaitGroup
}

// slot is an upload under way.
type slot struct {
	done   chan error // nil: none
	object int        // its place in objects
}

// uploadAll builds and stores the objects of the cut. What was stored before an error is left for
// the next attempt.
func (t *Tier) uploadAll(ctx context.Context, cut *Cut) ([]stagedObject, error) {
	u := uploads{t: t, ctx: ctx}
	err := u.build(cut)
	for range u.slots {
		if late := u.free(); err == nil {
			err = late
		}
	}
	u.wg.Wait()
	if err != nil {
		return nil, err
	}
	return u.objects, nil
}

func (u *uploads) build(cut *Cut) error {
	target := u.t.opts.SegmentBytes
	for from := 0; from < len(cut.Rows); {
		w, err := u.begin(false)
		if err != nil {
			return err
		}
		for ; from < len(cut.Rows) && w.Stored() < target; from++ {
			if err := w.Add(cut.Rows[from].Key, cut.Rows[from].Record); err != nil {
				return err
			}
		}
		if err := u.segment(w, l0Folder); err != nil {
			return err
		}
	}
	for from := 0; from < len(cut.Kept); {
		w, err := u.begin(true)
		if err != nil {
			return err
		}
		for ; from < len(cut.Kept) && w.Stored() < target; from++ {
			if err := w.AddKept(&cut.Kept[from]); err != nil {
				return err
			}
		}
		if err := u.segment(w, keptFolder); err != nil {
			return err
		}
	}
	for from := 0; from < len(cut.Marks); from += marksPerObject {
		marks := cut.Marks[from:min(from+marksPerObject, len(cut.Marks))]
		if err := u.marks(marks); err != nil {
			return err
		}
	}
	return nil
}

// free moves to the next slot and waits for what was stored from it, for the error of that.
func (u *uploads) free() error {
	s := &u.slots[u.next%uploadsAhead]
	u.next++
	if s.done == nil {
		return nil
	}
	err := <-s.done
	s.done = nil
	if err != nil {
		return err
	}
	t := u.t
	if len(t.staged) == maxStaged {
		t.staged = t.staged[:copy(t.staged, t.staged[1:])] // the oldest becomes an orphan
	}
	t.staged = append(t.staged, u.objects[s.object])
	return nil
}

// begin gives a writer whose buffer is free.
func (u *uploads) begin(kept bool) (*segment.Writer, error) {
	w := u.t.writers[u.next%uploadsAhead]
	if err := u.free(); err != nil {
		return nil, err
	}
	w.Reset(u.t.meta(kept))
	return w, nil
}

// meta is of a new object.
func (t *Tier) meta(kept bool) segment.Meta {
	return segment.Meta{
		Cluster: t.hash, Shard: t.opts.Shard, Epoch: t.current.Load().State.Epoch,
		ID: t.dice.id(t.now()), Kept: kept,
	}
}

func (u *uploads) segment(w *segment.Writer, folder string) error {
	body, x, err := w.Finish()
	if err != nil {
		return err
	}
	u.store(segmentObject(folder, body, x), body, segment.FooterSize)
	return nil
}

// segmentObject is what is to be listed of a segment.
func segmentObject(folder string, body []byte, x *segment.Index) stagedObject {
	o := stagedObject{
		folder: folder, index: x, digest: sha256.Sum256(body[segment.HeaderSize:x.TailOffset]),
		info: SegmentInfo{
			Name: objectName(folder, x.Epoch, x.ID), Epoch: x.Epoch,
			First: x.First, Last: x.Last, MinSeq: x.MinSeq, MaxSeq: x.MaxSeq,
			Count: x.Count, Bytes: x.RawBytes, Stored: x.Size, TailOffset: x.TailOffset,
			Checksum: x.BodyCRC, IDs: x.IDs,
		},
	}
	if folder == l1Folder {
		o.info.Level = 1
	}
	if x.IDs > 0 {
		o.info.LastID = x.Last.Due
	}
	return o
}

func (u *uploads) marks(marks []delay.Mark) error {
	if err := u.free(); err != nil {
		return err
	}
	o, body, err := u.t.marksObject(marks)
	if err != nil {
		return err
	}
	u.store(o, body, segment.MarksFooterSize)
	return nil
}

// marksObject encodes marks and tells what is to be listed.
func (t *Tier) marksObject(marks []delay.Mark) (stagedObject, []byte, error) {
	meta := t.meta(false)
	body, m, err := segment.EncodeMarks(t.z, meta, marks)
	if err != nil {
		return stagedObject{}, nil, err
	}
	return stagedObject{
		folder: marksFolder,
		digest: sha256.Sum256(body[segment.HeaderSize : len(body)-segment.MarksFooterSize]),
		info: SegmentInfo{
			Name: objectName(marksFolder, meta.Epoch, meta.ID), Epoch: meta.Epoch,
			First: m.First, Last: m.Last, MinSeq: m.MinSeq, MaxSeq: m.MaxSeq, Count: m.Count,
			Stored: int64(len(body)), Checksum: segment.MarksChecksum(body), IDs: m.IDs,
			LastID: m.LastID,
		},
	}, body, nil
}

// store uploads an object in the slot that free gave last, unless the same content was uploaded by
// an attempt that failed, not too long ago: then that object is used.
func (u *uploads) store(o stagedObject, body []byte, footer int) {
	t := u.t
	for _, s := range t.staged {
		if s.folder == o.folder && s.digest == o.digest && !t.tooOld(s) {
			u.objects = append(u.objects, s)
			return
		}
	}
	o.at = t.opts.Now()
	done := make(chan error, 1)
	u.slots[(u.next-1)%uploadsAhead] = slot{done: done, object: len(u.objects)}
	u.objects = append(u.objects, o)
	u.wg.Go(func() { done <- t.put(u.ctx, o.info.Name, body, footer) })
}

// put stores one object and, unless the store proves what it has, reads its footer back (T1): it
// holds the checksum of the rest.
func (t *Tier) put(ctx context.Context, name string, body []byte, footer int) error {
	key, at := t.prefix+name, int64(len(body)-footer)
	proved, err := t.client.Put(ctx, key, body)
	if proved || err != nil || planted.Is(planted.UploadUnverified) {
		return err
	}
	for range 2 { // one answer may be spoilt on its way
		stored, err := t.client.GetRange(ctx, key, at, int64(footer))
		switch {
		case err == nil && bytes.Equal(stored, body[at:]):
			return nil
		case err != nil && !objio.Certain(err):
			return fmt.Errorf("verify: %w", err)
		}
	}
	return fmt.Errorf("verify %s: %w: it is not what was written", key, delay.ErrUnavailable)
}
