// SPDX-License-Identifier: Apache-2.0

// Package client connects to Kafka clusters for the packages below broker/kafka: options, TLS,
// SASL, limits. A client is safe for concurrent use, and keeps nothing on disk.
//
//	Config --Complete--> Config --Client--> kgo.Client of a source, a sink or the doctor
//
// It is internal because the types of the client library must not be seen further up.
package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// The SASL mechanisms.
const (
	Plain       = "plain"
	ScramSHA256 = "scram-sha-256"
	ScramSHA512 = "scram-sha-512"
)

// Defaults and limits of a connection.
const (
	DefaultDialTimeout    = 5 * time.Second
	DefaultRequestTimeout = 10 * time.Second

	minBackoff     = 100 * time.Millisecond
	maxBackoff     = 2 * time.Second
	maxAnswerBytes = 64 << 20 // of one answer of a broker
	maxTopicBytes  = 249      // Kafka's own limit

	// A topic that was just made is asked for again soon, and a partition that was added to one is
	// seen within the larger (the default of 5 s stalled first transactions).
	MinMetadataAge = 250 * time.Millisecond
	maxMetadataAge = 30 * time.Second
)

// Config says how to reach one cluster. The source, the sink and the doctor share it.
type Config struct {
	// Broker is the cluster's name in the configuration, as in the target kafka:<broker>/<topic>.
	Broker string
	// Seeds are addresses to begin with, host:port.
	Seeds []string
	// TLS, if not nil, encrypts every connection.
	TLS *tls.Config
	// SASL says who we are. The zero value is nobody.
	SASL SASL
	// ClientID is what brokers log and limit by. "": cicada.
	ClientID string
	// Version is told to brokers. It may be empty.
	Version string
	// DialTimeout bounds one try to connect, TLS included. 0: DefaultDialTimeout.
	DialTimeout time.Duration
	// RequestTimeout bounds a request beyond the time the broker was allowed to think. 0:
	// DefaultRequestTimeout.
	RequestTimeout time.Duration
	// Dial connects instead of a net.Dialer, without TLS; for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger is told what the client library has to say: its warnings, at debug level also what
	// it does. nil: no log.
	Logger *zap.Logger
	// Now is the system's clock. nil: time.Now.
	Now func() time.Time
}

// SASL is a user and how the password is shown to the broker.
type SASL struct {
	Mechanism string // Plain, ScramSHA256, ScramSHA512, or "" for none
	User      string
	Password  string
}

// Complete fills in the defaults and finds what can never work: an error that is
// delay.ErrInvalid.
func (c Config) Complete() (Config, error) {
	switch {
	case c.Broker == "":
		return c, delay.Invalid("brokers", "a broker needs a name")
	case len(c.Seeds) == 0 || slices.Contains(c.Seeds, ""):
		return c, delay.Invalid("brokers."+c.Broker+".seeds", "want host:port of a broker")
	case c.DialTimeout < 0 || c.RequestTimeout < 0:
		return c, delay.Invalid("brokers."+c.Broker, "a time limit is negative")
	}
	switch c.SASL.Mechanism {
	case "":
	case Plain, ScramSHA256, ScramSHA512:
		if c.SASL.User == "" {
			return c, delay.Invalid("brokers."+c.Broker+".sasl.user", "must not be empty")
		}
	default:
		return c, delay.Invalid("brokers."+c.Broker+".sasl.mechanism", "unknown: %q",
			c.SASL.Mechanism)
	}
	if c.ClientID == "" {
		c.ClientID = "cicada"
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = DefaultDialTimeout
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = DefaultRequestTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Logger = c.Logger.With(zap.String("broker", c.Broker))
	return c, nil
}

// Options are what every client of the cluster has in common; c is complete. The backoff begins
// short because a partition's leader moves within milliseconds, and ends short because due messages
// wait for it.
func (c *Config) Options() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Seeds...), kgo.ClientID(c.ClientID), kgo.DisableClientMetrics(),
		kgo.DialTimeout(c.DialTimeout), kgo.RequestTimeoutOverhead(c.RequestTimeout),
		kgo.RetryBackoffFn(Backoff), kgo.BrokerMaxReadBytes(maxAnswerBytes),
		kgo.MetadataMinAge(MinMetadataAge), kgo.MetadataMaxAge(maxMetadataAge),
		kgo.WithLogger(library(c.Logger)),
	}
	if v := softwareVersion(c.Version); v != "" {
		opts = append(opts, kgo.SoftwareNameAndVersion("cicada", v))
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS.Clone()))
	}
	if c.Dial != nil {
		opts = append(opts, kgo.Dialer(c.Dial))
	}
	switch s := c.SASL; s.Mechanism {
	case Plain:
		opts = append(opts, kgo.SASL(plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()))
	case ScramSHA256:
		opts = append(opts, kgo.SASL(scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism()))
	case ScramSHA512:
		opts = append(opts, kgo.SASL(scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism()))
	}
	return opts
}

// Client connects lazily: an error is a mistake in the configuration, never a broker that is away.
// c is complete.
func (c *Config) Client(more ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(c.Options(), more...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: broker %s: %w", delay.ErrInvalid, c.Broker, err)
	}
	return cl, nil
}

// library is the logger of the client library. What it calls information is detail to us.
func library(log *zap.Logger) kgo.Logger {
	level := kgo.LogLevelNone
	switch core := log.Core(); {
	case core.Enabled(zap.DebugLevel):
		level = kgo.LogLevelInfo
	case core.Enabled(zap.WarnLevel):
		level = kgo.LogLevelWarn
	case core.Enabled(zap.ErrorLevel):
		level = kgo.LogLevelError
	}
	return kzap.New(log.Named("kgo"), kzap.Level(level))
}

// Backoff doubles from minBackoff to maxBackoff. Jitter is left out: one client asks one cluster.
func Backoff(tries int) time.Duration {
	const doublings = 5
	return min(minBackoff<<min(max(tries-1, 0), doublings), maxBackoff)
}

// softwareVersion keeps what brokers accept in a version.
func softwareVersion(v string) string {
	out := regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(v, "-")
	return regexp.MustCompile(`^[.-]+|[.-]+$`).ReplaceAllString(out, "")
}

// CheckTopic tells whether a broker could ever have a topic of this name.
func CheckTopic(name string) error {
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			r == '.' || r == '_' || r == '-'
	}
	if name == "" || len(name) > maxTopicBytes || name == "." || name == ".." {
		return fmt.Errorf("want a topic of 1 to %d characters", maxTopicBytes)
	}
	for _, r := range name {
		if !legal(r) {
			return fmt.Errorf("a topic has only A-Z a-z 0-9 . _ -, not %q", r)
		}
	}
	return nil
}
