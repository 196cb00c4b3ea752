// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
	"github.com/cicadamq/cicada/internal/server/limit"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// Limits of a connection and of the memory of requests.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// requestTimeout is longer than the longest call, a long poll of wire.MaxWait; streams move
	// their deadline as they go.
	requestTimeout = 3 * time.Minute
	maxHeaderBytes = 64 << 10

	maxRequestBytes = 64 << 20 // a batch
	maxSmallBytes   = 1 << 20  // every other request

	defaultInflightBytes = 256 << 20
	defaultPolls         = 10_000
)

// Options are what the front end needs besides the shard. The zero value serves, without auth.
type Options struct {
	Version string
	// Durability is the default of messages that do not say.
	Durability delay.Durability
	// NoTier refuses durability tier (--bucket none).
	NoTier bool
	// HasBroker reports whether a broker of a kind ("kafka") and name is configured. nil: none is.
	// A target of any other is refused.
	HasBroker func(kind, name string) bool
	// CheckTarget refuses targets that can never work, with a *delay.FieldError for "target": it is
	// called with well-formed targets of every kind. nil accepts them. It does no I/O.
	CheckTarget func(delay.Target) error
	// ExactlyOnce reports whether messages for a target are delivered exactly once. nil: none are.
	ExactlyOnce func(delay.Target) bool
	// Gate names the callers and refuses them. nil: everybody may do everything.
	Gate *access.Gate
	// Audit is told of each change by an operator. nil: nobody is.
	Audit func(audit.Entry)
	// MaxInflightBytes bounds the bytes of requests being served; beyond it 429. Default 256 MiB.
	MaxInflightBytes int64
	// MaxPolls bounds the pulls that wait and the streams; beyond it 429. Default 10,000.
	MaxPolls int
	// Tier tells of the cold tier. nil: there is none.
	Tier func() tierjson.Info
	// Metrics serves GET /metrics. nil: 404.
	Metrics http.Handler
	// Rejected counts messages refused before the shard saw them. nil: not counted.
	Rejected func(source, code string, n int)
	Logger   *zap.Logger // nil: silent
	// Now is the wall clock, for deadlines of connections only. Default time.Now.
	Now func() time.Time
}

// Server is the front end of one shard.
type Server struct {
	shard access.Shard // of everybody: handlers use the one of their call (W6)
	opts  Options
	rules wire.Rules
	plans *wire.Forecaster
	log   *zap.Logger
	root  http.Handler

	inflight *limit.Bytes // of requests
	works    sync.Pool    // of *work
	polls    *limit.Polls
}

// New is the front end of shard.
func New(shard access.Shard, opts Options) *Server {
	opts.MaxInflightBytes = cmp.Or(opts.MaxInflightBytes, defaultInflightBytes)
	opts.MaxPolls = cmp.Or(opts.MaxPolls, defaultPolls)
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Gate == nil {
		opts.Gate = access.NewGate(access.Credentials{}, opts.Now)
	}
	if opts.Audit == nil {
		opts.Audit = func(audit.Entry) {}
	}
	if opts.Rejected == nil {
		opts.Rejected = func(string, string, int) {}
	}
	s := &Server{
		shard: shard, opts: opts, log: opts.Logger,
		rules: wire.Rules{Durability: opts.Durability, NoTier: opts.NoTier,
			HasBroker: opts.HasBroker, CheckTarget: opts.CheckTarget,
			ExactlyOnce: opts.ExactlyOnce, Salt: rand.Uint64},
		plans:    wire.NewForecaster(),
		inflight: limit.NewBytes(opts.MaxInflightBytes, opts.Now),
		polls:    limit.NewPolls(opts.MaxPolls),
	}
	s.works.New = func() any { return &work{dec: wire.Decoder{Rules: &s.rules}} }
	s.root = s.guard(s.mux())
	return s
}

// Handler serves every route of the front end.
func (s *Server) Handler() http.Handler { return s.root }

// HTTPServer is a server for Handler that speaks HTTP/1.1 and HTTP/2, the latter also without TLS,
// which gRPC needs. The caller owns the listener and the shutdown.
func (s *Server) HTTPServer() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.root,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          errorLog(s.log),
	}
}

// Drain stops intake: from now on sends are answered 503, long polls at once with what they have,
// and nothing new is leased. Acks, nacks, extends and reads go on until the caller shuts the server
// down. It may be called more than once.
func (s *Server) Drain() { s.polls.Close() }

// Draining reports whether Drain was called.
func (s *Server) Draining() bool { return s.polls.Closed() }
