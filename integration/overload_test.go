// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// memory is what the daemon has taken at most so far; it skips where the system does not tell.
func (d *daemon) memory() int64 {
	d.t.Helper()
	d.mu.Lock()
	pid := d.cmd.Process.Pid
	d.mu.Unlock()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		d.t.Skip("no /proc here")
	}
	kib := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(d.t, kib)
	n, err := strconv.ParseInt(string(kib[1]), 10, 64)
	require.NoError(d.t, err)
	return n << 10
}

// gauge is the value of a metric without labels.
func (d *daemon) gauge(name string) float64 {
	d.t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(d.call("GET", "/metrics", nil).body)
	require.NotNil(d.t, found, name)
	v, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(d.t, err)
	return v
}

// Many clients that send the largest batches at once must be refused before they take the memory,
// with a pause to wait, and nothing of a refused batch may be stored. Readiness is no matter of load.
func TestOverloadMemory(t *testing.T) {
	const clients, each = 64, 15
	d := serve(t, "--api-max-inflight", "96MiB", "--memory-limit", "256MiB", "--bucket", "none")
	one := `{"target":"pull:q","delay":"1h","body":"` + strings.Repeat("x", 4<<20) + `"},`
	batch := []byte(`{"messages":[` + strings.TrimSuffix(strings.Repeat(one, each), ",") + `]}`)
	var stored, refused, unknown atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			r := d.try("POST", "/v1/messages", batch)
			switch {
			case os.IsTimeout(r.err): // the client gave up, on a machine that is too slow for this
				unknown.Add(each)
			case r.err != nil: // the answer was overtaken by the end of the connection
				refused.Add(1)
			case r.status == http.StatusOK:
				stored.Add(each)
			default:
				refused.Add(1)
				if r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" ||
					!bytes.Contains(r.body, []byte("resource_exhausted")) {
					t.Errorf("%s", r)
				}
			}
			if ready := d.try("GET", "/readyz", nil); ready.status != http.StatusOK {
				t.Errorf("not ready: %s", ready)
			}
		})
	}
	wg.Wait()
	t.Logf("%d stored, %d batches refused, at most %d MiB", stored.Load(), refused.Load(), d.memory()>>20)
	require.NotZero(t, refused.Load(), "no overload")
	require.Less(t, d.memory(), int64(768<<20))
	count := d.count("")
	require.GreaterOrEqual(t, count, stored.Load())
	require.LessOrEqual(t, count, stored.Load()+unknown.Load(), "what was refused is not stored")
	d.send(obj{"target": "pull:q", "delay": "1h"})
}

// Compressed bombs, endless headers, bodies without an end and brackets without a bottom must be
// refused as the client's mistake and cost neither memory nor the daemon.
func TestHostileRequests(t *testing.T) {
	d := serve(t, "--bucket", "none", "--memory-limit", "128MiB") // garbage is not what is measured
	before := d.memory()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(make([]byte, 200<<20)) // a thousand to one
	require.NoError(t, err)
	require.NoError(t, z.Close())
	send := "/cicada.v1.Scheduler/Send"
	endless := func(s string, n int) io.Reader {
		return io.LimitReader(&repeated{text: s}, int64(n))
	}
	for _, c := range []struct {
		name, path, kind, encoding string
		body                       func() io.Reader
		status                     []int
	}{
		{"gzip", "/v1/messages", "application/json", "gzip", func() io.Reader { return bytes.NewReader(packed.Bytes()) }, []int{400}},
		{"zstd", "/v1/messages", "application/json", "zstd", func() io.Reader { return strings.NewReader("(\xb5/\xfd") }, []int{400}},
		{"gzip procedure", send, "application/proto", "gzip", func() io.Reader { return bytes.NewReader(packed.Bytes()) }, []int{501}},
		{"unsized body", "/v1/messages", "application/json", "", func() io.Reader { return endless(" ", 100<<20) }, []int{400}},
		{"unsized procedure", send, "application/json", "", func() io.Reader { return endless(" ", 100<<20) }, []int{400}},
		{"deep", "/v1/messages", "application/json", "", func() io.Reader { return endless("[", 8<<20) }, []int{400}},
		{"deep procedure", send, "application/json", "", func() io.Reader { return endless(`{"messages":`, 8<<20) }, []int{400}},
		{"empty messages", send, "application/proto", "", func() io.Reader { return endless("\x0a\x00", 16<<20) }, []int{400}},
		{"empty objects", send, "application/json", "", func() io.Reader {
			return io.MultiReader(strings.NewReader(`{"messages":[{}`), endless(",{}", 16<<20), strings.NewReader("]}"))
		}, []int{400}},
		{"not UTF-8", "/v1/messages", "application/json", "", func() io.Reader {
			return strings.NewReader("{\"target\":\"pull:q\",\"delay\":1,\"id\":\"\xff\"}")
		}, []int{400}},
		{"NUL", "/v1/messages", "application/json", "", func() io.Reader {
			return strings.NewReader(`{"target":"pull:q","delay":1,"id":"a\u0000"}`)
		}, []int{400}},
		{"CRLF in a header", "/v1/messages", "application/json", "", func() io.Reader {
			return strings.NewReader(`{"target":"http://example.com","delay":1,"headers":{"a":"b\r\nc: d"}}`)
		}, []int{400}},
	} {
		req, err := http.NewRequest(http.MethodPost, *d.base.Load()+c.path, c.body())
		require.NoError(t, err)
		req.Header.Set("Content-Type", c.kind)
		if c.encoding != "" {
			req.Header.Set("Content-Encoding", c.encoding)
		}
		r := d.do(req)
		if r.err == nil { // the answer may be overtaken by the end of the connection
			require.Contains(t, c.status, r.status, "%s: %s", c.name, r)
		}
		require.Equal(t, http.StatusOK, d.call("GET", "/healthz", nil).status, c.name)
	}
	for _, pairs := range []int{2_000, 1_000_000} {
		status := d.rawStatus(t, "GET /healthz HTTP/1.1\r\nHost: x\r\n", "h: 0123456789012345678901234567890123456789\r\n", pairs)
		require.Contains(t, []string{"431", ""}, status, "%d pairs of headers", pairs)
	}
	require.Zero(t, d.count(""))
	t.Logf("from %d to %d MiB", before>>20, d.memory()>>20)
	require.Less(t, d.memory()-before, int64(320<<20), "five times a request, most of it before a collection")
}

// repeated reads text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.text[r.at]
		r.at = (r.at + 1) % len(r.text)
	}
	return len(p), nil
}

// rawStatus sends a head, n times a line and the end, and returns the status, if there is one.
func (d *daemon) rawStatus(t *testing.T, head, line string, n int) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(*d.base.Load(), "http://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, _ = io.WriteString(c, head)
	many := strings.Repeat(line, 1000)
	for range n / 1000 {
		if _, err := io.WriteString(c, many); err != nil {
			break
		}
	}
	_, _ = io.WriteString(c, "\r\n")
	out, _ := io.ReadAll(c)
	_, rest, _ := strings.Cut(string(out), " ")
	status, _, _ := strings.Cut(rest, " ")
	return status
}

// Connections that say nothing, or half a header, must be ended by the daemon, leave room for
// others meanwhile, and leave nothing behind.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	n := 1000
	if v := os.Getenv("CICADA_CONNECTIONS"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		require.NoError(t, err)
	}
	d := serve(t, "--bucket", "none", "--api-max-connections", strconv.Itoa(n+50))
	d.call("GET", "/readyz", nil)
	routines, files := d.gauge("go_goroutines"), d.gauge("process_open_fds")
	addr := strings.TrimPrefix(*d.base.Load(), "http://")
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		conns[i] = c
		_, err = io.WriteString(c, []string{"", "GET /healthz HTTP/1.1\r\nHo", "\x16\x03\x01\x02", "PRI * HTTP/2.0\r\n\r\n"}[i%4])
		require.NoError(t, err)
	}
	require.Equal(t, 200, d.call("GET", "/readyz", nil).status)
	d.send(obj{"target": "pull:q", "delay": "1h"})
	for _, c := range conns {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(60*time.Second)))
		_, err := io.Copy(io.Discard, c)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the daemon keeps a half-open connection")
	}
	eventually(t, "everything is given back", func() bool {
		return d.gauge("go_goroutines") < routines+20 && d.gauge("process_open_fds") < files+20
	})
}

// More connections than may be wait, and are served when there is room.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	d := serve(t, "--bucket", "none", "--api-max-connections", "4")
	d.client.CloseIdleConnections()
	addr := strings.TrimPrefix(*d.base.Load(), "http://")
	conns := make([]net.Conn, 4)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
		conns[i] = c
	}
	answered := make(chan reply, 1)
	go func() { answered <- d.try("GET", "/readyz", nil) }()
	select {
	case r := <-answered:
		require.Fail(t, "served beyond the limit", "%s", r)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, conns[0].Close())
	require.Equal(t, 200, (<-answered).status)
}

// One webhook that never answers, answers without an end, or asks for a pause of a year, with very
// many messages due, must not make a hundred good ones late; what it asks for is bounded.
func TestBadWebhookAmongGood(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var late []time.Duration
	good := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		due, err := time.Parse(time.RFC3339, r.Header.Get("Cicada-Due"))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Errorf("due: %v", err)
		}
		late = append(late, time.Since(due))
	}))
	defer good.Close()
	stop := make(chan struct{})
	var givenUp atomic.Int64
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/year":
			w.Header().Set("Retry-After", strconv.Itoa(365*24*3600))
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/fails":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			select {
			case <-r.Context().Done():
				givenUp.Add(1)
			case <-stop:
			}
		}
	}))
	defer bad.Close()
	defer close(stop)
	d := serve(t, "--bucket", "none", "--webhook-allow", strings.TrimPrefix(good.URL, "http://"),
		"--webhook-allow", strings.TrimPrefix(bad.URL, "http://"), "--webhooks-timeout", "50s")
	at := time.Now().Add(5 * time.Second) // not before all is sent
	var poison, fine []obj
	for i := range 5000 {
		path := "/hang"
		if i%10 == 0 {
			path = "/fails"
		}
		poison = append(poison, obj{"target": bad.URL + path, "deliver_at": at.UnixMilli()})
	}
	const messages = 1000 // over 5 s
	for i := range messages {
		fine = append(fine, obj{"target": fmt.Sprintf("%s/%d", good.URL, i%100),
			"deliver_at": at.Add(time.Duration(i) * 5 * time.Millisecond).UnixMilli()})
	}
	year := text(d.send(obj{"target": bad.URL + "/year", "delay": 0}), "id")
	endless := text(d.send(obj{"target": bad.URL + "/endless", "delay": 0}), "id")
	d.call("POST", "/v1/messages", obj{"messages": poison}).ok(t)
	d.call("POST", "/v1/messages", obj{"messages": fine}).ok(t)
	eventually(t, "the good ones have theirs", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(late) == messages
	})
	slices.Sort(late)
	t.Logf("late: p50 %v, p99 %v, most %v", late[messages/2], late[messages*99/100], late[messages-1])
	require.Zero(t, givenUp.Load(), "the good ones waited for those that hang")
	eventually(t, "an answer without an end is an answer", func() bool { return d.state(endless) == "delivered" })
	next, err := time.Parse(time.RFC3339, text(d.get(year), "next_attempt_at"))
	if err == nil {
		require.Less(t, time.Until(next), 61*time.Minute)
	}
}
