// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/merge"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/segment"
)

// scanBytes bounds what a scan holds of all its segments.
const scanBytes = 64 << 20

// blockKey names a block of a segment.
type blockKey struct {
	name  string
	block int
}

// again calls read, and once more when what it read was corrupt, missing or too short: the first
// answer may have been spoilt on its way. What is wrong twice is an error (T5).
func (t *Tier) again(ctx context.Context, info *SegmentInfo, read func() error) error {
	err := read()
	if err == nil || !errors.Is(err, delay.ErrCorrupt) && !objio.Certain(err) {
		return err
	}
	t.opts.Logger.Warn("tier read wrong, reading again", zap.String("object", info.Name),
		zap.Error(err))
	err = read()
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return fmt.Errorf("object %s is listed: %w: %w", info.Name, delay.ErrCorrupt, err)
	case errors.Is(err, objstore.ErrRefused):
		// A range beyond the end, or a store that refuses everything: only the first is corrupt.
		if _, probe := t.ranged(info)(ctx, 0, 1); probe == nil {
			return fmt.Errorf("object %s is cut short: %w: %w", info.Name, delay.ErrCorrupt, err)
		}
		return fmt.Errorf("object %s: %w: %w", info.Name, delay.ErrUnavailable, err)
	case err != nil:
		return fmt.Errorf("object %s: %w", info.Name, err)
	}
	return nil
}

// ranged reads parts of the object.
func (t *Tier) ranged(info *SegmentInfo) segment.ReadFunc {
	key := t.prefix + info.Name
	return func(ctx context.Context, offset, length int64) ([]byte, error) {
		return t.client.GetRange(ctx, key, offset, length)
	}
}

// index gives the index of a listed segment, from memory or from the end of the object.
func (t *Tier) index(ctx context.Context, info *SegmentInfo) (*segment.Index, error) {
	return t.indexes.Get(ctx, info.Name, func(ctx context.Context) (x *segment.Index, err error) {
		err = t.again(ctx, info, func() error {
			x, err = segment.ReadIndex(ctx, t.ranged(info), info.Stored, info.TailOffset)
			if err != nil {
				return err
			}
			return t.matches(info, x)
		})
		return x, err
	}, (*segment.Index).MemoryBytes)
}

// matches checks that x is of the object that the manifest means.
func (t *Tier) matches(info *SegmentInfo, x *segment.Index) error {
	epoch, id, err := parseName(info.Name)
	if err != nil {
		return err
	}
	if x.Cluster != t.hash || x.Shard != t.opts.Shard || x.Epoch != epoch || x.ID != id ||
		x.First != info.First || x.Last != info.Last || x.Count != info.Count ||
		x.IDs != info.IDs || x.BodyCRC != info.Checksum {
		return fmt.Errorf("%w: it is another object: cluster %x shard %d epoch %d id %x, %d items",
			delay.ErrCorrupt, x.Cluster, x.Shard, x.Epoch, x.ID, x.Count)
	}
	return nil
}

// block reads and decodes one block, or decodes stored when that is given and right. scratch may
// be used for the result.
func (t *Tier) block(
	ctx context.Context, info *SegmentInfo, x *segment.Index, i int, stored, scratch []byte,
) (raw []byte, err error) {
	if stored != nil {
		if raw, err = x.Decode(t.z, i, stored, scratch); err == nil {
			return raw, nil
		}
	}
	err = t.again(ctx, info, func() error {
		b := &x.Blocks[i]
		stored, err := t.ranged(info)(ctx, b.Offset, int64(b.Stored))
		if err != nil {
			return err
		}
		raw, err = x.Decode(t.z, i, stored, scratch)
		return err
	})
	return raw, err
}

// pages is how a merge reads segments.
type pages struct{ t *Tier }

// Index implements merge.Pages.
func (p pages) Index(ctx context.Context, info *SegmentInfo) (*segment.Index, error) {
	return p.t.index(ctx, info)
}

// Span implements merge.Pages.
func (p pages) Span(
	ctx context.Context, info *SegmentInfo, span segment.Span,
) (data []byte, err error) {
	err = p.t.again(ctx, info, func() error {
		data, err = p.t.ranged(info)(ctx, span.Offset, span.Length)
		return err
	})
	return data, err
}

// Block implements merge.Pages.
func (p pages) Block(
	ctx context.Context, info *SegmentInfo, x *segment.Index, i int, stored, scratch []byte,
) ([]byte, error) {
	return p.t.block(ctx, info, x, i, stored, scratch)
}

// scan merges the listed objects over [lower, upper).
func (t *Tier) scan(
	ctx context.Context, list []SegmentInfo, lower, upper delay.Key,
	fn func(*segment.Item) bool,
) error {
	return merge.Scan(ctx, pages{t}, scanBytes, list, lower, upper, fn)
}

// ordered calls load for 0 to n-1 from several goroutines and use with the results in order, until
// use gives false or something fails. At most fanOut results are held.
func ordered[T any](
	ctx context.Context, n int, load func(ctx context.Context, i int) (T, error),
	use func(i int, v T) (bool, error),
) error {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	results := make([]chan result, n)
	for i := range results {
		results[i] = make(chan result, 1)
	}
	tokens := make(chan struct{}, fanOut)
	var next atomic.Int64
	for range min(fanOut, n) {
		wg.Go(func() {
			for {
				select {
				case tokens <- struct{}{}: // before taking a number: the lowest always has one
				case <-ctx.Done():
					return
				}
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				v, err := load(ctx, i)
				results[i] <- result{v, err}
			}
		})
	}
	for i := range n {
		select {
		case r := <-results[i]:
			if r.err != nil {
				return r.err
			}
			if more, err := use(i, r.v); err != nil || !more {
				return err
			}
			<-tokens
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
