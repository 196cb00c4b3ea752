// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// listOutcomes lists cancelled or delivered messages whose id is remembered, by id.
func (s *Shard) listOutcomes(f Filter, limit int, token string) ([]Info, string, error) {
	var out []Info
	next := ""
	err := s.parts.Store.ScanIDs(f.IDPrefix, func(id string, rec localstore.IDRecord) bool {
		if id < token {
			return true
		}
		info := Info{
			ID: delay.ID(id), State: rec.State, Level: delay.Warm, Due: rec.Key.Due,
			Generation: rec.Generation, Attempts: rec.Attempts,
		}
		if !f.passes(&info) {
			return true
		}
		if len(out) == limit {
			next = id
			return false
		}
		out = append(out, info)
		return true
	})
	return out, next, err
}

// DeadLetters pages through dead and expired messages by due.
func (s *Shard) DeadLetters(
	_ context.Context, f Filter, limit int, token string,
) ([]Info, string, error) {
	from, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	var out []Info
	next := ""
	err = s.parts.Store.ScanDead(from, func(k delay.Key, p delay.Progress, rec []byte) bool {
		info, err := s.deadInfo(k, p, slices.Clone(rec), false)
		if err != nil || !f.passes(&info) {
			return true
		}
		if len(out) == limit {
			next = pageToken(k)
			return false
		}
		out = append(out, info)
		return true
	})
	return out, next, err
}

// deadOp retries or deletes a dead letter.
type deadOp struct {
	id      delay.ID
	retry   bool
	receipt Receipt
	err     error
	done    chan error
}

func (o *deadOp) stage(c *committer) {
	c.distinct(string(o.id))
	rec, known, err := c.store.LookupID(string(o.id))
	key := rec.Key
	if err == nil && !known {
		_, _, key = c.ids.Parse(o.id)
	}
	var p delay.Progress
	var record []byte
	if err == nil {
		p, record, err = c.store.Dead(key)
	}
	if err != nil {
		o.err = fmt.Errorf("dead letter %s: %w", o.id, err)
		return
	}
	c.batch.DeleteDead(key)
	mark := &delay.Mark{Key: key, State: delay.Dead, At: c.now()}
	if o.retry {
		mark = o.again(c, key, p, record)
	}
	if o.err == nil {
		c.mark(mark, true)
	}
}

// again starts the message over, due now, with its own id and generation.
func (o *deadOp) again(c *committer, key delay.Key, p delay.Progress, record []byte) *delay.Mark {
	m, err := delay.DecodeRecord(record)
	if err != nil {
		o.err = fmt.Errorf("dead letter %s: %w", o.id, err)
		return nil
	}
	ident := delay.IdentityOf(key, &m)
	now := c.now()
	m.ID, m.Due, m.Given, m.NotAfter = o.id, now, 0, 0
	r := c.insert(&m)
	ident.Key = r.key
	c.batch.PutID(string(o.id), localstore.IDRecord{Identity: ident, State: delay.Scheduled})
	if p.State == delay.Expired {
		c.books.Expired--
	} else {
		c.books.Dead--
	}
	c.books.Pending++
	o.receipt = Receipt{
		ID: o.id, Due: now, Durability: m.Durability, Generation: ident.Generation,
	}
	return &delay.Mark{Key: key, State: delay.Scheduled, At: now, Forward: r.key}
}

func (o *deadOp) finish(_ localstore.Synced, err error) { o.done <- errors.Join(err, o.err) }

// RetryDead moves a dead letter back to pending, due now, without its not_after. ErrNotFound when
// there is none.
func (s *Shard) RetryDead(_ context.Context, id delay.ID) (Receipt, error) {
	o := &deadOp{id: id, retry: true, done: make(chan error, 1)}
	err := s.do(o, 0, o.done)
	return o.receipt, err
}

// DeleteDead deletes a dead letter for good. ErrNotFound when there is none.
func (s *Shard) DeleteDead(_ context.Context, id delay.ID) error {
	o := &deadOp{id: id, done: make(chan error, 1)}
	return s.do(o, 0, o.done)
}

// SetPaused pauses or resumes a target, durably: a paused target keeps its due messages scheduled.
func (s *Shard) SetPaused(_ context.Context, target delay.Target, paused bool) error {
	lane := s.lanes.number(target)
	s.tier.mu.Lock()
	s.tier.mu.pausedAt[target] = paused
	s.tier.mu.Unlock()
	done := make(chan error, 1)
	o := &metaOp{done: done, change: func(c *committer) {
		c.batch.PutTarget(target, localstore.TargetState{
			Paused: paused, ClaimCursor: c.cursors[target],
		})
		c.then(evPause{lane: lane, paused: paused})
	}}
	return s.do(o, 0, done)
}

// evTargets asks the core for its lanes.
type evTargets struct{ done chan []laneStatus }

// laneStatus is a lane as the core sees it.
type laneStatus struct {
	TargetStatus
	delivered int64 // since the start
}

func (e evTargets) apply(c *core) {
	var out []laneStatus
	for _, l := range c.live {
		if l == nil {
			continue
		}
		out = append(out, laneStatus{delivered: l.delivered, TargetStatus: TargetStatus{
			Target: l.target, InFlight: l.inflight, Paused: l.paused, LastError: l.lastError,
			Backlog: int64(l.ready.len()) + l.backlog, Open: c.now < l.openUntil,
		}})
	}
	for _, f := range c.flights {
		if f.state != flightLeased && f.state != flightRetrying {
			continue
		}
		t := c.lanes.target(f.ref.lane)
		for i := range out {
			if out[i].Target == t {
				out[i].InFlight++
				break
			}
		}
	}
	e.done <- out
}

// Targets describes every lane that has been used since the start, by name.
func (s *Shard) Targets(context.Context) ([]TargetStatus, error) {
	ev := evTargets{done: make(chan []laneStatus, 1)}
	s.post(ev)
	lanes, ok := wait(s, ev.done)
	if !ok {
		return nil, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	s.rates.fill(lanes, s.parts.Now())
	out := make([]TargetStatus, len(lanes))
	for i := range lanes {
		out[i] = lanes[i].TargetStatus
	}
	slices.SortFunc(out, func(a, b TargetStatus) int {
		if a.Target < b.Target {
			return -1
		}
		return 1
	})
	return out, nil
}

// rateMeter turns totals into rates between two looks at least a second apart.
type rateMeter struct {
	mu   sync.Mutex
	last map[delay.Target]rated
}

type rated struct {
	at    time.Time
	total int64
	rate  float64
}

func (m *rateMeter) fill(out []laneStatus, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := make(map[delay.Target]rated, len(out))
	for i := range out {
		t := &out[i]
		r, ok := m.last[t.Target]
		if since := now.Sub(r.at); !ok || since >= time.Second {
			if ok {
				r.rate = float64(t.delivered-r.total) / since.Seconds()
			}
			r.at, r.total = now, t.delivered
		}
		t.Rate = r.rate
		next[t.Target] = r
	}
	m.last = next
}

// glance is what Status asks of the core.
type glance struct{ hot, hotBytes int64 }

type evGlance struct{ done chan glance }

func (e evGlance) apply(c *core) {
	e.done <- glance{
		hot:      int64(c.wheel.Len() + c.ready + len(c.flights)),
		hotBytes: c.wheel.Bytes(),
	}
}

func (s *Shard) glance() glance {
	ev := evGlance{done: make(chan glance, 1)}
	s.post(ev)
	g, _ := wait(s, ev.done)
	return g
}

// Status tells how the shard is.
func (s *Shard) Status() Status {
	store := s.parts.Store
	meta, counts := store.Meta(), store.Counts()
	g := s.glance()
	st := Status{
		ClusterID: meta.ClusterID, Shard: s.shard, Epoch: meta.Epoch, Watermark: meta.Watermark,
		ClaimHorizon: meta.ClaimHorizon, Boundary: meta.Boundary,
		Hot:           LevelStatus{Messages: g.hot, Bytes: g.hotBytes},
		Cold:          LevelStatus(counts.Cold),
		DiskFreeBytes: store.DiskFree(), Accepting: s.accepting() == nil,
		Restoring: !meta.IDsComplete, Clock: s.clock.status(), Books: store.Books(),
	}
	warm := counts.Warm.Messages + counts.Parked - g.hot
	st.Warm = LevelStatus{
		Messages: max(0, warm),
		Bytes:    max(0, counts.Warm.Bytes-g.hotBytes),
	}
	t := &s.tier
	t.mu.Lock()
	defer t.mu.Unlock()
	st.LastFlush = t.mu.lastAt
	if t.mu.lastErr != nil {
		st.LastFlushError = t.mu.lastErr.Error()
	}
	oldest := t.mu.oldest
	if waiting := s.upload.oldest(); oldest == 0 {
		oldest = waiting
	}
	if oldest != 0 {
		st.OldestNotUploaded = max(0, st.Clock.Now.Sub(oldest))
	}
	return st
}
