// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// A limit that is set by gRPC must be the one that HTTP sets: the same range, the same default
// burst, the same words of refusal; and it must be shown with its target.
func TestLimitRPC(t *testing.T) {
	ctx := t.Context()
	f := newFake()
	for _, c := range clients(t, New(f, Options{})) {
		clear(f.limits)
		ask := func(target string, rate *float64, burst uint32) (*cicadav1.Limit, error) {
			out, err := c.SetLimit(ctx, connect.NewRequest(
				&cicadav1.SetLimitRequest{Target: target, Rate: rate, Burst: burst}))
			if err != nil {
				return nil, err
			}
			return out.Msg.Limit, nil
		}
		rate := func(r float64) *float64 { return &r }
		got, err := ask("log:", rate(2.5), 0)
		require.NoError(t, err)
		require.InEpsilon(t, 2.5, got.Rate, 1e-9)
		require.Equal(t, uint32(3), got.Burst)
		require.Equal(t, delay.Limit{PerHour: 9000, Burst: 3}, f.limits["log:"])
		got, err = ask("log:", rate(0), 0)
		require.NoError(t, err)
		require.Nil(t, got)
		require.True(t, f.limits["log:"].IsZero())
		for _, bad := range []struct {
			target string
			rate   *float64
			burst  uint32
			field  string
		}{
			{"", rate(1), 0, "target"}, {"wrong:", rate(1), 0, "target"}, {"log:", nil, 0, "rate"},
			{"log:", rate(-1), 0, "rate"}, {"log:", rate(1e9), 0, "rate"}, {"log:", rate(0), 1, "burst"},
			{"log:", rate(1), 1 << 31, "burst"},
		} {
			_, err := ask(bad.target, bad.rate, bad.burst)
			var ce *connect.Error
			require.ErrorAs(t, err, &ce)
			require.Equal(t, connect.CodeInvalidArgument, ce.Code())
			require.Equal(t, bad.field, ce.Meta().Get("Cicada-Field"))
		}
		list, err := c.ListTargets(ctx, connect.NewRequest(&cicadav1.ListTargetsRequest{}))
		require.NoError(t, err)
		require.InEpsilon(t, 100.0, list.Msg.Targets[0].Limit.Rate, 1e-9)
		require.Equal(t, uint32(200), list.Msg.Targets[0].Limit.Burst)
	}
}

// A recall must reach the shard as one, and its answer must claim neither a cancel nor a
// durability; together with stop nobody could say what was asked for (R19).
func TestRecall(t *testing.T) {
	f := newFake()
	f.verdict = scheduler.ChangeResult{Verdict: scheduler.RecallRequested}
	s := New(f, Options{})
	code, out, _ := ask(t, s, "DELETE", "/v1/messages/a?recall=true", "")
	require.Equal(t, 200, code)
	require.Equal(t, map[string]any{"id": "a", "result": "REQUESTED"}, out)
	require.Equal(t, []scheduler.ChangeRequest{{ID: "a", Change: scheduler.Cancel, Recall: true}}, f.changes)
	for query, field := range map[string]string{"recall=true&stop=true": "recall", "recall=1": "recall"} {
		code, out, _ = ask(t, s, "DELETE", "/v1/messages/a?"+query, "")
		require.Equal(t, 400, code)
		require.Equal(t, field, out["field"])
	}
	for _, c := range clients(t, New(f, Options{})) {
		f.changes = nil
		res, err := c.Cancel(context.Background(), connect.NewRequest(
			&cicadav1.CancelRequest{Id: "a", Recall: true}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Verdict_VERDICT_REQUESTED, res.Msg.Result)
		require.Zero(t, res.Msg.Durability)
		require.True(t, f.changes[0].Recall)
		_, err = c.Cancel(context.Background(), connect.NewRequest(
			&cicadav1.CancelRequest{Id: "a", Recall: true, Stop: true}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		_, err = c.Cancel(context.Background(), connect.NewRequest(&cicadav1.CancelRequest{}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	}
}

// What its broker still holds must be refused as such: not as too late, which would say that it
// was delivered (R19).
func TestHeld(t *testing.T) {
	f := newFake()
	f.err = delay.ErrPrecondition
	s := New(f, Options{})
	code, out, _ := ask(t, s, "DELETE", "/v1/messages/a", "")
	require.Equal(t, 409, code)
	require.Equal(t, "failed_precondition", out["code"])
	require.NotContains(t, out, "result")
}

// A guarded message must say where it waits, in both APIs, and be found by its kind; what its
// broker delivered must have its state and its column.
func TestGuarded(t *testing.T) {
	f := newFake()
	f.infos = []scheduler.Info{{ID: "g", Known: true, Target: "rocketmq:rmq/t", Guard: &delay.Guard{
		Lane: "guard:rmq/broker-a", Entry: `queue=3 "offset"=7`,
	}}, {ID: "n", Known: true, Target: "log:"}}
	f.status.Books.Suppressed = 4
	s := New(f, Options{})
	_, out, _ := ask(t, s, "GET", "/v1/messages?kind=guarded&state=suppressed", "")
	list := out["messages"].([]any)
	require.Equal(t, map[string]any{"lane": "guard:rmq/broker-a", "entry": `queue=3 "offset"=7`},
		list[0].(map[string]any)["guard"])
	require.NotContains(t, list[1], "guard")
	require.Equal(t, scheduler.Guarded, f.filters[0].Kind)
	require.Equal(t, delay.Suppressed, *f.filters[0].State)
	_, out, _ = ask(t, s, "GET", "/v1/status", "")
	require.InEpsilon(t, 4.0, out["books"].(map[string]any)["suppressed"], 0)
	for _, c := range clients(t, New(f, Options{})) {
		f.filters = nil
		list, err := c.List(t.Context(), connect.NewRequest(&cicadav1.ListRequest{Filter: &cicadav1.Filter{
			Kind: cicadav1.Kind_KIND_GUARDED, State: cicadav1.State_STATE_SUPPRESSED}}))
		require.NoError(t, err)
		require.Equal(t, scheduler.Guarded, f.filters[0].Kind)
		require.Equal(t, delay.Suppressed, *f.filters[0].State)
		require.Equal(t, "guard:rmq/broker-a", list.Msg.Messages[0].Guard.Lane)
		require.Equal(t, `queue=3 "offset"=7`, list.Msg.Messages[0].Guard.Entry)
		require.Nil(t, list.Msg.Messages[1].Guard)
		st, err := c.Status(t.Context(), connect.NewRequest(&cicadav1.StatusRequest{}))
		require.NoError(t, err)
		require.Equal(t, int64(4), st.Msg.Books.Suppressed)
	}
}

// A crowded second must be told without being an error, and an asked-for refusal must be told from
// an overload, which is answered with the same status and is worth a retry.
func TestCrowded(t *testing.T) {
	f := newFake()
	f.receipt = scheduler.Receipt{Crowded: true, Suggested: fakeNow + 2000}
	s := New(f, Options{})
	const body = `{"target":"log:","delay":1,"refuse_crowded":true}`
	code, out, _ := ask(t, s, "POST", "/v1/messages", body)
	require.Equal(t, 200, code)
	require.Equal(t, true, out["crowded"])
	require.Equal(t, "2027-01-15T08:00:02.000Z", out["suggested_at"])
	require.InEpsilon(t, float64(fakeNow+2000), out["suggested_at_ms"], 0)
	require.True(t, f.stored[0].RefuseCrowded)
	f.receipt.Suggested = 0
	_, out, _ = ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`)
	require.Equal(t, true, out["crowded"])
	require.NotContains(t, out, "suggested_at")
	require.False(t, f.stored[1].RefuseCrowded)

	f.itemErr = &delay.CrowdedError{Target: "log:", Due: fakeNow, Suggested: fakeNow + 3000}
	code, out, _ = ask(t, s, "POST", "/v1/messages", body)
	require.Equal(t, 429, code)
	require.Equal(t, "resource_exhausted", out["code"])
	require.Equal(t, "CROWDED", out["result"])
	require.Equal(t, "2027-01-15T08:00:03.000Z", out["suggested_at"])
	for _, c := range clients(t, New(f, Options{})) {
		res, err := c.Send(t.Context(), connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{
			{Target: "log:", When: &cicadav1.Message_DelayMs{DelayMs: 1}, RefuseCrowded: true}}}))
		require.NoError(t, err)
		require.True(t, f.stored[len(f.stored)-1].RefuseCrowded)
		got := res.Msg.Results[0].GetError()
		require.Equal(t, "resource_exhausted CROWDED", got.Code+" "+got.Result)
		require.Equal(t, int64(fakeNow+3000), got.SuggestedAtMs)
	}
	f.itemErr, f.receipt.Suggested = nil, fakeNow+2000
	for _, c := range clients(t, New(f, Options{})) {
		res, err := c.Send(t.Context(), connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{
			{Target: "log:", When: &cicadav1.Message_DelayMs{DelayMs: 1}}}}))
		require.NoError(t, err)
		require.True(t, res.Msg.Results[0].GetReceipt().Crowded)
		require.Equal(t, int64(fakeNow+2000), res.Msg.Results[0].GetReceipt().SuggestedAtMs)
	}
}
