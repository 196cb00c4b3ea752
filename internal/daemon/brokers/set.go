// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka"
	"github.com/cicadamq/cicada/broker/kafka/source"
	"github.com/cicadamq/cicada/broker/nats"
	"github.com/cicadamq/cicada/broker/rocketmq/guardian"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/scheduler/ledger"
)

// sourceAgain is the pause before a source is run again that ended by itself.
const sourceAgain = 15 * time.Second

// Set is the brokers of a daemon: a sink for each, by kind and name, and their sources. It is made
// by Open; then its methods but Run and Close are safe for concurrent use.
type Set struct {
	sinks     map[string]broker.Sink // by "<kind>:<name>"
	sources   []feed
	guardians map[string]*guardian.Guardian // by "guard:<name>"; they are sources, too
	log       *zap.Logger
}

// feed is one source of a broker.
type feed struct {
	name string // as metrics have it: kafka:main/topic
	src  broker.Source
	lag  func() int64
}

// Sink is that of the broker which t names, or nil.
func (s *Set) Sink(t delay.Target) broker.Sink {
	name, _, ok := strings.Cut(string(t), "/")
	if !ok {
		return nil
	}
	return s.sinks[name]
}

// Has reports whether there is a broker of this kind and name.
func (s *Set) Has(kind, name string) bool {
	_, ok := s.sinks[kind+":"+name]
	return ok
}

// ExactlyOnce reports whether messages for t are delivered exactly once (rule R17).
func (s *Set) ExactlyOnce(t delay.Target) bool {
	_, ok := s.Sink(t).(broker.Ledger)
	return ok
}

// Ledgers are the sinks that deliver exactly once, by "<kind>:<name>".
func (s *Set) Ledgers() map[string]ledger.Sink {
	all := make(map[string]ledger.Sink)
	for name, sink := range s.sinks {
		if l, ok := sink.(ledger.Sink); ok {
			all[name] = l
		}
	}
	return all
}

// Guardians judge the messages that brokers of their own are to deliver, by "guard:<name>".
func (s *Set) Guardians() map[string]broker.Guardian {
	all := make(map[string]broker.Guardian, len(s.guardians))
	for name, g := range s.guardians {
		all[name] = g
	}
	return all
}

// Guarded tells how the guardians do, by the names of their brokers.
func (s *Set) Guarded() map[string]guardian.Stats {
	all := make(map[string]guardian.Stats, len(s.guardians))
	for name, g := range s.guardians {
		all[strings.TrimPrefix(name, delay.Guards)] = g.Stats()
	}
	return all
}

// Lag tells how far each source is behind, by its name.
func (s *Set) Lag() map[string]int64 {
	all := make(map[string]int64, len(s.sources))
	for i := range s.sources {
		all[s.sources[i].name] += s.sources[i].lag()
	}
	return all
}

// Open makes the sinks and the sources of cfg; they connect when they are used. What can never work
// wraps delay.ErrInvalid and names the broker and its line. tiered says that there is a bucket.
// cluster tells the identity of the cluster once the shard is taken.
func Open(cfg []config.Broker, tiered bool, cluster func() string, o Options) (*Set, error) {
	s := &Set{
		sinks: make(map[string]broker.Sink), guardians: make(map[string]*guardian.Guardian),
		log: cmp.Or(o.Logger, zap.NewNop()),
	}
	for i := range cfg {
		b := &cfg[i]
		err := needsTier(b, tiered)
		if err == nil {
			err = s.open(b, cluster, o)
		}
		if err != nil {
			err = fmt.Errorf("brokers.%s (line %d): %w", b.Name, b.Line, err)
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

func (s *Set) open(b *config.Broker, cluster func() string, o Options) error {
	switch b.Kind {
	case "kafka":
		return s.openKafka(b, cluster, o)
	case "nats":
		return s.openNATS(b, o)
	case "rocketmq":
		return s.openRocketMQ(b, o)
	default:
		return fmt.Errorf("%w: %s is not built yet; remove it", delay.ErrUnimplemented, b.Kind)
	}
}

func kafkaSink(b *config.Broker, o Options, cluster func() string) kafka.SinkConfig {
	mode := kafka.Idempotent
	if b.Kafka.Sink.ExactlyOnce {
		mode = kafka.ExactlyOnce
	}
	return kafka.SinkConfig{
		Config: KafkaConfig(b, o), Mode: mode, LedgerTopic: b.Kafka.Sink.LedgerTopic,
		Window: b.Kafka.Sink.Window, MaxMessageBytes: int(b.Kafka.Sink.MaxMessage), Cluster: cluster,
	}
}

func (s *Set) openKafka(b *config.Broker, cluster func() string, o Options) error {
	sink, err := kafka.NewSink(kafkaSink(b, o, cluster))
	if err != nil {
		return err
	}
	s.sinks["kafka:"+b.Name] = sink
	for _, opts := range KafkaSources(b, o) {
		src, err := source.New(opts)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, feed{
			name: src.Name(), src: src, lag: func() int64 { return src.Stats().Lag },
		})
	}
	return nil
}

func (s *Set) openNATS(b *config.Broker, o Options) error {
	cfg := NATSConfig(b, o)
	sink, err := nats.NewSink(cfg)
	if err != nil {
		return err
	}
	s.sinks["nats:"+b.Name] = sink
	for _, sc := range NATSSources(b, o) {
		src, err := nats.NewSource(cfg, sc)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, feed{
			name: "nats:" + b.Name + "/" + sc.Stream, src: src,
			lag: func() int64 { return int64(min(src.Stats().Lag, 1<<62)) },
		})
	}
	return nil
}

// needsTier refuses sources with commit: tier when there is no bucket (rule R16).
func needsTier(b *config.Broker, tiered bool) error {
	asked := false
	if b.Kafka != nil {
		asked = slices.ContainsFunc(b.Kafka.Sources, func(c config.KafkaSource) bool { return c.Tier })
	}
	if b.NATS != nil {
		asked = asked ||
			slices.ContainsFunc(b.NATS.Sources, func(c config.NATSSource) bool { return c.Tier })
	}
	if b.RocketMQ != nil {
		asked = asked || slices.ContainsFunc(b.RocketMQ.Sources,
			func(c config.RocketMQSource) bool { return c.Tier })
	}
	if asked && !tiered {
		return delay.Invalid("sources", "commit: tier needs a bucket (--bucket none)")
	}
	return nil
}

// Run runs the sources until ctx is done. A source that ends by itself is told and run again after
// a pause: the others go on. The only error is delay.ErrFenced, when another process has taken what
// a sink writes with.
func (s *Set) Run(ctx context.Context, in broker.Intake) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range s.sources {
		src := &s.sources[i]
		g.Go(func() error { return s.run(ctx, src, in) })
	}
	return g.Wait()
}

// Watch waits until ctx is done, or another process has taken what a sink writes with: that is
// delay.ErrFenced, and this process must end.
func (s *Set) Watch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for name, sink := range s.sinks {
		f, ok := sink.(interface{ Fenced() <-chan struct{} })
		if !ok {
			continue
		}
		g.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-f.Fenced():
				return fmt.Errorf("%w: another process delivers to %s", delay.ErrFenced, name)
			}
		})
	}
	return g.Wait()
}

func (s *Set) run(ctx context.Context, src *feed, in broker.Intake) error {
	for {
		err := src.src.Run(ctx, in)
		switch {
		case ctx.Err() != nil || err == nil || errors.Is(err, delay.ErrClosed):
			return nil //nolint:nilerr // the shard ends, and says why itself
		case errors.Is(err, delay.ErrFenced):
			return err
		}
		s.log.Error("source cannot work, will be tried again", zap.String("source", src.name),
			zap.Duration("after", sourceAgain), zap.Error(err))
		timer := time.NewTimer(sourceAgain)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close closes the sources and then the sinks. Nothing runs.
func (s *Set) Close() error {
	var errs []error
	for i := range s.sources {
		errs = append(errs, s.sources[i].src.Close())
	}
	for _, sink := range s.sinks {
		errs = append(errs, sink.Close())
	}
	s.sources, s.sinks = nil, nil
	return errors.Join(errs...)
}
