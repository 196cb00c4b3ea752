// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"net"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/broker/kafka/internal/sink"
	"github.com/cicadamq/cicada/delay"
)

// The modes of a sink.
const (
	Idempotent  = "idempotent"
	ExactlyOnce = "exactly_once"
)

// Defaults of a sink.
const (
	DefaultLedgerTopic     = "cicada.ledger"
	DefaultWindow          = 20 * time.Millisecond
	DefaultDeliverTimeout  = 15 * time.Second
	DefaultMaxMessageBytes = 1_000_012 // what brokers take unless configured otherwise
)

// Limits of a sink.
const (
	minMessageBytes = 1 << 10
	maxMessageBytes = 64 << 20
	maxWindow       = time.Second
)

// SinkConfig configures a sink of one cluster.
type SinkConfig struct {
	Config

	// Mode is Idempotent, which is the default, or ExactlyOnce.
	Mode string
	// MaxMessageBytes is the largest message that the topics take, headers included. A larger one
	// is Rejected. 0: DefaultMaxMessageBytes.
	MaxMessageBytes int
	// DeliverTimeout bounds a Deliver. 0: DefaultDeliverTimeout.
	DeliverTimeout time.Duration

	// The rest is for ExactlyOnce.

	// LedgerTopic holds the records that list what was delivered. It is made when it is missing.
	// "": DefaultLedgerTopic.
	LedgerTopic string
	// Window is the least time from the beginning of a transaction to that of the next, unless many
	// messages wait: what comes within is committed together. 0: DefaultWindow.
	Window time.Duration
	// Cluster is the identity of the Cicada cluster. It is asked for when Recover is called.
	Cluster func() string
	// Shard is the one whose messages the sink delivers.
	Shard delay.Shard
}

// completeSink fills in the defaults; an error is delay.ErrInvalid.
func (c SinkConfig) completeSink() (SinkConfig, error) {
	var err error
	if c.Config, err = c.Config.Complete(); err != nil {
		return c, err
	}
	key := "brokers." + c.Broker + ".sink"
	if c.Mode == "" {
		c.Mode = Idempotent
	}
	if c.LedgerTopic == "" {
		c.LedgerTopic = DefaultLedgerTopic
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	if c.DeliverTimeout == 0 {
		c.DeliverTimeout = DefaultDeliverTimeout
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = DefaultMaxMessageBytes
	}
	switch {
	case c.Mode != Idempotent && c.Mode != ExactlyOnce:
		return c, delay.Invalid(key+".mode", "want %s or %s, not %q", Idempotent, ExactlyOnce, c.Mode)
	case c.MaxMessageBytes < minMessageBytes || c.MaxMessageBytes > maxMessageBytes:
		return c, delay.Invalid(key+".max_message", "want %d to %d", minMessageBytes,
			maxMessageBytes)
	case c.DeliverTimeout < 0:
		return c, delay.Invalid(key+".timeout", "must not be negative")
	case c.Mode == Idempotent:
		return c, nil
	case c.Window < 0 || c.Window > maxWindow:
		return c, delay.Invalid(key+".window", "want 0 to %v", maxWindow)
	case c.Cluster == nil:
		return c, delay.Invalid(key+".mode", "exactly_once needs the identity of the cluster")
	}
	if err := client.CheckTopic(c.LedgerTopic); err != nil {
		return c, delay.Invalid(key+".ledger_topic", "%v", err)
	}
	return c, nil
}

// The sinks.
type (
	// Sink produces to the topics of a cluster, at least once and without losing the order of a
	// batch's equal keys.
	Sink = sink.Sink
	// Exact produces to the topics of a cluster exactly once. It is a broker.Ledger.
	Exact = sink.Exact
	// TxnStats tells how an Exact does.
	TxnStats = sink.TxnStats
)

// NewSink makes the sink of a cluster; a *Exact, which is a broker.Ledger, for ExactlyOnce, else a
// *Sink. It connects lazily: an error is a mistake in the configuration and wraps delay.ErrInvalid.
func NewSink(cfg SinkConfig) (broker.Sink, error) {
	cfg, err := cfg.completeSink()
	if err != nil {
		return nil, err
	}
	c := sink.Config{
		Broker: cfg.Broker, Connect: cfg.Config.Client, Logger: cfg.Logger,
		MaxMessageBytes: cfg.MaxMessageBytes, DeliverTimeout: cfg.DeliverTimeout,
	}
	if cfg.Mode == ExactlyOnce {
		c.LedgerTopic, c.Window = cfg.LedgerTopic, cfg.Window
		c.Cluster, c.Shard = cfg.Cluster, cfg.Shard
		return sink.NewExact(c)
	}
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: cfg.DialTimeout}).DialContext
	}
	c.Wire = new(sink.Wire)
	watched := cfg.Config
	watched.Dial, watched.TLS = c.Wire.Dialer(dial, cfg.TLS), nil
	c.Connect = watched.Client
	return sink.New(c)
}
