// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/segment"
)

// Scan calls fn for every message of the listed segments with a key in [lower, upper), in key
// order, each key once, until fn returns false. Kept segments are not scanned, marks not applied.
// The record is valid until fn returns. Reading goes on while fn runs.
//
// An object or block that is missing or corrupt twice is a delay.ErrCorrupt, after fn was called
// for what came before it (T5).
func (t *Tier) Scan(
	ctx context.Context, lower, upper delay.Key, fn func(k delay.Key, rec []byte) bool,
) error {
	state, err := t.listed()
	if err == nil {
		err = t.scan(ctx, state.Segments, lower, upper, func(it *segment.Item) bool {
			return fn(it.Key, it.Record)
		})
	}
	if err != nil {
		return fmt.Errorf("scan tier from %s to %s: %w", lower, upper, err)
	}
	return nil
}

// ScanKept calls fn for every kept message (rule R5) in key order, until fn returns false. Of a key
// that was uploaded several times the newest is given. Marks are not applied. The record is valid
// until fn returns.
func (t *Tier) ScanKept(ctx context.Context, fn func(delay.Kept) bool) error {
	state, err := t.listed()
	if err != nil {
		return fmt.Errorf("scan kept: %w", err)
	}
	var bad error
	err = t.scan(ctx, state.Kept, delay.Key{}, delay.MaxKey, func(it *segment.Item) bool {
		k, err := it.Kept()
		if err != nil {
			bad = err
			return false
		}
		return fn(k)
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return fmt.Errorf("scan kept: %w", err)
	}
	return nil
}

// ScanMarks calls fn for every listed mark, the objects in the order of their commits and sorted by
// key within each, until fn returns false.
func (t *Tier) ScanMarks(ctx context.Context, fn func(delay.Mark) bool) error {
	state, err := t.listed()
	if err == nil {
		err = t.scanMarks(ctx, state.Marks, fn)
	}
	if err != nil {
		return fmt.Errorf("scan marks: %w", err)
	}
	return nil
}

func (t *Tier) scanMarks(
	ctx context.Context, list []SegmentInfo, fn func(delay.Mark) bool,
) error {
	return ordered(ctx, len(list), func(ctx context.Context, i int) ([]delay.Mark, error) {
		return t.readMarks(ctx, &list[i])
	}, func(_ int, marks []delay.Mark) (bool, error) {
		for i := range marks {
			if !fn(marks[i]) {
				return false, nil
			}
		}
		return true, nil
	})
}

// readMarks reads and checks one marks object.
func (t *Tier) readMarks(ctx context.Context, info *SegmentInfo) (marks []delay.Mark, err error) {
	err = t.again(ctx, info, func() error {
		body, _, err := t.client.Get(ctx, t.prefix+info.Name, info.Stored)
		if err != nil {
			return err
		}
		marks, err = t.decodeMarks(info, body)
		return err
	})
	return marks, err
}

func (t *Tier) decodeMarks(info *SegmentInfo, body []byte) ([]delay.Mark, error) {
	if int64(len(body)) != info.Stored || segment.MarksChecksum(body) != info.Checksum {
		return nil, fmt.Errorf("%w: %d bytes, want %d with checksum %08x", delay.ErrCorrupt,
			len(body), info.Stored, info.Checksum)
	}
	marks := make([]delay.Mark, 0, min(info.Count, marksPerObject))
	m, err := segment.DecodeMarks(t.z, body, func(m delay.Mark) bool {
		marks = append(marks, m)
		return true
	})
	if err != nil {
		return nil, err
	}
	epoch, id, err := parseName(info.Name)
	if err != nil {
		return nil, err
	}
	if m.Cluster != t.hash || m.Shard != t.opts.Shard || m.Epoch != epoch || m.ID != id ||
		m.Count != info.Count {
		return nil, fmt.Errorf("%w: it is another object: cluster %x shard %d epoch %d id %x",
			delay.ErrCorrupt, m.Cluster, m.Shard, m.Epoch, m.ID)
	}
	return marks, nil
}

// idEntry is one entry of an id section.
type idEntry struct {
	id    string
	ident delay.Identity
}

// ScanIDs calls fn for every entry of the id sections of all listed segments, kept ones included,
// until fn returns false: in the order of the commits, sorted by id within each. One id may come
// several times, with different keys (rule R14).
func (t *Tier) ScanIDs(
	ctx context.Context, fn func(id string, ident delay.Identity) bool,
) error {
	state, err := t.listed()
	if err != nil {
		return fmt.Errorf("scan ids: %w", err)
	}
	var list []*SegmentInfo
	for _, infos := range [...][]SegmentInfo{state.Segments, state.Kept} {
		for i := range infos {
			if infos[i].IDs > 0 {
				list = append(list, &infos[i])
			}
		}
	}
	err = ordered(ctx, len(list), func(ctx context.Context, i int) ([]idEntry, error) {
		return t.readIDs(ctx, list[i])
	}, func(_ int, entries []idEntry) (bool, error) {
		for i := range entries {
			if !fn(entries[i].id, entries[i].ident) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("scan ids: %w", err)
	}
	return nil
}

// readIDs reads the id section of a segment.
func (t *Tier) readIDs(ctx context.Context, info *SegmentInfo) (entries []idEntry, err error) {
	x, err := t.index(ctx, info)
	if err != nil {
		return nil, err
	}
	err = t.again(ctx, info, func() error {
		entries = entries[:0]
		r := segment.NewReader(t.z, x, t.ranged(info))
		return r.IDs(ctx, func(id string, ident delay.Identity) bool {
			entries = append(entries, idEntry{id: id, ident: ident})
			return true
		})
	})
	return entries, err
}

// FindID gives the newest identity that the listed segments hold under id. Filters make it cheap
// when there is none, once the indexes are in memory.
func (t *Tier) FindID(
	ctx context.Context, id string,
) (ident delay.Identity, ok bool, err error) {
	state, err := t.listed()
	if err != nil {
		return delay.Identity{}, false, fmt.Errorf("find id: %w", err)
	}
	for _, infos := range [...][]SegmentInfo{state.Segments, state.Kept} {
		for i := range infos {
			if infos[i].IDs == 0 {
				continue
			}
			found, here, err := t.findID(ctx, &infos[i], id)
			if err != nil {
				return delay.Identity{}, false, fmt.Errorf("find id: %w", err)
			}
			if here && (!ok || ident.Key.Seq < found.Key.Seq) {
				ident, ok = found, true
			}
		}
	}
	return ident, ok, nil
}

func (t *Tier) findID(
	ctx context.Context, info *SegmentInfo, id string,
) (ident delay.Identity, ok bool, err error) {
	x, err := t.index(ctx, info)
	if err != nil || !x.MayHaveID(id) {
		return delay.Identity{}, false, err
	}
	err = t.again(ctx, info, func() error {
		ident, ok, err = segment.NewReader(t.z, x, t.ranged(info)).FindID(ctx, id)
		return err
	})
	return ident, ok, err
}

// DayCount is what the listed segments hold of one UTC day, finished messages included, a key in
// two segments twice.
type DayCount struct {
	Day          delay.Due // its first millisecond
	Count, Bytes int64     // messages, and bytes of their records
}

// Count gives the days that [lower, upper) touches and the segments have messages of, whole days,
// ascending. It reads the indexes that are not in memory.
func (t *Tier) Count(ctx context.Context, lower, upper delay.Key) ([]DayCount, error) {
	state, err := t.listed()
	if err != nil {
		return nil, fmt.Errorf("count tier: %w", err)
	}
	days := make(map[int64]DayCount)
	from, to := int64(lower.Due)/segment.DayMillis, int64(upper.Due)/segment.DayMillis
	var list []*SegmentInfo
	for i := range state.Segments {
		if state.Segments[i].Overlaps(lower, upper) {
			list = append(list, &state.Segments[i])
		}
	}
	err = ordered(ctx, len(list), func(ctx context.Context, i int) (*segment.Index, error) {
		return t.index(ctx, list[i])
	}, func(_ int, x *segment.Index) (bool, error) {
		for _, d := range x.Days {
			if d.Day >= from && d.Day <= to {
				c := days[d.Day]
				c.Count, c.Bytes = c.Count+d.Count, c.Bytes+d.Bytes
				days[d.Day] = c
			}
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("count tier: %w", err)
	}
	return sortedDays(days), nil
}
