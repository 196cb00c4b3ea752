// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// serveReal starts a server on a real port.
func serveReal(t testing.TB, s *Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := s.HTTPServer()
	var wg sync.WaitGroup
	wg.Go(func() { _ = hs.Serve(ln) })
	t.Cleanup(func() {
		_ = hs.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

const line = `{"id":"%d","target":"log:","delay":1}` + "\n"

// Each line must be answered while the next is still to come, in order, bad ones too (S2).
func TestStreamFlows(t *testing.T) {
	f := newFake()
	addr := serveReal(t, New(f, Options{}))
	for _, proto := range []string{"http1", "h2c"} {
		r, w := io.Pipe()
		req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/v1/messages", r)
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-ndjson; charset=utf-8")
		tr := &http.Transport{}
		if proto == "h2c" {
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetUnencryptedHTTP2(true)
		}
		res, err := tr.RoundTrip(req) // before anything is sent
		require.NoError(t, err, proto)
		require.Equal(t, "application/x-ndjson", res.Header.Get("Content-Type"))
		in := bufio.NewScanner(res.Body)
		answer := func() map[string]any {
			require.True(t, in.Scan(), proto)
			var out map[string]any
			require.NoError(t, json.Unmarshal(in.Bytes(), &out))
			return out
		}
		for i := range 5 {
			fmt.Fprintf(w, line, i)
			require.Equal(t, fmt.Sprint(i), answer()["id"])
			fmt.Fprint(w, "\r\n \n{\"id\":7}\n")
			require.Equal(t, "id", answer()["error"].(map[string]any)["field"])
			fmt.Fprint(w, "{\n")
			require.Equal(t, "invalid_argument", answer()["error"].(map[string]any)["code"])
		}
		fmt.Fprint(w, strings.TrimSuffix(fmt.Sprintf(line, 99), "\n"))
		require.NoError(t, w.Close())
		require.Equal(t, "99", answer()["id"], "the last line needs no newline")
		require.False(t, in.Scan())
		require.NoError(t, res.Body.Close())
		tr.CloseIdleConnections()
	}
	require.Len(t, f.messages(), 12)
}

// A client that sends everything before it reads must not be left waiting, and lines that are there
// must share their batches.
func TestStreamOfEverythingFirst(t *testing.T) {
	const n = 60_000
	f := newFake()
	addr := serveReal(t, New(f, Options{}))
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, line, i)
	}
	fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n", b.Len())
	_, err = io.WriteString(conn, b.String())
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewScanner(res.Body)
	for i := range n {
		require.True(t, in.Scan())
		if !strings.HasPrefix(in.Text(), fmt.Sprintf(`{"id":"%d","due"`, i)) {
			t.Fatalf("line %d: %s", i, in.Text())
		}
	}
	require.False(t, in.Scan())
	require.Len(t, f.messages(), n)
	require.Less(t, len(f.batches), n/50)
}

// When the client vanishes, the whole lines that were received must be stored and the cut one must
// not (W4).
func TestStreamCut(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "Content-Length: 100000\r\n\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\nffff\r\n",
	} {
		f := newFake()
		f.acceptOf = make(chan int, 10)
		s := New(f, Options{})
		addr := serveReal(t, s)
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		fmt.Fprint(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"+head)
		fmt.Fprintf(conn, line+line, 1, 2)
		fmt.Fprint(conn, strings.TrimSuffix(fmt.Sprintf(line, 3), "\n")) // valid JSON, but is it all?
		require.NoError(t, conn.Close())
		for stored := 0; stored < 2; {
			stored += <-f.acceptOf
		}
		require.Eventually(t, func() bool { return s.inflight.Used() == 0 }, 10*time.Second, time.Millisecond)
		require.Len(t, f.messages(), 2, name)
	}
}

// Overload must slow a stream down, not lose its lines; one that lasts must be answered per line.
func TestStreamOverload(t *testing.T) {
	f := newFake()
	refusals := 3
	f.accepts = func(int) error {
		if refusals--; refusals >= 0 {
			return delay.ErrOverloaded
		}
		return nil
	}
	s := New(f, Options{})
	rec := newLines(t, s, fmt.Sprintf(line+line, 1, 2))
	require.Len(t, rec, 2)
	require.Contains(t, rec[0], `"id":"1"`)
	f.accepts = func(int) error { return delay.ErrDiskFull }
	rec = newLines(t, s, fmt.Sprintf(line+"{}\n"+line, 1, 2))
	require.Len(t, rec, 3)
	require.Contains(t, rec[0], `"code":"unavailable"`)
	require.Contains(t, rec[1], `"code":"invalid_argument"`)
	require.Contains(t, rec[2], `"code":"unavailable"`)
}

// newLines sends lines through a real connection and returns the answers.
func newLines(t *testing.T, s *Server, body string) []string {
	t.Helper()
	res, err := http.Post("http://"+serveReal(t, s)+"/v1/messages", "application/x-ndjson", strings.NewReader(body))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	out, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// A line longer than the buffer must be read whole, one without end refused and skipped.
func TestStreamLongLines(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	long := func(n int) string {
		return `{"target":"log:","delay":1,"body":"` + strings.Repeat("x", n) + "\"}\n"
	}
	rec := newLines(t, s, long(3*streamBuffer)+long(maxLine)+long(10)+long(delay.MaxBodyBytes+1)+long(delay.MaxBodyBytes))
	require.Len(t, rec, 5)
	require.Contains(t, rec[0], `"id":"srv-1"`)
	require.Contains(t, rec[1], "a line of more than")
	require.Contains(t, rec[2], `"id":"srv-2"`)
	require.Contains(t, rec[3], `"field":"body"`)
	require.Contains(t, rec[4], `"id":"srv-3"`)
	require.Len(t, f.messages()[0].Body, 3*streamBuffer)
	require.Eventually(t, func() bool { return s.inflight.Used() == 0 }, 10*time.Second, time.Millisecond)
}

// A drain must end a stream that waits for its client, and what came before must be answered (W7).
func TestStreamDrain(t *testing.T) {
	f := newFake()
	s := New(f, Options{})
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	req, err := http.NewRequest(http.MethodPost, "http://"+serveReal(t, s)+"/v1/messages", r)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewScanner(res.Body)
	fmt.Fprintf(w, line, 1)
	require.True(t, in.Scan())
	s.Drain()
	require.False(t, in.Scan(), in.Text())
}
