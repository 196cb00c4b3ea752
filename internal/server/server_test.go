// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// ask sends one request to the handler and returns status and decoded body.
func ask(t testing.TB, s *Server, method, target, body string, headers ...string) (int, map[string]any, http.Header) {
	t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	var out map[string]any
	if rec.Body.Len() > 0 {
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &out), "%s", rec.Body)
	}
	return rec.Code, out, rec.Header()
}

// Each form of a request must be answered in its own form, and nothing that the shard did not accept
// as accepted (W2).
func TestSend(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	code, out, h := ask(t, s, "POST", "/v1/messages", `{"id":"a","target":"log:","delay":"10s"}`)
	require.Equal(t, 200, code)
	require.Equal(t, "application/json", h.Get("Content-Type"))
	require.Equal(t, map[string]any{"id": "a", "due": "2027-01-15T08:00:10.000Z",
		"due_ms": float64(fakeNow + 10_000), "durability": "local", "duplicate": false,
		"generation": float64(1), "state": "scheduled"}, out)

	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"messages":[{"target":"log:","delay":1},
		{"target":"log:"},{"id":"z","target":"log:","delay":"1d","durability":"tier"}]}`)
	require.Equal(t, 200, code)
	results := out["results"].([]any)
	require.Len(t, results, 3)
	require.Equal(t, "srv-2", results[0].(map[string]any)["id"])
	require.Equal(t, map[string]any{"code": "invalid_argument", "field": "deliver_at",
		"message": "deliver_at: one of deliver_at, delay and schedule is needed"},
		results[1].(map[string]any)["error"])
	require.Equal(t, "tier", results[2].(map[string]any)["durability"])
	require.Len(t, f.messages(), 3)

	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"messages":[]}`)
	require.Equal(t, 200, code)
	require.Equal(t, []any{}, out["results"])

	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"id":"a","target":"log:","delay":1,"mode":"exactly_once"}`)
	require.Equal(t, 400, code)
	require.Equal(t, "invalid_argument", out["code"])
	require.Equal(t, "mode", out["field"])

	f.itemErr = fmt.Errorf("%w: other content", delay.ErrExists)
	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"id":"a","target":"log:","delay":1}`)
	require.Equal(t, 409, code)
	require.Equal(t, "already_exists", out["code"])

	f.itemErr = fmt.Errorf("message a: %w", delay.ErrTooLate)
	code, out, _ = ask(t, s, "POST", "/v1/messages", `{"id":"a","target":"log:","delay":1,"replace":true}`)
	require.Equal(t, 409, code)
	require.Equal(t, "TOO_LATE", out["result"])
}

// Every kind of error must have its code and status, wherever it comes from; one that nobody knows
// must be 500 and say nothing (W1).
func TestKinds(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		code   string
	}{
		delay.ErrInvalid: {400, "invalid_argument"}, delay.ErrNotFound: {404, "not_found"},
		delay.ErrExists: {409, "already_exists"}, delay.ErrTooLate: {409, "failed_precondition"},
		delay.ErrPrecondition:  {409, "failed_precondition"},
		delay.ErrUnimplemented: {501, "unimplemented"}, delay.ErrUnavailable: {503, "unavailable"},
		delay.ErrOverloaded: {429, "resource_exhausted"}, delay.ErrDiskFull: {503, "unavailable"},
		delay.ErrClosed: {503, "unavailable"}, delay.ErrFenced: {503, "unavailable"},
		delay.ErrCorrupt: {500, "data_loss"}, errors.New("secret"): {500, "internal"},
	} {
		f := newFake()
		f.err = fmt.Errorf("store: %w", err)
		s := New(f, Options{})
		for _, rt := range routes() {
			if strings.HasPrefix(rt.path, "/v1/") && !asksNothing(rt.path) {
				code, out, h := ask(t, s, rt.method, fill(rt.path), goodBody(rt))
				require.Equal(t, want.status, code, "%v %s %s: %v", err, rt.method, rt.path, out)
				require.Equal(t, want.code, out["code"])
				require.NotContains(t, out["message"], "secret")
				require.Equal(t, code == 429 || code == 503, h.Get("Retry-After") != "")
			}
		}
	}
}

// asksNothing: the route answers from what is in memory.
func asksNothing(path string) bool {
	return path == "/v1/status" || path == "/v1/tier" || path == "/v1/clock/confirm"
}

func fill(path string) string {
	return strings.NewReplacer("{id}", "a%2Fb", "{queue}", "q").Replace(path)
}

// goodBody is a body that the route accepts.
func goodBody(rt route) string {
	switch {
	case rt.path == "/v1/messages" && rt.method == "POST":
		return `{"target":"log:","delay":1}`
	case rt.method == "PATCH":
		return `{"delay":1}`
	case strings.HasSuffix(rt.path, "/ack"), strings.HasSuffix(rt.path, "/nack"), strings.HasSuffix(rt.path, "/extend"):
		return `{"receipts":["r1"]}`
	case rt.path == "/v1/targets/limit":
		return `{"target":"pull:a","rate":0.5}`
	case strings.HasPrefix(rt.path, "/v1/targets/"):
		return `{"target":"pull:a"}`
	}
	return ""
}

// Every route must work with a good request.
func TestRoutes(t *testing.T) {
	f := newFake()
	f.verdict = scheduler.ChangeResult{Verdict: scheduler.Rescheduled, Due: fakeNow}
	f.infos = []scheduler.Info{{ID: "x", Target: "log:", Reason: "refused", LastError: "404", Attempts: 3}}
	s := New(f, Options{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "{}")
	}), Tier: fakeTier})
	for _, rt := range routes() {
		code, _, _ := ask(t, s, rt.method, fill(rt.path), goodBody(rt))
		require.Equal(t, 200, code, "%s %s", rt.method, rt.path)
	}
	require.Equal(t, delay.ID("a/b"), f.changes[0].ID, "ids in paths are percent-encoded")
	require.Equal(t, []bool{false}, []bool{f.paused["pull:a"]})
}

// What is no route must be answered in JSON as well, with the methods that exist.
func TestNoRoute(t *testing.T) {
	s := New(newFake(), Options{})
	for _, path := range []string{"/", "/v1", "/v1/nothing", "/v1/messages/", "/v2/messages", "/metrics"} {
		code, out, _ := ask(t, s, "GET", path, "")
		require.Equal(t, 404, code, path)
		require.Equal(t, "not_found", out["code"], path)
	}
	code, out, h := ask(t, s, "PUT", "/v1/messages/a", "")
	require.Equal(t, 405, code)
	require.Equal(t, "unimplemented", out["code"])
	require.Equal(t, "GET, DELETE, PATCH", h.Get("Allow"))
	code, _, _ = ask(t, s, "GET", "/v1/pending/purge", "")
	require.Equal(t, 405, code)
}

// Parameters that do not exist or are out of range must be refused with their name (W3).
func TestQuery(t *testing.T) {
	s := New(newFake(), Options{})
	for target, field := range map[string]string{
		"GET /v1/messages?limt=5":                      "limt",
		"GET /v1/messages?limit=0":                     "limit",
		"GET /v1/messages?limit=1001":                  "limit",
		"GET /v1/messages?limit=+5":                    "limit",
		"GET /v1/messages?limit=":                      "limit",
		"GET /v1/messages?limit=5&limit=6":             "limit",
		"GET /v1/messages?state=waiting":               "state",
		"GET /v1/messages?tier=ice":                    "tier",
		"GET /v1/messages?due_from=5":                  "due_from",
		"GET /v1/messages/a?body=yes":                  "body",
		"GET /v1/messages/a?body":                      "body",
		"GET /v1/messages/" + strings.Repeat("x", 257): "id",
		"GET /v1/messages/%00":                         "id",
		"DELETE /v1/messages/a?stop=1":                 "stop",
		"POST /v1/ids?count=10001":                     "count",
		"POST /v1/ids?count=-1":                        "count",
		"POST /v1/messages?dry=1":                      "dry",
		"GET /v1/pending/count?limit=1":                "limit",
		"GET /v1/pending/histogram?bucket=0":           "bucket",
		"GET /v1/pending/histogram?bucket=1":           "bucket",
		"GET /v1/pending/histogram?from=2030-01-01T00:00:00Z&to=2029-01-01T00:00:00Z":            "to",
		"GET /v1/pending/histogram?bucket=1ms&from=2030-01-01T00:00:00Z&to=2031-01-01T00:00:00Z": "bucket",
		"GET /v1/pending/next?limit=x":                         "limit",
		"POST /v1/queues/a%20b/pull":                           "queue",
		"POST /v1/queues/" + strings.Repeat("q", 129) + "/ack": "queue",
		"GET /v1/status?verbose=true":                          "verbose",
	} {
		method, path, _ := strings.Cut(target, " ")
		code, out, _ := ask(t, s, method, path, "")
		require.Equal(t, 400, code, target)
		require.Equal(t, "invalid_argument", out["code"], target)
		require.Equal(t, field, out["field"], target)
	}
}

// A filter must reach the shard as it was asked for.
func TestFilter(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	_, out, _ := ask(t, s, "GET", "/v1/messages?target="+url.QueryEscape("pull:a")+
		"&state=claimed&tier=cold&due_from=1893553445000&due_to=2030-01-02T03:04:06Z&id_prefix=o%2F&limit=10", "")
	require.Equal(t, "next", out["next_page_token"])
	state, level := delay.Claimed, delay.Cold
	require.Equal(t, scheduler.Filter{Target: "pull:a", State: &state, Level: &level,
		DueFrom: 1893553445000, DueTo: 1893553446000, IDPrefix: "o/"}, f.filters[0])
}

// A change must answer with its verdict, its status and, when refused, code and message (S5).
func TestVerdicts(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	for _, c := range []struct {
		method, path, body string
		verdict            scheduler.ChangeResult
		status             int
		want               map[string]any
	}{
		{"DELETE", "/v1/messages/a", "", scheduler.ChangeResult{Verdict: scheduler.Cancelled, Durability: delay.Tier}, 200,
			map[string]any{"id": "a", "result": "CANCELLED", "durability": "tier"}},
		{"DELETE", "/v1/messages/a?stop=true", "", scheduler.ChangeResult{Verdict: scheduler.Stopped}, 200,
			map[string]any{"id": "a", "result": "STOPPED", "durability": "local"}},
		{"DELETE", "/v1/messages/a", "", scheduler.ChangeResult{Verdict: scheduler.TooLate, State: delay.Delivered}, 409,
			map[string]any{"id": "a", "result": "TOO_LATE", "durability": "local", "state": "delivered",
				"code": "failed_precondition", "message": "the message is already delivered"}},
		{"DELETE", "/v1/messages/a", "", scheduler.ChangeResult{Verdict: scheduler.NotFound}, 404,
			map[string]any{"id": "a", "result": "NOT_FOUND", "code": "not_found", "message": "no such message"}},
		{"PATCH", "/v1/messages/a", `{"delay":"1s"}`, scheduler.ChangeResult{Verdict: scheduler.Rescheduled, Due: 1893553445000}, 200,
			map[string]any{"id": "a", "result": "RESCHEDULED", "durability": "local",
				"due": "2030-01-02T03:04:05.000Z", "due_ms": 1893553445000.0}},
		{"POST", "/v1/messages/a/pause", "", scheduler.ChangeResult{Verdict: scheduler.SchedulePaused}, 200,
			map[string]any{"id": "a", "result": "PAUSED", "durability": "local"}},
		{"POST", "/v1/messages/a/resume", "{}", scheduler.ChangeResult{Verdict: scheduler.ScheduleResumed, Due: 1893553445000}, 200,
			map[string]any{"id": "a", "result": "RESUMED", "durability": "local",
				"due": "2030-01-02T03:04:05.000Z", "due_ms": 1893553445000.0}},
		{"POST", "/v1/messages/a/fire", "{}", scheduler.ChangeResult{Verdict: scheduler.Fired, Due: 1893553445000}, 200,
			map[string]any{"id": "a", "result": "FIRED", "durability": "local",
				"due": "2030-01-02T03:04:05.000Z", "due_ms": 1893553445000.0}},
	} {
		f.verdict = c.verdict
		status, out, _ := ask(t, s, c.method, c.path, c.body)
		require.Equal(t, c.status, status)
		require.Equal(t, c.want, out)
	}
	var asked []scheduler.Change
	for _, q := range f.changes {
		asked = append(asked, q.Change)
	}
	require.Equal(t, []scheduler.Change{scheduler.Cancel, scheduler.StopRetrying, scheduler.Cancel,
		scheduler.Cancel, scheduler.Reschedule, scheduler.PauseSchedule, scheduler.ResumeSchedule,
		scheduler.Fire}, asked)
	require.Equal(t, fakeNow+1000, f.changes[4].Due)
	f.verdict = scheduler.ChangeResult{Err: delay.ErrUnavailable}
	status, _, _ := ask(t, s, "DELETE", "/v1/messages/a", "")
	require.Equal(t, 503, status)
}

// Pull and settle must carry every field through.
func TestQueues(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	f.leases = []scheduler.Lease{{ID: "1", Receipt: "r", Attempt: 1, Body: []byte("x")}}
	code, out, _ := ask(t, s, "POST", "/v1/queues/q.1/pull", `{"max":5,"wait":"1s"}`)
	require.Equal(t, 200, code)
	require.Len(t, out["messages"], 1)
	code, out, _ = ask(t, s, "POST", "/v1/queues/q.1/nack", `{"receipts":["r","s"],"delay":"2s","reason":"no"}`)
	require.Equal(t, 200, code)
	require.Equal(t, []any{map[string]any{"receipt": "r", "result": "NACKED"},
		map[string]any{"receipt": "s", "result": "NACKED"}}, out["results"])
	require.Equal(t, scheduler.SettleRequest{Queue: "q.1", Settlement: scheduler.Nack,
		Receipts: []string{"r", "s"}, Delay: 2 * time.Second, HasDelay: true, Reason: "no"}, f.settled[0])
	_, out, _ = ask(t, s, "POST", "/v1/queues/q.1/extend", `{"receipts":["r"]}`)
	require.Equal(t, []any{map[string]any{"receipt": "r", "result": "EXTENDED"}}, out["results"])
}

// Without the scope nothing behind a route may run; health checks stay open (W6).
func TestAuth(t *testing.T) {
	gate := access.NewGate(access.Credentials{Tokens: []access.Token{
		access.NewToken("r", "r", access.Read), access.NewToken("s", "s", access.Send),
		access.NewToken("a", "a", access.Admin), access.NewToken("rs", "rs", access.Read|access.Send),
	}}, nil)
	f := newFake()
	f.verdict = scheduler.ChangeResult{Verdict: scheduler.Cancelled}
	s := New(f, Options{Gate: gate})
	check := func(method, path, body string, scope access.Scope) {
		require.NotZero(t, scope, "%s has no scope", path)
		for token, scopes := range map[string]access.Scope{"": 0, "x": 0, "r": access.Read,
			"s": access.Send, "a": access.Admin, "rs": access.Read | access.Send} {
			header := []string{"Content-Type", "application/json"}
			if token != "" {
				header = append(header, "Authorization", "Bearer "+token)
			}
			code, _, h := ask(t, s, method, path, body, header...)
			switch {
			case scope == access.Public, scopes&(scope|access.Admin) != 0:
				require.NotContains(t, []int{401, 403}, code, "%s %s as %q", method, path, token)
			case scopes == 0:
				require.Equal(t, 401, code, "%s %s as %q", method, path, token)
				if !strings.HasPrefix(path, "/cicada") {
					require.Equal(t, "Bearer", h.Get("WWW-Authenticate"))
				}
			default:
				require.Equal(t, 403, code, "%s %s as %q", method, path, token)
			}
		}
	}
	for _, rt := range routes() {
		check(rt.method, fill(rt.path), goodBody(rt), rt.rule.Scope)
	}
	for path, p := range procedures() {
		check("POST", path, "{}", p.rule.Scope)
	}
	code, _, _ := ask(t, s, "GET", "/v1/status", "", "Authorization", "Basic cg==")
	require.Equal(t, 401, code)
}

// A page in a browser must not be able to send for its visitor.
func TestCrossOrigin(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		code, out, _ := ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`, h[0], h[1])
		require.Equal(t, 403, code)
		require.Equal(t, "permission_denied", out["code"])
	}
	require.Empty(t, f.messages())
	code, _, _ := ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`, "Sec-Fetch-Site", "same-origin")
	require.Equal(t, 200, code)
}

// A panic must be answered, counted, and must not take the server along (W1).
func TestPanic(t *testing.T) {
	f := newFake()
	f.boom = true
	var mu sync.Mutex
	counted := map[string]int{}
	s := New(f, Options{Rejected: func(source, code string, n int) {
		mu.Lock()
		defer mu.Unlock()
		counted[source+" "+code] += n
	}})
	code, out, _ := ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`)
	require.Equal(t, 500, code)
	require.Equal(t, "internal error", out["message"])
	f.boom = false
	code, _, _ = ask(t, s, "POST", "/v1/messages", `{"messages":[{"target":"log:","delay":1},{},{"target":1}]}`)
	require.Equal(t, 200, code)
	ask(t, s, "POST", "/v1/messages", `{`)
	require.Equal(t, map[string]int{"api panic": 1, "api invalid_argument": 3}, counted)
	require.Zero(t, s.inflight.Used())
}

// Requests beyond the limits must be refused before they take memory (W5).
func TestLimits(t *testing.T) {
	f := newFake()
	s := New(f, Options{MaxInflightBytes: 1 << 20})
	body := `{"target":"log:","delay":1,"body":"` + strings.Repeat("x", 1<<20) + `"}`
	code, out, h := ask(t, s, "POST", "/v1/messages", body)
	require.Equal(t, 429, code)
	require.Equal(t, "resource_exhausted", out["code"])
	require.Equal(t, "1", h.Get("Retry-After"))
	require.Zero(t, s.inflight.Used())
	code, _, _ = ask(t, s, "POST", "/v1/messages", body[:1000]+`"}`)
	require.Equal(t, 200, code)

	// Without a length: the same, as it arrives.
	req := httptest.NewRequest(http.MethodPost, "/v1/messages", io.MultiReader(strings.NewReader(body)))
	req.ContentLength = -1
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	require.Equal(t, 429, rec.Code)
	require.Zero(t, s.inflight.Used())

	s = New(f, Options{})
	req = httptest.NewRequest(http.MethodPost, "/v1/messages", io.MultiReader(strings.NewReader(body)))
	req.ContentLength = -1
	rec = httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	require.Equal(t, 200, rec.Code)
	for _, c := range [][2]string{{"/v1/queues/q/ack", `{"receipts":["` + strings.Repeat("r", maxSmallBytes) + `"]}`},
		{"/v1/messages", `{"messages":[` + strings.Repeat("{},", wire.MaxBatch) + `{}]}`}} {
		code, out, _ := ask(t, s, "POST", c[0], c[1])
		require.Equal(t, 400, code)
		require.Equal(t, "invalid_argument", out["code"])
	}
	code, _, _ = ask(t, s, "POST", "/v1/messages", "x", "Content-Encoding", "gzip")
	require.Equal(t, 400, code)
	req = httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader("{}"))
	req.ContentLength = maxRequestBytes + 1
	rec = httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	require.Equal(t, 400, rec.Code)
	require.Zero(t, s.inflight.Used())
}

// Once a drain begins nothing new may come in, waiting pulls are answered, and what consumers hold
// can still be settled (W7).
func TestDrain(t *testing.T) {
	f := newFake()
	f.verdict = scheduler.ChangeResult{Verdict: scheduler.Cancelled}
	s := New(f, Options{Tier: fakeTier})
	var wg sync.WaitGroup
	wg.Go(func() {
		code, out, _ := ask(t, s, "POST", "/v1/queues/q/pull", `{"wait":"60s"}`)
		require.Equal(t, 200, code)
		require.Equal(t, []any{}, out["messages"])
	})
	<-f.pulled
	s.Drain()
	wg.Wait()
	s.Drain()
	for _, rt := range routes() {
		want := 200
		if rt.intake || rt.path == "/readyz" || strings.HasSuffix(rt.path, "/pull") {
			want = 503
		}
		if rt.path == "/metrics" {
			want = 404
		}
		code, _, _ := ask(t, s, rt.method, fill(rt.path), goodBody(rt))
		require.Equal(t, want, code, "%s %s", rt.method, rt.path)
	}
	code, _, _ := ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`, "Content-Type", "application/x-ndjson")
	require.Equal(t, 503, code)
	code, out, _ := ask(t, s, "POST", "/cicada.v1.Scheduler/Send", `{}`, "Content-Type", "application/json")
	require.Equal(t, 503, code)
	require.Equal(t, "unavailable", out["code"])
	require.Empty(t, f.messages())
}

// Readiness must follow the shard's, whatever else is wrong.
func TestReady(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	code, _, _ := ask(t, s, "GET", "/readyz", "")
	require.Equal(t, 200, code)
	f.status.Accepting = false
	code, _, _ = ask(t, s, "GET", "/readyz", "")
	require.Equal(t, 503, code)
	code, _, _ = ask(t, s, "GET", "/healthz", "")
	require.Equal(t, 200, code)
}

// No body on any route may be answered with a 5xx, but 501 for what is not built (W1).
func FuzzRoutes(f *testing.F) {
	for i, rt := range routes() {
		f.Add(i, goodBody(rt), "limit=5")
	}
	f.Add(0, `{"messages":[{"target":"log:","delay":1},{"x":[1,{"y":"\ud800"}]}]}`, "")
	f.Add(len(routes()), `{"target":"log:","delay":1}`+"\n\n{}", "") // as a stream
	// A server for each input would cost more than the input does: its shard is another one each time.
	shard := &struct{ *fakeShard }{newFake()}
	s := New(shard, Options{Metrics: http.NotFoundHandler()})
	handler, all := s.Handler(), routes()
	f.Fuzz(func(t *testing.T, n int, body, query string) {
		shard.fakeShard = newFake()
		shard.verdict = scheduler.ChangeResult{Verdict: scheduler.Cancelled}
		rt := all[(n%len(all)+len(all))%len(all)]
		req := httptest.NewRequest(rt.method, fill(rt.path), strings.NewReader(body))
		req.URL.RawQuery = query
		if n/len(all)%2 != 0 {
			req.Header.Set("Content-Type", "application/x-ndjson")
		}
		if strings.HasSuffix(rt.path, "/pull") {
			shard.leases = []scheduler.Lease{{ID: "1"}}
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, req)
		require.True(t, rec.Code < 500 || rec.Code == 501, "%s %s?%s %q: %d %s", rt.method, rt.path,
			query, body, rec.Code, rec.Body)
		require.Zero(t, s.inflight.Used())
	})
}
