// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
)

// route is one method of one path.
type route struct {
	method, path string
	rule         access.Rule
	action       string   // of the audit; "" is not written down
	intake       bool     // refused while draining (W7)
	query        []string // the parameters that exist
	serve        func(*Server, *call) error
}

var filterParams = []string{"target", "state", "tier", "due_from", "due_to", "id_prefix", "kind"}

// The rules of routes and procedures. What is sent and pulled, looked at and changed is restricted
// to the caller's targets by its view of the shard.
var (
	open    = access.Rule{Scope: access.Public, Reach: access.Nothing}
	mayRead = access.Rule{Scope: access.Read, Reach: access.Targets}
	mayLook = access.Rule{Scope: access.Read, Reach: access.Whole}
	maySend = access.Rule{Scope: access.Send, Reach: access.Targets}
	mayName = access.Rule{Scope: access.Send, Reach: access.Nothing}
	mayKeep = access.Rule{Scope: access.Admin, Reach: access.Targets}
	mayRule = access.Rule{Scope: access.Admin, Reach: access.Whole}
)

// routes is every route of the JSON API. openapi.yaml is tested against it.
func routes() []route {
	page := slices.Concat(filterParams, []string{"limit", "page_token"})
	const id = "/v1/messages/{id}"
	return []route{
		{"POST", "/v1/messages", maySend, "", true, nil, (*Server).send},
		{"GET", "/v1/messages", mayRead, "", false, page, (*Server).list},
		{"GET", id, mayRead, "", false, []string{"body"}, (*Server).get},
		{"DELETE", id, maySend, "cancel", false, []string{"stop", "recall"}, (*Server).cancel},
		{"PATCH", id, maySend, "reschedule", true, nil, (*Server).reschedule},
		{"POST", id + "/fire", maySend, "fire", true, nil, (*Server).fire},
		{"POST", id + "/pause", maySend, "pause_schedule", false, nil, (*Server).pauseSchedule},
		{"POST", id + "/resume", maySend, "resume_schedule", true, nil, (*Server).resumeSchedule},
		{"POST", "/v1/ids", mayName, "", true, []string{"count"}, (*Server).reserve},
		{"GET", "/v1/pending/count", mayRead, "", false, filterParams, (*Server).count},
		{"GET", "/v1/pending/histogram", mayRead, "", false, []string{"bucket", "from", "to",
			"recurring"}, (*Server).histogram},
		{"GET", "/v1/pending/next", mayRead, "", false, []string{"limit"}, (*Server).next},
		{"POST", "/v1/pending/purge", mayKeep, "purge", true, nil, (*Server).purge},
		{"POST", "/v1/queues/{queue}/pull", maySend, "", false, nil, (*Server).pull},
		{"POST", "/v1/queues/{queue}/ack", maySend, "", false, nil, (*Server).ack},
		{"POST", "/v1/queues/{queue}/nack", maySend, "", false, nil, (*Server).nack},
		{"POST", "/v1/queues/{queue}/extend", maySend, "", false, nil, (*Server).extend},
		{"GET", "/v1/dead-letters", mayRead, "", false, page, (*Server).deadLetters},
		{"POST", "/v1/dead-letters/{id}/retry", mayKeep, "retry_dead_letter", true, nil,
			(*Server).retryDead},
		{"DELETE", "/v1/dead-letters/{id}", mayKeep, "delete_dead_letter", false, nil,
			(*Server).deleteDead},
		{"GET", "/v1/targets", mayRead, "", false, nil, (*Server).targets},
		{"POST", "/v1/targets/pause", mayKeep, "pause", false, nil, (*Server).pause},
		{"POST", "/v1/targets/resume", mayKeep, "resume", false, nil, (*Server).resume},
		{"POST", "/v1/targets/limit", mayKeep, "limit", false, nil, (*Server).limit},
		{"GET", "/v1/status", mayLook, "", false, nil, (*Server).status},
		{"GET", "/v1/tier", mayLook, "", false, nil, (*Server).tier},
		{"POST", "/v1/clock/confirm", mayRule, "confirm_clock", false, nil, (*Server).confirmClock},
		{"GET", "/healthz", open, "", false, nil, (*Server).health},
		{"GET", "/readyz", open, "", false, nil, (*Server).ready},
		{"GET", "/metrics", mayLook, "", false, nil, (*Server).metrics},
	}
}

// mux serves the routes, and answers what is none of them in JSON too.
func (s *Server) mux() *http.ServeMux {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, rt := range routes() {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) {
			s.serve(rt, w, r)
		})
		allowed[rt.path] = append(allowed[rt.path], rt.method)
	}
	for path, methods := range allowed {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			s.writeError(w, fmt.Errorf("%w: %s, want %s", errMethod, r.Method,
				strings.Join(methods, " or ")))
		})
	}
	s.mountRPC(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.writeError(w, fmt.Errorf("%w: no such path", delay.ErrNotFound))
	})
	return mux
}

// guard refuses requests that a browser sends from another origin, and answers panics (W1).
func (s *Server) guard(next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic while serving", zap.String("path", r.URL.Path), zap.Any("panic", p),
					zap.ByteString("stack", debug.Stack()))
				s.opts.Rejected(source, "panic", 1)
				s.writeError(w, errInternal)
			}
		}()
		if err := origin.Check(r); err != nil {
			s.writeError(w, fmt.Errorf("%w: %w", access.ErrDenied, err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serve runs one route.
func (s *Server) serve(rt route, w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, w: w, server: s}
	defer c.release()
	err := c.admit(rt.rule, rt.action, rt.intake)
	if err == nil {
		err = c.parseQuery(rt.query)
	}
	if err == nil {
		err = rt.serve(s, c)
	}
	if err != nil {
		s.writeError(w, err)
	}
	c.account(err)
}

var errDraining = fmt.Errorf("%w: shutting down", delay.ErrUnavailable)

// parseQuery refuses parameters that do not exist and ones given twice (W3).
func (c *call) parseQuery(known []string) error {
	if c.URL.RawQuery == "" {
		return nil
	}
	params, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w: query: %w", delay.ErrInvalid, err)
	}
	for name, values := range params {
		if !slices.Contains(known, name) {
			return delay.Invalid(name, "unknown query parameter")
		}
		if len(values) > 1 {
			return delay.Invalid(name, "is given twice")
		}
	}
	c.params = params
	return nil
}
