// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// evInspect asks the core about keys.
type evInspect struct {
	keys []delay.Key
	done chan []sight // capacity 1
}

// sight is what the core sees of a key.
type sight struct {
	claimed  bool
	hot      bool
	attempts uint32
}

func (e evInspect) apply(c *core) {
	out := make([]sight, len(e.keys))
	for i, k := range e.keys {
		f, ok := c.flights[k]
		out[i] = sight{claimed: ok, hot: ok || k.Less(c.loadedTo), attempts: f.attempt}
	}
	e.done <- out
}

// inspect asks the core; after the end of the loop it knows nothing.
func (s *Shard) inspect(keys []delay.Key) []sight {
	ev := evInspect{keys: keys, done: make(chan []sight, 1)}
	s.post(ev)
	if out, ok := wait(s, ev.done); ok {
		return out
	}
	return make([]sight, len(keys))
}

// Get returns what is known of a message; ErrNotFound when nothing is.
func (s *Shard) Get(ctx context.Context, id delay.ID, withBody bool) (Info, error) {
	loc, err := s.find.locate(id)
	if err != nil {
		return Info{}, err
	}
	switch loc.place {
	case placeNone:
		return s.getFinished(loc, withBody)
	case placeCold:
		if err := s.fetchOne(ctx, &loc); err != nil {
			return Info{}, fmt.Errorf("message %s: %w", id, err)
		}
	}
	info, err := s.infoOf(loc.key, loc.record, withBody)
	if err != nil {
		return Info{}, fmt.Errorf("message %s: %w", id, err)
	}
	info.ID = id
	if loc.known && loc.rec.Generation > 0 {
		info.Generation = loc.rec.Generation
	}
	s.addSight(&info, loc)
	return info, nil
}

// fetchOne reads the record of a cold message.
func (s *Shard) fetchOne(ctx context.Context, loc *located) error {
	if s.parts.Tier == nil {
		return delay.ErrNotFound
	}
	var failed error
	err := s.parts.Tier.Fetch(ctx, []delay.Key{loc.key}, func(_ int, rec []byte, err error) {
		loc.record, failed = slices.Clone(rec), err
	})
	return errors.Join(err, failed)
}

// addSight adds what changes from moment to moment.
func (s *Shard) addSight(info *Info, loc located) {
	seen := s.inspect([]delay.Key{loc.key})[0]
	info.State = delay.Scheduled
	if seen.claimed || loc.claimed {
		info.State = delay.Claimed
	}
	info.Attempts = seen.attempts
	if p, ok, err := s.parts.Store.Progress(loc.key); err == nil && ok {
		info.Attempts, info.LastError = max(info.Attempts, p.Attempts), p.LastError
	}
	switch {
	case loc.place == placeCold:
		info.Level = delay.Cold
	case loc.place == placeRow && seen.hot:
		info.Level = delay.Hot
	default:
		info.Level = delay.Warm
	}
}

func (s *Shard) getFinished(loc located, withBody bool) (Info, error) {
	if !loc.known {
		return Info{}, fmt.Errorf("message %s: %w", loc.id, delay.ErrNotFound)
	}
	if p, rec, err := s.parts.Store.Dead(loc.rec.Key); err == nil {
		info, err := s.deadInfo(loc.rec.Key, p, rec, withBody)
		info.ID = loc.id
		return info, err
	}
	return Info{
		ID: loc.id, State: loc.rec.State, Level: delay.Warm, Due: loc.rec.Key.Due,
		Generation: loc.rec.Generation, Attempts: loc.rec.Attempts,
	}, nil
}

// infoOf describes a record.
func (s *Shard) infoOf(key delay.Key, rec []byte, withBody bool) (Info, error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		ID: m.ID, Due: m.Due, Target: m.Target, RoutingKey: m.RoutingKey, Headers: m.Headers,
		Size: len(m.Body), Generation: m.Generation, Known: true,
	}
	if info.ID == "" {
		info.ID = s.ids.Make(s.shard, key)
	}
	if withBody {
		info.Body = m.Body
	}
	return info, nil
}

func (s *Shard) deadInfo(
	key delay.Key, p delay.Progress, rec []byte, withBody bool,
) (Info, error) {
	info, err := s.infoOf(key, rec, withBody)
	if err != nil {
		return Info{}, fmt.Errorf("dead letter %s: %w", key, err)
	}
	info.State, info.Level, info.Attempts = p.State, delay.Warm, p.Attempts
	info.Reason, info.LastError, info.DiedAt = p.Reason, p.LastError, p.DiedAt
	return info, nil
}

// matches reports whether a message passes the filter, but for State and Level.
func (f *Filter) matches(info *Info) bool {
	return (f.Target == "" || info.Target == f.Target) && info.Due >= f.DueFrom &&
		(f.DueTo == 0 || info.Due < f.DueTo) && strings.HasPrefix(string(info.ID), f.IDPrefix)
}

func (f *Filter) passes(info *Info) bool {
	return f.matches(info) && (f.State == nil || *f.State == info.State) &&
		(f.Level == nil || *f.Level == info.Level)
}

// wantsPending reports whether pending messages can match.
func (f *Filter) wantsPending() bool { return f.State == nil || !f.State.Finished() }

// pageToken names where the next page begins.
func pageToken(k delay.Key) string {
	return base64.RawURLEncoding.EncodeToString(delay.AppendKey(nil, k))
}

func parseToken(token string) (delay.Key, error) {
	if token == "" {
		return delay.Key{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != delay.KeySize {
		return delay.Key{}, delay.Invalid("page_token", "not a token of this server")
	}
	k, ok := delay.DecodeKey(b)
	if !ok {
		return delay.Key{}, delay.Invalid("page_token", "not a token of this server")
	}
	return k, nil
}

// List pages through messages by due: pending ones unless the filter asks for another state. The
// finished ones that can be listed are dead letters and those whose id is remembered. limit is 1
// to 1,000; token is "" or what the page before returned.
func (s *Shard) List(
	ctx context.Context, f Filter, limit int, token string,
) ([]Info, string, error) {
	if !f.wantsPending() {
		if *f.State == delay.Dead || *f.State == delay.Expired {
			return s.DeadLetters(ctx, f, limit, token)
		}
		return s.listOutcomes(f, limit, token)
	}
	from, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	var out []Info
	next := ""
	err = s.scanPending(ctx, f, from, func(it pendingItem) bool {
		if len(out) == limit {
			next = pageToken(it.key)
			return false
		}
		out = append(out, it.info)
		return true
	})
	return out, next, err
}

// pendingItem is one pending message of a scan.
type pendingItem struct {
	key  delay.Key
	info Info
}

// scanChunk is how many messages a scan of pending ones reads at a time, from each source.
const scanChunk = 1000

// scanPending calls fn for every pending message from a key on that passes the filter, in key
// order: parked rows, rows and cold messages merged. Each chunk is a consistent look; what moves
// in between may be missed or appear with its new due.
func (s *Shard) scanPending(
	ctx context.Context, f Filter, from delay.Key, fn func(pendingItem) bool,
) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		items, next, err := s.pendingChunk(ctx, f, from)
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
	s     *Shard
	f     *Filter
	items []pendingItem
	locs  []located
	upper delay.Key
	seen  map[delay.Key]struct{} // local rows from the boundary on: the tier holds them too
	err   error
}

// add takes a candidate; it reports false when the source has given enough.
func (r *chunkReader) add(loc located, n *int) bool {
	if !loc.key.Less(r.upper) {
		return false
	}
	if *n++; *n > scanChunk {
		r.upper = loc.key
		return false
	}
	info, err := r.s.infoOf(loc.key, slices.Clone(loc.record), false)
	if err != nil {
		return true // unreadable rows are reported by whoever needs them
	}
	if r.f.matches(&info) {
		loc.record = nil
		r.items = append(r.items, pendingItem{key: loc.key, info: info})
		r.locs = append(r.locs, loc)
	}
	return true
}

func (s *Shard) pendingChunk(
	ctx context.Context, f Filter, from delay.Key,
) ([]pendingItem, delay.Key, error) {
	r := &chunkReader{s: s, f: &f, upper: delay.MaxKey, seen: make(map[delay.Key]struct{})}
	if f.DueTo > 0 && !from.Less(s.parts.Store.Meta().Watermark) {
		r.upper = delay.Key{Due: f.DueTo}
	}
	limit := r.upper
	if f.Level == nil || *f.Level != delay.Cold {
		if err := r.parked(from); err != nil {
			return nil, from, err
		}
	}
	if err := r.rows(from); err != nil {
		return nil, from, err
	}
	if s.parts.Tier != nil && (f.Level == nil || *f.Level == delay.Cold) {
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
	err := r.s.parts.Store.ParkedLanes(func(lane uint64, _ delay.Target, _ int64) bool {
		if r.f.Target == "" || lane == r.f.Target.Hash() {
			lanes = append(lanes, lane)
		}
		return true
	})
	for _, lane := range lanes {
		if err != nil {
			break
		}
		n := 0
		err = r.s.parts.Store.ScanParked(lane, from,
			func(k delay.Key, claimed bool, rec []byte) bool {
				return r.add(located{
					key: k, place: placeParked, lane: lane, claimed: claimed, record: rec,
				}, &n)
			})
	}
	return err
}

func (r *chunkReader) rows(from delay.Key) error {
	meta := r.s.parts.Store.Meta()
	lower := from
	for _, k := range []delay.Key{meta.Watermark, {Due: r.f.DueFrom}} {
		if lower.Less(k) {
			lower = k
		}
	}
	if !lower.Less(r.upper) {
		return nil
	}
	n := 0
	return r.s.parts.Store.ScanRows(lower, r.upper, func(k delay.Key, rec []byte) bool {
		if !k.Less(meta.Boundary) {
			r.seen[k] = struct{}{}
		}
		return r.add(located{key: k, place: placeRow, record: rec}, &n)
	})
}

func (r *chunkReader) cold(ctx context.Context, from delay.Key) error {
	meta := r.s.parts.Store.Meta()
	lower := from
	for _, k := range []delay.Key{meta.Boundary, {Due: r.f.DueFrom}} {
		if lower.Less(k) {
			lower = k
		}
	}
	if !lower.Less(r.upper) {
		return nil
	}
	n := 0
	err := r.s.parts.Tier.Scan(ctx, lower, r.upper, func(k delay.Key, rec []byte) bool {
		if _, local := r.seen[k]; local {
			return true
		}
		if _, marked, err := r.s.parts.Store.Mark(k); err != nil || marked {
			r.err = errors.Join(r.err, err)
			return err == nil
		}
		return r.add(located{key: k, place: placeCold, record: rec}, &n)
	})
	return errors.Join(err, r.err)
}

// sighted sorts the chunk, adds what the core sees, and applies the rest of the filter.
func (r *chunkReader) sighted() []pendingItem {
	order := make([]int, 0, len(r.items))
	keys := make([]delay.Key, 0, len(r.items))
	for i := range r.items {
		if r.items[i].key.Less(r.upper) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return r.items[a].key.Compare(r.items[b].key) })
	for _, i := range order {
		keys = append(keys, r.items[i].key)
	}
	if len(keys) == 0 {
		return nil
	}
	out := make([]pendingItem, 0, len(keys))
	for n, seen := range r.s.inspect(keys) {
		it, loc := r.items[order[n]], r.locs[order[n]]
		it.info.State = delay.Scheduled
		if seen.claimed || loc.claimed {
			it.info.State = delay.Claimed
		}
		it.info.Attempts = seen.attempts
		switch {
		case loc.place == placeCold:
			it.info.Level = delay.Cold
		case loc.place == placeRow && seen.hot:
			it.info.Level = delay.Hot
		default:
			it.info.Level = delay.Warm
		}
		if r.f.passes(&it.info) {
			out = append(out, it)
		}
	}
	return out
}

// Next lists the pending messages that are due soonest.
func (s *Shard) Next(ctx context.Context, limit int) ([]Info, error) {
	out, _, err := s.List(ctx, Filter{}, limit, "")
	return out, err
}

// Count counts messages exactly. Without a filter it costs nothing; with one it reads what may
// match.
func (s *Shard) Count(ctx context.Context, f Filter) (int64, error) {
	if f == (Filter{}) {
		return s.parts.Store.Books().Pending, nil
	}
	var n int64
	if !f.wantsPending() {
		token := ""
		for {
			page, next, err := s.List(ctx, f, scanChunk, token)
			if n += int64(len(page)); err != nil || next == "" {
				return n, err
			}
			token = next
		}
	}
	err := s.scanPending(ctx, f, delay.Key{}, func(pendingItem) bool { n++; return true })
	return n, err
}

// purgeChunk is how many messages one step of a purge cancels.
const purgeChunk = 1000

// Purge cancels everything that is scheduled now and matches, and returns the count; dryRun only
// counts. What is accepted while it runs is not touched.
func (s *Shard) Purge(ctx context.Context, f Filter, dryRun bool) (int64, error) {
	scheduled := delay.Scheduled
	if f.State != nil && *f.State != scheduled {
		return 0, delay.Invalid("state", "only scheduled messages can be purged")
	}
	f.State = &scheduled
	if dryRun {
		return s.Count(ctx, f)
	}
	cut := delay.Seq(s.commit.handed.Load())
	var n int64
	requests := make([]ChangeRequest, 0, purgeChunk)
	results := make([]ChangeResult, purgeChunk)
	flush := func() error {
		if err := s.Change(ctx, requests, results[:len(requests)]); err != nil {
			return err
		}
		for i := range requests {
			if results[i].Verdict == Cancelled {
				n++
			}
			results[i] = ChangeResult{}
		}
		requests = requests[:0]
		return nil
	}
	var failed error
	err := s.scanPending(ctx, f, delay.Key{}, func(it pendingItem) bool {
		if it.key.Seq > cut {
			return true
		}
		requests = append(requests, ChangeRequest{ID: it.info.ID, Change: Cancel})
		if len(requests) == purgeChunk {
			failed = flush()
		}
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return n, err
	}
	return n, flush()
}

// Histogram counts the pending messages of [from, to) in bars of a bucket. Bars of whole hours
// come from the slots and cost nothing; finer ones are counted.
func (s *Shard) Histogram(
	ctx context.Context, bucket time.Duration, from, to delay.Due,
) ([]Bar, error) {
	ms := bucket.Milliseconds()
	if to == 0 {
		to = delay.MaxDue
	}
	bars := make(map[delay.Due]*Bar)
	at := func(d delay.Due) *Bar {
		start := d - d%delay.Due(ms)
		if bars[start] == nil {
			bars[start] = &Bar{From: start}
		}
		return bars[start]
	}
	var err error
	whole := func(d delay.Due) bool { return d == delay.MaxDue || d%delay.Due(ms) == 0 }
	if bucket%time.Hour == 0 && whole(from) && whole(to) {
		err = s.slotBars(from, to, at)
	} else {
		err = s.scanPending(ctx, Filter{DueFrom: from, DueTo: to}, delay.Key{Due: from},
			func(it pendingItem) bool {
				b := at(it.info.Due)
				b.Count++
				b.Bytes += int64(it.info.Size)
				switch it.info.Level {
				case delay.Hot:
					b.Hot++
				case delay.Warm:
					b.Warm++
				default:
					b.Cold++
				}
				return true
			})
	}
	out := make([]Bar, 0, len(bars))
	for _, b := range bars {
		if b.Count > 0 {
			out = append(out, *b)
		}
	}
	slices.SortFunc(out, func(a, b Bar) int { return int(max(-1, min(1, a.From-b.From))) })
	return out, err
}

// slotBars adds up the slots. What is hot is counted as warm in the slots: it is taken out of the
// bars from now on. Parked messages are in no slot: they are overdue, and read one by one.
func (s *Shard) slotBars(from, to delay.Due, at func(delay.Due) *Bar) error {
	hot := s.glance().hot
	s.parts.Store.Slots(func(slot localstore.Slot) bool {
		if slot.From < from || slot.From >= to {
			return slot.From < to
		}
		b := at(slot.From)
		near := min(hot, slot.Warm.Messages)
		hot -= near
		b.Hot += near
		b.Warm += slot.Warm.Messages - near
		b.Cold += slot.Cold.Messages
		b.Count += slot.Warm.Messages + slot.Cold.Messages
		b.Bytes += slot.Warm.Bytes + slot.Cold.Bytes
		return true
	})
	return s.eachParked(func(k delay.Key, size int) {
		if k.Due >= from && k.Due < to {
			b := at(k.Due)
			b.Count++
			b.Warm++
			b.Bytes += int64(size)
		}
	})
}

// eachParked calls fn for every parked row.
func (s *Shard) eachParked(fn func(k delay.Key, size int)) error {
	var lanes []uint64
	err := s.parts.Store.ParkedLanes(func(lane uint64, _ delay.Target, _ int64) bool {
		lanes = append(lanes, lane)
		return true
	})
	for _, lane := range lanes {
		if err == nil {
			err = s.parts.Store.ScanParked(lane, delay.Key{},
				func(k delay.Key, _ bool, rec []byte) bool { fn(k, len(rec)); return true })
		}
	}
	return err
}
