// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"

	"connectrpc.com/connect"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/pb"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// Get implements the service.
func (r *rpc) Get(ctx context.Context, req *connect.Request[cicadav1.GetRequest]) (
	*connect.Response[cicadav1.GetResponse], error) {
	id := delay.ID(req.Msg.GetId())
	if err := wire.CheckID(id); err != nil {
		return nil, err
	}
	info, err := callOf(ctx).shard.Get(ctx, id, req.Msg.GetBody())
	if err != nil {
		return nil, err
	}
	if !info.Known {
		return connect.NewResponse(&cicadav1.GetResponse{Message: &cicadav1.Info{
			Id: string(info.ID), State: pb.State(info.State)}}), nil
	}
	return connect.NewResponse(&cicadav1.GetResponse{Message: pb.Info(&info,
		r.s.plans.Next(&info, callOf(ctx).shard.Now(), wire.ShownFirings))}), nil
}

func (r *rpc) infos(ctx context.Context, infos []scheduler.Info) []*cicadav1.Info {
	return pb.Infos(infos, r.s.plans, callOf(ctx).shard.Now())
}

// List implements the service.
func (r *rpc) List(ctx context.Context, req *connect.Request[cicadav1.ListRequest]) (
	*connect.Response[cicadav1.ListResponse], error) {
	infos, token, err := pageOf(ctx, callOf(ctx).shard.List, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(
		&cicadav1.ListResponse{Messages: r.infos(ctx, infos), NextPageToken: token}), nil
}

// ListDeadLetters implements the service.
func (r *rpc) ListDeadLetters(ctx context.Context,
	req *connect.Request[cicadav1.ListDeadLettersRequest]) (
	*connect.Response[cicadav1.ListDeadLettersResponse], error) {
	infos, token, err := pageOf(ctx, callOf(ctx).shard.DeadLetters, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(
		&cicadav1.ListDeadLettersResponse{Messages: r.infos(ctx, infos), NextPageToken: token}), nil
}

// pageRequest is what the requests for a page have in common.
type pageRequest interface {
	GetFilter() *cicadav1.Filter
	GetLimit() uint32
	GetPageToken() string
}

func pageOf(ctx context.Context, list pager, req pageRequest) ([]scheduler.Info, string, error) {
	f, err := pb.Filter(req.GetFilter())
	if err != nil {
		return nil, "", err
	}
	limit, err := pb.PageSize(req.GetLimit())
	if err != nil {
		return nil, "", err
	}
	return list(ctx, f, limit, req.GetPageToken())
}

// Count implements the service.
func (r *rpc) Count(ctx context.Context, req *connect.Request[cicadav1.CountRequest]) (
	*connect.Response[cicadav1.CountResponse], error) {
	f, err := pb.Filter(req.Msg.GetFilter())
	if err != nil {
		return nil, err
	}
	n, err := callOf(ctx).shard.Count(ctx, f)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.CountResponse{Count: n}), nil
}

// Purge implements the service.
func (r *rpc) Purge(ctx context.Context, req *connect.Request[cicadav1.PurgeRequest]) (
	*connect.Response[cicadav1.PurgeResponse], error) {
	f, err := pb.Filter(req.Msg.GetFilter())
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	done, err := c.shard.Purge(context.WithoutCancel(ctx), f, req.Msg.GetDryRun())
	c.purged(f, req.Msg.GetDryRun(), done.Count)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.PurgeResponse{
		Count: done.Count, Cancelling: done.Cancelling, Durability: pb.Durability(done.Durability),
	}), nil
}

// Histogram implements the service.
func (r *rpc) Histogram(ctx context.Context, req *connect.Request[cicadav1.HistogramRequest]) (
	*connect.Response[cicadav1.HistogramResponse], error) {
	h := histogramRequest{bucket: defaultBucket, recurring: req.Msg.GetRecurring()}
	var err error
	if ms := req.Msg.GetBucketMs(); ms != 0 {
		if h.bucket, err = wire.Duration("bucket", ms, 1); err != nil {
			return nil, err
		}
	}
	if h.from, err = pb.OptionalInstant("from", req.Msg.GetFromMs()); err != nil {
		return nil, err
	}
	if h.to, err = pb.OptionalInstant("to", req.Msg.GetToMs()); err != nil {
		return nil, err
	}
	bars, err := h.bars(ctx, callOf(ctx).shard)
	if err != nil {
		return nil, err
	}
	out := &cicadav1.HistogramResponse{Buckets: make([]*cicadav1.Bar, len(bars))}
	for i, b := range bars {
		out.Buckets[i] = &cicadav1.Bar{FromMs: int64(b.From), Count: b.Count, Bytes: b.Bytes,
			Hot: b.Hot, Warm: b.Warm, Cold: b.Cold, Recurring: b.Recurring}
	}
	return connect.NewResponse(out), nil
}

// Next implements the service.
func (r *rpc) Next(ctx context.Context, req *connect.Request[cicadav1.NextRequest]) (
	*connect.Response[cicadav1.NextResponse], error) {
	limit, err := pb.PageSize(req.Msg.GetLimit())
	if err != nil {
		return nil, err
	}
	infos, err := callOf(ctx).shard.Next(ctx, limit)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.NextResponse{Messages: r.infos(ctx, infos)}), nil
}

// Pull implements the service.
func (r *rpc) Pull(ctx context.Context, req *connect.Request[cicadav1.PullRequest]) (
	*connect.Response[cicadav1.PullResponse], error) {
	p := wire.Pull{Max: wire.DefaultPage, Lease: wire.DefaultLease}
	var err error
	if n := req.Msg.GetMax(); n != 0 {
		p.Max = int(n)
	}
	if p.Wait, err = wire.Duration("wait", req.Msg.GetWaitMs(), 0); err != nil {
		return nil, err
	}
	if req.Msg.LeaseMs != nil {
		if p.Lease, err = wire.Duration("lease", req.Msg.GetLeaseMs(), 0); err != nil {
			return nil, err
		}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	if _, err := pull.ParseQueue(req.Msg.GetQueue()); err != nil {
		return nil, err
	}
	leases, err := r.s.lease(ctx, callOf(ctx).shard, req.Msg.GetQueue(), p)
	if err != nil {
		return nil, err
	}
	out := &cicadav1.PullResponse{Messages: make([]*cicadav1.Lease, len(leases))}
	for i := range leases {
		l := &leases[i]
		out.Messages[i] = &cicadav1.Lease{Id: string(l.ID), Receipt: l.Receipt, Attempt: l.Attempt,
			DueMs: int64(l.Due), Key: l.RoutingKey, Headers: pb.Headers(l.Headers), Body: l.Body,
			FiredAtMs: int64(l.FiredAt)}
	}
	return connect.NewResponse(out), nil
}

// Ack implements the service.
func (r *rpc) Ack(ctx context.Context, req *connect.Request[cicadav1.AckRequest]) (
	*connect.Response[cicadav1.AckResponse], error) {
	results, err := r.settle(ctx, scheduler.SettleRequest{Settlement: scheduler.Ack,
		Queue: req.Msg.GetQueue(), Receipts: req.Msg.GetReceipts()})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.AckResponse{Results: results}), nil
}

// Nack implements the service.
func (r *rpc) Nack(ctx context.Context, req *connect.Request[cicadav1.NackRequest]) (
	*connect.Response[cicadav1.NackResponse], error) {
	settle := scheduler.SettleRequest{Settlement: scheduler.Nack, Queue: req.Msg.GetQueue(),
		Receipts: req.Msg.GetReceipts(), Reason: req.Msg.GetReason()}
	if req.Msg.DelayMs != nil {
		var err error
		settle.HasDelay = true
		if settle.Delay, err = wire.Duration("delay", req.Msg.GetDelayMs(), 0); err != nil {
			return nil, err
		}
	}
	results, err := r.settle(ctx, settle)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.NackResponse{Results: results}), nil
}

// Extend implements the service.
func (r *rpc) Extend(ctx context.Context, req *connect.Request[cicadav1.ExtendRequest]) (
	*connect.Response[cicadav1.ExtendResponse], error) {
	lease := wire.DefaultLease
	if req.Msg.LeaseMs != nil {
		var err error
		if lease, err = wire.Duration("lease", req.Msg.GetLeaseMs(), 0); err != nil {
			return nil, err
		}
	}
	results, err := r.settle(ctx, scheduler.SettleRequest{Settlement: scheduler.Extend,
		Queue: req.Msg.GetQueue(), Receipts: req.Msg.GetReceipts(), Lease: lease})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&cicadav1.ExtendResponse{Results: results}), nil
}

func (r *rpc) settle(ctx context.Context, req scheduler.SettleRequest) (
	[]*cicadav1.SettleResult, error) {
	if _, err := pull.ParseQueue(req.Queue); err != nil {
		return nil, err
	}
	if err := wire.CheckSettle(req); err != nil {
		return nil, err
	}
	results := make([]scheduler.SettleResult, len(req.Receipts))
	if err := callOf(ctx).shard.Settle(context.WithoutCancel(ctx), req, results); err != nil {
		return nil, err
	}
	out := make([]*cicadav1.SettleResult, len(results))
	for i, res := range results {
		out[i] = &cicadav1.SettleResult{Receipt: req.Receipts[i], Result: cicadav1.Settled(res) + 1}
	}
	return out, nil
}
