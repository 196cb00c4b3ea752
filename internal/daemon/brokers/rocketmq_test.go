// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/guardian"
)

// A setting that does not arrive is a setting that is ignored, and what is not built must be
// refused.
func TestRocketMQ(t *testing.T) {
	cfg := load(t, `brokers:
  rmq:
    kind: rocketmq
    name_servers: ["n:1"]
    access_key: a
    secret_key: s
    tls: {}
    sources: [{topic: t, group: g, commit: tier, reject_topic: bad, target: "pull:q"}]
`)
	b := &cfg.Brokers[0]
	require.Equal(t, rocketmq.Config{
		Broker: "rmq", NameServers: []string{"n:1"}, AccessKey: "a", SecretKey: "s", TLS: b.TLS,
	}, RocketMQConfig(b, Options{}))
	require.NotNil(t, b.TLS)
	require.Equal(t, []rocketmq.SourceConfig{{
		Topic: "t", Group: "g", Tier: true, RejectTopic: "bad", Target: "pull:q",
	}}, RocketMQSources(b, Options{}))
	s, err := Open(cfg.Brokers, true, func() string { return "c" }, Options{})
	require.NoError(t, err)
	require.True(t, s.Has("rocketmq", "rmq"))
	require.NotNil(t, s.Sink("rocketmq:rmq/orders"))
	require.Equal(t, map[string]int64{"rocketmq:rmq/t": 0}, s.Lag())
	require.NoError(t, s.Close())
}

// A guardian that is configured and not there loses messages without a word.
func TestGuardian(t *testing.T) {
	cfg := load(t, `brokers:
  off: {kind: rocketmq, name_servers: ["n:1"], guardian: {enabled: false}}
  rmq: {kind: rocketmq, name_servers: ["n:1"], guardian: {grace: 3s, consumer_retries: true}}
  some: {kind: rocketmq, name_servers: ["n:1"], guardian: {enabled: true, timers: false}}
`)
	require.Equal(t, guardian.Options{
		Grace: 3 * time.Second, DelayLevels: true, Timers: true, ConsumerRetries: true,
	}, GuardianOptions(&cfg.Brokers[1]))
	require.Equal(t, guardian.Options{Grace: guardian.DefaultGrace, DelayLevels: true},
		GuardianOptions(&cfg.Brokers[2]))
	s, err := Open(cfg.Brokers, true, func() string { return "c" }, Options{})
	require.NoError(t, err)
	require.Len(t, s.Guardians(), 2)
	require.NotNil(t, s.Guardians()["guard:rmq"])
	require.Equal(t, map[string]int64{"guard:rmq": 0, "guard:some": 0}, s.Lag())
	require.Contains(t, s.Guarded(), "rmq")
	require.NoError(t, s.Close())
}
