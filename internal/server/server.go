// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
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
)

// Shard is what the front end needs of a *scheduler.Shard; see there for the meaning.
type Shard interface {
	Intake
	Reader
	Changer
	Consumer
	Keeper
}

// Intake accepts messages.
type Intake interface {
	Now() delay.Due
	Accept(ctx context.Context, drafts []delay.Draft, receipts []scheduler.Receipt) error
	Reserve(ctx context.Context, n int) ([]delay.ID, error)
}

// Reader looks at messages.
type Reader interface {
	Get(ctx context.Context, id delay.ID, withBody bool) (scheduler.Info, error)
	List(ctx context.Context, f scheduler.Filter, limit int, token string) (
		[]scheduler.Info, string, error)
	Count(ctx context.Context, f scheduler.Filter) (int64, error)
	Histogram(ctx context.Context, bucket time.Duration, f scheduler.Filter) (
		[]scheduler.Bar, error)
	Next(ctx context.Context, limit int) ([]scheduler.Info, error)
}

// Changer changes messages that wait.
type Changer interface {
	Change(ctx context.Context, requests []scheduler.ChangeRequest,
		results []scheduler.ChangeResult) error
	Purge(ctx context.Context, f scheduler.Filter, dryRun bool) (scheduler.PurgeResult, error)
}

// Consumer hands messages to pullers.
type Consumer interface {
	Pull(ctx context.Context, queue string, most int, wait, lease time.Duration) (
		[]scheduler.Lease, error)
	Settle(ctx context.Context, req scheduler.SettleRequest,
		results []scheduler.SettleResult) error
	DeadLetters(ctx context.Context, f scheduler.Filter, limit int, token string) (
		[]scheduler.Info, string, error)
	RetryDead(ctx context.Context, id delay.ID) (scheduler.Receipt, error)
	DeleteDead(ctx context.Context, id delay.ID) error
}

// Keeper is for operators.
type Keeper interface {
	Targets(ctx context.Context) ([]scheduler.TargetStatus, error)
	SetPaused(ctx context.Context, target delay.Target, paused bool) error
	Status() scheduler.Status
	ConfirmClock()
}

// Options are what the front end needs besides the shard. The zero value serves, without auth.
type Options struct {
	Version string
	// Durability is the default of messages that do not say.
	Durability delay.Durability
	// NoTier refuses durability tier (--bucket none).
	NoTier bool
	// HasBroker reports whether a broker of a kind ("kafka") and name is configured. nil: none is,
	// and such targets are answered with unimplemented.
	HasBroker func(kind, name string) bool
	// CheckTarget refuses targets that can never work, with a *delay.FieldError for "target": it is
	// called with well-formed targets of every kind. nil accepts them. It does no I/O.
	CheckTarget func(delay.Target) error
	// Tokens may call. Without any, everybody may.
	Tokens []Token
	// MaxInflightBytes bounds the bytes of requests being served; beyond it 429. Default 256 MiB.
	MaxInflightBytes int64
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
	shard Shard
	opts  Options
	rules wire.Rules
	log   *zap.Logger
	root  http.Handler

	inflight atomic.Int64 // bytes of requests
	works    sync.Pool    // of *work
	polls    polls
}

// New is the front end of shard.
func New(shard Shard, opts Options) *Server {
	if opts.MaxInflightBytes == 0 {
		opts.MaxInflightBytes = defaultInflightBytes
	}
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Rejected == nil {
		opts.Rejected = func(string, string, int) {}
	}
	s := &Server{
		shard: shard, opts: opts, log: opts.Logger,
		rules: wire.Rules{Durability: opts.Durability, NoTier: opts.NoTier,
			HasBroker: opts.HasBroker, CheckTarget: opts.CheckTarget, Salt: rand.Uint64},
		polls: polls{waiting: map[*poll]struct{}{}},
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
func (s *Server) Drain() { s.polls.close() }

// Draining reports whether Drain was called.
func (s *Server) Draining() bool { return s.polls.closed() }

// polls are the long polls that wait, so that Drain can answer them.
type polls struct {
	mu      sync.Mutex
	waiting map[*poll]struct{}
	done    bool
}

type poll struct{ cancel context.CancelFunc }

// begin registers a poll and returns its end; false when there may be none any more.
func (p *polls) begin(ctx context.Context) (_ context.Context, end func(), ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	one := &poll{cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		cancel()
		return nil, nil, false
	}
	p.waiting[one] = struct{}{}
	return ctx, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, one)
	}, true
}

func (p *polls) close() {
	p.mu.Lock()
	p.done = true
	waiting := p.waiting
	p.waiting = map[*poll]struct{}{}
	p.mu.Unlock()
	for one := range waiting {
		one.cancel()
	}
}

func (p *polls) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}
