// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/segment"
)

// View looks at the bucket of a shard (O1).
type View struct {
	Tier   *tiered.Tier // read-only, its manifest loaded
	State  tiered.State // of that manifest
	Bucket objstore.Bucket
	Now    func() time.Time

	ids    delay.IDMaker
	marked map[delay.Key]bool // nil: not read yet
	z      *codec.Zstd
}

// client repeats reads that fail, as the Tier does.
func (v *View) client() *objio.Client {
	return objio.New(v.Bucket, objio.Policy{Jitter: rand.Float64, Now: v.Now})
}

func (v *View) zstd() *codec.Zstd {
	if v.z == nil {
		v.z = codec.NewZstd()
	}
	return v.z
}

// finished reads which keys marks say are finished or moved.
func (v *View) finished(ctx context.Context) error {
	if v.marked != nil {
		return nil
	}
	v.ids = delay.NewIDMaker(v.Tier.ClusterID())
	marked := make(map[delay.Key]bool)
	err := v.Tier.ScanMarks(ctx, func(m delay.Mark) bool {
		if !m.Key.IsZero() {
			marked[m.Key] = true
		}
		return true
	})
	if err == nil {
		v.marked = marked
	}
	return err
}

// gone reports whether a message of a segment is finished or moved: the watermark, a mark or a bulk
// cancel says so. What is unfinished behind the watermark is in a kept segment (rule R5).
func (v *View) gone(k delay.Key, rec []byte) bool {
	return k.Less(v.State.Watermark) || v.marked[k] || v.cancelled(k, rec)
}

func (v *View) cancelled(k delay.Key, rec []byte) bool {
	return slices.ContainsFunc(v.State.Predicates, func(p delay.Predicate) bool {
		return p.Covers(v.ids, v.State.Shard, k, rec)
	})
}

// object is a listed object of some kind.
type object struct {
	kind string
	tiered.SegmentInfo
}

// listed are the objects of the manifest: segments by level and due, kept ones, marks.
func (v *View) listed() []object {
	var all []object
	add := func(kind string, infos []tiered.SegmentInfo) {
		from := len(all)
		for _, i := range infos {
			all = append(all, object{kind, i})
		}
		slices.SortStableFunc(all[from:], func(a, b object) int {
			if a.Level != b.Level {
				return int(a.Level) - int(b.Level)
			}
			return a.First.Compare(b.First)
		})
	}
	add(manifest.KindSegment, v.State.Segments)
	add(manifest.KindKept, v.State.Kept)
	add(manifest.KindMarks, v.State.Marks)
	return all
}

// find gives the listed object of a name, which may begin with the shard's prefix or be only its
// last part.
func (v *View) find(name string) (object, error) {
	for _, o := range v.listed() {
		if o.Name == name || v.Tier.Prefix()+o.Name == name || strings.HasSuffix(o.Name, "/"+name) {
			return o, nil
		}
	}
	return object{}, fmt.Errorf("%w: manifest version %d lists no object %q", delay.ErrNotFound,
		v.State.Version, name)
}

// items calls fn for the items of a segment with a key in [lower, upper) until it returns false.
func (v *View) items(
	ctx context.Context, o *object, lower, upper delay.Key, fn func(segment.Item) bool,
) error {
	c, key := v.client(), v.Tier.Prefix()+o.Name
	read := func(ctx context.Context, offset, length int64) ([]byte, error) {
		return c.GetRange(ctx, key, offset, length)
	}
	x, err := segment.ReadIndex(ctx, read, o.Stored, o.TailOffset)
	if err == nil {
		err = segment.NewReader(v.zstd(), x, read).Scan(ctx, lower, upper, fn)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", o.Name, err)
	}
	return nil
}

// marks calls fn for the marks of an object until it returns false.
func (v *View) marks(ctx context.Context, o *object, fn func(delay.Mark) bool) error {
	body, _, err := v.client().Get(ctx, v.Tier.Prefix()+o.Name, o.Stored)
	if err == nil {
		_, err = segment.DecodeMarks(v.zstd(), body, fn)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", o.Name, err)
	}
	return nil
}
