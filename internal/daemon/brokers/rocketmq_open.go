// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/guardian"
	"github.com/cicadamq/cicada/internal/config"
)

func (s *Set) openRocketMQ(b *config.Broker, o Options) error {
	cfg := RocketMQConfig(b, o)
	sink, err := rocketmq.NewSink(cfg)
	if err != nil {
		return err
	}
	s.sinks[rocketmq.Kind+":"+b.Name] = sink
	for _, sc := range RocketMQSources(b, o) {
		src, err := rocketmq.NewSource(cfg, sc)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, feed{
			name: rocketmq.Kind + ":" + b.Name + "/" + sc.Topic, src: src,
			lag: func() int64 { return int64(min(src.Stats().Lag, 1<<62)) },
		})
	}
	if !b.RocketMQ.Guardian.Enabled {
		return nil
	}
	g, err := guardian.New(cfg, GuardianOptions(b))
	if err != nil {
		return err
	}
	s.guardians[g.Name()] = g
	s.sources = append(s.sources, feed{
		name: g.Name(), src: g,
		lag: func() int64 { return int64(min(g.Stats().Behind, 1<<62)) },
	})
	return nil
}
