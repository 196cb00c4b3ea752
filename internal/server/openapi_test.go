// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// spec is api/openapi.yaml, as far as the tests need it.
type spec struct {
	Paths      map[string]map[string]operation
	Components struct {
		Parameters map[string]struct{ Name, In string }
		Responses  map[string]response
		Schemas    map[string]*schema
	}
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Description string
	Parameters  []struct {
		Ref string `yaml:"$ref"`
	}
	RequestBody struct{ Content map[string]content } `yaml:"requestBody"`
	Responses   map[string]response
	Security    *[]any
}

type response struct {
	Ref     string `yaml:"$ref"`
	Content map[string]content
}

type content struct{ Schema *schema }

type schema struct {
	Ref                  string `yaml:"$ref"`
	Type                 any
	Enum                 []string
	Required             []string
	Properties           map[string]*schema
	AdditionalProperties any `yaml:"additionalProperties"`
	Items                *schema
	OneOf                []*schema `yaml:"oneOf"`
}

func readSpec(t *testing.T) *spec {
	t.Helper()
	b, err := os.ReadFile("../../api/openapi.yaml")
	require.NoError(t, err)
	var s spec
	require.NoError(t, yaml.Unmarshal(b, &s))
	return &s
}

func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

func (s *spec) resolve(t *testing.T, sc *schema) *schema {
	for sc != nil && sc.Ref != "" {
		require.Contains(t, s.Components.Schemas, last(sc.Ref))
		sc = s.Components.Schemas[last(sc.Ref)]
	}
	return sc
}

// The document and the mux must have the same routes, scopes and parameters.
func TestOpenAPIRoutes(t *testing.T) {
	s := readSpec(t)
	documented := 0
	for _, ops := range s.Paths {
		documented += len(ops)
	}
	require.Equal(t, len(routes()), documented)
	ids := map[string]bool{}
	for _, rt := range routes() {
		op, ok := s.Paths[rt.path][strings.ToLower(rt.method)]
		require.True(t, ok, "%s %s is not documented", rt.method, rt.path)
		require.False(t, ids[op.OperationID], op.OperationID)
		ids[op.OperationID] = true
		if rt.rule.Scope == access.Public {
			require.NotNil(t, op.Security)
		} else {
			require.Contains(t, op.Description, "scope "+rt.rule.Scope.String()+".", rt.path)
		}
		var query, path []string
		for _, p := range op.Parameters {
			par, ok := s.Components.Parameters[last(p.Ref)]
			require.True(t, ok, p.Ref)
			if par.In == "query" {
				query = append(query, par.Name)
			} else {
				path = append(path, "{"+par.Name+"}")
			}
		}
		require.ElementsMatch(t, rt.query, query, "%s %s", rt.method, rt.path)
		for _, p := range path {
			require.Contains(t, rt.path, p)
		}
		require.Equal(t, strings.Count(rt.path, "{"), len(path))
		require.Contains(t, op.Responses, "default")
	}
}

// Every field that a request may have must be documented, and no other.
func TestOpenAPIRequests(t *testing.T) {
	s := readSpec(t)
	for name, fields := range map[string][]string{
		"Message": wire.FieldNames[:], "PullRequest": wire.PullFields[:], "AckRequest": wire.AckFields[:],
		"NackRequest": wire.NackFields[:], "ExtendRequest": wire.ExtendFields[:],
		"PatchRequest": wire.PatchFields[:], "PurgeRequest": wire.PurgeFields[:],
		"TargetRequest": wire.TargetFields[:],
		"LimitRequest":  wire.LimitFields[:],
	} {
		var documented []string
		for p := range s.Components.Schemas[name].Properties {
			documented = append(documented, p)
		}
		require.ElementsMatch(t, fields, documented, name)
	}
	for _, rt := range routes() { // a body is documented exactly where it may hold something
		op := s.Paths[rt.path][strings.ToLower(rt.method)]
		code, out, _ := ask(t, New(newFake(), Options{}), rt.method, fill(rt.path), `{"no-such-field":1}`)
		if rt.method == "GET" {
			require.Empty(t, op.RequestBody.Content)
			continue
		}
		require.Equal(t, 400, code, "%s %s", rt.method, rt.path)
		require.Equal(t, "no-such-field", out["field"])
	}
}

// Every code that an answer may have must be documented, and no other.
func TestOpenAPICodes(t *testing.T) {
	s := readSpec(t)
	codes := map[string]bool{kindOf(fmt.Errorf("anything")).code.String(): true}
	for _, k := range kinds {
		codes[k.code.String()] = true
	}
	require.Len(t, s.Components.Schemas["Code"].Enum, len(codes))
	for _, c := range s.Components.Schemas["Code"].Enum {
		require.True(t, codes[c], c)
	}
}

// checker compares replies with schemas and remembers which properties it has seen.
type checker struct {
	t    *testing.T
	spec *spec
	seen map[*schema]bool // schemas of properties
	used map[*schema]bool // objects that replies had
}

func (c *checker) fits(sc *schema, v any, mark bool) error {
	sc = c.spec.resolve(c.t, sc)
	if len(sc.OneOf) > 0 {
		var errs []string
		for _, one := range sc.OneOf {
			err := c.fits(one, v, false)
			if err == nil {
				return c.fits(one, v, mark)
			}
			errs = append(errs, err.Error())
		}
		return fmt.Errorf("fits none: %s", strings.Join(errs, "; "))
	}
	switch v := v.(type) {
	case map[string]any:
		if sc.Type != "object" {
			return fmt.Errorf("object, want %v", sc.Type)
		}
		for _, name := range sc.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s is missing", name)
			}
		}
		if mark {
			c.used[sc] = true
		}
		for name, value := range v {
			p := sc.Properties[name]
			if p == nil && sc.AdditionalProperties == false {
				return fmt.Errorf("%s is not documented", name)
			}
			if p == nil {
				continue
			}
			if mark {
				c.seen[p] = true
			}
			if err := c.fits(p, value, mark); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	case []any:
		if sc.Type != "array" {
			return fmt.Errorf("array, want %v", sc.Type)
		}
		for _, item := range v {
			if err := c.fits(sc.Items, item, mark); err != nil {
				return err
			}
		}
	case string:
		if sc.Type != "string" || len(sc.Enum) > 0 && !slices.Contains(sc.Enum, v) {
			return fmt.Errorf("%q, want %v %v", v, sc.Type, sc.Enum)
		}
	case float64:
		if sc.Type != "number" && (sc.Type != "integer" || v != float64(int64(v))) {
			return fmt.Errorf("%v, want %v", v, sc.Type)
		}
	case bool:
		if sc.Type != "boolean" {
			return fmt.Errorf("%v, want %v", v, sc.Type)
		}
	}
	return nil
}

// Every field of a reply must be documented, and every documented field must occur in a reply.
func TestOpenAPIReplies(t *testing.T) {
	s := readSpec(t)
	c := &checker{t: t, spec: s, seen: map[*schema]bool{}, used: map[*schema]bool{}}
	full := scheduler.Info{ID: "x", Known: true, State: delay.Dead, Due: fakeNow, Attempts: 2, Target: "log:",
		RoutingKey: "k", Headers: []delay.Header{{Name: "a", Value: "b"}}, Size: 1, Generation: 1,
		Body: []byte{0xff}, Reason: "refused", LastError: "404", DiedAt: fakeNow,
		Guard: &delay.Guard{Lane: "guard:rmq/broker-a", Entry: "7"}}
	type sample struct{ method, path, body string }
	try := func(f access.Shard, samples ...sample) {
		srv := New(f, Options{Tier: fakeTier})
		for _, sm := range samples {
			route, _, _ := strings.Cut(sm.path, "?")
			for _, rt := range routes() {
				if rt.method == sm.method && fill(rt.path) == route {
					route = rt.path
				}
			}
			op, ok := s.Paths[route][strings.ToLower(sm.method)]
			require.True(t, ok, route)
			code, out, _ := ask(t, srv, sm.method, sm.path, sm.body)
			r, ok := op.Responses[fmt.Sprint(code)]
			if !ok {
				r = op.Responses["default"]
			}
			if r.Ref != "" {
				r = s.Components.Responses[last(r.Ref)]
			}
			require.NoError(t, c.fits(r.Content["application/json"].Schema, out, true), "%s %s: %v", sm.method, sm.path, out)
		}
	}
	var all []sample
	for _, rt := range routes() {
		if rt.path != "/metrics" {
			all = append(all, sample{rt.method, fill(rt.path), goodBody(rt)})
		}
	}
	for _, v := range []scheduler.Verdict{scheduler.Cancelled, scheduler.TooLate, scheduler.NotFound, scheduler.Fired,
		scheduler.RecallRequested} {
		f := newFake()
		f.verdict = scheduler.ChangeResult{Verdict: v, Due: fakeNow}
		f.infos = []scheduler.Info{full}
		f.leases = []scheduler.Lease{{ID: "1", Body: []byte("x")}, {ID: "2", Body: []byte{0xff}}}
		try(f, all...)
	}
	f := fullGet{newFake(), full}
	try(f, sample{"GET", "/v1/messages/a%2Fb?body=true", ""}, sample{"GET", "/v1/messages?limit=0", ""},
		sample{"POST", "/v1/messages", `{"messages":[{},{"target":"log:","delay":1}]}`})
	late := newFake()
	late.itemErr = delay.ErrTooLate
	try(late, sample{"POST", "/v1/messages", `{"messages":[{"target":"log:","delay":1}]}`},
		sample{"POST", "/v1/messages", `{"target":"log:","delay":1}`})
	crowded := newFake()
	crowded.receipt = scheduler.Receipt{Crowded: true, Suggested: fakeNow}
	try(crowded, sample{"POST", "/v1/messages", `{"target":"log:","delay":1}`})
	crowded.itemErr = &delay.CrowdedError{Target: "log:", Due: fakeNow, Suggested: fakeNow}
	crowded.err = delay.ErrPrecondition
	try(crowded, sample{"DELETE", "/v1/messages/a%2Fb?recall=true", ""})
	crowded.err = nil
	try(crowded, sample{"POST", "/v1/messages", `{"target":"log:","delay":1,"refuse_crowded":true}`})
	full.Body = []byte("text")
	full.Recurrence = &delay.Recurrence{Expr: "30 2 * * *", Zone: "Europe/Berlin", Next: 1806109200000,
		Misfire: delay.FireAll, Until: delay.MaxDue, Count: 9, Jitter: time.Second, Last: fakeNow}
	try(fullGet{newFake(), full}, sample{"GET", "/v1/messages/a%2Fb?body=true", ""})
	require.Greater(t, len(c.used), 20)
	for name, sc := range s.Components.Schemas {
		if !c.used[sc] {
			continue
		}
		for p, property := range sc.Properties {
			require.True(t, c.seen[property], "%s.%s never occurs", name, p)
		}
	}
}

type fullGet struct {
	*fakeShard
	info scheduler.Info
}

func (f fullGet) Get(_ context.Context, _ delay.ID, _ bool) (scheduler.Info, error) {
	return f.info, nil
}

// The replies of a stream must be documented too.
func TestOpenAPIStream(t *testing.T) {
	s := readSpec(t)
	c := &checker{t: t, spec: s, seen: map[*schema]bool{}, used: map[*schema]bool{}}
	for _, l := range newLines(t, New(newFake(), Options{}), "{}\n"+`{"target":"log:","delay":1}`) {
		var out any
		require.NoError(t, json.Unmarshal([]byte(l), &out))
		sc := s.Paths["/v1/messages"]["post"].Responses["200"].Content["application/x-ndjson"].Schema
		require.NoError(t, c.fits(sc, out, true))
	}
	require.Equal(t, http.MethodPost, routes()[0].method)
}
