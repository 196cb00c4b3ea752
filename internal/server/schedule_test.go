// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/pb"
	"github.com/cicadamq/cicada/scheduler"
)

// weekly is a schedule as a shard knows it.
func weekly() scheduler.Info {
	return scheduler.Info{ID: "r", Known: true, Target: "log:", Due: 1800003600000, Generation: 1,
		Recurrence: &delay.Recurrence{Expr: "0 9 * * FRI", Zone: "Europe/Berlin", Next: 1800000000000,
			Misfire: delay.FireAll, MisfireLimit: 7, Until: delay.MaxDue, Count: 9,
			Jitter: time.Hour, Fired: 1, Missed: 2, Last: 5, Paused: true}}
}

// A schedule must reach the shard alike in each protocol, and be shown alike.
func TestScheduleRPC(t *testing.T) {
	f := fullGet{newFake(), weekly()}
	f.infos = []scheduler.Info{weekly(), {ID: "m", Target: "log:"}}
	for name, c := range clients(t, New(f, Options{})) {
		ctx := context.Background()
		f.stored, f.filters, f.changes = nil, nil, nil
		send, err := c.Send(ctx, connect.NewRequest(&cicadav1.SendRequest{Messages: []*cicadav1.Message{
			{Id: "r", Target: "pull:q", When: &cicadav1.Message_Schedule{Schedule: "0 9 * * MON"},
				TimeZone: "Europe/Berlin", Misfire: "fire_all", MisfireLimit: proto.Uint32(10),
				UntilMs: proto.Int64(2208988800000), Count: proto.Uint64(5), JitterMs: proto.Int64(30_000)},
		}}))
		require.NoError(t, err, name)
		require.Nil(t, send.Msg.Results[0].GetError(), name)
		require.Equal(t, &delay.Recurrence{Expr: "0 9 * * MON", Zone: "Europe/Berlin",
			Misfire: delay.FireAll, MisfireLimit: 10, Until: 2208988800000, Count: 5,
			Jitter: 30 * time.Second}, f.stored[0].Recurrence, name)
		require.Zero(t, f.stored[0].Due)

		get, err := c.Get(ctx, connect.NewRequest(&cicadav1.GetRequest{Id: "r"}))
		require.NoError(t, err)
		want := &cicadav1.Schedule{Expression: "0 9 * * FRI", TimeZone: "Europe/Berlin",
			Misfire: "fire_all", MisfireLimit: 7, UntilMs: int64(delay.MaxDue), Count: 9,
			JitterMs: 3_600_000, Fired: 1, Missed: 2, LastDueMs: 5, Paused: true}
		got := get.Msg.Message.Schedule
		require.Len(t, got.Next, 5)
		require.Equal(t, "Fri 2027-01-15 10:00:00 +01:00", got.Next[0].Local)
		require.Equal(t, int64(1800003600000), got.Next[0].DueMs)
		got.Next = nil
		require.True(t, proto.Equal(want, got), "%v", got)

		list, err := c.List(ctx, connect.NewRequest(&cicadav1.ListRequest{
			Filter: &cicadav1.Filter{Kind: cicadav1.Kind_KIND_SCHEDULE}}))
		require.NoError(t, err)
		require.Equal(t, scheduler.Schedules, f.filters[0].Kind)
		require.Len(t, list.Msg.Messages[0].Schedule.Next, 1)
		require.Nil(t, list.Msg.Messages[1].Schedule)
		_, err = c.List(ctx, connect.NewRequest(&cicadav1.ListRequest{Filter: &cicadav1.Filter{Kind: 4}}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))

		f.verdict = scheduler.ChangeResult{Verdict: scheduler.SchedulePaused, Durability: delay.Tier}
		paused, err := c.PauseSchedule(ctx, connect.NewRequest(&cicadav1.PauseScheduleRequest{Id: "r"}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Verdict_VERDICT_PAUSED, paused.Msg.Result)
		require.Equal(t, cicadav1.Durability_DURABILITY_TIER, paused.Msg.Durability)
		f.verdict = scheduler.ChangeResult{Verdict: scheduler.ScheduleResumed, Due: 7}
		resumed, err := c.ResumeSchedule(ctx, connect.NewRequest(&cicadav1.ResumeScheduleRequest{Id: "r"}))
		require.NoError(t, err)
		require.Equal(t, cicadav1.Verdict_VERDICT_RESUMED, resumed.Msg.Result)
		require.Equal(t, int64(7), resumed.Msg.DueMs)
		require.Equal(t, scheduler.PauseSchedule, f.changes[0].Change)
		require.Equal(t, scheduler.ResumeSchedule, f.changes[1].Change)

		_, err = c.Histogram(ctx, connect.NewRequest(&cicadav1.HistogramRequest{Recurring: true}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		bars, err := c.Histogram(ctx, connect.NewRequest(&cicadav1.HistogramRequest{Recurring: true,
			ToMs: 2208988800000}))
		require.NoError(t, err)
		require.Equal(t, int64(8), bars.Msg.Buckets[0].Recurring)
	}
}

// The words of the proto must be those of the shard: a number that has shifted would answer PAUSED
// to a cancel.
func TestVerdictNumbers(t *testing.T) {
	for v := scheduler.Cancelled; v <= scheduler.RecallRequested; v++ {
		require.Equal(t, "VERDICT_"+v.String(),
			pb.Verdict(scheduler.ChangeResult{Verdict: v}).String())
	}
	require.Len(t, cicadav1.Verdict_name, int(scheduler.RecallRequested)+1)
	for kind, want := range map[scheduler.Kind]cicadav1.Kind{
		scheduler.Messages: cicadav1.Kind_KIND_MESSAGE, scheduler.Schedules: cicadav1.Kind_KIND_SCHEDULE,
		scheduler.Guarded: cicadav1.Kind_KIND_GUARDED,
	} {
		f, err := pb.Filter(&cicadav1.Filter{Kind: want})
		require.NoError(t, err)
		require.Equal(t, kind, f.Kind)
	}
	require.Len(t, cicadav1.State_name, int(delay.Suppressed)+2)
	for s := delay.Scheduled; s <= delay.Suppressed; s++ {
		require.Equal(t, "STATE_"+strings.ToUpper(s.String()), pb.State(s).String())
		f, err := pb.Filter(&cicadav1.Filter{State: pb.State(s)})
		require.NoError(t, err)
		require.Equal(t, s, *f.State)
	}
}

// What schedules add to the JSON API: the filter, the histogram with its bound, and the field at
// fault when the shard cannot read an expression.
func TestScheduleHTTP(t *testing.T) {
	f := newFake()
	f.infos = []scheduler.Info{weekly()}
	s := New(f, Options{})
	code, out, _ := ask(t, s, "GET", "/v1/messages?kind=schedule", "")
	require.Equal(t, 200, code)
	require.Equal(t, scheduler.Schedules, f.filters[0].Kind)
	listed := out["messages"].([]any)[0].(map[string]any)["schedule"].(map[string]any)
	require.Equal(t, "0 9 * * FRI", listed["expression"])
	require.Len(t, listed["next"], 1)
	for path, field := range map[string]string{
		"/v1/messages?kind=both":                        "kind",
		"/v1/pending/count?kind=":                       "kind",
		"/v1/pending/histogram?recurring=true":          "to",
		"/v1/pending/histogram?recurring=yes":           "recurring",
		"/v1/pending/histogram?recurring=true&bucket=0": "bucket",
	} {
		code, out, _ = ask(t, s, "GET", path, "")
		require.Equal(t, 400, code, path)
		require.Equal(t, field, out["field"], path)
	}
	code, out, _ = ask(t, s, "GET", "/v1/pending/histogram?recurring=true&to=2208988800000&from=1893553445000&bucket=1d", "")
	require.Equal(t, 200, code)
	bar := out["buckets"].([]any)[0].(map[string]any)
	require.Equal(t, 9.0, bar["count"])
	require.Equal(t, 8.0, bar["recurring"])
	require.Equal(t, scheduler.Filter{DueFrom: 1893553445000, DueTo: 2208988800000},
		f.filters[len(f.filters)-1])
	code, _, _ = ask(t, s, "POST", "/v1/pending/purge", `{"kind":"schedule"}`)
	require.Equal(t, 200, code)
	require.Equal(t, scheduler.Schedules, f.filters[len(f.filters)-1].Kind)

	f.itemErr = delay.Invalid("time_zone", "no such zone")
	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"target":"log:","schedule":"@daily","time_zone":"X/Y"}`)
	require.Equal(t, 400, code)
	require.Equal(t, "time_zone", out["field"])
	f.verdict = scheduler.ChangeResult{Err: delay.Invalid("id", "is no schedule")}
	code, out, _ = ask(t, s, "POST", "/v1/messages/m/pause", "")
	require.Equal(t, 400, code)
	require.Equal(t, "id", out["field"])
}
