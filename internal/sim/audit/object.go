// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/segment"
)

// Object is the content of an object of the tier: rows, kept messages or marks.
type Object struct {
	Rows  []Row
	Kept  []delay.Kept
	Marks []delay.Mark
}

// Row is a message of a segment.
type Row struct {
	Key    delay.Key
	Record []byte
	Named  bool // it carries an id of its client
}

// readObject decodes what was stored.
func readObject(ctx context.Context, z *codec.Zstd, body []byte) (*Object, error) {
	o := &Object{}
	_, err := segment.DecodeMarks(z, body, func(m delay.Mark) bool {
		o.Marks = append(o.Marks, m)
		return true
	})
	if err == nil {
		return o, nil
	}
	r, err := segment.Open(ctx, z, func(_ context.Context, off, n int64) ([]byte, error) {
		if off < 0 || n < 0 || off+n > int64(len(body)) {
			return nil, errors.New("range beyond the end")
		}
		return body[off : off+n], nil
	}, int64(len(body)), 0)
	if err != nil {
		return nil, err
	}
	var failed error
	err = r.Scan(ctx, delay.Key{}, delay.MaxKey, func(it segment.Item) bool {
		failed = o.add(it, r.Index().Kept)
		return failed == nil
	})
	return o, errors.Join(err, failed)
}

func (o *Object) add(it segment.Item, kept bool) error {
	if kept {
		k, err := it.Kept()
		k.Record = slices.Clone(k.Record)
		o.Kept = append(o.Kept, k)
		return err
	}
	m, err := delay.DecodeRecord(it.Record)
	o.Rows = append(o.Rows, Row{
		Key: it.Key, Record: slices.Clone(it.Record), Named: m.ID != "",
	})
	return err
}

// marks gives the marks of keys that s lists.
func (b *Bucket) marks(s *manifest.State) map[delay.Key]*delay.Mark {
	marks := make(map[delay.Key]*delay.Mark)
	for _, o := range b.list(s.Marks) {
		for i := range o.Marks {
			if m := &o.Marks[i]; !m.Key.IsZero() {
				marks[m.Key] = m
			}
		}
	}
	return marks
}

// checkGone checks what has left the lists between two manifests (A4, A5, A6).
func (b *Bucket) checkGone(prev, next *manifest.State) {
	gone := func(a, b []manifest.SegmentInfo) []manifest.SegmentInfo {
		return slices.DeleteFunc(slices.Clone(a), func(i manifest.SegmentInfo) bool {
			return slices.ContainsFunc(b, func(j manifest.SegmentInfo) bool {
				return j.Name == i.Name
			})
		})
	}
	segments, kept := gone(prev.Segments, next.Segments), gone(prev.Kept, next.Kept)
	marks := gone(prev.Marks, next.Marks)
	if len(segments)+len(kept)+len(marks) == 0 {
		return
	}
	c := checker{Bucket: b, next: next, now: delay.InstantOf(b.opts.Now()), marks: b.marks(next)}
	c.rows, c.kept = make(map[delay.Key]bool), make(map[delay.Key]bool)
	c.ids = make(map[string]delay.Due)
	for _, o := range b.list(next.Segments) {
		for i := range o.Rows {
			c.rows[o.Rows[i].Key] = true
		}
	}
	for _, o := range b.list(next.Kept) {
		for i := range o.Kept {
			c.kept[o.Kept[i].Key] = true
		}
	}
	for _, o := range b.list(next.Marks) {
		for i := range o.Marks {
			m := &o.Marks[i]
			c.ids[m.ID] = max(c.ids[m.ID], m.At)
		}
	}
	// The marks of both manifests count for what leaves: a mark may leave with its last object.
	for k, m := range b.marks(prev) {
		if c.marks[k] == nil {
			c.marks[k] = m
		}
	}
	for _, o := range b.list(segments) {
		c.checkRows(o)
	}
	for _, o := range b.list(kept) {
		c.checkKept(o)
	}
	for i := range marks {
		if o := b.objects[marks[i].Name]; o != nil {
			c.checkMarks(marks[i].Name, o)
		}
	}
}

// checker looks at one step between manifests.
type checker struct {
	*Bucket
	next       *manifest.State
	now        delay.Due
	rows, kept map[delay.Key]bool        // that next lists
	marks      map[delay.Key]*delay.Mark // of both
	ids        map[string]delay.Due      // outcomes that next lists
}

// covered reports whether a bulk cancel of s covers a message (R6).
func (b *Bucket) covered(s *manifest.State, key delay.Key, record []byte) bool {
	return slices.ContainsFunc(s.Predicates, func(p delay.Predicate) bool {
		return p.Covers(b.opts.IDs, s.Shard, key, record)
	})
}

// over reports whether the window of what ended at an instant is over, by the owner's clock.
func (c *checker) over(at delay.Due) bool {
	return at.Add(c.opts.Window) < c.now.Add(time.Second)
}

func (c *checker) checkRows(o *Object) {
	for i := range o.Rows {
		r := &o.Rows[i]
		switch {
		case c.rows[r.Key] || c.covered(c.next, r.Key, r.Record):
		case !r.Key.Less(c.next.Watermark) && c.marks[r.Key] == nil:
			c.opts.Fail("version %d dropped the message %s, which has no mark", c.next.Version,
				r.Key)
		case r.Named && c.marks[r.Key] == nil && !c.kept[r.Key] && !c.over(r.Key.Due):
			c.opts.Fail("version %d dropped the message %s within the window of its id",
				c.next.Version, r.Key)
		}
	}
}

func (c *checker) checkKept(o *Object) {
	for i := range o.Kept {
		if k := o.Kept[i].Key; !c.kept[k] && c.marks[k] == nil {
			c.opts.Fail("version %d dropped the kept message %s, which has no mark",
				c.next.Version, k)
		}
	}
}

func (c *checker) checkMarks(name string, o *Object) {
	still := c.Bucket.marks(c.next)
	for i := range o.Marks {
		m := &o.Marks[i]
		if !m.Key.IsZero() && still[m.Key] == nil && (c.rows[m.Key] || c.kept[m.Key]) {
			c.opts.Fail("version %d dropped %s with the mark of %s, which a listed object holds",
				c.next.Version, name, m.Key)
		}
		if m.ID != "" && c.ids[m.ID] < m.At && !c.over(m.At) {
			c.opts.Fail("version %d dropped the outcome of id %q within its window",
				c.next.Version, m.ID)
		}
	}
}
