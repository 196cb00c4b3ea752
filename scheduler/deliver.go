// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
)

// fetchTimeout bounds the fallback read of one batch of bodies.
const fetchTimeout = 10 * time.Second

// parcel is a claim with its message.
type parcel struct {
	core.Claim
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
		p.id = ids.Make(shard, p.Ref.Key)
	}
	if p.Attempt > 1 && planted.Is(planted.RetryRenamed) {
		p.id = ids.Make(shard, p.Ref.Key.Next())
	}
}

// parcels reads the messages of claims: local rows with one iterator, parked rows one by one, and
// what is missing locally from the tier. The result is in the order of the claims.
func (s *Shard) parcels(ctx context.Context, lane uint32, claims []core.Claim) []parcel {
	out := make([]parcel, len(claims))
	order := make([]int, 0, len(claims))
	keys := make([]delay.Key, 0, len(claims))
	bytes := 0
	for i := range claims {
		out[i].Claim = claims[i]
		if !claims[i].Parked {
			order = append(order, i)
			bytes += claims[i].Ref.Size()
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return claims[a].Ref.Key.Compare(claims[b].Ref.Key)
	})
	for _, i := range order {
		keys = append(keys, claims[i].Ref.Key)
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
	var at []int
	for i := range out {
		if !out[i].found {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return
	}
	slices.SortFunc(at, func(a, b int) int { return out[a].Ref.Key.Compare(out[b].Ref.Key) })
	keys := make([]delay.Key, len(at))
	for n, i := range at {
		keys[n] = out[i].Ref.Key
	}
	hash := s.lanes.Target(lane).Hash()
	err := s.parts.Store.ReadParked(hash, keys, func(n int, _ bool, rec []byte) {
		if rec != nil {
			out[at[n]].Parked = true
			out[at[n]].open(slices.Clone(rec), s.ids, s.shard)
		}
	})
	if err != nil {
		s.log.Error("parked bodies unreadable", zap.Error(err))
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
	slices.SortFunc(at, func(a, b int) int { return out[a].Ref.Key.Compare(out[b].Ref.Key) })
	for _, i := range at {
		keys = append(keys, out[i].Ref.Key)
	}
	if s.parts.Events.Fallback != nil {
		s.parts.Events.Fallback(len(keys))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err := s.parts.Tier.Fetch(ctx, keys, func(n int, rec []byte, err error) {
		p := &out[at[n]]
		if err == nil && s.find.Bulk().Covers(keys[n], rec) {
			err = fmt.Errorf("cancelled in bulk: %w", delay.ErrNotFound) // C16
		}
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
func (s *Shard) deliver(ctx context.Context, a core.ActDeliver) {
	target := s.lanes.Target(a.Lane)
	if target == delay.Schedules {
		s.recur(ctx, a)
		return
	}
	if k := s.ledgers.Of(target); k != nil && !k.Ready() {
		s.postpone(a)
		return
	}
	parcels := s.parcels(ctx, a.Lane, a.Claims)
	outcomes := make([]core.Outcome, len(parcels))
	batch := make([]broker.Delivery, 0, len(parcels))
	at := make([]int, 0, len(parcels))
	now := s.Now()
	var once []core.FinishItem
	for i := range parcels {
		p := &parcels[i]
		outcomes[i] = s.prospect(p, now)
		if !p.found || outcomes[i].Expired {
			continue
		}
		if p.Ref.Meta&core.RefOnce != 0 {
			once = append(once, p.handedOver())
		}
		at = append(at, i)
		batch = append(batch, broker.Delivery{
			ID: p.id, Generation: max(1, p.msg.Generation), Target: target, Due: p.msg.Due,
			Attempt: p.Attempt, FiredAt: now, RoutingKey: p.msg.RoutingKey,
			Headers: p.msg.Headers, Body: p.msg.Body,
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
		defer s.hand(ctx, sink, batch, results)()
	}
	for n, i := range at {
		o := &outcomes[i]
		o.Result, o.Reason, o.After = results[n].Outcome, results[n].Reason, results[n].RetryAfter
	}
	s.measure(target, parcels, results, now)
	s.post(core.EvOutcomes{Lane: a.Lane, Outcomes: outcomes})
}

// prospect is the outcome of p as far as it is known before the attempt.
func (s *Shard) prospect(p *parcel, now delay.Due) core.Outcome {
	o := core.Outcome{Key: p.Ref.Key}
	if !p.found {
		o.Lost, o.Reason = true, "no readable copy"
		if p.err != nil {
			o.Reason = p.err.Error()
		}
		s.log.Error("message has no readable copy", zap.Stringer("key", p.Ref.Key),
			zap.Error(p.err))
		return o
	}
	most := cmp.Or(p.msg.MaxAttempts, s.opts.MaxAttempts)
	o.Last = most > 0 && p.Attempt >= most
	o.Backoff = p.msg.Backoff
	e := p.msg.Expires()
	o.Expired = e > 0 && e < now
	return o
}

// handedOver is the outcome of an at-most-once message, written before it leaves.
func (p *parcel) handedOver() core.FinishItem {
	return core.FinishItem{
		Ref: p.Ref, Parked: p.Parked, Parking: true, State: delay.Delivered, Attempts: p.Attempt,
	}
}

// commitOnce finishes at-most-once messages before they are handed over (C14).
func (s *Shard) commitOnce(items []core.FinishItem) error {
	if len(items) == 0 {
		return nil
	}
	o := &commit.FinishOp{
		ActFinish: core.ActFinish{Items: items}, Report: s.reportFinished, Quiet: true,
		Done: make(chan error, 1),
	}
	return s.do(o, 0, o.Done)
}

// measure reports attempts and the lateness of first ones.
func (s *Shard) measure(
	target delay.Target, parcels []parcel, results []broker.Result, now delay.Due,
) {
	if s.parts.Events.Lateness != nil {
		late := make([]time.Duration, 0, len(parcels))
		for i := range parcels {
			if p := &parcels[i]; p.found && p.Attempt == 1 {
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
	w := &core.Waiter{
		Lane: s.lanes.Number(target), Max: most, Lease: lease, Grant: make(chan core.Grant, 1),
	}
	s.post(core.EvPull{Waiter: w})
	var g core.Grant
	if s.drive != nil {
		g = s.takeBack(w)
	} else if g, err = s.awaitGrant(ctx, w, patience); err != nil {
		return nil, err
	}
	if len(g.Claims) == 0 {
		return nil, nil
	}
	return s.lease(ctx, w.Lane, target, g)
}

// awaitGrant waits for messages.
func (s *Shard) awaitGrant(
	ctx context.Context, w *core.Waiter, d time.Duration,
) (core.Grant, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var g core.Grant
	select {
	case g = <-w.Grant:
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
func (s *Shard) takeBack(w *core.Waiter) core.Grant {
	s.post(core.EvPullGone{Waiter: w})
	g, _ := wait(s, w.Grant)
	return g
}

// lease makes a grant durable (C14) and reads its messages meanwhile.
func (s *Shard) lease(
	ctx context.Context, lane uint32, target delay.Target, g core.Grant,
) ([]Lease, error) {
	keys := make([]delay.Key, len(g.Claims))
	for i := range g.Claims {
		keys[i] = g.Claims[i].Ref.Key
	}
	if ctx.Err() != nil { // nobody is there to take them
		s.post(core.EvReleased{Lane: lane, Lease: g.Lease, Keys: keys})
		return nil, ctx.Err()
	}
	b := s.parts.Store.NewBatch()
	b.PutLease(commit.LeaseOf(g, target))
	pending, err := s.parts.Store.Apply(b)
	if err != nil {
		s.post(core.EvReleased{Lane: lane, Lease: g.Lease, Keys: keys})
		return nil, fmt.Errorf("write lease: %w", err)
	}
	out, once := s.leases(ctx, lane, target, g)
	if planted.Is(planted.LeaseUnsynced) {
		return out, s.commitOnce(once)
	}
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
	ctx context.Context, lane uint32, target delay.Target, g core.Grant,
) (out []Lease, once []core.FinishItem) {
	parcels := s.parcels(ctx, lane, g.Claims)
	now := s.Now()
	hash := target.Hash()
	out = make([]Lease, 0, len(parcels))
	gone := core.EvReleased{Lane: lane, Lease: g.Lease}
	var last core.EvLast
	receipts := make([]byte, 0, len(parcels)*40)
	for i := range parcels {
		p := &parcels[i]
		o := s.prospect(p, now)
		switch {
		case o.Expired:
			gone.Expired = append(gone.Expired, o.Key)
			continue
		case !p.found:
			gone.Lost = append(gone.Lost, o.Key)
			continue
		case o.Last:
			last.Keys = append(last.Keys, o.Key)
		}
		if p.Ref.Meta&core.RefOnce != 0 {
			once = append(once, p.handedOver())
		}
		at := len(receipts)
		receipts = s.receipts.Append(receipts, pull.Receipt{
			Key: o.Key, Epoch: g.Epoch, Attempt: p.Attempt, Lane: hash,
		})
		out = append(out, Lease{
			ID: p.id, Receipt: string(receipts[at:]), Attempt: p.Attempt, Due: p.msg.Due,
			FiredAt: now, RoutingKey: p.msg.RoutingKey, Headers: p.msg.Headers, Body: p.msg.Body,
		})
	}
	if len(last.Keys) > 0 {
		s.post(last)
	}
	if len(gone.Lost)+len(gone.Expired) > 0 {
		s.post(gone)
	}
	s.measure(target, parcels, nil, now)
	return out, once
}

// Settle acks, nacks or extends; results[i] answers req.Receipts[i] after it is synced (S6).
func (s *Shard) Settle(
	ctx context.Context, req SettleRequest, results []SettleResult,
) (err error) {
	target, err := pull.ParseQueue(req.Queue)
	if err != nil {
		return err
	}
	st := &core.Settling{
		Kind: req.Settlement, Lane: s.lanes.Number(target), After: req.Delay,
		HasAfter: req.HasDelay, Lease: req.Lease, Done: make(chan error, 1),
		Reason: strings.Clone(req.Reason), // the lane remembers it
	}
	var at []int
	hash := target.Hash()
	for i, text := range req.Receipts {
		r, ok := s.receipts.Parse(text)
		if !ok || !r.InLane(hash) {
			results[i] = SettleNotFound
			continue
		}
		at = append(at, i)
		st.Receipts = append(st.Receipts, core.SettleKey{
			Key: r.Key, Epoch: r.Epoch, Attempt: r.Attempt,
		})
	}
	defer func() {
		if err == nil {
			s.reportSettled(target, req.Settlement, results)
		}
	}()
	if len(at) == 0 {
		return nil
	}
	st.Results = make([]SettleResult, len(at))
	s.post(core.EvSettle{Settling: st})
	if err := s.outcome(st.Done, s.closed); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	for _, n := range st.Missing {
		st.Results[n] = s.query.Settled(st.Kind, target, st.Receipts[n])
	}
	for n, i := range at {
		results[i] = st.Results[n]
	}
	return nil
}

// reportSettled tells the metrics how receipts were answered.
func (s *Shard) reportSettled(target delay.Target, kind Settlement, results []SettleResult) {
	if s.parts.Events.Settled == nil {
		return
	}
	var counts [SettleUnknown + 1]int
	for _, r := range results {
		counts[r]++
	}
	for r, n := range counts {
		if n > 0 {
			s.parts.Events.Settled(target, kind.String(), SettleResult(r).String(), n)
		}
	}
}
