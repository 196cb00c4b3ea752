// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Examine looks at a cluster and at the topics of its sources, from here, and changes nothing.
func Examine(ctx context.Context, cfg Config, sources []SourceConfig) []broker.Finding {
	cfg, client, err := cfg.complete()
	if err != nil {
		return []broker.Finding{{Check: "configured", Verdict: broker.Bad, Detail: err.Error()}}
	}
	defer client.Close() //nolint:errcheck // it never fails
	x := examiner{client: client, cfg: &cfg}
	brokers, err := client.Cluster(ctx)
	if err != nil {
		x.say(broker.Bad, "reachable", "%v", err)
		return x.found
	}
	if len(brokers) == 0 {
		x.say(broker.Bad, "reachable", "the name servers know no broker")
	}
	for i := range brokers {
		x.broker(ctx, &brokers[i])
	}
	for _, sc := range sources {
		x.topic(ctx, "source "+sc.Topic, sc.Topic, remoting.PermissionRead)
		if sc.RejectTopic != "" {
			x.topic(ctx, "reject topic "+sc.RejectTopic, sc.RejectTopic, remoting.PermissionWrite)
		}
	}
	return x.found
}

type examiner struct {
	client *remoting.Client
	cfg    *Config
	found  []broker.Finding
}

func (x *examiner) say(v broker.Verdict, check, format string, args ...any) {
	x.found = append(x.found, broker.Finding{
		Check: check, Verdict: v, Detail: brief(fmt.Sprintf(format, args...)),
	})
}

// broker looks at one broker: whether it answers, and whether what it keeps outlives its delays.
func (x *examiner) broker(ctx context.Context, b *remoting.BrokerRoute) {
	addr := b.Addresses[0]
	if addr == "" {
		x.say(broker.Bad, "broker "+b.Name, "has no master")
		return
	}
	config, err := x.client.BrokerConfig(ctx, addr)
	if err != nil {
		x.say(broker.Bad, "broker "+b.Name, "%v", err)
		return
	}
	x.say(broker.Good, "broker "+b.Name, "answers at %s", addr)
	kept, ok := number(config, "fileReservedTime")
	if !ok {
		return
	}
	retention := time.Duration(kept) * time.Hour
	longest, what := longestDelay(config)
	if retention <= longest {
		x.say(broker.Warn, "retention of "+b.Name, "its commit log keeps %v, %s wait up to %v: those "+
			"that wait longer than it keeps them are lost without a word", retention, what, longest)
		return
	}
	x.say(broker.Good, "retention of "+b.Name, "its commit log keeps %v, %s wait up to %v in it",
		retention, what, longest)
}

func number(config map[string]string, name string) (int64, bool) {
	n, err := strconv.ParseInt(config[name], 10, 64)
	return n, err == nil && n >= 0
}

// longestDelay is how long one copy of a delayed message has to stay in the commit log, at most:
// timers are written anew every timerRollWindowSlot, delay levels never.
func longestDelay(config map[string]string) (longest time.Duration, what string) {
	what = "delay levels"
	for word := range strings.FieldsSeq(config["messageDelayLevel"]) {
		if d, err := delay.ParseDuration(word); err == nil {
			longest = max(longest, d)
		}
	}
	slots, ok := number(config, "timerRollWindowSlot")
	precision, ok2 := number(config, "timerPrecisionMs")
	most, ok3 := number(config, "timerMaxDelaySec")
	if !ok || !ok2 || !ok3 {
		return longest, what
	}
	window := min(time.Duration(slots)*time.Duration(precision)*time.Millisecond,
		time.Duration(most)*time.Second)
	if window > longest {
		return window, "timers"
	}
	return longest, what
}

// topic looks whether a topic is there and may be used.
func (x *examiner) topic(ctx context.Context, check, name string, permission int) {
	route, err := x.client.Refresh(ctx, name)
	switch {
	case errors.Is(err, delay.ErrNotFound):
		x.say(broker.Bad, check, "the topic does not exist")
		return
	case err != nil:
		x.say(broker.Bad, check, "%v", err)
		return
	}
	queues := route.Readable()
	if permission == remoting.PermissionWrite {
		queues = route.Writable()
	}
	if len(queues) == 0 {
		x.say(broker.Bad, check, "none of its queues may be used")
		return
	}
	x.say(broker.Good, check, "%d queues on %d brokers", len(queues), len(route.Brokers))
}
