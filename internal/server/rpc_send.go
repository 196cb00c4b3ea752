// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/pb"
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
					Result: &cicadav1.SendResult_Receipt{Receipt: pb.Receipt(&receipts[0])}}
			}
			receipts = receipts[1:]
		}
		if err != nil {
			f := r.s.faultOf(err)
			out.Results[i] = &cicadav1.SendResult{Result: &cicadav1.SendResult_Error{
				Error: &cicadav1.Error{Code: f.code.String(), Message: f.message, Field: f.field,
					Result: f.result, SuggestedAtMs: int64(f.suggested)}}}
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
			it, err := pb.Item(msg, draft)
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

// Cancel implements the service.
func (r *rpc) Cancel(ctx context.Context, req *connect.Request[cicadav1.CancelRequest]) (
	*connect.Response[cicadav1.CancelResponse], error) {
	q, err := cancelRequest(req.Msg.GetStop(), req.Msg.GetRecall())
	if err != nil {
		return nil, err
	}
	q.ID = delay.ID(req.Msg.GetId())
	res, err := r.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &cicadav1.CancelResponse{Result: pb.Verdict(res)}
	if res.Verdict != scheduler.RecallRequested {
		out.Durability = pb.Durability(res.Durability)
	}
	return connect.NewResponse(out), nil
}

// Reschedule implements the service.
func (r *rpc) Reschedule(ctx context.Context, req *connect.Request[cicadav1.RescheduleRequest]) (
	*connect.Response[cicadav1.RescheduleResponse], error) {
	var it wire.Item
	var err error
	switch when := req.Msg.GetWhen().(type) {
	case *cicadav1.RescheduleRequest_DeliverAtMs:
		it.Given = wire.FieldDeliverAt
		it.When, err = pb.Instant("deliver_at", when.DeliverAtMs)
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
	return connect.NewResponse(&cicadav1.RescheduleResponse{Result: pb.Verdict(res),
		Durability: pb.Durability(res.Durability), DueMs: int64(res.Due)}), nil
}

// Fire implements the service.
func (r *rpc) Fire(ctx context.Context, req *connect.Request[cicadav1.FireRequest]) (
	*connect.Response[cicadav1.FireResponse], error) {
	res, err := r.change(ctx, req.Msg.GetId(), scheduler.Fire, 0)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.FireResponse{Result: pb.Verdict(res),
		Durability: pb.Durability(res.Durability), DueMs: int64(res.Due)}), nil
}

// PauseSchedule implements the service.
func (r *rpc) PauseSchedule(ctx context.Context,
	req *connect.Request[cicadav1.PauseScheduleRequest]) (
	*connect.Response[cicadav1.PauseScheduleResponse], error) {
	res, err := r.change(ctx, req.Msg.GetId(), scheduler.PauseSchedule, 0)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.PauseScheduleResponse{
		Result: pb.Verdict(res), Durability: pb.Durability(res.Durability)}), nil
}

// ResumeSchedule implements the service.
func (r *rpc) ResumeSchedule(ctx context.Context,
	req *connect.Request[cicadav1.ResumeScheduleRequest]) (
	*connect.Response[cicadav1.ResumeScheduleResponse], error) {
	res, err := r.change(ctx, req.Msg.GetId(), scheduler.ResumeSchedule, 0)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.ResumeScheduleResponse{Result: pb.Verdict(res),
		Durability: pb.Durability(res.Durability), DueMs: int64(res.Due)}), nil
}

func (r *rpc) change(ctx context.Context, id string, kind scheduler.Change, due delay.Due) (
	scheduler.ChangeResult, error) {
	return r.ask(ctx, scheduler.ChangeRequest{ID: delay.ID(id), Change: kind, Due: due})
}

func (r *rpc) ask(ctx context.Context, q scheduler.ChangeRequest) (scheduler.ChangeResult, error) {
	if err := wire.CheckID(q.ID); err != nil {
		return scheduler.ChangeResult{}, err
	}
	c := callOf(ctx)
	c.change.ID = string(q.ID)
	res, err := changeOne(context.WithoutCancel(ctx), c.shard, q)
	c.change.Answer = res.Verdict.String()
	return res, err
}
