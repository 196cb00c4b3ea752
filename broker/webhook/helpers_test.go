// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newSink is a sink that is closed with the test.
func newSink(t testing.TB, opts Options) *Sink {
	t.Helper()
	s, err := New(opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// serve runs an HTTP receiver on a loopback address.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// rawServer runs handle on every connection to a loopback address, closes them with the test and
// returns host:port. handle gets a reader and writes what no HTTP server would.
func rawServer(t testing.TB, handle func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readRequest reads one request off a raw connection.
func readRequest(r *bufio.Reader) (string, error) {
	req, err := http.ReadRequest(r)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(req.Body)
	return string(body), err
}

// canary counts the connections it gets.
type canary struct {
	port  uint16
	conns atomic.Int64
}

func newCanary(t testing.TB) *canary {
	c := &canary{}
	addr := rawServer(t, func(net.Conn, *bufio.Reader) { c.conns.Add(1) })
	c.port = netip.MustParseAddrPort(addr).Port()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp6", fmt.Sprintf("[::1]:%d", c.port))
	if err != nil {
		return c // no IPv6 here
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.conns.Add(1)
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return c
}

// resolver is a DNS server in memory: answer gives the addresses for the n-th query, none is
// NXDOMAIN.
func resolver(t testing.TB, answer func(n int) []string) *net.Resolver {
	var n atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	dial := func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		stop := context.AfterFunc(ctx, func() { server.Close() })
		wg.Go(func() {
			defer stop()
			defer server.Close()
			for answerQuery(server, func() []string { return answer(int(n.Add(1)) - 1) }) == nil {
			}
		})
		return client, nil
	}
	return &net.Resolver{PreferGo: true, Dial: dial}
}

// answerQuery reads a query framed as on TCP and answers it.
func answerQuery(conn net.Conn, answer func() []string) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	reply := dnsReply(query, answer())
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	return err
}

func dnsReply(query []byte, addrs []string) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	kind := binary.BigEndian.Uint16(query[end-4:])
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x81, 0x80
	clear(reply[6:12])
	if len(addrs) == 0 {
		reply[3] |= 3 // NXDOMAIN
	}
	count := uint16(0)
	for _, text := range addrs {
		addr := netip.MustParseAddr(text)
		want := uint16(1) // A
		if addr.Is6() {
			want = 28 // AAAA
		}
		if kind != want {
			continue
		}
		count++
		reply = append(reply, 0xc0, 12)
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = append(reply, 0, 1, 0, 0, 0, 0)
		reply = binary.BigEndian.AppendUint16(reply, uint16(len(addr.AsSlice())))
		reply = append(reply, addr.AsSlice()...)
	}
	binary.BigEndian.PutUint16(reply[6:], count)
	return reply
}

func always(addrs ...string) func(int) []string {
	return func(int) []string { return addrs }
}

// sample is one delivery.
func sample(target string) broker.Delivery {
	return broker.Delivery{
		ID: "01JSAMPLE", Target: delay.Target(target), Due: 1_800_000_000_123,
		FiredAt: 1_800_000_000_456, Attempt: 2, Body: []byte("hello"),
	}
}

// one delivers d and returns its result.
func one(t testing.TB, s *Sink, d broker.Delivery) broker.Result {
	t.Helper()
	results := make([]broker.Result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s.Deliver(ctx, []broker.Delivery{d}, results)
	require.NoError(t, ctx.Err(), "Deliver did not end by itself")
	return results[0]
}
