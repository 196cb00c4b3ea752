// SPDX-License-Identifier: Apache-2.0

// Package proxy stands between a daemon and its object store and makes trouble, drawn from a seed:
// it delays, resets before and after, cuts replies, refuses with and without doing what was asked,
// and lets requests arrive late.
//
//	daemon --> Proxy --trouble--> store
package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// trouble is one thing that a network or a store does to a request.
type trouble struct {
	name   string
	weight int // of a thousand requests that it can happen to
	only   func(*http.Request) bool
	do     func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte)
}

// troubles: each must leave the product with what it was promised, or with an outcome that it can
// find out by reading.
var troubles = []trouble{
	{"delayed", 60, nil, func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		p.sleep(500 * time.Millisecond)
		p.pass(w, r, body)
	}},
	{"reset before", 25, nil, func(_ *Proxy, w http.ResponseWriter, _ *http.Request, _ []byte) {
		reset(w)
	}},
	{"reply lost", 25, nil, func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		_, _ = p.forward(r, body)
		reset(w)
	}},
	// The client is told that the connection broke; its request reaches the store all the same,
	// after whatever the client did next.
	{"applied late", 20, nil, func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		reset(w)
		p.sleep(2 * time.Second)
		_, _ = p.forward(r, body)
	}},
	{"reply cut", 20, nil, func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		reply, err := p.forward(r, body)
		if err == nil && len(reply.body) > 0 {
			writeHead(w, reply, len(reply.body))
			_, _ = w.Write(reply.body[:len(reply.body)/2])
		}
		panic(http.ErrAbortHandler)
	}},
	{"503", 40, nil, refuse(http.StatusServiceUnavailable, "SlowDown", false)},
	{"500", 20, nil, refuse(http.StatusInternalServerError, "InternalError", false)},
	{"500, applied", 15, nil, refuse(http.StatusInternalServerError, "InternalError", true)},
	{"killed before", 12, nil, func(p *Proxy, w http.ResponseWriter, _ *http.Request, _ []byte) {
		p.Kill()
		reset(w)
	}},
	{"killed after", 12, nil, func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		_, _ = p.forward(r, body)
		p.Kill()
		reset(w)
	}},
	{"412", 60, conditional, refuse(http.StatusPreconditionFailed, "PreconditionFailed", false)},
	{"412, applied", 60, conditional,
		refuse(http.StatusPreconditionFailed, "PreconditionFailed", true)},
	{"409", 60, conditional, refuse(http.StatusConflict, "ConditionalRequestConflict", false)},
}

// conditional: a condition is at stake.
func conditional(r *http.Request) bool {
	return r.Method == http.MethodPut &&
		r.Header.Get("If-Match")+r.Header.Get("If-None-Match") != ""
}

// refuse answers with an error of S3, and may do what it was asked nevertheless.
func refuse(status int, code string, apply bool,
) func(*Proxy, http.ResponseWriter, *http.Request, []byte) {
	return func(p *Proxy, w http.ResponseWriter, r *http.Request, body []byte) {
		if apply {
			_, _ = p.forward(r, body)
		}
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code></Error>`, code)
		}
	}
}

// reset ends the connection without a reply, as a router that died does.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// Proxy is safe for concurrent use, but for Kill, which is set before there is trouble.
type Proxy struct {
	Calm atomic.Bool // it passes everything; a new one does
	Dead atomic.Bool // it answers nothing: every connection is cut
	Kill func()      // kills the daemon at this step of what it does

	store  *url.URL
	server *httptest.Server
	client *http.Client

	mu      sync.Mutex
	rng     *rand.Rand
	made    map[string]int // troubles by name
	events  []string       // each of them
	passed  int
	methods map[string]int
}

// To starts a proxy before the store at endpoint. Close ends it.
func To(endpoint string, seed uint64) (*Proxy, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		store: u, rng: rand.New(rand.NewPCG(seed, 1<<33)),
		made: map[string]int{}, methods: map[string]int{}, Kill: func() {},
		client: &http.Client{
			Timeout: time.Minute, Transport: &http.Transport{
				MaxIdleConnsPerHost: 64, DisableCompression: true,
			},
		},
	}
	p.Calm.Store(true)
	p.server = httptest.NewServer(p)
	return p, nil
}

// URL is where the store seems to be.
func (p *Proxy) URL() string { return p.server.URL }

// Close cuts every connection.
func (p *Proxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
	p.client.CloseIdleConnections()
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if p.Dead.Load() {
		reset(w)
		return
	}
	if x := p.draw(r); x != nil {
		x.do(p, w, r, body)
		return
	}
	p.pass(w, r, body)
}

func (p *Proxy) draw(r *http.Request) *trouble {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.methods[r.Method]++
	p.passed++
	// The probe is left alone: it refuses a store that lies, and starts are to succeed.
	if p.Calm.Load() || strings.Contains(r.URL.Path, "/probe/") {
		return nil
	}
	n := p.rng.IntN(1000)
	for i := range troubles {
		x := &troubles[i]
		if x.only != nil && !x.only(r) {
			continue
		}
		if n -= x.weight; n < 0 {
			p.made[x.name]++
			p.events = append(p.events, fmt.Sprintf("%s %s: %s %s", time.Now().Format("05.000"), x.name,
				r.Method, r.URL.Path))
			return x
		}
	}
	return nil
}

func (p *Proxy) sleep(most time.Duration) {
	p.mu.Lock()
	d := time.Duration(p.rng.Int64N(int64(most)))
	p.mu.Unlock()
	time.Sleep(d)
}

// forwarded is the store's reply.
type forwarded struct {
	status int
	header http.Header
	body   []byte
}

// forward asks the store, also when the client has gone. The Host stays: it is signed.
func (p *Proxy) forward(r *http.Request, body []byte) (forwarded, error) {
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.store.Scheme, p.store.Host, ""
	out.Body, out.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(body))
	}
	resp, err := p.client.Do(out)
	if err != nil {
		return forwarded{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return forwarded{resp.StatusCode, resp.Header, got}, err
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, body []byte) {
	reply, err := p.forward(r, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	length := len(reply.body)
	if r.Method == http.MethodHead {
		length = -1 // the store's own length is among the headers
	}
	writeHead(w, reply, length)
	_, _ = w.Write(reply.body)
}

func writeHead(w http.ResponseWriter, reply forwarded, length int) {
	maps.Copy(w.Header(), reply.header)
	if length >= 0 && reply.status != http.StatusNoContent {
		w.Header().Set("Content-Length", fmt.Sprint(length))
	}
	w.WriteHeader(reply.status)
}

// String tells what was done to how many requests.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests (", p.passed)
	for i, m := range slices.Sorted(maps.Keys(p.methods)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", p.methods[m], m)
	}
	b.WriteString(")")
	for _, name := range slices.Sorted(maps.Keys(p.made)) {
		fmt.Fprintf(&b, ", %s %d", name, p.made[name])
	}
	return b.String()
}

// Events is every trouble that was made.
func (p *Proxy) Events() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// Counts is how many requests of each method came since the proxy began.
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.methods)
}
