// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka"
	"github.com/cicadamq/cicada/broker/kafka/source"
	"github.com/cicadamq/cicada/broker/nats"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
)

func load(t *testing.T, file string) *config.Config {
	t.Helper()
	cfg, err := config.Load(config.Sources{
		File:     "c.yaml",
		ReadFile: func(string) ([]byte, error) { return []byte(file), nil },
		Env:      func(string) (string, bool) { return "", false },
	})
	require.NoError(t, err)
	return cfg
}

// A setting that does not arrive is a setting that is ignored.
func TestKafka(t *testing.T) {
	cfg := load(t, `brokers:
  main:
    kind: kafka
    seeds: ["k:1"]
    tls: {}
    sasl: {mechanism: plain, user: u, password: p}
    sources: [{topic: a, group: g, commit: tier, id_from: key, reject_topic: b, group_protocol: consumer}]
    sink: {max_message: 3MiB}
`)
	gone := errors.New("gone")
	o := Options{Version: "v1", CheckTarget: func(delay.Target) error { return gone }}
	s := KafkaSources(&cfg.Brokers[0], o)[0]
	require.ErrorIs(t, s.CheckTarget("x"), gone)
	s.CheckTarget = nil
	require.Equal(t, source.Options{
		Config: kafka.Config{
			Broker: "main", Seeds: []string{"k:1"}, TLS: cfg.Brokers[0].TLS, Version: "v1",
			SASL: kafka.SASL{Mechanism: kafka.Plain, User: "u", Password: "p"},
		},
		Topic: "a", Group: "g", Tier: true, IDFromKey: true, RejectTopic: "b", ServerSide: true,
	}, s)
	require.NotNil(t, s.TLS)
	require.EqualValues(t, 3<<20, kafkaSink(&cfg.Brokers[0], Options{}, nil).MaxMessageBytes)
	_, err := source.New(s)
	require.NoError(t, err)
}

// A setting that does not arrive is a setting that is ignored.
func TestNATS(t *testing.T) {
	cfg := load(t, `brokers:
  n1:
    kind: nats
    urls: ["nats://n:4222"]
    user: u
    password: p
    tls: {}
    sources: [{stream: S, subject: "s.>", consumer: c, commit: tier, reject_subject: bad}]
`)
	b := &cfg.Brokers[0]
	require.Equal(t, nats.Config{
		Broker: "n1", URLs: []string{"nats://n:4222"}, User: "u", Password: "p", TLS: b.TLS,
	}, NATSConfig(b, Options{}))
	require.NotNil(t, b.TLS)
	require.Equal(t, []nats.SourceConfig{{
		Stream: "S", Subject: "s.>", Consumer: "c", Tier: true, RejectSubject: "bad",
	}}, NATSSources(b, Options{}))
	_, err := Open(cfg.Brokers, false, func() string { return "c" }, Options{})
	require.ErrorIs(t, err, delay.ErrInvalid, "commit: tier without a bucket")
}

// The doctor must name the broker that is ill, and look at the others all the same.
func TestExamine(t *testing.T) {
	cfg := load(t, `brokers:
  ill: {kind: kafka, seeds: ["127.0.0.1:1"]}
  n1: {kind: nats, urls: ["nats://127.0.0.1:1"]}
  ill2: {kind: kafka, seeds: ["127.0.0.1:1"]}
`)
	got := make(map[string]broker.Verdict)
	for _, f := range Examine(t.Context(), cfg, Options{}) {
		got[f.Check] = f.Verdict
	}
	require.Equal(t, broker.Bad, got["ill: reachable"])
	require.Equal(t, broker.Bad, got["ill2: reachable"])
	require.Equal(t, broker.Bad, got["n1: reachable"])
}
