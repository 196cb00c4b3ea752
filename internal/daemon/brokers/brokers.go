// SPDX-License-Identifier: Apache-2.0

// Package brokers turns what the configuration says of a broker into the options of the package
// that speaks to it.
//
//	config.Broker --> kafka.Config, source.Options --> sources, sinks
//	                                                   \--> Examine: cicada doctor
//
// It keeps nothing; its functions may run concurrently. Nothing is written anywhere, so that a
// crash leaves nothing behind.
package brokers

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka"
	"github.com/cicadamq/cicada/broker/kafka/source"
	"github.com/cicadamq/cicada/broker/nats"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/guardian"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
)

// Options are what the daemon adds to the configuration.
type Options struct {
	Version string
	Logger  *zap.Logger      // nil: no log
	Now     func() time.Time // nil: time.Now
	// CheckTarget refuses targets of messages that can never work. nil: none is refused.
	CheckTarget func(delay.Target) error
}

// KafkaConfig is how to reach b, which is of kind kafka.
func KafkaConfig(b *config.Broker, o Options) kafka.Config {
	s := &b.Kafka.SASL
	return kafka.Config{
		Broker: b.Name, Seeds: b.Kafka.Seeds, TLS: b.TLS, Version: o.Version, Logger: o.Logger,
		Now:  o.Now,
		SASL: kafka.SASL{Mechanism: s.Mechanism, User: s.User, Password: s.Password.Reveal()},
	}
}

// KafkaSources are the sources of b, which is of kind kafka.
func KafkaSources(b *config.Broker, o Options) []source.Options {
	all := make([]source.Options, len(b.Kafka.Sources))
	for i, s := range b.Kafka.Sources {
		all[i] = source.Options{
			Config: KafkaConfig(b, o), Topic: s.Topic, Group: s.Group, Tier: s.Tier,
			IDFromKey: s.IDFromKey, RejectTopic: s.RejectTopic, ServerSide: s.ServerSide,
			CheckTarget: o.CheckTarget,
		}
	}
	return all
}

// Examine looks at every broker of cfg, from here, and changes nothing there that readers of
// committed records see. Each finding's check begins with the broker's name.
func Examine(ctx context.Context, cfg *config.Config, o Options) []broker.Finding {
	var all []broker.Finding
	for i := range cfg.Brokers {
		b := &cfg.Brokers[i]
		var found []broker.Finding
		switch b.Kind {
		case "kafka":
			found = source.Examine(ctx, KafkaConfig(b, o), KafkaSources(b, o))
			if found[0].Verdict != broker.Good {
				break
			}
			sink := &b.Kafka.Sink
			found = append(found, source.ExamineSize(ctx, KafkaConfig(b, o), sink.MaxMessage))
			if sink.ExactlyOnce {
				found = append(found,
					source.ExamineTransactions(ctx, KafkaConfig(b, o), sink.LedgerTopic)...)
			}
		case rocketmq.Kind:
			found = rocketmq.Examine(ctx, RocketMQConfig(b, o), RocketMQSources(b, o))
			if b.RocketMQ.Guardian.Enabled && found[0].Verdict == broker.Good {
				found = append(found, guardian.Examine(ctx, RocketMQConfig(b, o), GuardianOptions(b))...)
			}
		case "nats":
			found = nats.Examine(ctx, NATSConfig(b, o), NATSSources(b, o))
		}
		for _, f := range found {
			f.Check = b.Name + ": " + f.Check
			all = append(all, f)
		}
	}
	return all
}
