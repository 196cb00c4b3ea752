// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/guardian"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
)

// RocketMQConfig is how to reach b, which is of kind rocketmq.
func RocketMQConfig(b *config.Broker, o Options) rocketmq.Config {
	return rocketmq.Config{
		Broker: b.Name, NameServers: b.RocketMQ.NameServers, AccessKey: b.RocketMQ.AccessKey,
		SecretKey: b.RocketMQ.SecretKey.Reveal(), TLS: b.TLS, Logger: o.Logger, Now: o.Now,
	}
}

// GuardianOptions say what is guarded of b, which is of kind rocketmq.
func GuardianOptions(b *config.Broker) guardian.Options {
	g := &b.RocketMQ.Guardian
	return guardian.Options{
		Grace: g.Grace, DelayLevels: g.DelayLevels, Timers: g.Timers,
		ConsumerRetries: g.ConsumerRetries, Retired: g.Retired,
	}
}

// RocketMQSources are the sources of b, which is of kind rocketmq.
func RocketMQSources(b *config.Broker, o Options) []rocketmq.SourceConfig {
	all := make([]rocketmq.SourceConfig, len(b.RocketMQ.Sources))
	for i, s := range b.RocketMQ.Sources {
		all[i] = rocketmq.SourceConfig{
			Topic: s.Topic, Group: s.Group, Tier: s.Tier, RejectTopic: s.RejectTopic,
			Target: delay.Target(s.Target), CheckTarget: o.CheckTarget,
		}
	}
	return all
}
