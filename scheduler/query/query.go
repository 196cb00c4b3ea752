// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/tiered"
)

// Config is what a reader looks at. All fields must be set, but Tier, which is nil without a
// bucket.
type Config struct {
	Store   *localstore.Store
	Tier    *tiered.Tier
	Find    *find.Finder
	IDs     delay.IDMaker
	Shard   delay.Shard
	Inspect func([]delay.Key) []core.Sight // asks the core; answers each key
	Hot     func() int64                   // messages that the core holds in memory
}

// Reader answers questions about the messages of a shard. It is safe for concurrent use and
// changes nothing.
type Reader struct {
	store   *localstore.Store
	tier    *tiered.Tier
	find    *find.Finder
	ids     delay.IDMaker
	shard   delay.Shard
	inspect func([]delay.Key) []core.Sight
	hot     func() int64
}

// New makes a reader.
func New(c Config) *Reader {
	return &Reader{
		store: c.Store, tier: c.Tier, find: c.Find, ids: c.IDs, shard: c.Shard,
		inspect: c.Inspect, hot: c.Hot,
	}
}

// Get returns what is known of a message; ErrNotFound when nothing is.
func (q *Reader) Get(ctx context.Context, id delay.ID, withBody bool) (Info, error) {
	loc, err := q.find.Locate(id)
	if err != nil {
		return Info{}, err
	}
	switch loc.Place {
	case find.PlaceNone:
		return q.getFinished(loc, withBody)
	case find.PlaceCold:
		if err := q.fetchOne(ctx, &loc); err != nil {
			return Info{}, fmt.Errorf("message %s: %w", id, err)
		}
		if q.find.Bulk().Covers(loc.Key, loc.Record) {
			return q.getCovered(loc)
		}
	}
	info, err := q.infoOf(loc.Key, loc.Record, withBody)
	if err != nil {
		return Info{}, fmt.Errorf("message %s: %w", id, err)
	}
	info.ID = id
	if loc.Known && loc.Rec.Generation > 0 {
		info.Generation = loc.Rec.Generation
	}
	q.addSight(&info, loc)
	return info, nil
}

// fetchOne reads the record of a cold message.
func (q *Reader) fetchOne(ctx context.Context, loc *find.Located) error {
	if q.tier == nil {
		return delay.ErrNotFound
	}
	var failed error
	err := q.tier.Fetch(ctx, []delay.Key{loc.Key}, func(_ int, rec []byte, err error) {
		loc.Record, failed = slices.Clone(rec), err
	})
	return errors.Join(err, failed)
}

// addSight adds what changes from moment to moment.
func (q *Reader) addSight(info *Info, loc find.Located) {
	seen := q.inspect([]delay.Key{loc.Key})[0]
	info.State = delay.Scheduled
	if seen.Claimed || loc.Claimed {
		info.State = delay.Claimed
	}
	info.Attempts = seen.Attempts
	if p, ok, err := q.store.Progress(loc.Key); err == nil && ok {
		info.Attempts, info.LastError = max(info.Attempts, p.Attempts), p.LastError
	}
	switch {
	case loc.Place == find.PlaceCold:
		info.Level = delay.Cold
	case loc.Place == find.PlaceRow && seen.Hot:
		info.Level = delay.Hot
	default:
		info.Level = delay.Warm
	}
}

// infoOf describes a record.
func (q *Reader) infoOf(key delay.Key, rec []byte, withBody bool) (Info, error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		ID: m.ID, Due: m.Due, Target: m.Target, RoutingKey: m.RoutingKey, Headers: m.Headers,
		Size: len(m.Body), Generation: m.Generation, Known: true, Recurrence: m.Recurrence,
		Guard: m.Guard,
	}
	if info.ID == "" {
		info.ID = q.ids.Make(q.shard, key)
	}
	if withBody {
		info.Body = m.Body
	}
	return info, nil
}

// List pages through messages by due: pending ones unless the filter asks for another state. The
// finished ones that can be listed are dead letters and those whose id is remembered. limit is 1
// to 1,000; token is "" or what the page before returned.
func (q *Reader) List(
	ctx context.Context, f Filter, limit int, token string,
) ([]Info, string, error) {
	if !f.wantsPending() {
		if *f.State == delay.Dead || *f.State == delay.Expired {
			return q.DeadLetters(f, limit, token)
		}
		return q.listOutcomes(f, limit, token)
	}
	from, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	var out []Info
	next := ""
	err = q.Pending(ctx, f, from, func(it Item) bool {
		if len(out) == limit {
			next = pageToken(it.Key) // C9
			return false
		}
		out = append(out, it.Info)
		return true
	})
	return out, next, err
}

// Count counts messages exactly, and schedules only where the filter asks for them: they are in no
// book. Without a filter it costs nothing, unless a bulk cancel is not counted yet; with one it
// reads what may match.
func (q *Reader) Count(ctx context.Context, f Filter) (int64, error) {
	if f == (Filter{Kind: Messages}) {
		f = Filter{}
	}
	if f == (Filter{}) && !q.find.Bulk().Uncounted(0, 0) {
		return q.store.Books().Pending, nil
	}
	if f.Kind == AnyKind {
		f.Kind = Messages
	}
	var n int64
	if !f.wantsPending() {
		token := ""
		for {
			page, next, err := q.List(ctx, f, scanChunk, token)
			if n += int64(len(page)); err != nil || next == "" {
				return n, err
			}
			token = next
		}
	}
	err := q.Pending(ctx, f, delay.Key{}, func(Item) bool { n++; return true })
	return n, err
}
