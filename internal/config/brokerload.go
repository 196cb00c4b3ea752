// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"reflect"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cicadamq/cicada/delay"
)

// fileBroker is a broker as the file writes it, of any kind. What it may hold was checked against
// brokerFields before, so it needs no care for shapes.
type fileBroker struct {
	Seeds       []string
	NameServers []string `yaml:"name_servers"`
	URLs        []string `yaml:"urls"`
	SASL        struct {
		Mechanism, User, Password string
	}
	AccessKey string `yaml:"access_key"`
	SecretKey string `yaml:"secret_key"`
	Creds     string
	User      string
	Password  string
	Token     string
	Guardian  struct {
		Enabled, Timers bool
		Grace           string
		DelayLevels     bool `yaml:"delay_levels"`
		ConsumerRetries bool `yaml:"consumer_retries"`
		Retired         []string
	}
	Sources []fileSource
	Sink    struct {
		Mode, Window string
		LedgerTopic  string `yaml:"ledger_topic"`
		MaxMessage   string `yaml:"max_message"`
	}
}

type fileSource struct {
	Topic, Group, Commit string
	IDFrom               string `yaml:"id_from"`
	RejectTopic          string `yaml:"reject_topic"`
	Target               string `yaml:"target"`
	GroupProtocol        string `yaml:"group_protocol"`
	Stream, Subject      string
	Consumer             string
	RejectSubject        string `yaml:"reject_subject"`
}

// broker fills b from its node.
func (l *loader) broker(path string, b *Broker) {
	var f fileBroker
	if err := b.node.Decode(&f); err != nil {
		l.wrong(l.at(b.node), path, err.Error())
		return
	}
	if n := childNode(b.node, "tls"); n != nil {
		b.TLS = l.clientTLS(path+".tls", n)
	}
	l.sources(path+".sources", b.Kind, childNode(b.node, "sources"), f.Sources)
	switch b.Kind {
	case "kafka":
		b.Kafka = l.kafka(path, b.node, &f)
	case "rocketmq":
		b.RocketMQ = l.rocketMQ(path, b.node, &f)
	case "nats":
		b.NATS = l.nats(path, b.node, &f)
	}
}

func (l *loader) kafka(path string, n *yaml.Node, f *fileBroker) *Kafka {
	k := &Kafka{
		Seeds: f.Seeds,
		SASL:  SASL{Mechanism: f.SASL.Mechanism, User: f.SASL.User},
		Sink: KafkaSink{
			ExactlyOnce: f.Sink.Mode == "exactly_once", LedgerTopic: DefaultLedgerTopic,
			Window: spanOr(f.Sink.Window, DefaultWindow), MaxMessage: DefaultMaxMessage,
		},
	}
	if n, err := parseSize(f.Sink.MaxMessage); err == nil {
		k.Sink.MaxMessage = n
	}
	if f.Sink.LedgerTopic != "" {
		k.Sink.LedgerTopic = f.Sink.LedgerTopic
	}
	k.SASL.Password = l.secretOf(path+".sasl.password", childNode(childNode(n, "sasl"), "password"))
	for _, s := range f.Sources {
		k.Sources = append(k.Sources, KafkaSource{
			Topic: s.Topic, Group: s.Group, Tier: s.Commit == "tier", IDFromKey: s.IDFrom == "key",
			RejectTopic: s.RejectTopic, ServerSide: s.GroupProtocol == "consumer",
		})
	}
	return k
}

func (l *loader) rocketMQ(path string, n *yaml.Node, f *fileBroker) *RocketMQ {
	g := &f.Guardian
	section := childNode(n, "guardian")
	on := func(name string, given bool) bool { // what is left out is guarded
		return section != nil && (given || childNode(section, name) == nil)
	}
	r := &RocketMQ{
		NameServers: f.NameServers, AccessKey: f.AccessKey,
		Guardian: Guardian{
			Enabled: on("enabled", g.Enabled), Grace: spanOr(g.Grace, DefaultGuardianGrace),
			DelayLevels: on("delay_levels", g.DelayLevels), Timers: on("timers", g.Timers),
			ConsumerRetries: g.ConsumerRetries, Retired: g.Retired,
		},
	}
	if r.Guardian.Enabled && !r.Guardian.DelayLevels && !r.Guardian.Timers {
		l.wrong(l.at(n), path+".guardian", "guards neither delay_levels nor timers")
	}
	r.SecretKey = l.secretOf(path+".secret_key", childNode(n, "secret_key"))
	if (f.AccessKey == "") != (f.SecretKey == "") {
		l.wrong(l.at(n), path, "needs both access_key and secret_key")
	}
	for _, s := range f.Sources {
		r.Sources = append(r.Sources, RocketMQSource{
			Topic: s.Topic, Group: s.Group, Tier: s.Commit == "tier", RejectTopic: s.RejectTopic,
			Target: s.Target,
		})
	}
	return r
}

func (l *loader) nats(path string, n *yaml.Node, f *fileBroker) *NATS {
	c := &NATS{
		URLs: f.URLs, Creds: f.Creds, User: f.User,
		Password: l.secretOf(path+".password", childNode(n, "password")),
		Token:    l.secretOf(path+".token", childNode(n, "token")),
	}
	ways := 0
	for _, way := range []string{f.Creds, f.User, f.Token} {
		if way != "" {
			ways++
		}
	}
	if ways > 1 || (f.User == "") != (f.Password == "") {
		l.wrong(l.at(n), path, "want one of creds, token, and user with password")
	}
	for _, s := range f.Sources {
		c.Sources = append(c.Sources, NATSSource{
			Stream: s.Stream, Subject: s.Subject, Consumer: s.Consumer, Tier: s.Commit == "tier",
			RejectSubject: s.RejectSubject,
		})
	}
	return c
}

// sources checks what the sources of a broker must not have in common, and remembers which need a
// bucket.
func (l *loader) sources(path, kind string, list *yaml.Node, all []fileSource) {
	seen := make(map[string]int) // of a stream too: its cursor is one, whatever a source selects
	for i, s := range all {
		n, at := list.Content[i], fmt.Sprintf("%s[%d]", path, i)
		what := s.Topic + s.Stream
		if first, twice := seen[what]; twice {
			l.wrongf(l.at(n), at, "reads the same as %s[%d]", path, first)
		}
		seen[what] = i
		if kind == "kafka" && s.RejectTopic == s.Topic {
			l.wrong(l.at(n), at+".reject_topic",
				"is the topic itself: a record that can be no request would come back for ever")
		}
		if s.Commit == "tier" {
			l.tiers = append(l.tiers, Mistake{Source: l.at(n), Key: at + ".commit"})
		}
	}
}

// finishBrokers checks what depends on other settings.
func (l *loader) finishBrokers() {
	if l.cfg.Bucket.Kind != NoBucket {
		return
	}
	for _, m := range l.tiers {
		l.wrong(m.Source, m.Key, "tier needs a bucket, and tier.bucket is none")
	}
}

// secretOf is the secret that n gives or refers to; nil is "".
func (l *loader) secretOf(path string, n *yaml.Node) Secret {
	if n == nil {
		return ""
	}
	value, err := l.resolve(n.Value)
	if err != nil {
		l.wrong(l.at(n), path, err.Error())
	}
	return Secret(value)
}

// clientTLS reads how connections to a broker are encrypted. An empty mapping trusts the system's
// authorities.
func (l *loader) clientTLS(path string, n *yaml.Node) *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: childValue(n, "server_name"),
		InsecureSkipVerify: childValue(n, "insecure_skip_verify") == "true", //nolint:gosec // asked for
	}
	part := func(name string) []byte {
		v := childNode(n, name)
		if v == nil || v.Value == "" {
			return nil
		}
		body, err := l.read(v.Value)
		if err != nil {
			l.wrongf(l.at(v), path+"."+name, "cannot read %s", v.Value)
		}
		return body
	}
	if ca := part("ca"); ca != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(ca) {
			l.wrong(l.at(childNode(n, "ca")), path+".ca", "holds no certificate")
		}
	}
	cert, key := part("cert"), part("key")
	if name := childValue(n, "key"); name != "" {
		l.cfg.SecretFiles = append(l.cfg.SecretFiles, name)
	}
	if (childValue(n, "cert") == "") != (childValue(n, "key") == "") {
		l.wrong(l.at(n), path, "needs both cert and key")
		return c
	}
	if cert != nil && key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			l.wrong(l.at(n), path, "cert and key are no pair")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// spanOr is v, whose form was checked, or what holds when it was left out.
func spanOr(v string, otherwise time.Duration) time.Duration {
	d, err := delay.ParseDuration(v)
	if err != nil {
		return otherwise
	}
	return d
}

// sameBrokers reports whether two configurations name the same brokers in the same way.
func sameBrokers(a, b []Broker) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Line, y.Line, x.node, y.node = 0, 0, nil, nil
		x.TLS, y.TLS = nil, nil
		if !reflect.DeepEqual(x, y) || !sameNode(childNode(a[i].node, "tls"),
			childNode(b[i].node, "tls")) {
			return false
		}
	}
	return true
}

func sameNode(a, b *yaml.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(masked(a), masked(b))
}
