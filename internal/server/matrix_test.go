// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/scheduler"
)

// estate is a shard with messages of two owners, which remembers what was done to the foreign ones.
type estate struct {
	*fakeShard
	harmed []string
}

func newEstate() *estate {
	return &estate{fakeShard: newFake()}
}

// kept is what the estate holds: waiting messages, dead letters, and one that is finished, of which
// only the id is known.
func (e *estate) kept(dead bool) []scheduler.Info {
	state, suffix := delay.Scheduled, ""
	if dead {
		state, suffix = delay.Dead, "-dead"
	}
	var out []scheduler.Info
	for _, owner := range []string{"own", "foreign"} {
		out = append(out, scheduler.Info{ID: delay.ID(owner + suffix), Known: true, State: state,
			Target: delay.Target("pull:" + owner), Due: fakeNow, Generation: 1})
	}
	return out
}

func (e *estate) find(id delay.ID) (scheduler.Info, bool) {
	for _, info := range slices.Concat(e.kept(false), e.kept(true)) {
		if info.ID == id {
			return info, true
		}
	}
	return scheduler.Info{ID: id, Known: true, State: delay.Delivered}, id == "finished"
}

// touch notes that something was done with what belongs to a target.
func (e *estate) touch(what string, target delay.Target) {
	if target != "pull:own" {
		e.harmed = append(e.harmed, fmt.Sprintf("%s %s", what, target))
	}
}

func (e *estate) Accept(_ context.Context, drafts []delay.Draft, receipts []scheduler.Receipt) error {
	for i, d := range drafts {
		e.touch("accept", d.Target)
		if info, taken := e.find(d.ID); taken {
			if !d.Replace {
				receipts[i].Err = fmt.Errorf("%w: id %q", delay.ErrExists, d.ID)
				continue
			}
			e.touch("replace", info.Target)
		}
		receipts[i] = scheduler.Receipt{ID: d.ID, Due: d.Due, Generation: 1}
	}
	return nil
}

func (e *estate) Get(_ context.Context, id delay.ID, _ bool) (scheduler.Info, error) {
	info, ok := e.find(id)
	if !ok {
		return info, fmt.Errorf("row of %s: %w", id, delay.ErrNotFound)
	}
	return info, nil
}

func (e *estate) pick(all []scheduler.Info, f scheduler.Filter) (out []scheduler.Info) {
	for _, info := range all {
		if f.Only.Has(info.Target) && (f.Target == "" || f.Target == info.Target) {
			out = append(out, info)
		}
	}
	return out
}

func (e *estate) List(_ context.Context, f scheduler.Filter, _ int, _ string) ([]scheduler.Info, string, error) {
	return e.pick(e.kept(false), f), "", nil
}

func (e *estate) DeadLetters(_ context.Context, f scheduler.Filter, _ int, _ string) ([]scheduler.Info, string, error) {
	return e.pick(e.kept(true), f), "", nil
}

func (e *estate) Next(context.Context, int) ([]scheduler.Info, error) { return e.kept(false), nil }

func (e *estate) Count(_ context.Context, f scheduler.Filter) (int64, error) {
	return int64(len(e.pick(e.kept(false), f))), nil
}

func (e *estate) Histogram(_ context.Context, _ time.Duration, f scheduler.Filter) ([]scheduler.Bar, error) {
	return []scheduler.Bar{{From: fakeNow, Count: int64(len(e.pick(e.kept(false), f)))}}, nil
}

func (e *estate) Firings(ctx context.Context, d time.Duration, f scheduler.Filter) ([]scheduler.Bar, error) {
	return e.Histogram(ctx, d, f)
}

func (e *estate) Change(_ context.Context, reqs []scheduler.ChangeRequest, res []scheduler.ChangeResult) error {
	for i, r := range reqs {
		info, ok := e.find(r.ID)
		if !ok {
			res[i] = scheduler.ChangeResult{Verdict: scheduler.NotFound}
			continue
		}
		e.touch("change", info.Target)
		res[i] = scheduler.ChangeResult{Verdict: scheduler.Cancelled}
	}
	return nil
}

func (e *estate) Purge(_ context.Context, f scheduler.Filter, dryRun bool) (scheduler.PurgeResult, error) {
	e.touch("purge", f.Target)
	return scheduler.PurgeResult{Count: int64(len(e.pick(e.kept(false), f)))}, nil
}

func (e *estate) Pull(_ context.Context, queue string, _ int, _, _ time.Duration) ([]scheduler.Lease, error) {
	e.touch("pull", delay.Target("pull:"+queue))
	return nil, nil
}

func (e *estate) Settle(_ context.Context, req scheduler.SettleRequest, _ []scheduler.SettleResult) error {
	e.touch("settle", delay.Target("pull:"+req.Queue))
	return nil
}

func (e *estate) dead(id delay.ID) error {
	info, ok := e.find(id)
	if !ok || info.State != delay.Dead {
		return fmt.Errorf("letter %s: %w", id, delay.ErrNotFound)
	}
	e.touch("dead letter", info.Target)
	return nil
}

func (e *estate) RetryDead(_ context.Context, id delay.ID) (scheduler.Receipt, error) {
	return scheduler.Receipt{ID: id, Due: fakeNow}, e.dead(id)
}

func (e *estate) DeleteDead(_ context.Context, id delay.ID) error { return e.dead(id) }

func (e *estate) Targets(context.Context) ([]scheduler.TargetStatus, error) {
	return []scheduler.TargetStatus{{Target: "pull:own"}, {Target: "pull:foreign"}}, nil
}

func (e *estate) SetPaused(_ context.Context, t delay.Target, _ bool) error {
	e.touch("pause", t)
	return nil
}

func (e *estate) SetLimit(_ context.Context, t delay.Target, _ delay.Limit) error {
	e.touch("limit", t)
	return nil
}

// kindOfRequest is how a limited caller must be answered about something foreign.
type kindOfRequest int

const (
	aboutID     kindOfRequest = iota + 1 // as about an unknown id
	aboutTarget                          // permission denied
	aboutAll                             // without the foreign part
	aboutSum                             // a number: of the own part
	aboutWhole                           // not at all
	aboutNone                            // there is nothing foreign
)

// requests has a row for each route and each procedure: what it is about, and its body about %s. A
// new one without a row fails the test, as one without a rule does.
var requests = map[string]struct {
	kind kindOfRequest
	body string
}{
	"POST /v1/messages":                {aboutTarget, `{"target":"pull:%s","delay":1}`},
	"GET /v1/messages":                 {aboutAll, ""},
	"GET /v1/messages/{id}":            {aboutID, ""},
	"DELETE /v1/messages/{id}":         {aboutID, ""},
	"PATCH /v1/messages/{id}":          {aboutID, `{"delay":1}`},
	"POST /v1/messages/{id}/fire":      {aboutID, ""},
	"POST /v1/messages/{id}/pause":     {aboutID, ""},
	"POST /v1/messages/{id}/resume":    {aboutID, ""},
	"POST /v1/ids":                     {aboutNone, ""},
	"GET /v1/pending/count":            {aboutSum, ""},
	"GET /v1/pending/histogram":        {aboutSum, ""},
	"GET /v1/pending/next":             {aboutAll, ""},
	"POST /v1/pending/purge":           {aboutTarget, `{"target":"pull:%s"}`},
	"POST /v1/queues/{queue}/pull":     {aboutTarget, ""},
	"POST /v1/queues/{queue}/ack":      {aboutTarget, `{"receipts":["r"]}`},
	"POST /v1/queues/{queue}/nack":     {aboutTarget, `{"receipts":["r"]}`},
	"POST /v1/queues/{queue}/extend":   {aboutTarget, `{"receipts":["r"]}`},
	"GET /v1/dead-letters":             {aboutAll, ""},
	"POST /v1/dead-letters/{id}/retry": {aboutID, ""},
	"DELETE /v1/dead-letters/{id}":     {aboutID, ""},
	"GET /v1/targets":                  {aboutAll, ""},
	"POST /v1/targets/pause":           {aboutTarget, `{"target":"pull:%s"}`},
	"POST /v1/targets/resume":          {aboutTarget, `{"target":"pull:%s"}`},
	"POST /v1/targets/limit":           {aboutTarget, `{"target":"pull:%s","rate":1}`},
	"GET /v1/status":                   {aboutWhole, ""},
	"GET /v1/tier":                     {aboutWhole, ""},
	"POST /v1/clock/confirm":           {aboutWhole, ""},
	"GET /healthz":                     {aboutNone, ""},
	"GET /readyz":                      {aboutNone, ""},
	"GET /metrics":                     {aboutWhole, ""},

	"Send":             {aboutTarget, `{"messages":[{"target":"pull:%s","delayMs":1}]}`},
	"Reserve":          {aboutNone, `{}`},
	"Get":              {aboutID, `{"id":"%s"}`},
	"List":             {aboutAll, `{}`},
	"Cancel":           {aboutID, `{"id":"%s"}`},
	"Reschedule":       {aboutID, `{"id":"%s","delayMs":1}`},
	"Fire":             {aboutID, `{"id":"%s"}`},
	"PauseSchedule":    {aboutID, `{"id":"%s"}`},
	"ResumeSchedule":   {aboutID, `{"id":"%s"}`},
	"Count":            {aboutSum, `{}`},
	"Histogram":        {aboutSum, `{}`},
	"Next":             {aboutAll, `{}`},
	"Purge":            {aboutTarget, `{"filter":{"target":"pull:%s"}}`},
	"Pull":             {aboutTarget, `{"queue":"%s"}`},
	"Ack":              {aboutTarget, `{"queue":"%s","receipts":["r"]}`},
	"Nack":             {aboutTarget, `{"queue":"%s","receipts":["r"]}`},
	"Extend":           {aboutTarget, `{"queue":"%s","receipts":["r"]}`},
	"ListDeadLetters":  {aboutAll, `{}`},
	"RetryDeadLetter":  {aboutID, `{"id":"%s-dead"}`},
	"DeleteDeadLetter": {aboutID, `{"id":"%s-dead"}`},
	"ListTargets":      {aboutAll, `{}`},
	"Pause":            {aboutTarget, `{"target":"pull:%s"}`},
	"Resume":           {aboutTarget, `{"target":"pull:%s"}`},
	"SetLimit":         {aboutTarget, `{"target":"pull:%s","rate":1}`},
	"Status":           {aboutWhole, `{}`},
}

// inquiry is one request about something of an owner.
type inquiry struct {
	name, method, path, body string
	rule                     access.Rule
	kind                     kindOfRequest
}

func inquiries(t *testing.T) []inquiry {
	t.Helper()
	var out []inquiry
	for _, rt := range routes() {
		name := rt.method + " " + rt.path
		req, ok := requests[name]
		require.True(t, ok, "%s: what is it about?", name)
		path := strings.NewReplacer("dead-letters/{id}", "dead-letters/%s-dead", "{id}", "%s",
			"{queue}", "%s").Replace(rt.path)
		out = append(out, inquiry{name, rt.method, path, req.body, rt.rule, req.kind})
	}
	all := procedures()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		name := path[strings.LastIndexByte(path, '/')+1:]
		req, ok := requests[name]
		require.True(t, ok, "%s: what is it about?", name)
		out = append(out, inquiry{name, "POST", path, req.body, all[path].rule, req.kind})
	}
	require.Len(t, requests, len(out))
	return out
}

func (p inquiry) about(owner string) (path, body string) {
	fill := func(s string) string { return strings.ReplaceAll(s, "%s", owner) }
	return fill(p.path), fill(p.body)
}

func send(s *Server, method, path, body, token string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	return rec
}

// Every route and every procedure, as every role, about something own and something foreign: a row
// of a table that is missing or too generous is a way into somebody else's messages (W6, V1, V2).
func TestMatrix(t *testing.T) {
	only, err := delay.NewTargetSet([]string{"pull:own*"})
	require.NoError(t, err)
	scopes := map[string]access.Scope{
		"read": access.Read, "send": access.Send, "admin": access.Admin, "both": access.Read | access.Send,
	}
	var tokens []access.Token
	for name, scope := range scopes {
		free, limited := access.NewToken(name, name, scope), access.NewToken(name, name+"-limited", scope)
		limited.Targets = only
		tokens = append(tokens, free, limited)
	}
	asked := 0
	for _, p := range inquiries(t) {
		require.NotZero(t, p.rule.Scope, "%s has no scope", p.name)
		require.NotZero(t, p.rule.Reach, "%s has no reach", p.name)
		for _, limit := range []string{"", "-limited"} {
			for _, role := range []string{"", "wrong", "read", "send", "admin", "both"} {
				for _, owner := range []string{"own", "foreign"} {
					e := newEstate()
					s := New(e, Options{Tier: fakeTier, Gate: access.NewGate(
						access.Credentials{Tokens: tokens}, nil)})
					path, body := p.about(owner)
					token := role
					if role != "" {
						token += limit
					}
					rec := send(s, p.method, path, body, token)
					what := fmt.Sprintf("%s about %s as %q: %d %s", p.name, owner, token, rec.Code, rec.Body)
					asked++
					scope, known := scopes[role]
					switch {
					case p.rule.Scope == access.Public:
						require.Equal(t, 200, rec.Code, what)
						continue
					case !known:
						require.Equal(t, 401, rec.Code, what)
						require.Empty(t, e.harmed, what)
						continue
					case scope&(p.rule.Scope|access.Admin) == 0:
						require.Equal(t, 403, rec.Code, what)
						require.Empty(t, e.harmed, what)
						continue
					case limit == "":
						if p.name != "GET /metrics" {
							require.Equal(t, 200, rec.Code, what)
						}
						continue
					}
					p.limited(t, s, e, owner, token, rec, what)
				}
			}
		}
	}
	require.Greater(t, asked, 1000)
}

// limited checks the answer to a caller that may do it, but only with what is its own.
func (p inquiry) limited(t *testing.T, s *Server, e *estate, owner, token string,
	rec *httptest.ResponseRecorder, what string) {
	t.Helper()
	require.Empty(t, e.harmed, what)
	answer := rec.Body.String()
	switch {
	case p.kind == aboutWhole:
		require.Equal(t, 403, rec.Code, what)
	case p.kind == aboutAll:
		require.Equal(t, 200, rec.Code, what)
		require.Contains(t, answer, "own", what)
		require.NotContains(t, answer, "foreign", what)
	case p.kind == aboutSum:
		require.Equal(t, 200, rec.Code, what)
		require.Regexp(t, `"count":"?1\b`, answer, what)
	case owner == "own" || p.kind == aboutNone:
		require.Equal(t, 200, rec.Code, what)
		require.NotContains(t, answer, "permission_denied", what)
	case p.kind == aboutTarget && strings.Contains(strings.ToLower(p.name), "send"):
		require.Contains(t, answer, "permission_denied", what) // of the item
	case p.kind == aboutTarget:
		require.Equal(t, 403, rec.Code, what)
	default:
		require.Equal(t, aboutID, p.kind, what)
		path, body := p.about("absent_")
		absent := send(s, p.method, path, body, token)
		require.Equal(t, absent.Code, rec.Code, what)
		hide := func(s, id string) string { return strings.ReplaceAll(s, id, "?") }
		require.Equal(t, hide(absent.Body.String(), "absent_"), hide(answer, "foreign"), what)
		require.Equal(t, absent.Header(), rec.Header(), what)
	}
}

// A replace is a send that could reach a foreign message by its id; a finished one has no target any
// more and belongs to nobody (V2).
func TestLimitedReplace(t *testing.T) {
	only, err := delay.NewTargetSet([]string{"pull:own*"})
	require.NoError(t, err)
	token := access.NewToken("app", "app", access.Send|access.Read)
	token.Targets = only
	e := newEstate()
	s := New(e, Options{Gate: access.NewGate(access.Credentials{Tokens: []access.Token{token}}, nil)})
	message := `{"id":"%s","target":"pull:own","delay":1,"replace":true}`
	for id, want := range map[string]int{"own": 200, "fresh": 200, "foreign": 409, "finished": 409} {
		rec := send(s, "POST", "/v1/messages", fmt.Sprintf(message, id), "app")
		require.Equal(t, want, rec.Code, "%s: %s", id, rec.Body)
	}
	require.Empty(t, e.harmed)
	for _, line := range []string{"/v1/messages/finished", "/v1/messages/foreign"} {
		require.Equal(t, 404, send(s, "GET", line, "", "app").Code)
	}
	// In a batch and a stream each message has its own answer.
	batch := `{"messages":[{"target":"pull:foreign","delay":1},{"target":"pull:own","delay":1}]}`
	rec := send(s, "POST", "/v1/messages", batch, "app")
	require.Equal(t, 200, rec.Code)
	require.Equal(t, 1, strings.Count(rec.Body.String(), "permission_denied"))
	require.Equal(t, 1, strings.Count(rec.Body.String(), `"durability"`))
	req := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(
		"{\"target\":\"pull:foreign\",\"delay\":1}\n{\"target\":\"pull:own\",\"delay\":1}\n"))
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer app")
	rec = httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	require.Equal(t, 1, strings.Count(rec.Body.String(), "permission_denied"))
	require.Equal(t, 1, strings.Count(rec.Body.String(), `"durability"`))
	require.Empty(t, e.harmed)
	purge := send(s, "POST", "/v1/pending/purge", "", "app")
	require.Equal(t, 403, purge.Code)
}
