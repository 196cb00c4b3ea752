// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"crypto/tls"
	"net"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Kind is the scheme of targets and the kind in the configuration.
const Kind = "rocketmq"

// Config says how to reach one cluster. The source, the sink and the doctor share it.
type Config struct {
	// Broker is the cluster's name in the configuration, as in the target rocketmq:<broker>/<topic>.
	Broker string
	// NameServers are asked where topics are, host:port.
	NameServers []string
	// AccessKey and SecretKey sign each request; both or none.
	AccessKey, SecretKey string
	// TLS, if not nil, encrypts every connection.
	TLS *tls.Config
	// Timeout bounds connecting, and waiting for an answer. 0: remoting.DefaultTimeout.
	Timeout time.Duration
	// Dial connects instead of a net.Dialer, without TLS; for tests.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *zap.Logger      // nil: no log
	Now    func() time.Time // nil: time.Now
}

var brokerName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Open is complete for the packages below this one: what is missing is filled in, and the client
// is the caller's to close.
func (c Config) Open() (Config, *remoting.Client, error) { return c.complete() }

// complete fills in the defaults and connects nowhere yet. What is wrong wraps delay.ErrInvalid.
func (c Config) complete() (Config, *remoting.Client, error) {
	switch {
	case !brokerName.MatchString(c.Broker):
		return c, nil, delay.Invalid("brokers", "want a name of 1 to 64 of A-Z a-z 0-9 . _ -")
	case len(c.NameServers) == 0:
		return c, nil, delay.Invalid("brokers."+c.Broker+".name_servers", "must not be empty")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Logger = c.Logger.With(zap.String("broker", c.Broker))
	if c.Now == nil {
		c.Now = time.Now
	}
	client, err := remoting.New(remoting.Config{
		NameServers: c.NameServers, AccessKey: c.AccessKey, SecretKey: c.SecretKey, TLS: c.TLS,
		Timeout: c.Timeout, Dial: c.Dial, Now: c.Now, Encoding: remoting.Binary,
	})
	return c, client, err
}

const maxTopicBytes = 127 // RocketMQ's own limit

var topicName = regexp.MustCompile(`^[A-Za-z0-9_|-]+$`)

// badTopic says why nothing can be sent to or read from a topic by its users, or "".
func badTopic(topic string) string {
	switch upper := strings.ToUpper(topic); {
	case len(topic) > maxTopicBytes || !topicName.MatchString(topic):
		return "want a topic of 1 to 127 of A-Z a-z 0-9 _ - |"
	case strings.HasPrefix(upper, "RMQ_SYS_"), topic == remoting.TopicSchedule, topic == "TBW102",
		topic == "BenchmarkTest", topic == "SELF_TEST_TOPIC", topic == "OFFSET_MOVED_EVENT",
		topic == "TRANS_CHECK_MAX_TIME_TOPIC":
		return "the topic is RocketMQ's own"
	}
	return ""
}

// topicOf is the topic of a target of this broker, or why it is none.
func topicOf(target delay.Target, broker string) (topic, reason string) {
	rest, ok := strings.CutPrefix(string(target), Kind+":")
	name, topic, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || name != broker {
		return "", "want " + Kind + ":" + broker + "/<topic>"
	}
	return topic, badTopic(topic)
}
