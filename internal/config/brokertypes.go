// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/tls"
	"time"

	"go.yaml.in/yaml/v3"
)

// Broker is one named broker of the file. One of Kafka, RocketMQ and NATS is set, as Kind says.
type Broker struct {
	Name string
	Kind string // kafka, rocketmq, nats
	Line int    // where it stands in the file
	// TLS encrypts the connections to it; nil is none. Its files were read with the file.
	TLS      *tls.Config
	Kafka    *Kafka
	RocketMQ *RocketMQ
	NATS     *NATS

	node *yaml.Node // its part of the file, for Print
}

// Kafka is a cluster: where it is, what is read from it and how it is written to.
type Kafka struct {
	Seeds   []string
	SASL    SASL // the zero value is none
	Sources []KafkaSource
	Sink    KafkaSink
}

// SASL is a user of a Kafka cluster.
type SASL struct {
	Mechanism string // plain, scram-sha-256, scram-sha-512; "" is none
	User      string
	Password  Secret
}

// KafkaSource is a topic of requests.
type KafkaSource struct {
	Topic       string
	Group       string
	Tier        bool   // commit: tier
	IDFromKey   bool   // id_from: key
	RejectTopic string // "" is none
	ServerSide  bool   // group_protocol: consumer (KIP-848)
}

// KafkaSink says how due messages are published.
type KafkaSink struct {
	ExactlyOnce bool // mode: exactly_once
	LedgerTopic string
	Window      time.Duration // of one transaction
	MaxMessage  int64         // bytes, headers included; larger ones become dead letters
}

// RocketMQ is a cluster of brokers behind name servers.
type RocketMQ struct {
	NameServers []string
	AccessKey   string
	SecretKey   Secret
	Guardian    Guardian
	Sources     []RocketMQSource
}

// Guardian says which delayed messages of the cluster are watched over. A file without a section
// has none; in one, what is left out is watched but for ConsumerRetries.
type Guardian struct {
	Enabled         bool
	Grace           time.Duration
	DelayLevels     bool
	Timers          bool
	ConsumerRetries bool
	Retired         []string // brokers that will not come back
}

// RocketMQSource is a topic of requests.
type RocketMQSource struct {
	Topic       string
	Group       string
	Tier        bool   // commit: tier
	RejectTopic string // "" is none
	Target      string // of records that name none; "" refuses those
}

// NATS is a cluster of servers with JetStream.
type NATS struct {
	URLs     []string
	Creds    string // a credentials file
	User     string
	Password Secret
	Token    Secret
	Sources  []NATSSource
}

// NATSSource is a stream, or a part of one, of requests.
type NATSSource struct {
	Stream        string
	Subject       string
	Consumer      string // durable name; "" is the source's default
	Tier          bool   // commit: tier
	RejectSubject string // "" is none
}

// The defaults of brokers.
const (
	DefaultLedgerTopic   = "cicada.ledger"
	DefaultWindow        = 20 * time.Millisecond
	DefaultMaxMessage    = 1_000_012 // what Kafka's brokers take unless configured otherwise
	DefaultGuardianGrace = 5 * time.Second
)
