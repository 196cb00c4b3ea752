// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/segment"
)

// fetchRun is how many neighbouring keys one worker of a Fetch takes at a time.
const fetchRun = 64

// found is the answer for one key of a Fetch.
type found struct {
	i   int
	rec []byte
	err error
}

// Fetch reads messages by key: the fallback at delivery. fn is called once for each key, in any
// order but never twice at the same time, with the record or the error of that key:
// delay.ErrNotFound when no listed segment, kept ones included, holds it; delay.ErrCorrupt or
// delay.ErrUnavailable when it could not be read. A record is shared and must not be changed; it
// may be kept, at the price of the block around it.
//
// Blocks are read once for all their keys and all callers, and kept in memory for a while.
func (t *Tier) Fetch(
	ctx context.Context, keys []delay.Key, fn func(i int, rec []byte, err error),
) error {
	state, err := t.listed()
	if err != nil {
		return fmt.Errorf("fetch %d keys: %w", len(keys), err)
	}
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].Compare(keys[b]) })
	runs := slices.Collect(slices.Chunk(order, fetchRun))
	work := make(chan []int, len(runs))
	for _, run := range runs {
		work <- run
	}
	close(work)
	out := make(chan found, fetchRun)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range min(fanOut, len(runs)) {
		wg.Go(func() {
			for run := range work {
				for _, i := range run {
					rec, err := t.fetchOne(ctx, &state, keys[i])
					select {
					case out <- found{i: i, rec: rec, err: err}:
					case <-ctx.Done():
						return
					}
				}
			}
		})
	}
	for range keys {
		select {
		case f := <-out:
			fn(f.i, f.rec, f.err)
		case <-ctx.Done():
			return fmt.Errorf("fetch %d keys: %w", len(keys), context.Cause(ctx))
		}
	}
	return nil
}

// fetchOne looks into every segment that may hold key, the newest first, then into kept ones.
func (t *Tier) fetchOne(
	ctx context.Context, state *State, key delay.Key,
) ([]byte, error) {
	for _, list := range [...][]SegmentInfo{state.Segments, state.Kept} {
		for i := len(list) - 1; i >= 0; i-- {
			if !list[i].MayHold(key) {
				continue
			}
			rec, ok, err := t.fetchFrom(ctx, &list[i], key)
			if err != nil {
				return nil, fmt.Errorf("fetch %s: %w", key, err)
			}
			if ok {
				return rec, nil
			}
		}
	}
	return nil, fmt.Errorf("fetch %s: %w in %d segments", key, delay.ErrNotFound,
		len(state.Segments)+len(state.Kept))
}

func (t *Tier) fetchFrom(
	ctx context.Context, info *SegmentInfo, key delay.Key,
) (rec []byte, ok bool, err error) {
	x, err := t.index(ctx, info)
	if err != nil {
		return nil, false, err
	}
	from, to := x.Find(key, key.Next())
	if from == to {
		return nil, false, nil
	}
	// Keys are unique, so only the last block that begins at or below the key can hold it.
	raw, err := t.cachedBlock(ctx, info, x, to-1)
	if err != nil {
		return nil, false, err
	}
	it := x.Items(to-1, raw)
	for item, more := it.Next(); more; item, more = it.Next() {
		if c := item.Key.Compare(key); c >= 0 {
			return item.Record, c == 0, nil
		}
	}
	return nil, false, it.Err()
}

func (t *Tier) cachedBlock(
	ctx context.Context, info *SegmentInfo, x *segment.Index, i int,
) ([]byte, error) {
	return t.blocks.Get(ctx, blockKey{info.Name, i}, func(ctx context.Context) ([]byte, error) {
		return t.block(ctx, info, x, i, nil, nil)
	}, func(raw []byte) int64 { return int64(cap(raw)) + 128 })
}

func sortedDays(days map[int64]DayCount) []DayCount {
	out := make([]DayCount, 0, len(days))
	for _, day := range slices.Sorted(maps.Keys(days)) {
		c := days[day]
		c.Day = delay.Due(day * segment.DayMillis)
		out = append(out, c)
	}
	return out
}
