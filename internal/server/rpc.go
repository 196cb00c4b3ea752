// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/api/cicada/v1/cicadav1connect"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/limit"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// procedure is what guards one method of the service.
type procedure struct {
	rule   access.Rule
	action string // of the audit; "" is not written down
	intake bool   // refused while draining (W7)
}

// procedures is every method of the service. A test compares it with the proto.
func procedures() map[string]procedure {
	return map[string]procedure{
		cicadav1connect.SchedulerSendProcedure:             {maySend, "", true},
		cicadav1connect.SchedulerReserveProcedure:          {mayName, "", true},
		cicadav1connect.SchedulerGetProcedure:              {mayRead, "", false},
		cicadav1connect.SchedulerListProcedure:             {mayRead, "", false},
		cicadav1connect.SchedulerCancelProcedure:           {maySend, "cancel", false},
		cicadav1connect.SchedulerRescheduleProcedure:       {maySend, "reschedule", true},
		cicadav1connect.SchedulerFireProcedure:             {maySend, "fire", true},
		cicadav1connect.SchedulerPauseScheduleProcedure:    {maySend, "pause_schedule", false},
		cicadav1connect.SchedulerResumeScheduleProcedure:   {maySend, "resume_schedule", true},
		cicadav1connect.SchedulerCountProcedure:            {mayRead, "", false},
		cicadav1connect.SchedulerHistogramProcedure:        {mayRead, "", false},
		cicadav1connect.SchedulerNextProcedure:             {mayRead, "", false},
		cicadav1connect.SchedulerPurgeProcedure:            {mayKeep, "purge", true},
		cicadav1connect.SchedulerPullProcedure:             {maySend, "", false},
		cicadav1connect.SchedulerAckProcedure:              {maySend, "", false},
		cicadav1connect.SchedulerNackProcedure:             {maySend, "", false},
		cicadav1connect.SchedulerExtendProcedure:           {maySend, "", false},
		cicadav1connect.SchedulerListDeadLettersProcedure:  {mayRead, "", false},
		cicadav1connect.SchedulerRetryDeadLetterProcedure:  {mayKeep, "retry_dead_letter", true},
		cicadav1connect.SchedulerDeleteDeadLetterProcedure: {mayKeep, "delete_dead_letter", false},
		cicadav1connect.SchedulerListTargetsProcedure:      {mayRead, "", false},
		cicadav1connect.SchedulerPauseProcedure:            {mayKeep, "pause", false},
		cicadav1connect.SchedulerResumeProcedure:           {mayKeep, "resume", false},
		cicadav1connect.SchedulerSetLimitProcedure:         {mayKeep, "limit", false},
		cicadav1connect.SchedulerStatusProcedure:           {mayLook, "", false},
	}
}

// mountRPC serves Connect, gRPC and gRPC-Web.
func (s *Server) mountRPC(mux *http.ServeMux) {
	opts := []connect.HandlerOption{
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithCompression("gzip", nil, nil), // a small request stays a small one
		connect.WithCodec(boundedProto{}),
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
		connect.WithInterceptors(connect.UnaryInterceptorFunc(s.intercept)),
	}
	table := procedures()
	refuse := connect.NewErrorWriter(opts...)
	path, handler := cicadav1connect.NewSchedulerHandler(&rpc{s: s}, opts...)
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		p, known := table[r.URL.Path]
		if !known {
			err := fmt.Errorf("%w: no such procedure", delay.ErrUnimplemented)
			if refuse.IsSupported(r) {
				_ = refuse.Write(w, r, s.connectError(err)) // the client is gone: nobody's error
				return
			}
			s.writeError(w, err)
			return
		}
		c := &call{Request: r, w: w, server: s}
		defer c.release()
		err := c.admit(p.rule, p.action, p.intake)
		most := int64(maxSmallBytes)
		if r.URL.Path == cicadav1connect.SchedulerSendProcedure {
			most = maxRequestBytes
		}
		r.Body = &rpcBody{ReadCloser: r.Body, call: c, most: most}
		switch {
		case err == nil:
			handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
			return // intercept has accounted for it
		case refuse.IsSupported(r):
			_ = refuse.Write(w, r, s.connectError(err)) // the client is gone: nobody's error
		default:
			s.writeError(w, err)
		}
		c.account(err)
	})
}

type callKey struct{}

// callOf is the call that a method of the service serves. Without one nothing was admitted.
func callOf(ctx context.Context) *call {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		panic("BUG: a procedure without its call")
	}
	return c
}

// intercept refuses unknown fields (W3) and describes errors.
func (s *Server) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if m, ok := req.Any().(proto.Message); ok && hasUnknown(m.ProtoReflect()) {
			return nil, s.connectError(fmt.Errorf("%w: unknown field", delay.ErrInvalid))
		}
		res, err := next(ctx, req)
		callOf(ctx).account(err)
		if err != nil {
			return nil, s.connectError(err)
		}
		return res, nil
	}
}

func (s *Server) connectError(err error) error {
	f := s.faultOf(err)
	out := connect.NewError(f.code, errors.New(f.message))
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		out.Meta().Set("Retry-After", s.retryAfter(f))
	}
	if f.field != "" {
		out.Meta().Set("Cicada-Field", strings.Trim(fmt.Sprintf("%+q", f.field), `"`))
	}
	return out
}

// hasUnknown reports whether m or a message in it has fields that this version does not know.
func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	if send, ok := m.Interface().(*cicadav1.SendRequest); ok { // the hot path, without reflection
		for _, item := range send.GetMessages() {
			if len(item.ProtoReflect().GetUnknown()) > 0 {
				return true
			}
		}
		return false
	}
	found := false
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !fd.IsMap() {
			found = hasUnknown(v.Message())
		}
		return !found
	})
	return found
}

// strictJSON is protobuf's JSON mapping without the tolerance for unknown fields that Connect's own
// codec has.
type strictJSON struct{ name string }

// Name is the name of the content type that the codec serves.
func (c strictJSON) Name() string { return c.name }

// Marshal encodes a message.
func (c strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a protobuf message", v)
	}
	return protojson.Marshal(m)
}

// Unmarshal decodes a message; no bytes are an empty one.
func (c strictJSON) Unmarshal(b []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a protobuf message", v)
	}
	if len(b) == 0 {
		return nil
	}
	if err := limit.JSON(b, wire.MaxBatch); err != nil {
		return err
	}
	return protojson.Unmarshal(b, m)
}
