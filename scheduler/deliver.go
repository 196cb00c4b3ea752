// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
)

// fetchTimeout bounds the fallback read of one batch of bodies.
const fetchTimeout = 10 * time.Second

// parcel is a claim with its message.
type parcel struct {
	claim
	msg   delay.Message
	id    delay.ID
	found bool
	err   error
}

// open decodes rec into the parcel; rec must not change afterwards.
func (p *parcel) open(rec []byte, ids delay.IDMaker, shard delay.Shard) {
	p.msg, p.err = delay.DecodeRecord(rec)
	p.found = p.err == nil
	p.id = p.msg.ID
	if p.id == "" {
		p.id = ids.Make(shard, p.ref.key)
	}
}

// parcels reads the messages of claims: local rows with one iterator, parked rows one by one, and
// what is missing locally from the tier. The result is in the order of the claims.
func (s *Shard) parcels(ctx context.Context, lane uint32, claims []claim) []parcel {
	out := make([]parcel, len(claims))
	order := make([]int, 0, len(claims))
	keys := make([]delay.Key, 0, len(claims))
	bytes := 0
	for i := range claims {
		out[i].claim = claims[i]
		if !claims[i].parked {
			order = append(order, i)
			bytes += claims[i].ref.size()
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return claims[a].ref.key.Compare(claims[b].ref.key)
	})
	for _, i := range order {
		keys = append(keys, claims[i].ref.key)
	}
	buf := make([]byte, 0, bytes)
	err := s.parts.Store.ReadRows(keys, func(n int, rec []byte) {
		if rec == nil {
			return
		}
		at := len(buf)
		buf = append(buf, rec...)
		out[order[n]].open(buf[at:len(buf):len(buf)], s.ids, s.shard)
	})
	if err != nil {
		s.log.Error("bodies unreadable", zap.Error(err))
	}
	s.parkedParcels(lane, out)
	s.coldParcels(ctx, out)
	return out
}

// parkedParcels reads what is parked, or was parked since the claim.
func (s *Shard) parkedParcels(lane uint32, out []parcel) {
	hash := s.lanes.target(lane).Hash()
	for i := range out {
		p := &out[i]
		if p.found {
			continue
		}
		rec, _, err := s.parts.Store.Parked(hash, p.ref.key)
		if err == nil {
			p.parked = true
			p.open(rec, s.ids, s.shard)
		}
	}
}

// coldParcels fetches from the tier what has no local copy (design: local, else tier).
func (s *Shard) coldParcels(ctx context.Context, out []parcel) {
	var keys []delay.Key
	var at []int
	for i := range out {
		if !out[i].found {
			at = append(at, i)
		}
	}
	if len(at) == 0 || s.parts.Tier == nil {
		return
	}
	slices.SortFunc(at, func(a, b int) int { return out[a].ref.key.Compare(out[b].ref.key) })
	for _, i := range at {
		keys = append(keys, out[i].ref.key)
	}
	if s.parts.Events.Fallback != nil {
		s.parts.Events.Fallback(len(keys))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err := s.parts.Tier.Fetch(ctx, keys, func(n int, rec []byte, err error) {
		p := &out[at[n]]
		if err != nil {
			p.err = err
			return
		}
		p.open(slices.Clone(rec), s.ids, s.shard)
	})
	if err != nil {
		s.log.Error("fallback read failed", zap.Int("messages", len(keys)), zap.Error(err))
	}
}

// deliver makes one attempt at each claim of a push lane.
func (s *Shard) deliver(ctx context.Context, a actDeliver) {
	target := s.lanes.target(a.lane)
	parcels := s.parcels(ctx, a.lane, a.claims)
	outcomes := make([]outcome, len(parcels))
	batch := make([]broker.Delivery, 0, len(parcels))
	at := make([]int, 0, len(parcels))
	now := s.Now()
	var once []finishItem
	for i := range parcels {
		p := &parcels[i]
		outcomes[i] = s.prospect(p, now)
		if !p.found || outcomes[i].expired {
			continue
		}
		if p.ref.meta&refOnce != 0 {
			once = append(once, p.handedOver())
		}
		at = append(at, i)
		batch = append(batch, broker.Delivery{
			ID: p.id, Target: target, Due: p.msg.Due, Attempt: p.attempt, FiredAt: now,
			RoutingKey: p.msg.RoutingKey, Headers: p.msg.Headers, Body: p.msg.Body,
		})
	}
	results := make([]broker.Result, len(batch))
	switch sink := s.parts.Sinks(target); {
	case len(batch) == 0:
	case sink == nil:
		for i := range results {
			results[i] = broker.Result{Outcome: broker.Retry, Reason: "no broker of that name"}
		}
	case s.commitOnce(once) != nil:
		for i := range results {
			results[i] = broker.Result{Outcome: broker.Retry, Reason: "store unavailable"}
		}
	default:
		sink.Deliver(ctx, batch, results)
	}
	for n, i := range at {
		o := &outcomes[i]
		o.result, o.reason, o.after = results[n].Outcome, results[n].Reason, results[n].RetryAfter
	}
	s.measure(target, parcels, results, now)
	s.post(evOutcomes{lane: a.lane, outcomes: outcomes})
}

// prospect is the outcome of p as far as it is known before the attempt.
func (s *Shard) prospect(p *parcel, now delay.Due) outcome {
	o := outcome{key: p.ref.key}
	if !p.found {
		o.lost, o.reason = true, "no readable copy"
		if p.err != nil {
			o.reason = p.err.Error()
		}
		s.log.Error("message has no readable copy", zap.Stringer("key", p.ref.key),
			zap.Error(p.err))
		return o
	}
	most := cmp.Or(p.msg.MaxAttempts, s.opts.MaxAttempts)
	o.last = most > 0 && p.attempt >= most
	o.backoff = p.msg.Backoff
	e := p.msg.Expires()
	o.expired = e > 0 && e < now
	return o
}

// handedOver is the outcome of an at-most-once message, written before it leaves.
func (p *parcel) handedOver() finishItem {
	return finishItem{
		ref: p.ref, parked: p.parked, parking: true, state: delay.Delivered, attempts: p.attempt,
	}
}

// commitOnce finishes at-most-once messages before they are handed over.
func (s *Shard) commitOnce(items []finishItem) error {
	if len(items) == 0 {
		return nil
	}
	o := &finishOp{
		actFinish: actFinish{items: items}, report: s.reportFinished, quiet: true,
		done: make(chan error, 1),
	}
	return s.do(o, 0, o.done)
}

// measure reports attempts and the lateness of first ones.
func (s *Shard) measure(
	target delay.Target, parcels []parcel, results []broker.Result, now delay.Due,
) {
	if s.parts.Events.Lateness != nil {
		late := make([]time.Duration, 0, len(parcels))
		for i := range parcels {
			if p := &parcels[i]; p.found && p.attempt == 1 {
				late = append(late, max(0, now.Sub(p.msg.Due)))
			}
		}
		s.parts.Events.Lateness(target, late)
	}
	if s.parts.Events.Attempts == nil {
		return
	}
	var counts [4]int
	for _, r := range results {
		counts[r.Outcome]++
	}
	for o, n := range counts {
		if n > 0 {
			s.parts.Events.Attempts(target, broker.Outcome(o).String(), n)
		}
	}
}

// Pull leases up to most due messages of a queue for the time lease. It waits until there is one,
// patience is over, or ctx is done; then it returns none and no error. The lease is durable when it
// returns (rule R8).
func (s *Shard) Pull(
	ctx context.Context, queue string, most int, patience, lease time.Duration,
) ([]Lease, error) {
	target, err := pull.ParseQueue(queue)
	if err != nil {
		return nil, err
	}
	w := &waiter{
		lane: s.lanes.number(target), max: most, lease: lease, grant: make(chan grant, 1),
	}
	s.post(evPull{w: w})
	var g grant
	if s.drive != nil {
		g = s.takeBack(w)
	} else if g, err = s.awaitGrant(ctx, w, patience); err != nil {
		return nil, err
	}
	if len(g.claims) == 0 {
		return nil, nil
	}
	return s.lease(ctx, w.lane, target, g)
}

// awaitGrant waits for messages.
func (s *Shard) awaitGrant(ctx context.Context, w *waiter, d time.Duration) (grant, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var g grant
	select {
	case g = <-w.grant:
	case <-timer.C:
		g = s.takeBack(w)
	case <-ctx.Done():
		g = s.takeBack(w)
	case <-s.closed:
		return g, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	}
	return g, nil
}

// takeBack ends the wait: with what was granted in the last moment, or with nothing.
func (s *Shard) takeBack(w *waiter) grant {
	s.post(evPullGone{w: w})
	g, _ := wait(s, w.grant)
	return g
}

// lease makes a grant durable and reads its messages meanwhile.
func (s *Shard) lease(
	ctx context.Context, lane uint32, target delay.Target, g grant,
) ([]Lease, error) {
	keys := make([]delay.Key, len(g.claims))
	for i := range g.claims {
		keys[i] = g.claims[i].ref.key
	}
	if ctx.Err() != nil { // nobody is there to take them
		s.post(evReleased{lane: lane, keys: keys})
		return nil, ctx.Err()
	}
	b := s.parts.Store.NewBatch()
	b.PutLease(leaseOf(g, target))
	pending, err := s.parts.Store.Apply(b)
	if err != nil {
		s.post(evReleased{lane: lane, keys: keys})
		return nil, fmt.Errorf("write lease: %w", err)
	}
	out, once := s.leases(ctx, lane, target, g)
	if _, err := pending.Wait(); err != nil {
		return nil, fmt.Errorf("sync lease: %w", err)
	}
	if err := s.commitOnce(once); err != nil {
		return nil, err
	}
	return out, nil
}

// leases reads the messages of a grant. What is expired or unreadable goes back to the core.
func (s *Shard) leases(
	ctx context.Context, lane uint32, target delay.Target, g grant,
) (out []Lease, once []finishItem) {
	parcels := s.parcels(ctx, lane, g.claims)
	now := s.Now()
	hash := target.Hash()
	out = make([]Lease, 0, len(parcels))
	gone := evReleased{lane: lane}
	var last evLast
	receipts := make([]byte, 0, len(parcels)*40)
	for i := range parcels {
		p := &parcels[i]
		o := s.prospect(p, now)
		switch {
		case o.expired:
			gone.expired = append(gone.expired, o.key)
			continue
		case !p.found:
			gone.lost = append(gone.lost, o.key)
			continue
		case o.last:
			last.keys = append(last.keys, o.key)
		}
		if p.ref.meta&refOnce != 0 {
			once = append(once, p.handedOver())
		}
		at := len(receipts)
		receipts = pull.AppendReceipt(receipts, pull.Receipt{
			Key: o.key, Epoch: delay.Epoch(g.lease >> 40), Attempt: p.attempt, Lane: hash,
		})
		out = append(out, Lease{
			ID: p.id, Receipt: string(receipts[at:]), Attempt: p.attempt, Due: p.msg.Due,
			FiredAt: now, RoutingKey: p.msg.RoutingKey, Headers: p.msg.Headers, Body: p.msg.Body,
		})
	}
	if len(last.keys) > 0 {
		s.post(last)
	}
	if len(gone.lost)+len(gone.expired) > 0 {
		s.post(gone)
	}
	s.measure(target, parcels, nil, now)
	return out, once
}

// Settle acks, nacks or extends; results[i] answers req.Receipts[i] after it is synced (S6).
func (s *Shard) Settle(ctx context.Context, req SettleRequest, results []SettleResult) error {
	target, err := pull.ParseQueue(req.Queue)
	if err != nil {
		return err
	}
	st := &settling{
		kind: req.Settlement, lane: s.lanes.number(target), after: req.Delay,
		hasAfter: req.HasDelay, lease: req.Lease, reason: req.Reason, done: make(chan error, 1),
	}
	var at []int
	hash := target.Hash()
	for i, text := range req.Receipts {
		r, ok := pull.ParseReceipt(text)
		if !ok || !r.InLane(hash) {
			results[i] = SettleNotFound
			continue
		}
		at = append(at, i)
		st.receipts = append(st.receipts, settleKey{
			key: r.Key, epoch: r.Epoch, attempt: r.Attempt,
		})
	}
	if len(at) == 0 {
		return nil
	}
	st.results = make([]SettleResult, len(at))
	s.post(evSettle{s: st})
	err, ok := wait(s, st.done)
	if !ok {
		err = delay.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for _, n := range st.missing {
		st.results[n] = s.settled(st.kind, target, st.receipts[n])
	}
	for n, i := range at {
		results[i] = st.results[n]
	}
	return nil
}

// settled answers a receipt of which the core knows nothing: the message is finished, or its lease
// was lost with the process before it was durable.
func (s *Shard) settled(kind Settlement, target delay.Target, r settleKey) SettleResult {
	if r.key.Seq.Counter() == 0 || r.key.Seq > s.parts.Store.LastSeq() {
		return SettleNotFound
	}
	if _, err := s.parts.Store.Row(r.key); err == nil {
		return Superseded
	}
	if _, _, err := s.parts.Store.Parked(target.Hash(), r.key); err == nil {
		return Superseded
	}
	if _, _, err := s.parts.Store.Dead(r.key); !errors.Is(err, delay.ErrNotFound) {
		return Superseded
	}
	if s.endedOtherwise(r) || kind != Ack {
		return Superseded
	}
	return Acked
}

// endedOtherwise reports whether the message of r is known to have ended by another attempt, or in
// another way, than by this receipt.
func (s *Shard) endedOtherwise(r settleKey) bool {
	rec, ok, err := s.parts.Store.LookupID(string(s.ids.Make(s.shard, r.key)))
	if err != nil || !ok {
		return false
	}
	return rec.State != delay.Delivered || rec.Attempts != r.attempt
}
