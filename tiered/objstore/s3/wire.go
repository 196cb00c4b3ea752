// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The limits of the transport. The time of a whole call is its ctx.
const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 60 * time.Second
	headerLimit      = 64 << 10
)

// newTransport has as many connections as calls may run at a time. HTTP/1.1 only: with HTTP/2 all
// calls would share one connection and its losses. No compression: bodies are as they are stored.
func newTransport(connections int) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxConnsPerHost:        connections,
		MaxIdleConns:           connections,
		MaxIdleConnsPerHost:    connections,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headerLimit,
		DisableCompression:     true,
	}
}

// watch is a RoundTripper that notes the store's clock.
type watch struct {
	inner http.RoundTripper
	now   func() time.Time
	last  atomic.Pointer[moment]
}

// moment is one instant on two clocks.
type moment struct{ remote, local time.Time }

// RoundTrip implements http.RoundTripper.
func (w *watch) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	// An answer with an Age comes from a cache, and its date is when it was made.
	if resp.Header.Get("Age") == "" {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			w.last.Store(&moment{remote: at, local: w.now()})
		}
	}
	return resp, nil
}

var errCutOff = errors.New("s3: put has returned, the body is no longer ours")

// loan is a body that is lent until cut (U2). It has no WriteTo and no Seek: the transport would
// keep the slice in hand with the one, and minio-go repeats requests with the other (U1).
type loan struct {
	mu   sync.Mutex
	body *bytes.Reader
}

func newLoan(body []byte) *loan { return &loan{body: bytes.NewReader(body)} }

// Read implements io.Reader.
func (l *loan) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.body == nil {
		return 0, errCutOff
	}
	return l.body.Read(p)
}

// cut ends the loan: when it returns nobody reads the body, and nobody will.
func (l *loan) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.body = nil
}

// readExactly reads size bytes and the end after them (O3).
func readExactly(r io.Reader, size int64) ([]byte, error) {
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	// Reading the end also lets the connection be used again.
	switch n, err := r.Read(make([]byte, 1)); {
	case n != 0:
		return nil, errors.New("s3: more bytes than announced")
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	}
	return body, nil
}
