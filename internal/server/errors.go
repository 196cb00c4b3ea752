// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"log"
	"net/http"
	"strconv"

	"connectrpc.com/connect"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// Kinds of errors that only the front end knows.
var (
	errMethod   = errors.New("method not allowed")
	errInternal = errors.New("internal error")
)

// kind is what an error is to the outside.
type kind struct {
	err    error
	code   connect.Code
	status int
}

// kinds is the only place that maps errors to codes and statuses. The statuses are Connect's, but
// for what the contract says otherwise: TOO_LATE is 409, a full disk 503, a wrong method 405.
// The first that matches decides.
var kinds = [...]kind{
	{delay.ErrInvalid, connect.CodeInvalidArgument, http.StatusBadRequest},
	{delay.ErrNotFound, connect.CodeNotFound, http.StatusNotFound},
	{delay.ErrExists, connect.CodeAlreadyExists, http.StatusConflict},
	{delay.ErrTooLate, connect.CodeFailedPrecondition, http.StatusConflict},
	{delay.ErrPrecondition, connect.CodeFailedPrecondition, http.StatusConflict},
	{delay.ErrUnimplemented, connect.CodeUnimplemented, http.StatusNotImplemented},
	{delay.ErrOverloaded, connect.CodeResourceExhausted, http.StatusTooManyRequests},
	{delay.ErrCrowded, connect.CodeResourceExhausted, http.StatusTooManyRequests},
	{delay.ErrDiskFull, connect.CodeUnavailable, http.StatusServiceUnavailable},
	{delay.ErrUnavailable, connect.CodeUnavailable, http.StatusServiceUnavailable},
	{delay.ErrClosed, connect.CodeUnavailable, http.StatusServiceUnavailable},
	{delay.ErrFenced, connect.CodeUnavailable, http.StatusServiceUnavailable},
	{delay.ErrCorrupt, connect.CodeDataLoss, http.StatusInternalServerError},
	{access.ErrUnauthenticated, connect.CodeUnauthenticated, http.StatusUnauthorized},
	{access.ErrDenied, connect.CodePermissionDenied, http.StatusForbidden},
	{errMethod, connect.CodeUnimplemented, http.StatusMethodNotAllowed},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, http.StatusGatewayTimeout},
	{context.Canceled, connect.CodeCanceled, 499},
}

// resultCrowded tells a second without room from an overloaded server: both are 429.
const resultCrowded = "CROWDED"

func kindOf(err error) kind {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return k
		}
	}
	return kind{errInternal, connect.CodeInternal, http.StatusInternalServerError}
}

// fault is an error as the outside sees it.
type fault struct {
	kind
	message, field, result string
	suggested              delay.Due // of crowded
}

func (f fault) wire() wire.Fault {
	return wire.Fault{Code: f.code.String(), Message: f.message, Field: f.field, Result: f.result,
		Suggested: f.suggested}
}

// faultOf describes err. The text of an unknown error stays inside: it is logged, because the
// answer does not tell it.
func (s *Server) faultOf(err error) fault {
	f := fault{kind: kindOf(err), message: err.Error()}
	if fe, ok := errors.AsType[*delay.FieldError](err); ok {
		f.field = fe.Field
	}
	if crowded, ok := errors.AsType[*delay.CrowdedError](err); ok {
		f.result, f.suggested = resultCrowded, crowded.Suggested
	}
	// Of a replace: the word is the same as for other changes (S4).
	if errors.Is(f.err, delay.ErrTooLate) {
		f.result = scheduler.TooLate.String()
	}
	if errors.Is(f.err, errInternal) {
		s.log.Error("request went wrong", zap.Error(err))
		f.message = errInternal.Error()
	}
	return f
}

// retryAfter is the pause in seconds that the server asks for: in overload until what it holds has
// gone, otherwise a second.
func (s *Server) retryAfter(f fault) string {
	if f.status != http.StatusTooManyRequests {
		return "1"
	}
	return strconv.Itoa(int(s.inflight.Pause().Seconds()))
}

// writeError answers with err.
func (s *Server) writeError(w http.ResponseWriter, err error) {
	f := s.faultOf(err)
	switch f.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", s.retryAfter(f))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, f.status, wire.AppendFault(nil, f.wire()))
}

// writeJSON answers with body. A client that is gone is nobody's error.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["X-Content-Type-Options"] = noSniff
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) //nolint:gosec // JSON, and no browser may take it for more
}

var (
	jsonType   = []string{"application/json"}
	ndjsonType = []string{"application/x-ndjson"}
	noSniff    = []string{"nosniff"}
)

// errorLog takes what net/http has to say: broken handshakes, mostly.
func errorLog(logger *zap.Logger) *log.Logger {
	l, err := zap.NewStdLogAt(logger, zap.DebugLevel)
	if err != nil {
		return nil // not possible for a level that exists; net/http then logs by itself
	}
	return l
}
