// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// Defaults and limits of a connection.
const (
	DefaultDialTimeout = 5 * time.Second
	DefaultAckTimeout  = 10 * time.Second

	reconnectWait   = 250 * time.Millisecond // between rounds through the addresses
	reconnectJitter = 250 * time.Millisecond
	pingInterval    = 10 * time.Second // a dead connection is found within two or three of them
	maxPingsOut     = 2
	maxReasonBytes  = 160
)

// Config says how to reach one NATS system. The source, the sink and the doctor share it.
type Config struct {
	// Broker is the name in the configuration, as in the target nats:<broker>/<subject>.
	Broker string
	// URLs are addresses to begin with, as in nats://host:4222; others are learned from the servers.
	URLs []string
	// Creds is the path of a credentials file: a JWT and its key.
	Creds string
	// User and Password, or Token, are the simpler ways to say who we are.
	User, Password, Token string
	// TLS, if not nil, is demanded of every connection.
	TLS *tls.Config
	// DialTimeout bounds one try to connect. 0: DefaultDialTimeout.
	DialTimeout time.Duration
	// AckTimeout bounds the wait for the answer to what was published, and for those to requests
	// about streams and consumers. 0: DefaultAckTimeout.
	AckTimeout time.Duration
	Logger     *zap.Logger      // nil: no log
	Now        func() time.Time // nil: time.Now
}

var brokerName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// complete fills in the defaults and finds what can never work: an error that is
// delay.ErrInvalid.
func (c Config) complete() (Config, error) {
	field := "brokers." + c.Broker
	switch {
	case !brokerName.MatchString(c.Broker):
		return c, delay.Invalid("brokers", "want a name of 1 to 64 of A-Z a-z 0-9 . _ -")
	case len(c.URLs) == 0 || slices.Contains(c.URLs, ""):
		return c, delay.Invalid(field+".urls", "want addresses such as nats://127.0.0.1:4222")
	case c.DialTimeout < 0 || c.AckTimeout < 0:
		return c, delay.Invalid(field, "a time limit is negative")
	case c.User == "" && c.Password != "":
		return c, delay.Invalid(field+".user", "must not be empty")
	}
	ways := 0
	for _, way := range []string{c.Creds, c.User, c.Token} {
		if way != "" {
			ways++
		}
	}
	if ways > 1 {
		return c, delay.Invalid(field, "want one of creds, user and token")
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = DefaultDialTimeout
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = DefaultAckTimeout
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

// connect begins to connect and goes on for ever: an error is a mistake in the configuration, never
// a server that is away. Nothing is buffered while there is no connection, so that what is refused
// is known not to have been sent. c is complete.
func (c *Config) connect(more ...nats.Option) (*nats.Conn, error) {
	log := c.Logger
	opts := []nats.Option{
		nats.Name("cicada"), nats.Timeout(c.DialTimeout), nats.NoEcho(),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(maxPingsOut),
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(func(nc *nats.Conn) {
			log.Info("nats connected", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("nats connected again", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { logLost(log, err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			logReported(log, err)
		}),
	}
	if c.TLS != nil {
		opts = append(opts, nats.Secure(c.TLS.Clone()))
	}
	switch {
	case c.Creds != "":
		opts = append(opts, nats.UserCredentials(c.Creds))
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		opts = append(opts, nats.Token(c.Token))
	}
	nc, err := nats.Connect(strings.Join(c.URLs, ","), append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to broker %s: %w", delay.ErrInvalid, c.Broker, err)
	}
	return nc, nil
}

// logLost is told of the end of a connection; err is nil when we ended it.
func logLost(log *zap.Logger, err error) {
	if err != nil {
		log.Warn("nats connection lost", zap.Error(err))
	}
}

func logReported(log *zap.Logger, err error) {
	log.Warn("nats connection reports an error", zap.Error(err))
}

// notSent are the errors of a publish that say that no byte of it was sent.
func notSent(err error) bool {
	for _, known := range []error{
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionDraining,
		nats.ErrConnectionReconnecting, nats.ErrBadSubject, nats.ErrBadHeaderMsg,
		nats.ErrHeadersNotSupported, nats.ErrMaxPayload,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// brief is text that others wrote, as it may stand in a reason: short and without surprises.
func brief(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	for i := range s {
		if i > maxReasonBytes {
			return s[:i] + "…"
		}
	}
	return s
}
