// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Defaults and limits.
const (
	DefaultTimeout         = 15 * time.Second
	DefaultMaxConnsPerHost = 64

	maxParallel     = 16               // POSTs of one Deliver at a time
	maxDial         = 10 * time.Second // resolve and connect, all addresses together
	maxIdleConns    = 256
	idleTimeout     = 30 * time.Second
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 64 << 10
	maxDrain        = time.Second // for reading an answer's body, to use the connection again
	maxRetryAfter   = time.Hour
	maxSecrets      = 2
	minSecretBytes  = 16
)

// Options of a Sink. The zero value reaches every public address and signs nothing.
type Options struct {
	// Allow lists the hosts that may be reached: host, *.domain (every name below the domain, not
	// the domain) or an address, each with an optional :port. Empty is every public address. An
	// entry that names a host in full also allows the private addresses it resolves to.
	Allow []string
	// AllowPrivate opens private, loopback and link-local addresses to every host that Allow lets
	// pass. Addresses at which clouds hand out credentials stay refused.
	AllowPrivate bool
	// Secrets sign each request, at most two at once for rotation; the order does not matter.
	Secrets []Secret
	// Timeout bounds one POST from the lookup of the name to the answer. 0: DefaultTimeout.
	Timeout time.Duration
	// MaxConnsPerHost bounds the connections to one host and port. 0: DefaultMaxConnsPerHost.
	MaxConnsPerHost int
	// Version is named in the user agent: cicada/<version>.
	Version string
	Logger  *zap.Logger      // nil: no log
	Now     func() time.Time // the clock of signatures and Retry-After. nil: time.Now
	// Resolver looks up host names. nil: net.DefaultResolver. What it answers is never trusted.
	Resolver *net.Resolver
	// RootCAs verify the receivers' certificates. nil: the system's.
	RootCAs *x509.CertPool
}

// Sink posts messages to webhooks.
type Sink struct {
	policy    policy
	secrets   atomic.Pointer[[]Secret] // in use; read-only
	timeout   time.Duration
	agent     string
	now       func() time.Time
	transport *http.Transport
	dialer    *net.Dialer
}

var (
	_ broker.Sink    = (*Sink)(nil)
	_ broker.Checker = (*Sink)(nil)
)

// New checks opts; what is wrong with them wraps delay.ErrInvalid.
func New(opts Options) (*Sink, error) {
	s := &Sink{
		policy:  policy{allowPrivate: opts.AllowPrivate},
		timeout: opts.Timeout, agent: "cicada", now: opts.Now,
	}
	for _, text := range opts.Allow {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		s.policy.patterns = append(s.policy.patterns, p)
	}
	if err := s.Use(opts.Secrets); err != nil {
		return nil, err
	}
	if opts.Timeout < 0 || opts.MaxConnsPerHost < 0 {
		return nil, fmt.Errorf("%w: webhooks: a limit is negative", delay.ErrInvalid)
	}
	if s.timeout == 0 {
		s.timeout = DefaultTimeout
	}
	if opts.MaxConnsPerHost == 0 {
		opts.MaxConnsPerHost = DefaultMaxConnsPerHost
	}
	if opts.Version != "" {
		s.agent += "/" + opts.Version
	}
	if checkHeader("user-agent", s.agent) != "" {
		return nil, fmt.Errorf("%w: webhooks: version %q", delay.ErrInvalid, opts.Version)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.dialer = &net.Dialer{
		Timeout: min(maxDial, s.timeout), Resolver: opts.Resolver, ControlContext: control,
	}
	s.transport = s.newTransport(opts)
	if opts.Logger != nil && opts.AllowPrivate {
		opts.Logger.Warn("webhooks may reach private addresses", zap.Strings("allow", opts.Allow))
	}
	return s, nil
}

// newTransport leaves Proxy unset, so that the environment names none, and speaks HTTP/1.1 only:
// one request a connection at a time keeps the limits and the question what was sent simple.
func (s *Sink) newTransport(opts Options) *http.Transport {
	t := &http.Transport{
		DialContext:            s.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opts.RootCAs},
		TLSHandshakeTimeout:    s.timeout,
		MaxConnsPerHost:        opts.MaxConnsPerHost,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    min(opts.MaxConnsPerHost, maxParallel),
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// Use signs with other secrets from the next request on, or refuses them and changes nothing.
func (s *Sink) Use(secrets []Secret) error {
	if err := checkSecrets(secrets); err != nil {
		return err
	}
	fresh := slices.Clone(secrets)
	s.secrets.Store(&fresh)
	return nil
}

// Check implements broker.Checker.
func (s *Sink) Check(target delay.Target) error {
	_, err := s.policy.check(target)
	return err
}

// Deliver posts batch, at most 16 at a time. It begins no POST later than Options.Timeout after
// the call, so a slow receiver should be given small batches; what was not begun by then is
// Retry.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	if len(batch) == 0 {
		return
	}
	// The transport keeps the host as the key of its connections, so it must be a copy (W6). The
	// configuration may have changed since the message was accepted: check again.
	e, err := s.policy.check(delay.Target(strings.Clone(string(batch[0].Target))))
	if err != nil {
		for i := range batch {
			results[i] = broker.Result{Outcome: broker.Rejected, Reason: err.Error()}
		}
		return
	}
	begin, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var next atomic.Int64
	work := func() {
		for begin.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(batch) {
				return
			}
			results[i] = s.post(ctx, e, &batch[i])
		}
	}
	var wg sync.WaitGroup
	for range min(len(batch), maxParallel) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	for i := int(next.Load()); i < len(batch); i++ {
		results[i] = broker.Result{Outcome: broker.Retry, Reason: "not sent: the receiver is too slow"}
	}
}

// Close closes the idle connections.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}
