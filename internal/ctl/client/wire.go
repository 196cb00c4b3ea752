// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Wire is one connection for a load generator: requests are written and replies read by the caller,
// without the goroutines of net/http's client, which cost more than the daemon spends on a small
// request. It is confined to one goroutine.
type Wire struct {
	c    *Client
	now  func() time.Time
	host string
	conn net.Conn // nil: to be dialled
	stop func() bool
	in   *bufio.Reader
	out  []byte
}

// Wire gives a connection that is dialled by its first request; nil when the daemon is not reached
// by plain HTTP. now is the clock of the time limits.
func (c *Client) Wire(now func() time.Time) *Wire {
	u, err := url.Parse(c.base)
	if err != nil || u.Scheme != "http" || u.Path != "" {
		return nil
	}
	return &Wire{c: c, now: now, host: u.Host}
}

// Post sends one request and appends the reply's body to buf. After an error the next request
// dials again.
func (w *Wire) Post(ctx context.Context, path, kind string, body, buf []byte) ([]byte, error) {
	buf, status, err := w.roundTrip(ctx, path, kind, body, buf)
	if err != nil {
		w.Close()
		return buf, fmt.Errorf("POST %s: %w", path, err)
	}
	if status != http.StatusOK {
		return nil, answer(status, buf)
	}
	return buf, nil
}

// Close ends the connection.
func (w *Wire) Close() {
	if w.conn != nil {
		w.stop()
		_ = w.conn.Close()
		w.conn = nil
	}
}

// dial connects. The end of ctx closes the connection under whatever waits for it.
func (w *Wire) dial(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: wireDial}).DialContext(ctx, "tcp", w.host)
	if err != nil {
		return w.c.unreachable(err)
	}
	w.conn, w.in = conn, bufio.NewReaderSize(conn, 64<<10)
	w.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return nil
}

// A daemon that does not answer is a failure, not a hang.
const (
	wireDial    = 5 * time.Second
	wireTimeout = time.Minute // of one request
)

func (w *Wire) roundTrip(
	ctx context.Context, path, kind string, body, buf []byte,
) ([]byte, int, error) {
	if w.conn == nil {
		if err := w.dial(ctx); err != nil {
			return buf, 0, err
		}
	}
	if err := w.conn.SetDeadline(w.now().Add(wireTimeout)); err != nil {
		return buf, 0, err
	}
	w.request(path, kind, body)
	if _, err := w.conn.Write(w.out); err != nil {
		return buf, 0, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return buf, 0, err
	}
	defer resp.Body.Close()
	read := bytes.NewBuffer(buf)
	if n := resp.ContentLength; n > 0 && n < maxReply {
		read.Grow(int(n) + bytes.MinRead)
	}
	_, err = read.ReadFrom(io.LimitReader(resp.Body, maxReply))
	if resp.Close {
		w.Close()
	}
	return read.Bytes(), resp.StatusCode, err
}

// request writes a request into the buffer.
func (w *Wire) request(path, kind string, body []byte) {
	b := append(w.out[:0], "POST "...)
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, w.host...)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, kind...)
	if w.c.token != "" {
		b = append(b, "\r\nAuthorization: Bearer "...)
		b = append(b, w.c.token...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	w.out = append(b, body...)
}
