// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/cicadamq/cicada/broker"
)

// Wire counts what decides between Retry and Unknown (B2), because the library does not say whether
// a record whose produce failed had left.
type Wire struct {
	writing atomic.Int64  // produce requests that are being written
	sent    atomic.Uint64 // of which a byte was written
	lost    atomic.Uint64 // connections that ended after one
}

// mark is a moment of a wire.
type mark struct{ sent, lost uint64 }

// mark is now. What a Deliver has to do with it begins later.
func (w *Wire) mark() mark { return mark{sent: w.sent.Load(), lost: w.lost.Load()} }

// result is the outcome of a record that was handed to the library after at:
//
//	no produce request left since         nobody can have it: Retry
//	an answer, and every one arrived      what the answer says
//	else                                  Unknown: an earlier try may have been stored
func (w *Wire) result(at mark, err error) broker.Result {
	if err == nil {
		return broker.Result{Outcome: broker.Delivered}
	}
	r := broker.Result{Outcome: verdict(err), Reason: reason(err)}
	writing := w.writing.Load() // before sent: what ends in between is counted there
	now := w.mark()
	switch {
	case writing == 0 && now.sent == at.sent:
		if r.Outcome == broker.Unknown {
			r.Outcome, r.Reason = broker.Retry, "not sent: "+r.Reason
		}
	case now.lost != at.lost:
		r.Outcome = broker.Unknown
	}
	return r
}

// Dial connects.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer connects with dial, then TLS if conf is not nil, and counts.
func (w *Wire) Dialer(dial Dial, conf *tls.Config) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if conf != nil {
			if conn, err = handshake(ctx, conn, conf, address); err != nil {
				return nil, err
			}
		}
		return &watched{Conn: conn, wire: w}, nil
	}
}

func handshake(
	ctx context.Context, conn net.Conn, conf *tls.Config, address string,
) (net.Conn, error) {
	if conf = conf.Clone(); conf.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		conf.ServerName = host
	}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tls %s: %w", address, err)
	}
	return secure, nil
}

// watched is a connection that tells a wire what happens to produce requests. The library writes a
// request with one call.
type watched struct {
	net.Conn

	wire     *Wire
	produced atomic.Bool // and not yet counted as lost
}

const produceKey = 0

// Write counts frames of produce requests: a frame begins with its length, four bytes, and the key
// of the request.
func (w *watched) Write(b []byte) (int, error) {
	if len(b) >= 6 && (b[4] != 0 || b[5] != produceKey) {
		return w.Conn.Write(b)
	}
	w.wire.writing.Add(1)
	defer w.wire.writing.Add(-1)
	w.produced.Store(true)
	n, err := w.Conn.Write(b)
	if n > 0 || err == nil {
		w.wire.sent.Add(1)
	}
	return n, err
}

// Read counts an end of the connection before the library hears of it.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.end()
	}
	return n, err
}

// Close ends the connection.
func (w *watched) Close() error {
	w.end()
	return w.Conn.Close()
}

func (w *watched) end() {
	if w.produced.CompareAndSwap(true, false) {
		w.wire.lost.Add(1)
	}
}
