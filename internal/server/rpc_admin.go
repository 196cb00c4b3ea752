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

// RetryDeadLetter implements the service.
func (r *rpc) RetryDeadLetter(ctx context.Context,
	req *connect.Request[cicadav1.RetryDeadLetterRequest]) (
	*connect.Response[cicadav1.RetryDeadLetterResponse], error) {
	id := delay.ID(req.Msg.GetId())
	callOf(ctx).change.ID = string(id)
	if err := wire.CheckID(id); err != nil {
		return nil, err
	}
	receipt, err := callOf(ctx).shard.RetryDead(context.WithoutCancel(ctx), id)
	if err == nil {
		err = receipt.Err
	}
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(
		&cicadav1.RetryDeadLetterResponse{Receipt: pb.Receipt(&receipt)}), nil
}

// DeleteDeadLetter implements the service.
func (r *rpc) DeleteDeadLetter(ctx context.Context,
	req *connect.Request[cicadav1.DeleteDeadLetterRequest]) (
	*connect.Response[cicadav1.DeleteDeadLetterResponse], error) {
	id := delay.ID(req.Msg.GetId())
	callOf(ctx).change.ID = string(id)
	if err := wire.CheckID(id); err != nil {
		return nil, err
	}
	if err := callOf(ctx).shard.DeleteDead(context.WithoutCancel(ctx), id); err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.DeleteDeadLetterResponse{}), nil
}

// ListTargets implements the service.
func (r *rpc) ListTargets(ctx context.Context, _ *connect.Request[cicadav1.ListTargetsRequest]) (
	*connect.Response[cicadav1.ListTargetsResponse], error) {
	list, err := callOf(ctx).shard.Targets(ctx)
	if err != nil {
		return nil, err
	}
	out := &cicadav1.ListTargetsResponse{Targets: make([]*cicadav1.TargetStatus, len(list))}
	for i, t := range list {
		out.Targets[i] = &cicadav1.TargetStatus{Target: string(t.Target), InFlight: int64(t.InFlight),
			Backlog: t.Backlog, Rate: t.Rate, LastError: t.LastError, Paused: t.Paused, Open: t.Open,
			Limit: pb.Limit(t.Limit)}
	}
	return connect.NewResponse(out), nil
}

// Pause implements the service.
func (r *rpc) Pause(ctx context.Context, req *connect.Request[cicadav1.PauseRequest]) (
	*connect.Response[cicadav1.PauseResponse], error) {
	if err := r.setPaused(ctx, req.Msg.GetTarget(), true); err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.PauseResponse{}), nil
}

// Resume implements the service.
func (r *rpc) Resume(ctx context.Context, req *connect.Request[cicadav1.ResumeRequest]) (
	*connect.Response[cicadav1.ResumeResponse], error) {
	if err := r.setPaused(ctx, req.Msg.GetTarget(), false); err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.ResumeResponse{}), nil
}

func (r *rpc) setPaused(ctx context.Context, target string, paused bool) error {
	c := callOf(ctx)
	c.change.Target = target
	return pauseTarget(context.WithoutCancel(ctx), c.shard, delay.Target(target), paused)
}

// SetLimit implements the service.
func (r *rpc) SetLimit(ctx context.Context, req *connect.Request[cicadav1.SetLimitRequest]) (
	*connect.Response[cicadav1.SetLimitResponse], error) {
	c, target := callOf(ctx), delay.Target(req.Msg.GetTarget())
	c.change.Target = string(target)
	switch {
	case target == "":
		return nil, delay.Invalid("target", "is needed")
	case req.Msg.Rate == nil:
		return nil, delay.Invalid("rate", "is needed")
	}
	limit, err := delay.NewLimit(req.Msg.GetRate(), int64(req.Msg.GetBurst()))
	if err != nil {
		return nil, err
	}
	if err := limitTarget(context.WithoutCancel(ctx), c.shard, target, limit); err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.SetLimitResponse{Limit: pb.Limit(limit)}), nil
}

// Status implements the service.
func (r *rpc) Status(ctx context.Context, _ *connect.Request[cicadav1.StatusRequest]) (
	*connect.Response[cicadav1.StatusResponse], error) {
	st := callOf(ctx).shard.Status()
	level := func(l scheduler.LevelStatus) *cicadav1.LevelStatus {
		return &cicadav1.LevelStatus{Messages: l.Messages, Bytes: l.Bytes}
	}
	out := &cicadav1.StatusResponse{
		Version: r.s.opts.Version, Cluster: st.ClusterID, Shard: uint32(st.Shard),
		Epoch: uint64(st.Epoch), WatermarkMs: int64(st.Watermark.Due),
		ClaimHorizonMs: int64(st.ClaimHorizon), BoundaryMs: int64(st.Boundary.Due),
		Hot: level(st.Hot), Warm: level(st.Warm), Cold: level(st.Cold),
		OldestNotUploadedMs: st.OldestNotUploaded.Milliseconds(),
		LastFlushError:      st.LastFlushError, DiskFreeBytes: st.DiskFreeBytes,
		Accepting: st.Accepting, Restoring: st.Restoring, Draining: r.s.Draining(),
		Clock: &cicadav1.ClockStatus{NowMs: int64(st.Clock.Now), Held: st.Clock.Held,
			Reason: st.Clock.Reason, Steps: st.Clock.Steps},
		Books: &cicadav1.Books{Accepted: st.Books.Accepted, Pending: st.Books.Pending,
			Delivered: st.Books.Delivered, Cancelled: st.Books.Cancelled, Expired: st.Books.Expired,
			Dead: st.Books.Dead, LostWithDisk: st.Books.LostWithDisk,
			Cancelling: st.Cancelling, Schedules: st.Books.Schedules,
			Suppressed: st.Books.Suppressed},
	}
	if !st.LastFlush.IsZero() {
		out.LastFlushMs = st.LastFlush.UnixMilli()
	}
	return connect.NewResponse(out), nil
}
