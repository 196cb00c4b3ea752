// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/api/cicada/v1/cicadav1connect"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// procedureCall posts a body to a procedure and returns the status and Connect's error code.
func procedureCall(t *testing.T, s *Server, path, kind string, body io.Reader, size int64, headers ...string) (
	int, string, http.Header) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, body)
	req.ContentLength = size
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	code := ""
	for _, word := range []string{"invalid_argument", "resource_exhausted", "unimplemented"} {
		if strings.Contains(rec.Body.String(), `"`+word+`"`) {
			code = word
		}
	}
	require.Zero(t, s.inflight.Used())
	return rec.Code, code, rec.Header()
}

// A procedure's bytes must count as they arrive, whatever is announced: without a length they used
// to count as one MiB, and an announcement alone shut everybody else out (W5).
func TestProcedureBytes(t *testing.T) {
	f := newFake()
	s := New(f, Options{MaxInflightBytes: 2 << 20})
	send := cicadav1connect.SchedulerSendProcedure
	big, err := proto.Marshal(&cicadav1.SendRequest{Messages: []*cicadav1.Message{{
		Target: "log:", Body: make([]byte, 3<<20), When: &cicadav1.Message_DelayMs{DelayMs: 1}}}})
	require.NoError(t, err)
	for _, size := range []int64{-1, int64(len(big))} {
		status, code, h := procedureCall(t, s, send, "application/proto", bytes.NewReader(big), size)
		require.Equal(t, 429, status)
		require.Equal(t, "resource_exhausted", code)
		require.Equal(t, "1", h.Get("Retry-After"))
	}
	require.Empty(t, f.messages(), "what is refused is not stored")

	// One that only announces much leaves room for others.
	reader, writer := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		req := httptest.NewRequest(http.MethodPost, send, reader)
		req.ContentLength = maxRequestBytes
		req.Header.Set("Content-Type", "application/proto")
		s.Handler().ServeHTTP(httptest.NewRecorder(), req)
	})
	_, err = writer.Write(big[:10])
	require.NoError(t, err)
	require.LessOrEqual(t, s.inflight.Used(), int64(bodyStep*bodyCopies))
	require.NoError(t, writer.CloseWithError(io.ErrUnexpectedEOF))
	wg.Wait()

	// Everything but a batch is small.
	s = New(f, Options{})
	for _, c := range [][2]string{
		{cicadav1connect.SchedulerAckProcedure, `{"queue":"q","receipts":["` + strings.Repeat("r", maxSmallBytes) + `"]}`},
		{cicadav1connect.SchedulerCountProcedure, strings.Repeat(" ", maxSmallBytes) + `{}`},
	} {
		status, code, _ := procedureCall(t, s, c[0], "application/json", strings.NewReader(c[1]), -1)
		require.Equal(t, 400, status)
		require.Equal(t, "invalid_argument", code)
	}
}

// Little on the wire must not become much in memory: neither by compression, which is not
// understood, nor by a batch of millions of empty messages, in any protocol.
func TestProcedureBombs(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	send := cicadav1connect.SchedulerSendProcedure
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(make([]byte, 64<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	status, code, _ := procedureCall(t, s, send, "application/proto", bytes.NewReader(packed.Bytes()), -1,
		"Content-Encoding", "gzip")
	require.Equal(t, 501, status)
	require.Equal(t, "unimplemented", code)
	empty := bytes.Repeat([]byte{0x0a, 0}, 4<<20)
	status, code, _ = procedureCall(t, s, send, "application/proto", bytes.NewReader(empty), -1)
	require.Equal(t, 400, status)
	require.Equal(t, "invalid_argument", code)
	text := `{"messages":[` + strings.Repeat("{},", 2<<20) + `{}]}`
	status, code, _ = procedureCall(t, s, send, "application/json", strings.NewReader(text), -1)
	require.Equal(t, 400, status)
	require.Equal(t, "invalid_argument", code)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
	for name, c := range clients(t, s) {
		many := &cicadav1.SendRequest{Messages: make([]*cicadav1.Message, wire.MaxBatch+1)}
		for i := range many.Messages {
			many.Messages[i] = &cicadav1.Message{Target: "log:"}
		}
		_, err := c.Send(context.Background(), connect.NewRequest(many))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), name)
	}
	require.Empty(t, f.messages())
}

// Pulls that wait must be bounded, and readiness is no matter of load.
func TestTooManyPolls(t *testing.T) {
	f := newFake()
	s := New(f, Options{MaxPolls: 1})
	var wg sync.WaitGroup
	wg.Go(func() { ask(t, s, "POST", "/v1/queues/q/pull", `{"wait":"60s"}`) })
	<-f.pulled
	code, out, h := ask(t, s, "POST", "/v1/queues/q/pull", `{"wait":"60s"}`)
	require.Equal(t, 429, code)
	require.Equal(t, "resource_exhausted", out["code"])
	require.NotEmpty(t, h.Get("Retry-After"))
	code, _, _ = ask(t, s, "POST", "/v1/messages", "{}\n", "Content-Type", "application/x-ndjson")
	require.Equal(t, 429, code)
	code, _, _ = ask(t, s, "GET", "/readyz", "")
	require.Equal(t, 200, code)
	s.Drain()
	wg.Wait()
}

// Overload of the store must be answered 429 with the pause, in each protocol, and store nothing.
func TestStoreOverload(t *testing.T) {
	f := newFake()
	f.err = delay.ErrOverloaded
	s := New(f, Options{})
	code, out, h := ask(t, s, "POST", "/v1/messages", `{"target":"log:","delay":1}`)
	require.Equal(t, 429, code)
	require.Equal(t, "resource_exhausted", out["code"])
	require.Equal(t, "1", h.Get("Retry-After"))
	for name, c := range clients(t, s) {
		_, err := c.Send(context.Background(), connect.NewRequest(&cicadav1.SendRequest{
			Messages: []*cicadav1.Message{{Target: "log:", When: &cicadav1.Message_DelayMs{DelayMs: 1}}}}))
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), name)
		var ce *connect.Error
		require.ErrorAs(t, err, &ce)
		require.Equal(t, "1", ce.Meta().Get("Retry-After"), name)
	}
	require.Empty(t, f.messages())
}
