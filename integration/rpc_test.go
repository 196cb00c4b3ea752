// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const service = "/cicada.v1.Scheduler/"

// overHTTP2 speaks HTTP/2 without TLS, as gRPC clients do on a plain port.
func overHTTP2() *http.Client {
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{Protocols: &p}}
}

// The same service as Connect, by plain POST, over both versions of HTTP.
func TestConnect(t *testing.T) {
	t.Parallel()
	d := api(t)
	for name, client := range map[string]*http.Client{"http1": newClient(), "http2": overHTTP2()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := queue(t)
			d := &daemon{t: t, log: d.log, client: client}
			d.base.Store(api(t).base.Load())
			rpc := func(method string, req obj) reply { return d.call("POST", service+method, req) }
			sent := rpc("Send", obj{"messages": []obj{
				{"id": q, "target": "pull:" + q, "delayMs": "0", "body": "aGVsbG8="},
				{"id": q + "-bad", "target": "nowhere", "delayMs": "0"},
			}}).ok(t)
			results := list(t, sent, "results")
			require.Len(t, results, 2)
			require.Equal(t, q, sub(t, results[0], "receipt")["id"])
			require.Equal(t, "invalid_argument", sub(t, results[1], "error")["code"])
			require.Equal(t, "target", sub(t, results[1], "error")["field"])

			m := sub(t, rpc("Get", obj{"id": q, "body": true}).ok(t), "message")
			require.Equal(t, "aGVsbG8=", m["body"])
			require.Equal(t, "hello", d.call("GET", path(q)+"?body=true", nil).ok(t)["body"],
				"one service, two faces")
			leased := list(t, rpc("Pull", obj{"queue": q, "waitMs": "20000"}).ok(t), "messages")
			require.Len(t, leased, 1)
			acked := rpc("Ack", obj{"queue": q, "receipts": []any{leased[0]["receipt"]}}).ok(t)
			require.Equal(t, "SETTLED_ACKED", list(t, acked, "results")[0]["result"])
			require.Equal(t, "delivered", d.state(q))

			rpc("Get", obj{"id": q + "-none"}).refused(t, http.StatusNotFound, "not_found", "")
			rpc("Get", obj{"ident": q}).refused(t, http.StatusBadRequest, "invalid_argument", "")
			rpc("Pull", obj{"queue": "a/b"}).refused(t, http.StatusBadRequest, "invalid_argument", "")
			rpc("Count", obj{"filter": obj{"target": "pull:" + q}}).ok(t)
			rpc("Status", obj{}).ok(t)
			require.Len(t, rpc("Reserve", obj{"count": 2}).ok(t)["ids"], 2)
			verdict := rpc("Cancel", obj{"id": q})
			require.NoError(t, verdict.err)
			require.Less(t, verdict.status, 500, "%s", verdict.body)
		})
	}
}

// field encodes one field of a protobuf message.
func field(number int, value any) []byte {
	switch v := value.(type) {
	case string:
		out := binary.AppendUvarint(nil, uint64(number)<<3|2)
		return append(binary.AppendUvarint(out, uint64(len(v))), v...)
	case []byte:
		return field(number, string(v))
	case int:
		return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(number)<<3), uint64(v))
	}
	panic("BUG: no such field type")
}

// grpc makes a unary call as a gRPC client does and returns its status, message and reply.
func grpc(t *testing.T, client *http.Client, d *daemon, method string, msg []byte) (
	status, message string, out []byte,
) {
	t.Helper()
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg)))
	req, err := http.NewRequest(http.MethodPost, *d.base.Load()+method, bytes.NewReader(append(frame, msg...)))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/grpc+proto")
	req.Header.Set("TE", "trailers")
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if len(body) >= 5 {
		out = body[5:]
	}
	get := func(name string) string {
		if v := resp.Trailer.Get(name); v != "" {
			return v
		}
		return resp.Header.Get(name)
	}
	return get("Grpc-Status"), get("Grpc-Message"), out
}

// gRPC on the same port: framing, trailers and status codes as its clients expect them.
func TestGRPC(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	client := overHTTP2()
	message := bytes.Join([][]byte{
		field(1, q), field(2, "pull:"+q), field(4, 3_600_000), field(6, "hello"),
	}, nil)
	status, text, out := grpc(t, client, d, service+"Send", field(1, message))
	require.Equal(t, "0", status, text)
	require.Contains(t, string(out), q)
	require.Equal(t, "hello", d.call("GET", path(q)+"?body=true", nil).ok(t)["body"])
	status, _, out = grpc(t, client, d, service+"Get", field(1, q))
	require.Equal(t, "0", status)
	require.Contains(t, string(out), "pull:"+q)
	for _, c := range []struct {
		method, want string
		msg          []byte
	}{
		{service + "Get", "5", field(1, q+"-none")},
		{service + "Get", "3", []byte{0xff, 0xff}},
		{service + "Pull", "3", field(1, "a/b")},
		{service + "Nothing", "12", nil},
		{service + "Get", "3", field(1, "\xff\xfe")},
	} {
		status, text, _ = grpc(t, client, d, c.method, c.msg)
		require.Equal(t, c.want, status, "%s: %s", c.method, text)
	}
}

// Bytes that are no protobuf and no JSON, to every method.
func TestRPCFuzzed(t *testing.T) {
	t.Parallel()
	d := api(t)
	client := overHTTP2()
	for _, method := range []string{
		"Send", "Reserve", "Get", "List", "Cancel", "Reschedule", "Fire", "Count", "Histogram", "Next",
		"Pull", "Ack", "Nack", "Extend", "ListDeadLetters", "RetryDeadLetter", "DeleteDeadLetter",
		"ListTargets", "Pause", "Resume", "Status",
	} {
		for _, msg := range [][]byte{
			{0}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, bytes.Repeat([]byte{0x0a, 0x01}, 1000),
			field(1, bytes.Repeat(field(1, "x"), 100)), field(1, -1), field(3, -1), field(2, 1<<40),
			field(1, "\x00\x01\xff"), field(4, -1), field(1, field(8, field(1, "cicada-x"))),
		} {
			status, text, _ := grpc(t, client, d, service+method, msg)
			require.Contains(t, []string{"0", "3", "5", "6", "9", "12"}, status, "%s %x: %s", method, msg, text)
		}
		for _, body := range []string{
			"", "{", "null", "[]", `{"messages":[{}]}`, `{"messages":[null]}`, `{"x":1}`, `{"id":null}`,
			`{"limit":-1}`, `{"count":4294967296}`, `{"queue":"\u0000"}`, `{"filter":{"state":99}}`,
			`{"bucketMs":"-1"}`, `{"waitMs":"9223372036854775807"}`, `{"receipts":["x"],"queue":"q"}`,
			`{"id":"` + long(300) + `"}`,
		} {
			r := d.call("POST", service+method, body)
			require.True(t, r.status < 500 || r.status == http.StatusNotImplemented,
				"%s %.100s: %s", method, body, r)
		}
	}
}

// Base64 of a body is standard in both faces.
func TestConnectBytes(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	raw := base64.StdEncoding.EncodeToString([]byte{0xff, 0, 1})
	r := d.call("POST", service+"Send", obj{"messages": []obj{
		{"id": q, "target": "pull:" + q, "delayMs": "3600000", "body": raw},
	}}).ok(t)
	require.NotNil(t, list(t, r, "results")[0]["receipt"])
	require.Equal(t, raw, d.call("GET", path(q)+"?body=true", nil).ok(t)["body_base64"])
}
