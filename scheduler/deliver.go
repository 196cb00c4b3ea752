// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/parcel"
)

// deliver makes one attempt at each claim of a push lane.
func (s *Shard) deliver(ctx context.Context, a core.ActDeliver) {
	target := s.lanes.Target(a.Lane)
	if target == delay.Schedules {
		s.recur(ctx, a)
		return
	}
	if target.IsGuard() {
		s.judge(ctx, a)
		return
	}
	if k := s.ledgers.Of(target); k != nil && !k.Ready() {
		s.postpone(a)
		return
	}
	parcels := s.parcels.Read(ctx, a.Lane, a.Claims)
	outcomes := make([]core.Outcome, len(parcels))
	batch := make([]broker.Delivery, 0, len(parcels))
	at := make([]int, 0, len(parcels))
	now := s.Now()
	var once []core.FinishItem
	for i := range parcels {
		p := &parcels[i]
		outcomes[i] = s.prospect(p, now)
		if !p.Found || outcomes[i].Expired {
			continue
		}
		if p.Ref.Meta&core.RefOnce != 0 {
			once = append(once, p.HandedOver())
		}
		at = append(at, i)
		batch = append(batch, broker.Delivery{
			ID: p.ID, Generation: max(1, p.Msg.Generation), Target: target, Due: p.Msg.Due,
			Attempt: p.Attempt, FiredAt: now, RoutingKey: p.Msg.RoutingKey,
			Headers: p.Msg.Headers, Body: p.Msg.Body,
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
func (s *Shard) prospect(p *parcel.Parcel, now delay.Due) core.Outcome {
	o := core.Outcome{Key: p.Ref.Key}
	if !p.Found {
		o.Lost, o.Reason = true, "no readable copy"
		if p.Err != nil {
			o.Reason = p.Err.Error()
		}
		s.log.Error("message has no readable copy", zap.Stringer("key", p.Ref.Key),
			zap.Error(p.Err))
		return o
	}
	most := cmp.Or(p.Msg.MaxAttempts, s.opts.MaxAttempts)
	o.Last = most > 0 && p.Attempt >= most
	o.Backoff = p.Msg.Backoff
	e := p.Msg.Expires()
	o.Expired = e > 0 && e < now
	return o
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
	target delay.Target, parcels []parcel.Parcel, results []broker.Result, now delay.Due,
) {
	if s.parts.Events.Lateness != nil {
		late := make([]time.Duration, 0, len(parcels))
		for i := range parcels {
			if p := &parcels[i]; p.Found && p.Attempt == 1 {
				late = append(late, max(0, now.Sub(p.Msg.Due)))
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
	parcels := s.parcels.Read(ctx, lane, g.Claims)
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
		case !p.Found:
			gone.Lost = append(gone.Lost, o.Key)
			continue
		case o.Last:
			last.Keys = append(last.Keys, o.Key)
		}
		if p.Ref.Meta&core.RefOnce != 0 {
			once = append(once, p.HandedOver())
		}
		at := len(receipts)
		receipts = s.receipts.Append(receipts, pull.Receipt{
			Key: o.Key, Epoch: g.Epoch, Attempt: p.Attempt, Lane: hash,
		})
		out = append(out, Lease{
			ID: p.ID, Receipt: string(receipts[at:]), Attempt: p.Attempt, Due: p.Msg.Due,
			FiredAt: now, RoutingKey: p.Msg.RoutingKey, Headers: p.Msg.Headers, Body: p.Msg.Body,
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
