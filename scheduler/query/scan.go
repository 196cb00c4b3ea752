// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/find"
)

// Item is one pending message of a scan.
type Item struct {
	Key   delay.Key
	Info  Info
	Bytes int // of its record
}

// scanChunk is how many messages a scan of pending ones reads at a time, from each source.
const scanChunk = 1000

// PendingLocal is Pending of what has a local row.
func (q *Reader) PendingLocal(
	ctx context.Context, f Filter, from delay.Key, fn func(Item) bool,
) error {
	local := *q
	local.tier = nil
	return local.Pending(ctx, f, from, fn)
}

// Pending calls fn for every pending message from a key on that passes the filter, in key
// order: rows, parked rows and cold messages merged. What a change moves meanwhile may be missed or
// appear with its new due; what the shard itself moves between its levels is found once.
func (q *Reader) Pending(
	ctx context.Context, f Filter, from delay.Key, fn func(Item) bool,
) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		items, next, err := q.pendingChunk(ctx, f, from)
		if err != nil {
			return err
		}
		for i := range items {
			if !fn(items[i]) {
				return nil
			}
		}
		if next == delay.MaxKey {
			return nil
		}
		from = next
	}
}

// chunkReader collects one chunk of a scan: candidates of each source up to a common upper key.
type chunkReader struct {
	q     *Reader
	f     *Filter
	items []Item
	locs  []find.Located
	upper delay.Key
	meta  localstore.Meta        // before anything was read
	seen  map[delay.Key]struct{} // rows: one may be parked by now, or in the tier as well (C8)
	err   error
}

// add takes a candidate; it reports false when the source has given enough.
func (r *chunkReader) add(loc find.Located, n *int) bool {
	if !loc.Key.Less(r.upper) {
		return false
	}
	if *n++; *n > scanChunk {
		r.upper = loc.Key
		return false
	}
	if !r.f.Kind.has(delay.RecordRecurs(loc.Record), delay.RecordGuarded(loc.Record)) {
		return true
	}
	info, err := r.q.infoOf(loc.Key, slices.Clone(loc.Record), false)
	if err != nil {
		return true // unreadable rows are reported by whoever needs them
	}
	if r.f.matches(&info) {
		r.items = append(r.items, Item{Key: loc.Key, Info: info, Bytes: len(loc.Record)})
		loc.Record = nil
		r.locs = append(r.locs, loc)
	}
	return true
}

func (q *Reader) pendingChunk(
	ctx context.Context, f Filter, from delay.Key,
) ([]Item, delay.Key, error) {
	r := &chunkReader{
		q: q, f: &f, upper: delay.MaxKey, meta: q.store.Meta(), seen: make(map[delay.Key]struct{}),
	}
	if f.DueTo > 0 && !from.Less(r.meta.Watermark) {
		r.upper = delay.Key{Due: f.DueTo}
	}
	limit := r.upper
	// In this order: a row may be parked between two scans, and nothing parked becomes a row.
	if err := r.rows(from); err != nil {
		return nil, from, err
	}
	if f.Level == nil || *f.Level != delay.Cold {
		if err := r.parked(from); err != nil {
			return nil, from, err
		}
	}
	if q.tier != nil && (f.Level == nil || *f.Level == delay.Cold) {
		if err := r.cold(ctx, from); err != nil {
			return nil, from, err
		}
	}
	items := r.sighted()
	if r.upper == limit {
		return items, delay.MaxKey, nil
	}
	return items, r.upper, nil
}

func (r *chunkReader) parked(from delay.Key) error {
	var lanes []uint64
	err := r.q.store.ParkedLanes(func(lane uint64, t delay.Target, _ int64) bool {
		if r.f.Target == "" || lane == r.f.Target.Hash() || t == delay.Schedules || t.IsGuard() {
			lanes = append(lanes, lane)
		}
		return true
	})
	for _, lane := range lanes {
		if err != nil {
			break
		}
		n := 0
		err = r.q.store.ScanParked(lane, from,
			func(k delay.Key, claimed bool, rec []byte) bool {
				if _, row := r.seen[k]; row {
					return true
				}
				return r.add(find.Located{
					Key: k, Place: find.PlaceParked, Lane: lane, Claimed: claimed, Record: rec,
				}, &n)
			})
	}
	return err
}

func (r *chunkReader) rows(from delay.Key) error {
	lower := from
	for _, k := range []delay.Key{r.meta.Watermark, {Due: r.f.DueFrom}} {
		if lower.Less(k) {
			lower = k
		}
	}
	if !lower.Less(r.upper) {
		return nil
	}
	n := 0
	return r.q.store.ScanRows(lower, r.upper, func(k delay.Key, rec []byte) bool {
		r.seen[k] = struct{}{}
		return r.add(find.Located{Key: k, Place: find.PlaceRow, Record: rec}, &n)
	})
}

func (r *chunkReader) cold(ctx context.Context, from delay.Key) error {
	lower := from
	for _, k := range []delay.Key{r.meta.Boundary, {Due: r.f.DueFrom}} {
		if lower.Less(k) {
			lower = k
		}
	}
	if !lower.Less(r.upper) {
		return nil
	}
	n := 0
	err := r.q.tier.Scan(ctx, lower, r.upper, func(k delay.Key, rec []byte) bool {
		if _, local := r.seen[k]; local {
			return true
		}
		if _, marked, err := r.q.store.Mark(k); err != nil || marked {
			r.err = errors.Join(r.err, err)
			return err == nil
		}
		if r.q.find.Bulk().Covers(k, rec) {
			return true // cancelled in bulk (C16)
		}
		return r.add(find.Located{Key: k, Place: find.PlaceCold, Record: rec}, &n)
	})
	return errors.Join(err, r.err)
}

// sighted sorts the chunk, adds what the core sees, and applies the rest of the filter.
func (r *chunkReader) sighted() []Item {
	order := make([]int, 0, len(r.items))
	keys := make([]delay.Key, 0, len(r.items))
	for i := range r.items {
		if r.items[i].Key.Less(r.upper) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return r.items[a].Key.Compare(r.items[b].Key) })
	for _, i := range order {
		keys = append(keys, r.items[i].Key)
	}
	if len(keys) == 0 {
		return nil
	}
	out := make([]Item, 0, len(keys))
	for n, seen := range r.q.inspect(keys) {
		it, loc := r.items[order[n]], r.locs[order[n]]
		it.Info.State = delay.Scheduled
		if seen.Claimed || loc.Claimed {
			it.Info.State = delay.Claimed
		}
		it.Info.Attempts = seen.Attempts
		switch {
		case loc.Place == find.PlaceCold:
			it.Info.Level = delay.Cold
		case loc.Place == find.PlaceRow && seen.Hot:
			it.Info.Level = delay.Hot
		default:
			it.Info.Level = delay.Warm
		}
		if r.f.passes(&it.Info) {
			out = append(out, it)
		}
	}
	return out
}
