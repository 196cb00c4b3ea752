// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/delay"
)

// The suite's promises hold for webhooks.
func TestConformance(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		var mu sync.Mutex
		var got []brokertest.Received
		stop := make(chan struct{})
		srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			attempt, bad := strconv.ParseUint(r.Header.Get("cicada-attempt"), 10, 32)
			if err != nil || bad != nil {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			id := delay.ID(r.Header.Get("cicada-id"))
			answer := brokertest.AnswerTo(id)
			switch answer {
			case brokertest.Later:
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			case brokertest.Never:
				w.WriteHeader(http.StatusGone)
				return
			}
			mu.Lock()
			got = append(got, brokertest.Received{ID: id, Attempt: uint32(attempt), Body: body})
			mu.Unlock()
			if answer == brokertest.Silent {
				<-stop
			}
		})
		t.Cleanup(func() { close(stop) })
		s, err := New(Options{AllowPrivate: true})
		require.NoError(t, err)
		return brokertest.Subject{
			Sink: s, Target: delay.Target(srv.URL + "/hook"), Refuses: true, Hangs: true,
			Received: func() []brokertest.Received {
				mu.Lock()
				defer mu.Unlock()
				return append([]brokertest.Received(nil), got...)
			},
		}
	})
}

// A wrong mapping loses messages (a retryable answer is dead) or sends them for ever.
func TestAnswers(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
	})
	s := newSink(t, Options{AllowPrivate: true})
	for status := 200; status < 600; status++ {
		want := broker.Result{Outcome: broker.Delivered}
		reason := fmt.Sprintf("http %d", status)
		switch {
		case status == 408, status == 425, status == 429, status >= 500:
			want = broker.Result{Outcome: broker.Retry, Reason: reason, RetryAfter: 7 * time.Second}
		case status >= 400:
			want = broker.Result{Outcome: broker.Rejected, Reason: reason}
		case status >= 300:
			want = broker.Result{Outcome: broker.Rejected, Reason: reason + ": redirects are refused"}
		}
		require.Equal(t, want, one(t, s, sample(fmt.Sprintf("%s/%d", srv.URL, status))))
	}
}

// A receiver must be able to slow its target down, and unable to stop it for a year.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, " 30 ": 30 * time.Second, "3600": time.Hour,
		"3601": time.Hour, "31536000": time.Hour, "99999999999999999999": time.Hour,
		"-1": 0, "1.5": 0, "soon": 0, "1s": 0,
		"Mon, 04 May 2026 03:02:31 GMT": 30 * time.Second,
		"Mon, 04 May 2026 03:00:00 GMT": 0,
		"Tue, 04 May 2027 03:02:31 GMT": time.Hour,
		"Fri, 31 Dec 9999 23:59:59 GMT": time.Hour,
	} {
		require.Equal(t, want, retryAfter(value, now), "%q", value)
	}
}

// A redirect is the receiver's way to choose another target: it must not be followed (W1).
func TestRedirect(t *testing.T) {
	c := newCanary(t)
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("http://127.0.0.1:%d/latest/meta-data", c.port),
			http.StatusTemporaryRedirect)
	})
	r := one(t, newSink(t, Options{AllowPrivate: true}), sample(srv.URL))
	require.Equal(t, broker.Result{
		Outcome: broker.Rejected, Reason: "http 307: redirects are refused",
	}, r)
	require.Zero(t, c.conns.Load())
}

// A proxy of the environment would connect where no check looks.
func TestNoProxy(t *testing.T) {
	c := newCanary(t)
	t.Setenv("HTTP_PROXY", fmt.Sprintf("http://127.0.0.1:%d", c.port))
	t.Setenv("http_proxy", fmt.Sprintf("http://127.0.0.1:%d", c.port))
	s := newSink(t, Options{AllowPrivate: true, Resolver: resolver(t, always())})
	require.Equal(t, "connect: host name not found", one(t, s, sample("http://x.example/")).Reason)
	require.Zero(t, c.conns.Load())
	require.Nil(t, s.transport.Proxy)
}

// What could not be connected to was not sent: Retry, not Unknown, and without the address (W5).
func TestConnectFailures(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := "http://" + l.Addr().String()
	l.Close()
	hello := rawServer(t, func(c net.Conn, _ *bufio.Reader) { fmt.Fprint(c, "220 hello\r\n") })
	silent := rawServer(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	for _, c := range []struct {
		target, want string
		timeout      time.Duration
	}{
		{closed, "connect: connection refused", 0},
		{"http://nowhere.example", "connect: host name not found", 0},
		{"https://" + hello, "connect: TLS handshake failed", 0},
		{"https://" + silent, "connect: no connection in time", 300 * time.Millisecond},
		{tls.URL, "connect: certificate not valid", 0},
	} {
		s := newSink(t, Options{
			AllowPrivate: true, Resolver: resolver(t, always()), Timeout: c.timeout,
		})
		r := one(t, s, sample(c.target))
		require.Equal(t, broker.Result{Outcome: broker.Retry, Reason: c.want}, r, c.target)
	}
}

// A private authority must work, and only for whom it signed.
func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	s := newSink(t, Options{
		AllowPrivate: true, RootCAs: roots, Resolver: resolver(t, always("127.0.0.1")),
	})
	require.Equal(t, broker.Delivered, one(t, s, sample(srv.URL)).Outcome)
	_, port, _ := strings.Cut(strings.TrimPrefix(srv.URL, "https://"), ":")
	r := one(t, s, sample("https://other.test:"+port))
	require.Equal(t, "connect: certificate not valid", r.Reason)
}

// Answers that never end, never begin or are no answers: every one must end in time, be bounded,
// and tell Delivered from Unknown by the status alone (W2).
func TestHostileAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	forever := func(c net.Conn, chunk string) {
		for {
			if _, err := io.WriteString(c, chunk); err != nil {
				return
			}
		}
	}
	stall := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, c := range []struct {
		name   string
		answer func(c net.Conn)
		want   broker.Outcome
		reason string
	}{
		{"no answer", stall, broker.Unknown, "no answer in time"},
		{"slow header", func(c net.Conn) {
			io.WriteString(c, ok+"x-a: ")
			drip(c)
		}, broker.Unknown, "no answer in time"},
		{"slow status", func(c net.Conn) { io.WriteString(c, "HT"); stall(c) },
			broker.Unknown, "no answer in time"},
		{"closed", func(net.Conn) {}, broker.Unknown, "connection ended without a valid answer"},
		{"garbage", func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n\r\n") },
			broker.Unknown, "connection ended without a valid answer"},
		{"endless header", func(c net.Conn) { io.WriteString(c, ok); forever(c, "x-a: b\r\n") },
			broker.Unknown, "connection ended without a valid answer"},
		{"1xx flood", func(c net.Conn) { forever(c, "HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n") },
			broker.Unknown, "connection ended without a valid answer"},
		{"switching", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n")
			stall(c)
		}, broker.Unknown, "http 101: not a final answer"},
		{"999", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n") },
			broker.Unknown, "http 999: not a final answer"},
		{"slow body", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 100000\r\n\r\n")
			drip(c)
		}, broker.Delivered, ""},
		{"endless body", func(c net.Conn) { io.WriteString(c, ok+"\r\n"); forever(c, "aaaaaaaa") },
			broker.Delivered, ""},
		{"huge body", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 999999999999\r\n\r\n")
			forever(c, strings.Repeat("a", 4096))
		}, broker.Delivered, ""},
		{"short body", func(c net.Conn) { io.WriteString(c, ok+"Content-Length: 9\r\n\r\na") },
			broker.Delivered, ""},
		{"bad body", func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 503 x\r\nContent-Encoding: gzip\r\n"+
				"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
		}, broker.Retry, "http 503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := rawServer(t, func(conn net.Conn, r *bufio.Reader) {
				if _, err := readRequest(r); err == nil {
					c.answer(conn)
				}
			})
			opts := Options{AllowPrivate: true}
			if c.reason == "no answer in time" {
				opts.Timeout = 2 * time.Second
			}
			s := newSink(t, opts)
			start := time.Now()
			r := one(t, s, sample("http://"+addr))
			require.Equal(t, c.want, r.Outcome, r.Reason)
			require.Less(t, time.Since(start), 10*time.Second, "only the time limit ended it")
			require.Equal(t, c.reason, r.Reason)
		})
	}
}

// drip writes a byte every few milliseconds until the connection is closed.
func drip(c net.Conn) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(c, "a"); err != nil {
			return
		}
	}
}

// net/http sends a request with an idempotency key again by itself when a kept connection dies on
// it. One Deliver would then be two POSTs and one known attempt (W3, B3).
func TestNeverSentTwice(t *testing.T) {
	var requests atomic.Int64
	addr := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readRequest(r); err != nil {
				return
			}
			if requests.Add(1)%2 == 0 {
				return // the request arrived, its connection dies without an answer
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := newSink(t, Options{AllowPrivate: true})
	for _, body := range []string{"hello", ""} {
		before := requests.Load()
		d := sample("http://" + addr)
		d.Body = []byte(body)
		d.Headers = []delay.Header{{Name: "X-Idempotency-Key", Value: "mine"}}
		require.Equal(t, broker.Delivered, one(t, s, d).Outcome)
		require.Equal(t, broker.Unknown, one(t, s, d).Outcome)
		require.Equal(t, before+2, requests.Load())
	}
}

// A connection per message would cost a handshake each: a short answer leaves its connection
// usable, whatever it says and however its end is told, and a batch leaves as many as it used.
//
// In a bubble, because net/http gives up a connection whose writer has not been told within 50 ms
// that it has written, which a busy machine takes its time for.
func TestConnectionReuse(t *testing.T) {
	answers := []string{
		"200 OK\r\nContent-Length: 2\r\n\r\nok", "204 No Content\r\n\r\n",
		"200 OK\r\nContent-Length: 0\r\n\r\n", "404 Not Found\r\nContent-Length: 4\r\n\r\nnone",
		"503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
		fmt.Sprintf("200 OK\r\nContent-Length: %d\r\n\r\n%s", maxAnswerBody,
			strings.Repeat("a", maxAnswerBody)),
	}
	synctest.Test(t, func(t *testing.T) {
		conns := 0
		s := inPipes(t, func(c net.Conn, r *bufio.Reader) {
			conns++
			for {
				body, err := readRequest(r)
				if err != nil {
					return
				}
				n, _ := strconv.Atoi(body)
				io.WriteString(c, "HTTP/1.1 "+answers[n])
			}
		})
		d := sample("http://receiver.example")
		for i := range 3 * len(answers) {
			d.Body = strconv.AppendInt(nil, int64(i%len(answers)), 10)
			require.NotEqual(t, broker.Unknown, one(t, s, d).Outcome)
			require.Equal(t, 1, conns, "after %.30q", answers[i%len(answers)])
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var conns, waiting atomic.Int64
		all := make(chan bool)
		s := inPipes(t, func(c net.Conn, r *bufio.Reader) {
			conns.Add(1)
			for {
				if _, err := readRequest(r); err != nil {
					return
				}
				if waiting.Add(1) == maxParallel {
					for waiting.Add(-1) > 0 {
						all <- true
					}
				} else {
					<-all
				}
				io.WriteString(c, "HTTP/1.1 "+answers[0])
			}
		})
		for range 3 {
			results := make([]broker.Result, maxParallel)
			s.Deliver(t.Context(),
				slices.Repeat([]broker.Delivery{sample("http://receiver.example")}, maxParallel), results)
			for _, r := range results {
				require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
			}
			require.EqualValues(t, maxParallel, conns.Load())
		}
	})
}

// inPipes is a sink in a bubble whose connections, to whatever host, are pipes to handle.
func inPipes(t *testing.T, handle func(c net.Conn, r *bufio.Reader)) *Sink {
	t.Helper()
	s := newSink(t, Options{})
	s.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			handle(server, bufio.NewReader(server))
		}()
		return client, nil
	}
	return s
}

// A receiver that takes no body must not keep the caller's buffer busy: Deliver returns, the buffer
// is used again, and the race detector watches (W6).
func TestBodyTakenBack(t *testing.T) {
	addr := rawServer(t, func(_ net.Conn, r *bufio.Reader) {
		_, _ = r.ReadByte()
		_, _ = r.Peek(1 << 10)
		<-t.Context().Done()
	})
	s := newSink(t, Options{AllowPrivate: true, Timeout: 500 * time.Millisecond})
	d := sample("http://" + addr)
	d.Body = make([]byte, delay.MaxBodyBytes)
	require.NotEqual(t, broker.Delivered, one(t, s, d).Outcome)
	for i := range d.Body {
		d.Body[i] = 1
	}
}

// A receiver that answers before it has read the body: the answer counts, and what is still being
// sent must not be the caller's next message.
func TestEarlyAnswer(t *testing.T) {
	addr := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := r.ReadString('\n'); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, r)
		}
	})
	s := newSink(t, Options{AllowPrivate: true})
	d := sample("http://" + addr)
	d.Body = make([]byte, delay.MaxBodyBytes)
	for i := range 8 {
		require.Equal(t, broker.Delivered, one(t, s, d).Outcome)
		for j := range d.Body {
			d.Body[j] = byte(i)
		}
	}
}

// A reader of a body that was taken back must fail, not read the next message's bytes.
func TestLent(t *testing.T) {
	l := &lent{data: []byte("hello")}
	r := l.reader()
	p := make([]byte, 2)
	n, err := r.Read(p)
	require.NoError(t, err)
	require.Equal(t, "he", string(p[:n]))
	again, err := io.ReadAll(l.reader())
	require.NoError(t, err)
	require.Equal(t, "hello", string(again), "a second reader starts over")
	l.takeBack()
	_, err = r.Read(p)
	require.ErrorIs(t, err, errTakenBack)
	_, err = l.reader().Read(p)
	require.ErrorIs(t, err, errTakenBack)
	require.NoError(t, r.Close())
}

// A stalled receiver with a long batch: Deliver must end within twice the time limit, and tell what
// was sent (Unknown) from what was not (Retry).
func TestBatchTimeLimit(t *testing.T) {
	var sent atomic.Int64
	addr := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readRequest(r); err == nil {
			sent.Add(1)
			_, _ = io.Copy(io.Discard, c)
		}
	})
	s := newSink(t, Options{AllowPrivate: true, Timeout: 300 * time.Millisecond})
	batch := make([]broker.Delivery, 100)
	for i := range batch {
		batch[i] = sample("http://" + addr)
	}
	results := make([]broker.Result, len(batch))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s.Deliver(ctx, batch, results)
	require.NoError(t, ctx.Err())
	count := map[broker.Outcome]int{}
	for _, r := range results {
		count[r.Outcome]++
	}
	require.LessOrEqual(t, count[broker.Unknown], 2*maxParallel)
	require.Equal(t, len(batch), count[broker.Unknown]+count[broker.Retry])
	require.GreaterOrEqual(t, int64(count[broker.Unknown]), sent.Load())
	require.Equal(t, "not sent: the receiver is too slow", results[99].Reason)
}

// More POSTs at a time than stated would swamp a receiver, fewer would make a slow one late.
func TestParallel(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	full := make(chan struct{})
	srv := serve(t, func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		running++
		if running > most {
			if most = running; most == maxParallel {
				close(full)
			}
		}
		mu.Unlock()
		<-full
		mu.Lock()
		running--
		mu.Unlock()
	})
	s := newSink(t, Options{AllowPrivate: true})
	batch := make([]broker.Delivery, 3*maxParallel)
	for i := range batch {
		batch[i] = sample(srv.URL)
	}
	results := make([]broker.Result, len(batch))
	s.Deliver(t.Context(), batch, results)
	for _, r := range results {
		require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
	}
	require.Equal(t, maxParallel, most)
}

// Throughput of one Deliver against a receiver on the same machine.
func BenchmarkDeliver(b *testing.B) {
	srv := serve(b, func(http.ResponseWriter, *http.Request) {})
	s := newSink(b, Options{AllowPrivate: true})
	batch := make([]broker.Delivery, 100)
	for i := range batch {
		batch[i] = sample(srv.URL)
	}
	results := make([]broker.Result, len(batch))
	b.ReportAllocs()
	for b.Loop() {
		s.Deliver(b.Context(), batch, results)
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "messages/s")
}

// Options that cannot be meant must stop the start.
func TestBadOptions(t *testing.T) {
	key := []byte("0123456789abcdef")
	for _, opts := range []Options{
		{Timeout: -1}, {MaxConnsPerHost: -1}, {Version: "1\r\nx: y"},
		{Secrets: []Secret{{ID: "short", Key: []byte("secret")}}},
		{Secrets: []Secret{{Key: key}, {Key: key}, {Key: key}}},
	} {
		_, err := New(opts)
		require.ErrorIs(t, err, delay.ErrInvalid)
		require.NotContains(t, err.Error(), "secret\"")
	}
}
