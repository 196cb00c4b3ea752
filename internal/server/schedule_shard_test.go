// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// callOn makes calls that must be answered with a status.
func callOn(t *testing.T, s *Server) caller {
	return func(want int, method, path, body string) map[string]any {
		t.Helper()
		code, out, _ := ask(t, s, method, path, body)
		require.Equal(t, want, code, "%s %s %s: %v", method, path, body, out)
		return out
	}
}

// A schedule as its user sees it, from the first request to the last: what it is told is what it
// shows, its firings are messages of their own that lead back to it, and pausing, resuming,
// triggering, replacing and cancelling it do that and nothing else (R20).
func TestScheduleWithShard(t *testing.T) {
	shard := openShard(t)
	call := callOn(t, New(shard, Options{}))
	pull := func(wait string) []any {
		t.Helper()
		return call(200, "POST", "/v1/queues/q/pull", `{"wait":"`+wait+`"}`)["messages"].([]any)
	}
	const every = `{"id":"tick","target":"pull:q","schedule":"@every 1s","body":"b","key":"k",` +
		`"headers":{"h":"v"},"misfire":"skip"}`
	sent := call(200, "POST", "/v1/messages", every)
	require.Equal(t, "tick", sent["id"])
	require.Greater(t, sent["due_ms"], float64(shard.Now()-1000))
	require.Equal(t, true, call(200, "POST", "/v1/messages", every)["duplicate"], "S4")
	call(409, "POST", "/v1/messages", strings.Replace(every, "1s", "2s", 1))

	// A firing.
	got := pull("10s")[0].(map[string]any)
	require.Equal(t, fmt.Sprintf("tick@%.0f", got["due_ms"]), got["id"])
	require.Equal(t, map[string]any{"h": "v", "cicada-schedule-id": "tick"}, got["headers"])
	require.Equal(t, "b", got["body"])
	require.Equal(t, "k", got["key"])
	require.GreaterOrEqual(t, got["fired_at_ms"], got["due_ms"], "early (S1)")
	firing := call(200, "GET", "/v1/messages/"+got["id"].(string), "")
	require.Equal(t, "claimed", firing["state"])
	require.NotContains(t, firing, "schedule")

	// What it shows of itself, alone and in lists; it is in no count of messages (S10).
	paused := call(200, "POST", "/v1/messages/tick/pause", "")
	require.Equal(t, "PAUSED", paused["result"])
	require.Equal(t, "PAUSED", call(200, "POST", "/v1/messages/tick/pause", "")["result"])
	info := call(200, "GET", "/v1/messages/tick", "")
	require.Equal(t, "scheduled", info["state"])
	shown := info["schedule"].(map[string]any)
	require.Equal(t, "@every 1s", shown["expression"])
	require.Equal(t, "UTC", shown["time_zone"])
	require.Equal(t, true, shown["paused"])
	require.GreaterOrEqual(t, shown["fired"], 1.0)
	require.Len(t, shown["next"], 5)
	listed := call(200, "GET", "/v1/messages?kind=schedule&target=pull%3Aq", "")["messages"].([]any)
	require.Len(t, listed, 1)
	require.Len(t, listed[0].(map[string]any)["schedule"].(map[string]any)["next"], 1)
	for _, m := range call(200, "GET", "/v1/messages?kind=message", "")["messages"].([]any) {
		require.NotContains(t, m, "schedule")
	}
	require.Equal(t, 1.0, call(200, "GET", "/v1/pending/count?kind=schedule", "")["count"])
	pending := call(200, "GET", "/v1/pending/count", "")["count"]
	require.Equal(t, pending, call(200, "GET", "/v1/pending/count?target=pull%3Aq", "")["count"])
	books := call(200, "GET", "/v1/status", "")["books"].(map[string]any)
	require.Equal(t, 1.0, books["schedules"])
	require.Equal(t, pending, books["pending"])

	// Paused it fires by hand alone.
	for len(pull("0s")) > 0 { // what it fired before
		continue
	}
	fired := call(200, "POST", "/v1/messages/tick/fire", "")
	require.Equal(t, "FIRED", fired["result"])
	one := pull("10s")
	require.Len(t, one, 1)
	require.Equal(t, fired["due_ms"], one[0].(map[string]any)["due_ms"])
	require.Empty(t, pull("1100ms"))
	resumed := call(200, "POST", "/v1/messages/tick/resume", "")
	require.Equal(t, "RESUMED", resumed["result"])
	again := pull("10s")[0].(map[string]any)
	require.NotEmpty(t, again["headers"].(map[string]any)["cicada-missed"], "missed while paused")
	require.Positive(t, call(200, "GET", "/v1/messages/tick", "")["schedule"].(map[string]any)["missed"])

	// A replace keeps its history, a purge of its target leaves it alone, a cancel ends it.
	require.Equal(t, "invalid_argument", call(400, "PATCH", "/v1/messages/tick", `{"delay":1}`)["code"])
	replaced := call(200, "POST", "/v1/messages", strings.NewReplacer("1s", "1h", `"id"`,
		`"replace":true,"id"`).Replace(every))
	require.Equal(t, 2.0, replaced["generation"])
	call(200, "POST", "/v1/pending/purge", `{"target":"pull:q"}`) // it does not fire any more
	shown = call(200, "GET", "/v1/messages/tick", "")["schedule"].(map[string]any)
	require.Equal(t, "@every 1h", shown["expression"])
	require.GreaterOrEqual(t, shown["fired"], 2.0)
	require.Equal(t, 0.0, call(200, "POST", "/v1/pending/purge", `{"dry_run":true}`)["count"])
	require.Equal(t, "CANCELLED", call(200, "DELETE", "/v1/messages/tick", "")["result"])
	require.Equal(t, "cancelled", call(200, "GET", "/v1/messages/tick", "")["state"])
	call(200, "POST", "/v1/messages", `{"id":"p","target":"pull:q","schedule":"@daily"}`)
	require.Equal(t, 1.0, call(200, "POST", "/v1/pending/purge", `{"kind":"schedule"}`)["count"])
	require.Equal(t, 0.0, call(200, "GET", "/v1/pending/count?kind=schedule", "")["count"])
	require.True(t, shard.Status().Books.Balanced(), "%+v", shard.Status().Books)
}

// What only the calendar can judge must be refused with the field at fault, and what is no schedule
// must not be paused.
func TestScheduleRefusals(t *testing.T) {
	call := callOn(t, New(openShard(t), Options{}))
	call(200, "POST", "/v1/messages", `{"id":"m","target":"pull:q","delay":"1h"}`)
	for _, c := range [][3]string{
		{"/v1/messages", `{"target":"pull:q","schedule":"every day"}`, "schedule"},
		{"/v1/messages", `{"target":"pull:q","schedule":"0 0 30 2 *"}`, "schedule"},
		{"/v1/messages", `{"target":"pull:q","schedule":"@every 1ms"}`, "schedule"},
		{"/v1/messages", `{"target":"pull:q","schedule":"@daily","time_zone":"Europe/Berln"}`, "time_zone"},
		{"/v1/messages", `{"target":"pull:q","schedule":"@daily","until":1500000000000}`, "until"},
		{"/v1/messages", `{"target":"pull:q","schedule":"@daily","jitter":"1000d"}`, "jitter"},
		{"/v1/messages/m/pause", "", "id"},
		{"/v1/messages/m/resume", "", "id"},
	} {
		require.Equal(t, c[2], call(400, "POST", c[0], c[1])["field"], c)
	}
	require.Equal(t, "NOT_FOUND", call(404, "POST", "/v1/messages/nobody/pause", "")["result"])
	made := call(200, "POST", "/v1/messages", `{"target":"pull:q","schedule":"@hourly"}`)["id"].(string)
	require.Len(t, made, 26, "the server makes an id")
	require.NotEmpty(t, call(200, "GET", "/v1/messages/"+made, "")["schedule"])
	require.Equal(t, "PAUSED", call(200, "POST", "/v1/messages/"+made+"/pause", "")["result"])
	require.Equal(t, "CANCELLED", call(200, "DELETE", "/v1/messages/"+made, "")["result"])
}

// The histogram of the future counts what schedules will do, as far as it is asked, no paused one,
// none after its end, and refuses a horizon with more than it would count.
func TestHistogramRecurring(t *testing.T) {
	shard := openShard(t)
	call := callOn(t, New(shard, Options{}))
	// The watermark of a shard that has done nothing hides what is paused from a look that ends.
	call(200, "POST", "/v1/messages", `{"target":"pull:first","delay":0}`)
	lease := call(200, "POST", "/v1/queues/first/pull", `{"wait":"10s"}`)["messages"].([]any)[0]
	call(200, "POST", "/v1/queues/first/ack",
		fmt.Sprintf(`{"receipts":[%q]}`, lease.(map[string]any)["receipt"]))
	require.Eventually(t, func() bool { return shard.Status().Watermark.Due > 0 }, 10*time.Second,
		5*time.Millisecond)
	now := shard.Now()
	day := delay.Due(24 * time.Hour.Milliseconds())
	from := now - now%day + 2*day
	hours := int((from+day-now)/3_600_000) + 5 // the count ends on the day after
	for _, m := range []string{
		`"id":"daily","schedule":"0 9 * * *"`,
		`"id":"hours","schedule":"@hourly","count":` + strconv.Itoa(hours),
		`"id":"until","schedule":"30 * * * *","until":` + strconv.FormatInt(int64(from+3600_000), 10),
		// None fires meanwhile: at no minute that may begin while this runs.
		`"id":"paused","schedule":"0 ` + strconv.Itoa(int(now/3_600_000+2)%24) + ` * * *"`,
		`"id":"plain","deliver_at":` + strconv.FormatInt(int64(from+1), 10),
	} {
		call(200, "POST", "/v1/messages", `{"target":"pull:q",`+m+`}`)
	}
	call(200, "POST", "/v1/messages/paused/pause", "")
	ask := func(want int, from, to delay.Due, bucket string) map[string]any {
		return call(want, "GET", fmt.Sprintf("/v1/pending/histogram?recurring=true&bucket=%s&from=%d&to=%d",
			bucket, from, to), "")
	}
	sum := func(bars map[string]any) (count, recurring float64) {
		for _, b := range bars["buckets"].([]any) {
			count += b.(map[string]any)["count"].(float64)
			recurring += b.(map[string]any)["recurring"].(float64)
		}
		return count, recurring
	}
	// The whole of the first full day: 1 daily, 24 hourly, 1 before until, 1 plain message.
	bars := ask(200, from, from+day, "1d")
	count, recurring := sum(bars)
	require.Equal(t, 27.0, count)
	require.Equal(t, 26.0, recurring)
	require.Len(t, bars["buckets"], 1)
	require.Equal(t, float64(from), bars["buckets"].([]any)[0].(map[string]any)["from_ms"])
	count, _ = sum(ask(200, from, from+day, "1h"))
	require.Equal(t, 27.0, count)
	// Everything: the hourly ones, whose next firing is a row already.
	count, recurring = sum(ask(200, now, now+30*day, "7d"))
	call(200, "DELETE", "/v1/messages/hours", "")
	less, fewer := sum(ask(200, now, now+30*day, "7d"))
	require.Equal(t, float64(hours), count-less)
	require.Equal(t, float64(hours-1), recurring-fewer)
	// Without the word, each schedule is where its row is, and a paused one nowhere.
	for _, bucket := range []string{"1h", "1m"} {
		count, recurring = sum(call(200, "GET", "/v1/pending/histogram?bucket="+bucket, ""))
		require.Equal(t, 3.0, count, bucket)
		require.Zero(t, recurring)
	}
	call(200, "POST", "/v1/messages", `{"id":"often","target":"pull:q","schedule":"* * * * *"}`)
	refused := ask(400, now, now+1000*day, "1d")
	require.Equal(t, "to", refused["field"])
	require.Contains(t, refused["message"], "1000000 firings")
}
