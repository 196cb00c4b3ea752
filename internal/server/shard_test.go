// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/logsink"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// openShard is a real shard on a disk and a bucket in memory, in real time.
func openShard(t testing.TB) *scheduler.Shard {
	t.Helper()
	ctx := t.Context()
	store, err := localstore.Open(vfs.NewMem(), "store", localstore.Options{Simulated: true, Logger: zap.NewNop()})
	require.NoError(t, err)
	tier, err := tiered.Open(ctx, memory.New(memory.Options{Now: time.Now}), tiered.Options{Now: time.Now})
	require.NoError(t, err)
	log := logsink.New(logsink.Options{Logger: zap.NewNop()})
	shard, err := scheduler.Open(ctx, scheduler.Parts{Store: store, Tier: tier, Logger: zap.NewNop(), Now: time.Now,
		Sinks: func(delay.Target) broker.Sink { return log }}, scheduler.Options{})
	require.NoError(t, err)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = shard.Run(run) })
	t.Cleanup(func() {
		drain, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer done()
		require.NoError(t, shard.Drain(drain))
		cancel()
		wg.Wait()
		require.NoError(t, store.Close())
		require.NoError(t, tier.Close())
	})
	return shard
}

// The whole API against a real shard, as a client sees it: what was accepted is delivered once, and
// every answer is the contract's.
func TestWithShard(t *testing.T) {
	shard := openShard(t)
	s := New(shard, Options{Version: "test"})
	call := func(want int, method, path, body string) map[string]any {
		t.Helper()
		code, out, _ := ask(t, s, method, path, body)
		require.Equal(t, want, code, "%s %s %s: %v", method, path, body, out)
		return out
	}
	pull := func(queue string) []any {
		t.Helper()
		return call(200, "POST", "/v1/queues/"+queue+"/pull", `{"wait":"10s"}`)["messages"].([]any)
	}

	// Accept, deliver, ack.
	sent := call(200, "POST", "/v1/messages", `{"id":"o/1 ü","target":"pull:q","delay":"10ms","body":"h\u00e9",
		"key":"k","headers":{"b":"2","a":"1"},"durability":"tier"}`)
	require.Equal(t, "tier", sent["durability"])
	require.Equal(t, "scheduled", sent["state"])
	path := "/v1/messages/" + url.PathEscape("o/1 ü")
	got := pull("q")[0].(map[string]any)
	require.Equal(t, "o/1 ü", got["id"])
	require.Equal(t, "hé", got["body"])
	require.Equal(t, map[string]any{"a": "1", "b": "2"}, got["headers"])
	require.Equal(t, sent["due_ms"], got["due_ms"])
	require.GreaterOrEqual(t, got["fired_at_ms"], got["due_ms"], "early (S1)")
	require.Equal(t, "claimed", call(200, "GET", path, "")["state"])
	require.Equal(t, "TOO_LATE", call(409, "DELETE", path, "")["result"])
	receipts := fmt.Sprintf(`{"receipts":[%q,"nonsense"]}`, got["receipt"])
	for range 2 { // repeating an ack gives ACKED
		results := call(200, "POST", "/v1/queues/q/ack", receipts)["results"].([]any)
		require.Equal(t, "ACKED", results[0].(map[string]any)["result"])
		require.Equal(t, "NOT_FOUND", results[1].(map[string]any)["result"])
	}
	require.Equal(t, "delivered", call(200, "GET", path, "")["state"])

	// Identity (S4).
	later := `{"id":"d","target":"pull:q","deliver_at":"2040-01-01T00:00:00Z","body":"x","spread":"1h"}`
	first := call(200, "POST", "/v1/messages", later)
	again := call(200, "POST", "/v1/messages", later)
	require.Equal(t, true, again["duplicate"])
	require.Equal(t, first["due_ms"], again["due_ms"])
	other := strings.Replace(later, `"x"`, `"y"`, 1)
	require.Equal(t, "already_exists", call(409, "POST", "/v1/messages", other)["code"])
	replaced := call(200, "POST", "/v1/messages", strings.Replace(other, `"id"`, `"replace":true,"id"`, 1))
	require.Equal(t, 2.0, replaced["generation"])
	require.Equal(t, "y", call(200, "GET", "/v1/messages/d?body=true", "")["body"])

	// Changes (S5).
	moved := call(200, "PATCH", "/v1/messages/d", `{"deliver_at":"2041-01-01T00:00:00Z"}`)
	require.Equal(t, "RESCHEDULED", moved["result"])
	require.Equal(t, "2041-01-01T00:00:00.000Z", moved["due"])
	require.Equal(t, "FIRED", call(200, "POST", "/v1/messages/d/fire", "")["result"])
	require.Equal(t, "y", pull("q")[0].(map[string]any)["body"])
	call(404, "DELETE", "/v1/messages/nobody", "")
	call(404, "GET", "/v1/messages/nobody", "")
	ids := call(200, "POST", "/v1/ids?count=2", "")["ids"].([]any)
	body := fmt.Sprintf(`{"id":%q,"target":"pull:q","delay":"1h"}`, ids[0])
	require.Equal(t, ids[0], call(200, "POST", "/v1/messages", body)["id"])
	require.Equal(t, true, call(200, "POST", "/v1/messages", body)["duplicate"])
	require.Equal(t, "CANCELLED", call(200, "DELETE", "/v1/messages/"+ids[0].(string), "")["result"])
	require.Equal(t, "CANCELLED", call(200, "DELETE", "/v1/messages/"+ids[0].(string), "")["result"])

	// Dead letters.
	call(200, "POST", "/v1/messages", `{"id":"dead","target":"pull:dq","delay":0,"max_attempts":1}`)
	lease := pull("dq")[0].(map[string]any)
	results := call(200, "POST", "/v1/queues/dq/nack", fmt.Sprintf(`{"receipts":[%q],"reason":"broken"}`, lease["receipt"]))
	require.Equal(t, "NACKED", results["results"].([]any)[0].(map[string]any)["result"])
	dead := call(200, "GET", "/v1/dead-letters?target=pull%3Adq", "")["messages"].([]any)
	require.Len(t, dead, 1)
	require.Equal(t, "dead", dead[0].(map[string]any)["id"])
	require.Equal(t, "scheduled", call(200, "POST", "/v1/dead-letters/dead/retry", "")["state"])
	lease = pull("dq")[0].(map[string]any)
	call(200, "POST", "/v1/queues/dq/nack", fmt.Sprintf(`{"receipts":[%q]}`, lease["receipt"]))
	require.Equal(t, "DELETED", call(200, "DELETE", "/v1/dead-letters/dead", "")["result"])
	call(404, "DELETE", "/v1/dead-letters/dead", "")

	testBulk(t, s, call)
	st := call(200, "GET", "/v1/status", "")
	require.Equal(t, "test", st["version"])
	require.True(t, shard.Status().Books.Balanced(), "%+v", shard.Status().Books)
	require.Equal(t, true, st["accepting"])
	call(200, "GET", "/readyz", "")
}

type caller func(want int, method, path, body string) map[string]any

// testBulk looks at and purges many messages.
func testBulk(t *testing.T, s *Server, call caller) {
	var b strings.Builder
	for i := range 250 {
		fmt.Fprintf(&b, `{"target":"pull:bulk","deliver_at":"2040-01-01T00:00:%02dZ","body":"x"}`+"\n", i%60)
	}
	require.Len(t, newLines(t, s, b.String()), 250)
	require.Equal(t, 250.0, call(200, "GET", "/v1/pending/count?target=pull%3Abulk", "")["count"])
	seen := map[any]bool{}
	for token := ""; ; {
		page := call(200, "GET", "/v1/messages?limit=100&target=pull%3Abulk&page_token="+url.QueryEscape(token), "")
		for _, m := range page["messages"].([]any) {
			seen[m.(map[string]any)["id"]] = true
		}
		if token = page["next_page_token"].(string); token == "" {
			break
		}
	}
	require.Len(t, seen, 250)
	bars := call(200, "GET", "/v1/pending/histogram?bucket=1d&from=2039-12-01T00:00:00Z&to=2040-02-01T00:00:00Z", "")
	sum := 0.0
	for _, bar := range bars["buckets"].([]any) {
		sum += bar.(map[string]any)["count"].(float64)
	}
	require.Equal(t, 250.0, sum)
	require.Len(t, call(200, "GET", "/v1/pending/next?limit=5", "")["messages"], 5)
	filter := `{"target":"pull:bulk","dry_run":%v}`
	require.Equal(t, 250.0, call(200, "POST", "/v1/pending/purge", fmt.Sprintf(filter, true))["count"])
	require.Equal(t, 250.0, call(200, "POST", "/v1/pending/purge", fmt.Sprintf(filter, false))["count"])
	require.Equal(t, 0.0, call(200, "GET", "/v1/pending/count?target=pull%3Abulk", "")["count"])

	call(200, "POST", "/v1/targets/pause", `{"target":"pull:held"}`)
	call(200, "POST", "/v1/messages", `{"id":"h","target":"pull:held","delay":0}`)
	require.Empty(t, call(200, "POST", "/v1/queues/held/pull", `{"wait":"50ms"}`)["messages"])
	call(200, "POST", "/v1/targets/resume", `{"target":"pull:held"}`)
	require.Len(t, call(200, "POST", "/v1/queues/held/pull", `{"wait":"10s"}`)["messages"], 1)
	require.NotEmpty(t, call(200, "GET", "/v1/targets", "")["targets"])
	call(200, "POST", "/v1/clock/confirm", "")
}

// What only the shard can judge must be refused as a fault of the client too, with its field.
func TestShardRefusals(t *testing.T) {
	s := New(openShard(t), Options{})
	_, sent, _ := ask(t, s, "POST", "/v1/messages", `{"target":"pull:q","deliver_at":"2040-01-01T00:00:00Z"}`)
	for _, c := range [][4]string{
		{"POST", "/v1/messages", fmt.Sprintf(`{"id":%q,"target":"pull:q","delay":1}`, sent["id"]), "id"},
		{"POST", "/v1/messages", `{"id":"00000000000000000000000000","target":"pull:q","delay":1}`, "id"},
		{"GET", "/v1/messages?page_token=nonsense", "", "page_token"},
		{"GET", "/v1/dead-letters?page_token=%FF", "", "page_token"},
	} {
		code, out, _ := ask(t, s, c[0], c[1], c[2])
		require.Equal(t, 400, code, "%v: %v", c, out)
		require.Equal(t, c[3], out["field"], "%v: %v", c, out)
	}
	for _, target := range []string{"?state=delivered", "?state=dead", "?tier=cold&state=claimed", "?id_prefix=%FF",
		"?due_from=2050-01-01T00:00:00Z&due_to=2040-01-01T00:00:00Z"} {
		for _, path := range []string{"/v1/messages", "/v1/pending/count", "/v1/dead-letters"} {
			code, out, _ := ask(t, s, "GET", path+target, "")
			require.Less(t, code, 500, "%s%s: %v", path, target, out)
		}
	}
	for _, query := range []string{"", "?bucket=1ms", "?bucket=1000w", "?from=2040-01-01T00:00:00Z", "?to=2040-01-02T00:00:00Z",
		"?from=1975-01-01T00:00:00Z&bucket=1ms", "?from=9999-12-31T00:00:00Z"} {
		code, out, _ := ask(t, s, "GET", "/v1/pending/histogram"+query, "")
		require.Less(t, code, 500, "%s: %v", query, out)
	}
}

// A debounced message is moved by each repetition, but leaves at the latest max_wait after its first
// due; a repeated request must be told so and count once, and what has left starts a new chain.
func TestDebounce(t *testing.T) {
	shard := openShard(t)
	call := callOn(t, New(shard, Options{}))
	send := func(at delay.Due, more string) (due delay.Due, out map[string]any) {
		t.Helper()
		out = call(200, "POST", "/v1/messages", fmt.Sprintf(
			`{"id":"d","target":"pull:q","deliver_at":%d,"replace":true,"max_wait":"1h"%s}`, at, more))
		return delay.Due(out["due_ms"].(float64)), out
	}
	const minute = 60_000
	first, _ := send(shard.Now()+10*minute, "")
	due, out := send(first+20*minute, "")
	require.Equal(t, first+20*minute, due)
	require.Equal(t, 2.0, out["generation"])
	due, _ = send(first+5*minute, "")
	require.Equal(t, first+5*minute, due, "earlier is no wait")
	for i := range 2 {
		due, out = send(first+61*minute, "")
		require.Equal(t, first+60*minute, due)
		require.Equal(t, 4.0, out["generation"])
		require.Equal(t, i == 1, out["duplicate"], "S4")
	}
	due, out = send(first+90*minute, `,"body":"other"`)
	require.Equal(t, first+60*minute, due)
	require.Equal(t, 5.0, out["generation"])
	require.Equal(t, float64(first+60*minute), call(200, "GET", "/v1/messages/d", "")["due_ms"])
	require.Equal(t, 1.0, call(200, "GET", "/v1/pending/count?target=pull%3Aq", "")["count"])

	// By delay, with spread, and moved by hand in between: the first due stays the base.
	due, _ = send(first+30*minute, `,"spread":"10m","body":"s"`)
	require.LessOrEqual(t, due, first+40*minute)
	call(200, "PATCH", "/v1/messages/d", fmt.Sprintf(`{"deliver_at":%d}`, first+50*minute))
	for i := range 2 {
		due, out = send(first+300*minute, `,"spread":"10m","body":"t"`)
		require.Equal(t, first+60*minute, due)
		require.Equal(t, i == 1, out["duplicate"])
	}
	out = call(200, "POST", "/v1/messages", `{"id":"d","target":"pull:q","delay":"3h","replace":true,"max_wait":"1h"}`)
	require.Equal(t, float64(first+60*minute), out["due_ms"])
	out = call(200, "POST", "/v1/messages", `{"id":"d","target":"pull:q","delay":"3h","replace":true,"max_wait":"1h"}`)
	require.Equal(t, float64(first+60*minute), out["due_ms"])
	require.Equal(t, true, out["duplicate"])

	// It leaves, and the next one is the first of its chain.
	call(200, "POST", "/v1/messages/d/fire", "")
	lease := call(200, "POST", "/v1/queues/q/pull", `{"wait":"10s"}`)["messages"].([]any)[0].(map[string]any)
	out = call(409, "POST", "/v1/messages", `{"id":"d","target":"pull:q","delay":"4h","replace":true,"max_wait":"1h"}`)
	require.Equal(t, "TOO_LATE", out["result"])
	call(200, "POST", "/v1/queues/q/ack", fmt.Sprintf(`{"receipts":[%q]}`, lease["receipt"]))
	again, out := send(first+500*minute, "")
	require.Equal(t, first+500*minute, again)
	require.Equal(t, false, out["duplicate"])
	require.True(t, shard.Status().Books.Balanced(), "%+v", shard.Status().Books)
}

// What expired must be found among the dead letters, with the limit that it met: a person who sees
// nothing but a number does not know what to change.
func TestExpiredIsVisible(t *testing.T) {
	shard := openShard(t)
	call := callOn(t, New(shard, Options{}))
	soon := shard.Now() + 20
	for id, limits := range map[string]string{
		"ttl":        `"ttl":10`,
		"not_after":  fmt.Sprintf(`"not_after":%d`, soon),
		"both-ttl":   fmt.Sprintf(`"ttl":10,"not_after":%d`, soon+1_000_000),
		"both-after": fmt.Sprintf(`"ttl":"1h","not_after":%d`, soon),
	} {
		call(200, "POST", "/v1/messages", fmt.Sprintf(`{"id":%q,"target":"pull:nobody","delay":0,%s}`, id, limits))
	}
	require.Eventually(t, func() bool { return shard.Status().Books.Expired == 4 }, 10*time.Second,
		5*time.Millisecond)
	reasons := map[any]any{}
	for _, m := range call(200, "GET", "/v1/dead-letters?state=expired", "")["messages"].([]any) {
		letter := m.(map[string]any)
		require.Equal(t, "expired", letter["state"])
		require.NotEmpty(t, letter["died_at"])
		reasons[letter["id"]] = letter["reason"]
	}
	require.Equal(t, map[any]any{"ttl": "ttl", "not_after": "not_after", "both-ttl": "ttl",
		"both-after": "not_after"}, reasons)
	require.Equal(t, "not_after", call(200, "GET", "/v1/messages/not_after", "")["reason"])
	require.Empty(t, call(200, "GET", "/v1/dead-letters?state=dead", "")["messages"])
	require.Equal(t, 4.0, call(200, "GET", "/v1/status", "")["books"].(map[string]any)["expired"])
	// A retry starts over: without the instant that has passed, with a new time to live.
	call(200, "POST", "/v1/dead-letters/not_after/retry", "")
	got := call(200, "POST", "/v1/queues/nobody/pull", `{"wait":"10s"}`)["messages"].([]any)
	require.Equal(t, "not_after", got[0].(map[string]any)["id"])
	require.True(t, shard.Status().Books.Balanced())
}

// The rate of a receiver must be what the operator said, in what the list shows and in what goes
// out, and a request that is not clear must change nothing.
func TestLimitRoute(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	code, out, _ := ask(t, s, "POST", "/v1/targets/limit", `{"target":"pull:a","rate":100,"burst":200}`)
	require.Equal(t, 200, code)
	require.Equal(t, map[string]any{
		"target": "pull:a", "limit": map[string]any{"rate": 100.0, "burst": 200.0},
	}, out)
	require.Equal(t, delay.Limit{PerHour: 360_000, Burst: 200}, f.limits["pull:a"])
	code, out, _ = ask(t, s, "POST", "/v1/targets/limit", `{"target":"pull:a","rate":0}`)
	require.Equal(t, 200, code)
	require.Equal(t, map[string]any{"target": "pull:a"}, out)
	require.True(t, f.limits["pull:a"].IsZero())
	for body, field := range map[string]string{
		`{"target":"pull:a"}`:                          "rate",
		`{"rate":1}`:                                   "target",
		`{"target":"nonsense","rate":1}`:               "target",
		`{"target":"pull:b","rate":-1}`:                "rate",
		`{"target":"pull:b","rate":"1"}`:               "rate",
		`{"target":"pull:b","rate":1e400}`:             "rate",
		`{"target":"pull:b","rate":1e-9}`:              "rate",
		`{"target":"pull:b","rate":1,"burst":0}`:       "burst",
		`{"target":"pull:b","rate":1,"burst":1.5}`:     "burst",
		`{"target":"pull:b","rate":1,"burst":1000001}`: "burst",
		`{"target":"pull:b","rate":0,"burst":5}`:       "burst",
		`{"target":"pull:b","rate":1,"speed":5}`:       "speed",
	} {
		code, out, _ = ask(t, s, "POST", "/v1/targets/limit", body)
		require.Equal(t, 400, code, body)
		require.Equal(t, field, out["field"], body)
	}
	require.NotContains(t, f.limits, delay.Target("pull:b"))
	_, out, _ = ask(t, s, "GET", "/v1/targets", "")
	require.Equal(t, map[string]any{"rate": 100.0, "burst": 200.0},
		out["targets"].([]any)[0].(map[string]any)["limit"])
}
