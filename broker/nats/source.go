// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Defaults and limits of a source.
const (
	DefaultConsumer      = "cicada"
	DefaultMaxAckPending = 65536

	// MaxPullBytes bounds one pull, unless one record is larger than it.
	MaxPullBytes = 8 << 20

	maxStreamBytes = 128              // an identity with it must fit into an id
	ackWait        = 30 * time.Second // after it a record that was not acknowledged comes again
	ackEvery       = 200 * time.Millisecond
	minPause       = 100 * time.Millisecond // between sessions, and between tries to store
	maxPause       = 10 * time.Second
	lastFlush      = time.Second // for the acks at the end
)

// SourceConfig says what to read from one stream.
type SourceConfig struct {
	Stream string
	// Subject selects records of the stream and may hold wildcards. "" is all of them. When it is
	// changed later, records that the cursor has passed are not looked at again.
	Subject string
	// Consumer is the name of the durable consumer. "": DefaultConsumer. Two daemons that read
	// the same stream, each for itself, need two names.
	Consumer string
	// Tier acknowledges a record only when the bucket holds its message (commit: tier).
	Tier bool
	// RejectSubject takes the records that cannot be requests, with cicada-error; a stream must
	// hold it. "": they are counted and logged.
	RejectSubject string
	// MaxAckPending bounds the records that were taken and are not acknowledged yet. With Tier it
	// is also how many are read per flush. 0: DefaultMaxAckPending.
	MaxAckPending int
	// Target is that of records that name none. "": such a record is refused.
	Target delay.Target
	// CheckTarget refuses targets that can never work, as the API does. nil: only their form is
	// looked at.
	CheckTarget func(delay.Target) error
}

func (c SourceConfig) complete(cfg *Config) (SourceConfig, error) {
	field := "brokers." + cfg.Broker + ".sources"
	if c.Consumer == "" {
		c.Consumer = DefaultConsumer
	}
	if c.MaxAckPending == 0 {
		c.MaxAckPending = DefaultMaxAckPending
	}
	switch {
	case badStreamName(c.Stream):
		return c, delay.Invalid(field+".stream", "want 1 to %d visible characters without . * > / \\",
			maxStreamBytes)
	case badStreamName(c.Consumer):
		return c, delay.Invalid(field+".consumer", "want 1 to %d visible characters without . * > / \\",
			maxStreamBytes)
	case c.MaxAckPending < broker.MaxBatch:
		return c, delay.Invalid(field+".max_ack_pending", "want at least %d", broker.MaxBatch)
	}
	if c.Subject != "" {
		if reason := badSubject(c.Subject, true); reason != "" {
			return c, delay.Invalid(field+".subject", "%s", reason)
		}
	}
	if c.RejectSubject != "" {
		if reason := badSubject(c.RejectSubject, false); reason != "" {
			return c, delay.Invalid(field+".reject_subject", "%s", reason)
		}
	}
	return c, nil
}

func badStreamName(s string) bool {
	if s == "" || len(s) > maxStreamBytes {
		return true
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return true
		}
	}
	return strings.ContainsAny(s, `.*>/\`)
}

// Source reads one stream.
type Source struct {
	cfg  Config
	sc   SourceConfig
	log  *zap.Logger
	nc   *nats.Conn
	js   jetstream.JetStream
	kick chan struct{} // a connection was made again: what was on its way is gone
	n    counters
	old  bool // tests: as if the server could not set consumers back
}

var _ broker.Source = (*Source)(nil)

// counters are what Stats tells.
type counters struct {
	taken, refused, rejected, skipped, sessions, missed, lag atomic.Uint64
}

// Stats are counts since the source was made, and its lag. It is safe to ask while Run runs.
type Stats struct {
	Taken    uint64 // records handed to the shard and kept, or known to it
	Refused  uint64 // records that could not be parsed or that the shard refused
	Rejected uint64 // of these, how many went to the reject subject
	Skipped  uint64 // records that were delivered again though they were stored
	Sessions uint64 // how often reading began or began again
	Missed   uint64 // at most so many records the stream dropped before they were read
	Lag      uint64 // records in the stream that were not delivered yet
}

// NewSource checks the configuration and begins to connect. What is wrong with it wraps
// delay.ErrInvalid.
func NewSource(cfg Config, sc SourceConfig) (*Source, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if sc, err = sc.complete(&cfg); err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, sc: sc, kick: make(chan struct{}, 1)}
	s.log = cfg.Logger.With(zap.String("stream", sc.Stream))
	s.cfg.Logger = s.log
	s.nc, err = s.cfg.connect(nats.ReconnectHandler(func(nc *nats.Conn) {
		s.log.Info("nats connected again", zap.String("server", nc.ConnectedUrlRedacted()))
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}))
	if err != nil {
		return nil, err
	}
	if s.js, err = jetstream.New(s.nc, jetstream.WithDefaultTimeout(cfg.AckTimeout)); err != nil {
		s.nc.Close()
		return nil, fmt.Errorf("%w: broker %s: %w", delay.ErrInvalid, cfg.Broker, err)
	}
	return s, nil
}

// Stats tells how far the source has come.
func (s *Source) Stats() Stats {
	return Stats{
		Taken: s.n.taken.Load(), Refused: s.n.refused.Load(), Rejected: s.n.rejected.Load(),
		Skipped: s.n.skipped.Load(), Sessions: s.n.sessions.Load(), Missed: s.n.missed.Load(),
		Lag: s.n.lag.Load(),
	}
}

// Run implements broker.Source. It returns nil when ctx is done or when the shard takes nothing
// more; everything else is tried again.
func (s *Source) Run(ctx context.Context, in broker.Intake) error {
	taken := uint64(0)
	for pause := minPause; s.runOnce(ctx, in, pause); pause = min(2*pause, maxPause) {
		if now := s.n.taken.Load(); now != taken {
			taken, pause = now, minPause // it works, but for a moment
		}
	}
	_ = s.nc.FlushTimeout(lastFlush) // an ack that is lost is asked for again
	return nil
}

// runOnce runs a session and a pause, and reports whether there is to be another one.
func (s *Source) runOnce(ctx context.Context, in broker.Intake, pause time.Duration) bool {
	s.n.sessions.Add(1)
	err := s.session(ctx, in)
	if ctx.Err() != nil || ended(err) {
		return false
	}
	s.log.Warn("nats source begins again", zap.Error(err), zap.Duration("after", pause))
	return sleep(ctx, pause)
}

// ended reports whether the shard will take nothing more.
func ended(err error) bool {
	return errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced)
}

// sleep waits, and reports whether ctx is still going on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Close implements broker.Source.
func (s *Source) Close() error {
	s.nc.Close()
	return nil
}
