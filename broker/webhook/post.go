// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/broker"
)

// post makes one POST. It uses the transport itself and not a client, which would follow redirects
// and put the URL into its errors.
func (s *Sink) post(parent context.Context, e endpoint, d *broker.Delivery) broker.Result {
	header, reason := s.headers(d)
	if reason != "" {
		return broker.Result{Outcome: broker.Rejected, Reason: reason}
	}
	ctx, cancel := context.WithTimeout(parent, s.timeout)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// A second GetConn means that the first connection turned out to be dead with nothing
		// written, the one case in which the transport tries again.
		GetConn: func(string) { sent.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	body := &lent{data: d.Body}
	defer body.takeBack()
	req := (&http.Request{
		Method: http.MethodPost, URL: e.url, Header: header,
		Body: http.NoBody, ContentLength: int64(len(d.Body)),
	}).WithContext(ctx)
	if len(d.Body) > 0 {
		req.Body = body.reader()
		req.GetBody = func() (io.ReadCloser, error) { return body.reader(), nil }
	}
	resp, err := s.transport.RoundTrip(req)
	if err == nil {
		drain(cancel, resp)
		return answered(resp.StatusCode, resp.Header.Get("Retry-After"), s.now())
	}
	if parent.Err() != nil {
		return broker.Result{Reason: "stopped before the answer"}
	}
	return failed(err, sent.Load())
}

// answered maps the answer of a receiver.
func answered(status int, after string, now time.Time) broker.Result {
	reason := "http " + strconv.Itoa(status)
	switch {
	case status >= 200 && status < 300:
		return broker.Result{Outcome: broker.Delivered}
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500 && status < 600:
		return broker.Result{
			Outcome: broker.Retry, Reason: reason, RetryAfter: retryAfter(after, now),
		}
	case status >= 300 && status < 400:
		return broker.Result{Outcome: broker.Rejected, Reason: reason + ": redirects are refused"}
	case status >= 400 && status < 500:
		return broker.Result{Outcome: broker.Rejected, Reason: reason}
	default:
		return broker.Result{Outcome: broker.Unknown, Reason: reason + ": not a final answer"}
	}
}

// failed maps the lack of an answer.
func failed(err error, sent bool) broker.Result {
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return broker.Result{Outcome: broker.Rejected, Reason: refused.Error()}
	case !sent:
		return broker.Result{Outcome: broker.Retry, Reason: connectReason(err)}
	case timedOut(err):
		return broker.Result{Outcome: broker.Unknown, Reason: "no answer in time"}
	default:
		return broker.Result{Outcome: broker.Unknown, Reason: "connection ended without a valid answer"}
	}
}

// connectReason puts err into words of our own: the library's hold names and addresses (W5).
func connectReason(err error) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "connect: host name not found"
	case errors.As(err, &dns):
		return "connect: host name lookup failed"
	case errors.As(err, &cert):
		return "connect: certificate not valid"
	case errors.As(err, &record), errors.As(err, &op) && strings.HasSuffix(op.Op, " error"):
		return "connect: TLS handshake failed" // op: "remote error", "local error"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect: connection refused"
	case timedOut(err):
		return "connect: no connection in time"
	default:
		return "connect: failed"
	}
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// drain reads the end of a short answer, so that its connection can be used again. The outcome is
// known already: an answer that is long or slow costs its connection and a second at most.
func drain(cancel context.CancelFunc, resp *http.Response) {
	if resp.StatusCode >= 200 {
		timer := time.AfterFunc(maxDrain, cancel)
		defer timer.Stop()
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswerBody)
	}
	_ = resp.Body.Close()
}

// lent is a body that can be taken back. The transport may go on reading a body after it has
// returned, when the answer came early or the request was given up; the bytes are the caller's
// again by then (W6). Readers copy under the lock and never wait for the network while they hold
// it.
type lent struct {
	mu   sync.Mutex
	data []byte
	back bool
}

var errTakenBack = errors.New("the request was given up")

func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.back = nil, true
}

func (l *lent) reader() io.ReadCloser { return &lentReader{lent: l} }

type lentReader struct {
	lent *lent
	at   int
}

// Read copies the next bytes, or fails when the body was taken back.
func (r *lentReader) Read(p []byte) (int, error) {
	r.lent.mu.Lock()
	defer r.lent.mu.Unlock()
	if r.lent.back {
		return 0, errTakenBack
	}
	n := copy(p, r.lent.data[r.at:])
	r.at += n
	if r.at == len(r.lent.data) {
		return n, io.EOF
	}
	return n, nil
}

// Close does nothing: the sender takes the body back.
func (r *lentReader) Close() error { return nil }
