// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/api/cicada/v1/cicadav1connect"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/scheduler"
)

// clients are the ways to speak to the service, all over plain HTTP/2 or HTTP/1.1 on one port.
func clients(t *testing.T, s *Server) map[string]cicadav1connect.SchedulerClient {
	url := "http://" + serveReal(t, s)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	h1 := &http.Transport{}
	t.Cleanup(h1.CloseIdleConnections)
	return map[string]cicadav1connect.SchedulerClient{
		"connect":  cicadav1connect.NewSchedulerClient(&http.Client{Transport: h1}, url),
		"json":     cicadav1connect.NewSchedulerClient(&http.Client{Transport: h1}, url, connect.WithProtoJSON()),
		"grpc":     cicadav1connect.NewSchedulerClient(&http.Client{Transport: h2}, url, connect.WithGRPC()),
		"grpc-web": cicadav1connect.NewSchedulerClient(&http.Client{Transport: h1}, url, connect.WithGRPCWeb()),
	}
}

// Every method must exist in the table of scopes, or it would be open or dead (W6).
func TestProcedures(t *testing.T) {
	methods := cicadav1.File_cicada_v1_cicada_proto.Services().ByName("Scheduler").Methods()
	require.Equal(t, methods.Len(), len(procedures()))
	for i := range methods.Len() {
		require.Contains(t, procedures(), "/cicada.v1.Scheduler/"+string(methods.Get(i).Name()))
	}
}

// The four protocols must do the same as the JSON API.
func TestRPC(t *testing.T) {
	f := newFake()
	f.leases = []scheduler.Lease{{ID: "1", Receipt: "r", Attempt: 2, Due: 3, FiredAt: 4, RoutingKey: "k",
		Headers: []delay.Header{{Name: "a", Value: "b"}}, Body: []byte{0xff}}}
	f.infos = []scheduler.Info{{ID: "x", State: delay.Dead, Target: "log:", Reason: "refused", DiedAt: 5}}
	f.verdict = scheduler.ChangeResult{Verdict: scheduler.TooLate, State: delay.Claimed, Durability: delay.Tier}
	for name, c := range clients(t, New(f, Options{Version: "v1"})) {
		ctx := context.Background()
		f.stored = nil
		send, err := c.Send(ctx, connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{
			{Id: "a", Target: "pull:q", When: &cicadav1.Message_DelayMs{DelayMs: 1500}, Body: []byte{0, 255},
				Headers:    []*cicadav1.Header{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}},
				Durability: cicadav1.Durability_DURABILITY_TIER, MaxAttempts: proto.Uint32(3), TtlMs: proto.Int64(1000)},
			{Target: "pull:q"},
			{Target: "log:", When: &cicadav1.Message_DeliverAtMs{DeliverAtMs: 1893553445000}},
		}}))
		require.NoError(t, err, name)
		require.Len(t, send.Msg.Results, 3)
		require.Equal(t, int64(fakeNow+1500), send.Msg.Results[0].GetReceipt().GetDueMs())
		require.Equal(t, cicadav1.State_STATE_SCHEDULED, send.Msg.Results[0].GetReceipt().GetState())
		require.Equal(t, "deliver_at", send.Msg.Results[1].GetError().GetField())
		require.Equal(t, int64(1893553445000), send.Msg.Results[2].GetReceipt().GetDueMs())
		require.Len(t, f.stored, 2)
		require.Equal(t, []byte{0, 255}, f.stored[0].Body)
		require.Equal(t, delay.Tier, f.stored[0].Durability)
		require.Equal(t, "a", f.stored[0].Headers[0].Name)
		require.True(t, f.stored[0].ByDelay)

		pull, err := c.Pull(ctx, connect.NewRequest(&cicadav1.PullRequest{Queue: "q"}))
		require.NoError(t, err)
		require.True(t, proto.Equal(&cicadav1.Lease{Id: "1", Receipt: "r", Attempt: 2, DueMs: 3, FiredAtMs: 4,
			Key: "k", Headers: []*cicadav1.Header{{Name: "a", Value: "b"}}, Body: []byte{0xff}}, pull.Msg.Messages[0]))
		ack, err := c.Ack(ctx, connect.NewRequest(&cicadav1.AckRequest{Queue: "q", Receipts: []string{"r"}}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Settled_SETTLED_ACKED, ack.Msg.Results[0].Result)
		nack, err := c.Nack(ctx, connect.NewRequest(&cicadav1.NackRequest{Queue: "q", Receipts: []string{"r"}, DelayMs: proto.Int64(5)}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Settled_SETTLED_NACKED, nack.Msg.Results[0].Result)
		extend, err := c.Extend(ctx, connect.NewRequest(&cicadav1.ExtendRequest{Queue: "q", Receipts: []string{"r"}}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Settled_SETTLED_EXTENDED, extend.Msg.Results[0].Result)

		cancel, err := c.Cancel(ctx, connect.NewRequest(&cicadav1.CancelRequest{Id: "a"}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Verdict_VERDICT_TOO_LATE, cancel.Msg.Result)
		require.Equal(t, cicadav1.Durability_DURABILITY_TIER, cancel.Msg.Durability)
		_, err = c.Reschedule(ctx, connect.NewRequest(&cicadav1.RescheduleRequest{Id: "a"}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		_, err = c.Reschedule(ctx, connect.NewRequest(&cicadav1.RescheduleRequest{Id: "a",
			When: &cicadav1.RescheduleRequest_DelayMs{DelayMs: 1}}))
		require.NoError(t, err)
		_, err = c.Fire(ctx, connect.NewRequest(&cicadav1.FireRequest{Id: "a"}))
		require.NoError(t, err)

		testReads(t, c)
		status, err := c.Status(ctx, connect.NewRequest(&cicadav1.StatusRequest{}))
		require.NoError(t, err)
		require.Equal(t, "v1", status.Msg.Version)
		require.Equal(t, int64(5), status.Msg.Books.Accepted)
		require.Equal(t, int64(fakeNow), status.Msg.LastFlushMs)
	}
}

func testReads(t *testing.T, c cicadav1connect.SchedulerClient) {
	ctx := context.Background()
	get, err := c.Get(ctx, connect.NewRequest(&cicadav1.GetRequest{Id: "a", Body: true}))
	require.NoError(t, err)
	require.Equal(t, "b", string(get.Msg.Message.Body))
	list, err := c.List(ctx, connect.NewRequest(&cicadav1.ListRequest{Filter: &cicadav1.Filter{
		State: cicadav1.State_STATE_DEAD, Tier: cicadav1.Tier_TIER_COLD, DueFromMs: 1893553445000}}))
	require.NoError(t, err)
	require.Equal(t, "next", list.Msg.NextPageToken)
	require.Equal(t, cicadav1.State_STATE_DEAD, list.Msg.Messages[0].State)
	dead, err := c.ListDeadLetters(ctx, connect.NewRequest(&cicadav1.ListDeadLettersRequest{}))
	require.NoError(t, err)
	require.Equal(t, "refused", dead.Msg.Messages[0].Reason)
	_, err = c.RetryDeadLetter(ctx, connect.NewRequest(&cicadav1.RetryDeadLetterRequest{Id: "a"}))
	require.NoError(t, err)
	_, err = c.DeleteDeadLetter(ctx, connect.NewRequest(&cicadav1.DeleteDeadLetterRequest{Id: "a"}))
	require.NoError(t, err)
	count, err := c.Count(ctx, connect.NewRequest(&cicadav1.CountRequest{}))
	require.NoError(t, err)
	require.Equal(t, int64(7), count.Msg.Count)
	purge, err := c.Purge(ctx, connect.NewRequest(&cicadav1.PurgeRequest{DryRun: true}))
	require.NoError(t, err)
	require.Equal(t, int64(7), purge.Msg.Count)
	bars, err := c.Histogram(ctx, connect.NewRequest(&cicadav1.HistogramRequest{}))
	require.NoError(t, err)
	require.Equal(t, int64(5), bars.Msg.Buckets[0].Cold)
	next, err := c.Next(ctx, connect.NewRequest(&cicadav1.NextRequest{}))
	require.NoError(t, err)
	require.Len(t, next.Msg.Messages, 1)
	targets, err := c.ListTargets(ctx, connect.NewRequest(&cicadav1.ListTargetsRequest{}))
	require.NoError(t, err)
	require.Equal(t, "pull:a", targets.Msg.Targets[0].Target)
	_, err = c.Pause(ctx, connect.NewRequest(&cicadav1.PauseRequest{Target: "pull:a"}))
	require.NoError(t, err)
	_, err = c.Resume(ctx, connect.NewRequest(&cicadav1.ResumeRequest{Target: "nonsense"}))
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	reserve, err := c.Reserve(ctx, connect.NewRequest(&cicadav1.ReserveRequest{Count: 2}))
	require.NoError(t, err)
	require.Len(t, reserve.Msg.Ids, 2)
}

// Errors must have the code of the table in every protocol, and requests from a later version must
// be refused, never half understood (W3).
func TestRPCErrors(t *testing.T) {
	f := newFake()
	s := New(f, Options{Gate: access.NewGate(access.Credentials{
		Tokens: []access.Token{access.NewToken("t", "t", access.Send)}}, nil)})
	for name, c := range clients(t, s) {
		_, err := c.Send(context.Background(), connect.NewRequest(&cicadav1.SendRequest{}))
		require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), name)
		req := connect.NewRequest(&cicadav1.StatusRequest{})
		req.Header().Set("Authorization", "Bearer t")
		_, err = c.Status(context.Background(), req)
		require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err), name)
	}
	for name, c := range clients(t, New(f, Options{})) {
		later := &cicadav1.Message{Target: "log:"}
		later.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
		if name != "json" { // which leaves unknown fields out
			_, err := c.Send(context.Background(), connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{later}}))
			require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), name)
			filter := &cicadav1.Filter{}
			filter.ProtoReflect().SetUnknown(later.ProtoReflect().GetUnknown())
			_, err = c.Count(context.Background(), connect.NewRequest(&cicadav1.CountRequest{Filter: filter}))
			require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), name)
		}
		_, err := c.Pull(context.Background(), connect.NewRequest(&cicadav1.PullRequest{Queue: "a b"}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), name)
		var ce *connect.Error
		require.ErrorAs(t, err, &ce)
		require.Contains(t, ce.Message(), "queue")
		require.Equal(t, "queue", ce.Meta().Get("Cicada-Field"))
		f.err = delay.ErrOverloaded
		_, err = c.Count(context.Background(), connect.NewRequest(&cicadav1.CountRequest{}))
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), name)
		f.err = nil
	}
	code, out, _ := ask(t, New(f, Options{}), "POST", "/cicada.v1.Scheduler/Send", `{"messages":[],"x":1}`,
		"Content-Type", "application/json")
	require.Equal(t, 400, code)
	require.Equal(t, "invalid_argument", out["code"])
	code, _, _ = ask(t, New(f, Options{}), "POST", "/cicada.v1.Scheduler/Nothing", `{}`, "Content-Type", "application/json")
	require.Equal(t, 501, code)
}

// Every value that the JSON API refuses must be refused here too, with the same field.
func TestRPCRefusals(t *testing.T) {
	good := func() *cicadav1.Message {
		return &cicadav1.Message{Target: "log:", When: &cicadav1.Message_DelayMs{DelayMs: 1}}
	}
	for field, change := range map[string]func(*cicadav1.Message){
		"id":         func(m *cicadav1.Message) { m.Id = "a\nb" },
		"target":     func(m *cicadav1.Message) { m.Target = "x:" },
		"delay":      func(m *cicadav1.Message) { m.When = &cicadav1.Message_DelayMs{DelayMs: -1} },
		"deliver_at": func(m *cicadav1.Message) { m.When = &cicadav1.Message_DeliverAtMs{DeliverAtMs: 5} },
		"schedule":   func(m *cicadav1.Message) { m.When = &cicadav1.Message_Schedule{} },
		"time_zone":  func(m *cicadav1.Message) { m.TimeZone = "UTC" },
		"misfire":    func(m *cicadav1.Message) { m.Misfire = "all" },
		"misfire_limit": func(m *cicadav1.Message) {
			m.When, m.Misfire = &cicadav1.Message_Schedule{Schedule: "@daily"}, "fire_all"
			m.MisfireLimit = proto.Uint32(1001)
		},
		"until": func(m *cicadav1.Message) { m.UntilMs = proto.Int64(5) },
		"count": func(m *cicadav1.Message) {
			m.When, m.Count = &cicadav1.Message_Schedule{Schedule: "@daily"}, proto.Uint64(0)
		},
		"jitter":       func(m *cicadav1.Message) { m.JitterMs = proto.Int64(0) },
		"body":         func(m *cicadav1.Message) { m.Body = make([]byte, delay.MaxBodyBytes+1) },
		"key":          func(m *cicadav1.Message) { m.Key = strings.Repeat("k", 4097) },
		"headers":      func(m *cicadav1.Message) { m.Headers = []*cicadav1.Header{{Name: "cicada-x"}} },
		"ttl":          func(m *cicadav1.Message) { m.TtlMs = proto.Int64(0) },
		"not_after":    func(m *cicadav1.Message) { m.NotAfterMs = proto.Int64(0) },
		"spread":       func(m *cicadav1.Message) { m.SpreadMs = proto.Int64(-1) },
		"max_wait":     func(m *cicadav1.Message) { m.MaxWaitMs = proto.Int64(1 << 62) },
		"max_attempts": func(m *cicadav1.Message) { m.MaxAttempts = proto.Uint32(0) },
		"backoff":      func(m *cicadav1.Message) { m.BackoffMs = proto.Int64(0) },
		"mode":         func(m *cicadav1.Message) { m.Mode = 9 },
		"durability":   func(m *cicadav1.Message) { m.Durability = 9 },
		"replace":      func(m *cicadav1.Message) { m.Replace = true },
	} {
		m := good()
		change(m)
		f := newFake()
		r := rpc{New(f, Options{})}
		ctx := context.WithValue(context.Background(), callKey{}, &call{server: r.s, shard: f})
		res, err := r.Send(ctx, connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{good(), m}}))
		require.NoError(t, err)
		require.NotNil(t, res.Msg.Results[0].GetReceipt(), field)
		require.Equal(t, field, res.Msg.Results[1].GetError().GetField(), res.Msg.Results[1])
	}
}
