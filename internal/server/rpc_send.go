// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"

	"connectrpc.com/connect"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// rpc is the service of cicada.proto. Every method translates and calls what the JSON API calls.
type rpc struct{ s *Server }

// Send implements the service.
func (r *rpc) Send(ctx context.Context, req *connect.Request[cicadav1.SendRequest]) (
	*connect.Response[cicadav1.SendResponse], error) {
	c := &call{server: r.s}
	defer c.release()
	if err := r.send(ctx, req.Msg.GetMessages(), c.memory()); err != nil {
		return nil, err
	}
	m := c.mem
	out := &cicadav1.SendResponse{Results: make([]*cicadav1.SendResult, len(m.batch.Errs))}
	receipts := m.receipts
	for i, err := range m.batch.Errs {
		if err == nil {
			if err = receipts[0].Err; err == nil {
				out.Results[i] = &cicadav1.SendResult{
					Result: &cicadav1.SendResult_Receipt{Receipt: receiptOf(&receipts[0])}}
			}
			receipts = receipts[1:]
		}
		if err != nil {
			f := r.s.faultOf(err)
			out.Results[i] = &cicadav1.SendResult{Result: &cicadav1.SendResult_Error{
				Error: &cicadav1.Error{Code: f.code.String(), Message: f.message, Field: f.field}}}
		}
	}
	return connect.NewResponse(out), nil
}

func (r *rpc) send(ctx context.Context, messages []*cicadav1.Message, m *work) error {
	if len(messages) > wire.MaxBatch {
		err := delay.Invalid("messages", "more than %d messages in a batch", wire.MaxBatch)
		r.s.rejected(err)
		return err
	}
	now := callOf(ctx).shard.Now()
	var checked delay.Target // batches repeat targets
	for _, msg := range messages {
		m.batch.Add(func(draft *delay.Draft) error {
			it, err := itemOf(msg, draft)
			if err != nil {
				return err
			}
			if it.Given&wire.FieldTarget != 0 && draft.Target != checked {
				if err := r.s.rules.Target(draft.Target); err != nil {
					return err
				}
				checked = draft.Target
			}
			return r.s.rules.Resolve(it, now)
		})
	}
	return r.s.accept(context.WithoutCancel(ctx), callOf(ctx).shard, m)
}

// itemOf reads a message into draft, checking each field like the JSON API does.
func itemOf(m *cicadav1.Message, draft *delay.Draft) (wire.Item, error) {
	it := wire.Item{Draft: draft}
	draft.Body, draft.RoutingKey, draft.Replace = m.GetBody(), m.GetKey(), m.GetReplace()
	if m.GetTarget() != "" {
		it.Given |= wire.FieldTarget
		draft.Target = delay.Target(m.GetTarget())
	}
	if m.GetId() != "" {
		draft.ID = delay.ID(m.GetId())
		if err := wire.CheckID(draft.ID); err != nil {
			return it, err
		}
	}
	if err := wire.CheckKey(draft.RoutingKey); err != nil {
		return it, err
	}
	if err := wire.CheckBody(wire.FieldBody, draft.Body); err != nil {
		return it, err
	}
	if n := len(m.GetHeaders()); n > 0 {
		draft.Headers = make([]delay.Header, n)
		for i, h := range m.GetHeaders() {
			draft.Headers[i] = delay.Header{Name: h.GetName(), Value: h.GetValue()}
		}
		if err := wire.SortHeaders(draft.Headers); err != nil {
			return it, err
		}
	}
	if err := whenOf(m, &it); err != nil {
		return it, err
	}
	return it, optionsOf(m, &it)
}

// whenOf reads the instant, the delay or the schedule.
func whenOf(m *cicadav1.Message, it *wire.Item) (err error) {
	switch when := m.GetWhen().(type) {
	case *cicadav1.Message_DeliverAtMs:
		it.Given |= wire.FieldDeliverAt
		it.When, err = instant("deliver_at", when.DeliverAtMs)
	case *cicadav1.Message_DelayMs:
		it.Given |= wire.FieldDelay
		it.When, err = wire.Delay("delay", when.DelayMs)
	case *cicadav1.Message_Schedule:
		it.Given |= wire.FieldSchedule
	}
	for _, f := range [...]struct {
		given bool
		field wire.Fields
	}{
		{m.GetTimeZone() != "", wire.FieldTimeZone}, {m.GetMisfire() != "", wire.FieldMisfire},
		{m.MisfireLimit != nil, wire.FieldMisfireLimit}, {m.UntilMs != nil, wire.FieldUntil},
		{m.Count != nil, wire.FieldCount}, {m.JitterMs != nil, wire.FieldJitter},
	} {
		if f.given {
			it.Given |= f.field
		}
	}
	return err
}

// optionsOf reads the rest.
func optionsOf(m *cicadav1.Message, it *wire.Item) error {
	d := it.Draft
	for _, f := range [...]struct {
		name  string
		value *int64
		least int64
		into  *time.Duration
	}{
		{"ttl", m.TtlMs, 1, &d.TTL}, {"spread", m.SpreadMs, 0, &d.Spread},
		{"max_wait", m.MaxWaitMs, 1, &d.MaxWait}, {"backoff", m.BackoffMs, 1, &d.Backoff},
	} {
		if f.value == nil {
			continue
		}
		var err error
		if *f.into, err = wire.Duration(f.name, *f.value, f.least); err != nil {
			return err
		}
	}
	if m.NotAfterMs != nil {
		at, err := instant("not_after", m.GetNotAfterMs())
		if err != nil {
			return err
		}
		d.NotAfter = delay.Due(at)
	}
	if m.MaxAttempts != nil {
		if d.MaxAttempts = m.GetMaxAttempts(); d.MaxAttempts == 0 {
			return delay.Invalid("max_attempts", "want at least 1")
		}
	}
	switch m.GetDurability() {
	case cicadav1.Durability_DURABILITY_UNSPECIFIED:
	case cicadav1.Durability_DURABILITY_LOCAL:
		it.Given |= wire.FieldDurability
	case cicadav1.Durability_DURABILITY_TIER:
		it.Given |= wire.FieldDurability
		d.Durability = delay.Tier
	default:
		return delay.Invalid("durability", "want local or tier")
	}
	switch mode := m.GetMode(); {
	case mode > cicadav1.Mode_MODE_EXACTLY_ONCE || mode < 0:
		return delay.Invalid("mode", "want at_least_once, at_most_once or exactly_once")
	case mode != cicadav1.Mode_MODE_UNSPECIFIED:
		d.Mode = delay.Mode(mode - 1)
	}
	return nil
}

// instant checks epoch milliseconds.
func instant(name string, ms int64) (int64, error) {
	due, err := wire.InstantOfMillis(ms)
	if err != nil {
		return 0, wire.Reason(name, err)
	}
	return int64(due), nil
}

// Reserve implements the service.
func (r *rpc) Reserve(ctx context.Context, req *connect.Request[cicadav1.ReserveRequest]) (
	*connect.Response[cicadav1.ReserveResponse], error) {
	n := int(max(req.Msg.GetCount(), 1))
	if n > mostIDs {
		return nil, delay.Invalid("count", "want 1 to %d", mostIDs)
	}
	ids, err := callOf(ctx).shard.Reserve(ctx, n)
	if err != nil {
		return nil, err
	}
	out := &cicadav1.ReserveResponse{Ids: make([]string, len(ids))}
	for i, id := range ids {
		out.Ids[i] = string(id)
	}
	return connect.NewResponse(out), nil
}

func receiptOf(r *scheduler.Receipt) *cicadav1.Receipt {
	return &cicadav1.Receipt{Id: string(r.ID), DueMs: int64(r.Due),
		Durability: durabilityOf(r.Durability), Duplicate: r.Duplicate,
		Generation: r.Generation, State: stateOf(r.State)}
}

// The enums of the proto have their zero besides.

func durabilityOf(d delay.Durability) cicadav1.Durability { return cicadav1.Durability(d) + 1 }

func stateOf(s delay.State) cicadav1.State { return cicadav1.State(s) + 1 }

// Cancel implements the service.
func (r *rpc) Cancel(ctx context.Context, req *connect.Request[cicadav1.CancelRequest]) (
	*connect.Response[cicadav1.CancelResponse], error) {
	kind := scheduler.Cancel
	if req.Msg.GetStop() {
		kind = scheduler.StopRetrying
	}
	res, err := r.change(ctx, req.Msg.GetId(), kind, 0)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.CancelResponse{
		Result: verdictOf(res), Durability: durabilityOf(res.Durability)}), nil
}

// Reschedule implements the service.
func (r *rpc) Reschedule(ctx context.Context, req *connect.Request[cicadav1.RescheduleRequest]) (
	*connect.Response[cicadav1.RescheduleResponse], error) {
	var it wire.Item
	var err error
	switch when := req.Msg.GetWhen().(type) {
	case *cicadav1.RescheduleRequest_DeliverAtMs:
		it.Given = wire.FieldDeliverAt
		it.When, err = instant("deliver_at", when.DeliverAtMs)
	case *cicadav1.RescheduleRequest_DelayMs:
		it.Given = wire.FieldDelay
		it.When, err = wire.Delay("delay", when.DelayMs)
	}
	if err != nil {
		return nil, err
	}
	due, err := it.Due(callOf(ctx).shard.Now())
	if err != nil {
		return nil, err
	}
	res, err := r.change(ctx, req.Msg.GetId(), scheduler.Reschedule, due)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.RescheduleResponse{Result: verdictOf(res),
		Durability: durabilityOf(res.Durability), DueMs: int64(res.Due)}), nil
}

// Fire implements the service.
func (r *rpc) Fire(ctx context.Context, req *connect.Request[cicadav1.FireRequest]) (
	*connect.Response[cicadav1.FireResponse], error) {
	res, err := r.change(ctx, req.Msg.GetId(), scheduler.Fire, 0)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.FireResponse{Result: verdictOf(res),
		Durability: durabilityOf(res.Durability), DueMs: int64(res.Due)}), nil
}

func (r *rpc) change(ctx context.Context, id string, kind scheduler.Change, due delay.Due) (
	scheduler.ChangeResult, error) {
	if err := wire.CheckID(delay.ID(id)); err != nil {
		return scheduler.ChangeResult{}, err
	}
	c := callOf(ctx)
	c.change.ID = id
	res, err := changeOne(context.WithoutCancel(ctx), c.shard,
		scheduler.ChangeRequest{ID: delay.ID(id), Change: kind, Due: due})
	c.change.Answer = res.Verdict.String()
	return res, err
}

// verdictOf has the numbers of the proto: they begin alike.
func verdictOf(r scheduler.ChangeResult) cicadav1.Verdict { return cicadav1.Verdict(r.Verdict) }
