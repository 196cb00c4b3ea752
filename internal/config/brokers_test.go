// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A setting of a broker that arrives nowhere, or as another one, reads or writes something else than
// the operator wrote.
func TestBrokers(t *testing.T) {
	c, err := Load(given(`
brokers:
  main:
    kind: kafka
    seeds: ["k1:9092", "[::1]:9092"]
    sasl: {mechanism: scram-sha-512, user: u, password: "${KAFKA}"}
    sources:
      - {topic: a, group: g, commit: tier, id_from: key, reject_topic: a.bad, group_protocol: consumer}
      - {topic: b, group: g}
    sink: {mode: exactly_once, ledger_topic: led, window: 50ms, max_message: 8MiB}
  plain: {kind: kafka, seeds: ["k:1"]}
  rmq:
    kind: rocketmq
    name_servers: ["n:9876"]
    access_key: ak
    secret_key: "file:/run/secret"
    guardian: {enabled: true, grace: 7s, delay_levels: true, consumer_retries: true, retired: [b-old]}
    sources: [{topic: t, group: g, commit: tier}]
  n1:
    kind: nats
    urls: ["nats://n:4222"]
    user: u
    password: pw
    sources: [{stream: S, subject: "s.>", consumer: c, commit: tier, reject_subject: s.bad}]
`, map[string]string{"KAFKA": "secret"}, nil))
	require.NoError(t, err)
	kafka, plain, rmq, n1 := c.Brokers[0], c.Brokers[1], c.Brokers[2], c.Brokers[3]
	require.Equal(t, &Kafka{
		Seeds: []string{"k1:9092", "[::1]:9092"},
		SASL:  SASL{Mechanism: "scram-sha-512", User: "u", Password: "secret"},
		Sources: []KafkaSource{
			{Topic: "a", Group: "g", Tier: true, IDFromKey: true, RejectTopic: "a.bad", ServerSide: true},
			{Topic: "b", Group: "g"},
		},
		Sink: KafkaSink{
			ExactlyOnce: true, LedgerTopic: "led", Window: 50 * time.Millisecond, MaxMessage: 8 << 20,
		},
	}, kafka.Kafka)
	require.Equal(t, &Kafka{
		Seeds: []string{"k:1"}, Sink: KafkaSink{
			LedgerTopic: DefaultLedgerTopic, Window: DefaultWindow, MaxMessage: DefaultMaxMessage,
		},
	}, plain.Kafka)
	require.Equal(t, &RocketMQ{
		NameServers: []string{"n:9876"}, AccessKey: "ak", SecretKey: "from-file",
		Guardian: Guardian{
			Enabled: true, Grace: 7 * time.Second, DelayLevels: true, Timers: true, ConsumerRetries: true,
			Retired: []string{"b-old"},
		},
		Sources: []RocketMQSource{{Topic: "t", Group: "g", Tier: true}},
	}, rmq.RocketMQ)
	require.Equal(t, &NATS{
		URLs: []string{"nats://n:4222"}, User: "u", Password: "pw",
		Sources: []NATSSource{
			{Stream: "S", Subject: "s.>", Consumer: "c", Tier: true, RejectSubject: "s.bad"},
		},
	}, n1.NATS)
	require.Nil(t, kafka.TLS)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", *kafka.Kafka, *rmq.RocketMQ, *n1.NATS), "from-file")
	require.Contains(t, c.SecretFiles, "/run/secret")
	var out bytes.Buffer
	require.NoError(t, c.Print(&out))
	for _, hidden := range []string{"KAFKA", "/run/secret", "password: pw"} {
		require.NotContains(t, out.String(), hidden)
	}
}

// A mistake in a broker must name its line and key, and what would be right (G1, G2).
func TestBrokerMistakes(t *testing.T) {
	_, err := Load(given(`brokers:
  "a b": {kind: kafka, seeds: ["k:1"]}
  k1:
    kind: kafka
    seeds: [nowhere]
    sasl: {mechanism: gssapi, user: u, password: p}
    sources:
      - {topic: "a b", group: g, commit: disk, id_from: value, reject_topic: ".."}
      - {group: ""}
    sink: {window: 1h, ledger_topic: "x/y", max_message: 1GiB}
  k2:
    kind: kafka
    seeds: ["k:1"]
    sasl: {user: u, password: "${GONE}"}
    sink: {max_message: much}
  k3:
    kind: kafka
    seeds: ["k:1"]
    sasl: {mechanism: plain, user: u, password: "${GONE}"}
    tls: {ca: /gone.pem, cert: /c.pem}
    sources:
      - {topic: a, group: g, reject_topic: a}
      - {topic: a, group: h}
  r1: {kind: rocketmq, name_servers: ["n:1"], access_key: a, guardian: {grace: 1ms, enabled: yes}}
  r2: {kind: rocketmq, name_servers: ["n:1"], access_key: a}
  n1: {kind: nats, urls: [], sources: {}}
  n2: {kind: nats, urls: ["nats://n:1"], user: u, token: t, creds: c}
  n3:
    kind: nats
    urls: ["nats://n:1"]
    sources: [{stream: S, subject: a}, {stream: S, subject: b, consumer: c}]
`, nil, nil))
	golden(t, "broker_mistakes.txt", err.Error()+"\n")
}

// A source that waits for a bucket that is not there would never commit.
func TestSourceNeedsABucket(t *testing.T) {
	file := "brokers:\n  k:\n    kind: kafka\n    seeds: [\"k:1\"]\n" +
		"    sources:\n    - {topic: a, group: g, commit: tier}\n"
	_, err := Load(given(file, nil, nil))
	require.NoError(t, err)
	_, err = Load(given(file, nil, map[string]string{"bucket": "none"}))
	require.ErrorContains(t, err, "c.yaml:6: brokers.k.sources[0].commit: tier needs a bucket")
}

// Certificates that are not used, or an unreadable file that is passed over, leave a connection
// open to others.
func TestBrokerTLS(t *testing.T) {
	cert, key := pair(t)
	files := map[string]string{"/ca": cert, "/cert": cert, "/key": key, "/none": "x"}
	load := func(tls string) (*Config, error) {
		src := given("brokers: {k: {kind: kafka, seeds: [\"k:1\"], tls: "+tls+"}}", nil, nil)
		main := src.ReadFile
		src.ReadFile = func(name string) ([]byte, error) {
			if name == src.File {
				return main(name)
			}
			if body, ok := files[name]; ok {
				return []byte(body), nil
			}
			return nil, errors.New("gone")
		}
		return Load(src)
	}
	c, err := load("{ca: /ca, cert: /cert, key: /key, server_name: kafka.example}")
	require.NoError(t, err)
	require.NotNil(t, c.Brokers[0].TLS.RootCAs)
	require.Len(t, c.Brokers[0].TLS.Certificates, 1)
	require.Equal(t, "kafka.example", c.Brokers[0].TLS.ServerName)
	require.Contains(t, c.SecretFiles, "/key")
	c, err = load("{}")
	require.NoError(t, err)
	require.NotNil(t, c.Brokers[0].TLS)
	require.False(t, c.Brokers[0].TLS.InsecureSkipVerify)
	c, err = load("{insecure_skip_verify: true}")
	require.NoError(t, err)
	require.True(t, c.Brokers[0].TLS.InsecureSkipVerify)
	for tls, want := range map[string]string{
		"{ca: /gone}":                "c.yaml:1: brokers.k.tls.ca: cannot read /gone",
		"{ca: /none}":                "brokers.k.tls.ca: holds no certificate",
		"{cert: /cert}":              "brokers.k.tls: needs both cert and key",
		"{cert: /cert, key: /none}":  "brokers.k.tls: cert and key are no pair",
		"{insecure_skip_verify: no}": "want true or false",
		"{verify: false}":            "unknown key",
	} {
		_, err := load(tls)
		require.ErrorContains(t, err, want, tls)
	}
}

// A change of a broker that no restart is asked for would never come into force.
func TestBrokersNeedARestart(t *testing.T) {
	load := func(sink, tls, password string) *Config {
		c, err := Load(given("brokers: {k: {kind: kafka, seeds: [\"k:1\"], sink: {mode: "+sink+
			"}, tls: "+tls+", sasl: {mechanism: plain, user: u, password: \"${P}\"}}}",
			map[string]string{"P": password}, nil))
		require.NoError(t, err)
		return c
	}
	old := load("idempotent", "{}", "p")
	require.Empty(t, NeedRestart(old, load("idempotent", "{}", "p")))
	require.Equal(t, []string{"brokers"}, NeedRestart(old, load("exactly_once", "{}", "p")))
	require.Equal(t, []string{"brokers"}, NeedRestart(old, load("idempotent", "{server_name: x}", "p")))
	require.Equal(t, []string{"brokers"}, NeedRestart(old, load("idempotent", "{}", "q")))
}

// pair is a certificate and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	require.NoError(t, err)
	raw, err := x509.MarshalECPrivateKey(k)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
}
