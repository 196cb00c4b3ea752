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
)

// route is one method of one path.
type route struct {
	method, path string
	scope        Scope
	intake       bool     // refused while draining (W7)
	query        []string // the parameters that exist
	serve        func(*Server, *call) error
}

var filterParams = []string{"target", "state", "tier", "due_from", "due_to", "id_prefix"}

// routes is every route of the JSON API. openapi.yaml is tested against it.
func routes() []route {
	page := slices.Concat(filterParams, []string{"limit", "page_token"})
	return []route{
		{"POST", "/v1/messages", ScopeSend, true, nil, (*Server).send},
		{"GET", "/v1/messages", ScopeRead, false, page, (*Server).list},
		{"GET", "/v1/messages/{id}", ScopeRead, false, []string{"body"}, (*Server).get},
		{"DELETE", "/v1/messages/{id}", ScopeSend, false, []string{"stop"}, (*Server).cancel},
		{"PATCH", "/v1/messages/{id}", ScopeSend, true, nil, (*Server).reschedule},
		{"POST", "/v1/messages/{id}/fire", ScopeSend, true, nil, (*Server).fire},
		{"POST", "/v1/ids", ScopeSend, true, []string{"count"}, (*Server).reserve},
		{"GET", "/v1/pending/count", ScopeRead, false, filterParams, (*Server).count},
		{"GET", "/v1/pending/histogram", ScopeRead, false, []string{"bucket", "from", "to"},
			(*Server).histogram},
		{"GET", "/v1/pending/next", ScopeRead, false, []string{"limit"}, (*Server).next},
		{"POST", "/v1/pending/purge", ScopeAdmin, true, nil, (*Server).purge},
		{"POST", "/v1/queues/{queue}/pull", ScopeSend, false, nil, (*Server).pull},
		{"POST", "/v1/queues/{queue}/ack", ScopeSend, false, nil, (*Server).ack},
		{"POST", "/v1/queues/{queue}/nack", ScopeSend, false, nil, (*Server).nack},
		{"POST", "/v1/queues/{queue}/extend", ScopeSend, false, nil, (*Server).extend},
		{"GET", "/v1/dead-letters", ScopeRead, false, page, (*Server).deadLetters},
		{"POST", "/v1/dead-letters/{id}/retry", ScopeAdmin, true, nil, (*Server).retryDead},
		{"DELETE", "/v1/dead-letters/{id}", ScopeAdmin, false, nil, (*Server).deleteDead},
		{"GET", "/v1/targets", ScopeRead, false, nil, (*Server).targets},
		{"POST", "/v1/targets/pause", ScopeAdmin, false, nil, (*Server).pause},
		{"POST", "/v1/targets/resume", ScopeAdmin, false, nil, (*Server).resume},
		{"GET", "/v1/status", ScopeRead, false, nil, (*Server).status},
		{"GET", "/v1/tier", ScopeRead, false, nil, (*Server).tier},
		{"POST", "/v1/clock/confirm", ScopeAdmin, false, nil, (*Server).confirmClock},
		{"GET", "/healthz", scopePublic, false, nil, (*Server).health},
		{"GET", "/readyz", scopePublic, false, nil, (*Server).ready},
		{"GET", "/metrics", ScopeRead, false, nil, (*Server).metrics},
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
			s.writeError(w, fmt.Errorf("%w: %w", errPermissionDenied, err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serve runs one route.
func (s *Server) serve(rt route, w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, w: w, server: s}
	defer c.release()
	err := s.authorize(r, rt.scope)
	if err == nil && rt.intake && s.Draining() {
		err = errDraining
	}
	if err == nil {
		err = c.parseQuery(rt.query)
	}
	if err == nil {
		err = rt.serve(s, c)
	}
	if err != nil {
		s.writeError(w, err)
	}
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
