// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"github.com/cicadamq/cicada/broker/nats"
	"github.com/cicadamq/cicada/internal/config"
)

// NATSConfig is how to reach b, which is of kind nats.
func NATSConfig(b *config.Broker, o Options) nats.Config {
	c := b.NATS
	return nats.Config{
		Broker: b.Name, URLs: c.URLs, Creds: c.Creds, User: c.User, Password: c.Password.Reveal(),
		Token: c.Token.Reveal(), TLS: b.TLS, Logger: o.Logger, Now: o.Now,
	}
}

// NATSSources are the sources of b, which is of kind nats.
func NATSSources(b *config.Broker, o Options) []nats.SourceConfig {
	all := make([]nats.SourceConfig, len(b.NATS.Sources))
	for i, s := range b.NATS.Sources {
		all[i] = nats.SourceConfig{
			Stream: s.Stream, Subject: s.Subject, Consumer: s.Consumer, Tier: s.Tier,
			RejectSubject: s.RejectSubject, CheckTarget: o.CheckTarget,
		}
	}
	return all
}
