// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Examine looks whether what o guards can be guarded, from here, and changes nothing. How far a
// mirror is behind only the daemon that mirrors can tell.
func Examine(ctx context.Context, cfg rocketmq.Config, o Options) []broker.Finding {
	g, err := New(cfg, o)
	if err != nil {
		return []broker.Finding{{Check: "guardian", Verdict: broker.Bad, Detail: err.Error()}}
	}
	defer g.Close() //nolint:errcheck // it never fails
	x := examiner{g: g}
	route, err := g.client.Refresh(ctx, remoting.TopicSchedule)
	if err != nil {
		x.say(broker.Bad, "guardian", "no delay levels are found: %v", err)
		return x.found
	}
	for i := range route.Brokers {
		b := &route.Brokers[i]
		addr := b.Addresses[0]
		if addr != "" && slices.Contains(o.Retired, b.Name) {
			x.say(broker.Warn, "guardian of "+b.Name, "it is said to be retired, and is there")
		}
		if addr == "" {
			x.say(broker.Bad, "guardian of "+b.Name, "the broker has no master")
			continue
		}
		x.broker(ctx, b, addr)
	}
	return x.found
}

type examiner struct {
	g     *Guardian
	found []broker.Finding
}

func (x *examiner) say(v broker.Verdict, check, format string, args ...any) {
	x.found = append(x.found, broker.Finding{
		Check: check, Verdict: v, Detail: fmt.Sprintf(format, args...),
	})
}

// broker looks at one broker.
func (x *examiner) broker(ctx context.Context, b *remoting.BrokerRoute, addr string) {
	check := "guardian of " + b.Name
	config, err := x.g.client.BrokerConfig(ctx, addr)
	if err != nil {
		x.say(broker.Bad, check, "%v", err)
		return
	}
	info, err := x.g.client.RuntimeInfo(ctx, addr)
	if err != nil {
		x.say(broker.Bad, check, "%v", err)
		return
	}
	levels, err := delayLevels(config["messageDelayLevel"])
	if err != nil {
		x.say(broker.Bad, check, "%v", err)
		return
	}
	if x.g.o.DelayLevels && !x.mayRead(ctx, check, addr, remoting.TopicSchedule) {
		return
	}
	if x.g.o.Timers {
		if config["timerWheelEnable"] == "false" {
			x.say(broker.Note, check, "its timer wheel is off: it has delay levels alone")
		} else if !x.mayRead(ctx, check, addr, remoting.TopicTimer) {
			return
		}
	}
	if config["messageIndexEnable"] == "false" {
		x.say(broker.Bad, check, "its index is off (messageIndexEnable): nobody could tell what it "+
			"delivered, and everything would be delivered twice")
		return
	}
	if config["recallMessageEnable"] != "true" {
		x.say(broker.Note, check, "it takes no recalls (recallMessageEnable)")
	}
	if x.g.o.Timers && config["timerRocksDBEnable"] == "true" {
		x.say(broker.Warn, check, "its timers lie in RocksDB (timerRocksDBEnable), which delivers some "+
			"a little before they are due: those come twice")
	}
	x.reach(check, info, levels)
	x.pending(ctx, check, addr, info, min(len(levels), int(b.ReadQueues)))
}

// mayRead tries to read a topic of the broker's own.
func (x *examiner) mayRead(ctx context.Context, check, addr, topic string) bool {
	_, err := x.g.client.Pull(ctx, addr, remoting.Pull{Group: Group, Topic: topic, Max: 1})
	if err == nil { // which is another permission
		_, err = x.g.client.MaxOffset(ctx, addr, topic, 0)
	}
	if err != nil {
		x.say(broker.Bad, check, "%s cannot be read by the group %s: %v", topic, Group, err)
	}
	return err == nil
}

// maxAsked bounds the topics that are tried.
const maxAsked = 32

// mayAsk tries to look for what was delivered, in topics that timers wait for. Whether a message
// may be sent to them only one that is sent can tell.
func (x *examiner) mayAsk(
	ctx context.Context, check, addr string, counts map[string]remoting.TimerMetric,
) {
	topics := slices.Sorted(maps.Keys(counts))
	for _, topic := range topics[:min(len(topics), maxAsked)] {
		_, err := x.g.client.Query(ctx, addr, remoting.Query{
			Topic: topic, Key: Group, Unique: true, Max: 1, End: x.g.now(),
		})
		var refused *remoting.Error
		if errors.As(err, &refused) && refused.Code == remoting.NoPermission {
			x.say(broker.Bad, check, "nobody could tell what it delivered to %s: %v", topic, err)
		}
	}
}

// reach compares how far back the commit log goes now with what waits in it.
func (x *examiner) reach(check string, info remoting.Runtime, levels []time.Duration) {
	low, _, err := info.CommitLog()
	earliest, ok := info.Earliest()
	if err != nil || !ok || low == 0 {
		return // nothing was lost yet
	}
	longest := time.Duration(0)
	for _, d := range levels {
		longest = max(longest, d)
	}
	if back := x.g.now().Sub(earliest); back < longest {
		x.say(broker.Warn, check, "its commit log begins %s ago, and delay levels wait up to %s: "+
			"longer ones are lost to it, and delivered here", delay.FormatDuration(
			back.Round(time.Second)), delay.FormatDuration(longest))
	}
}

// pending tells what waits at a broker, and what of it is lost already.
func (x *examiner) pending(
	ctx context.Context, check, addr string, info remoting.Runtime, levels int,
) {
	waiting, lost := int64(0), int64(0)
	for n := range levels {
		delivered, end, ok := info.Level(n + 1)
		if !ok {
			continue
		}
		low, err := x.g.client.MinOffset(ctx, addr, remoting.TopicSchedule, int32(n))
		if err != nil {
			x.say(broker.Bad, check, "%v", err)
			return
		}
		waiting += max(0, end-max(delivered, low))
		lost += max(0, min(low, end)-delivered)
	}
	timers := int64(0)
	if counts, err := x.g.client.TimerMetrics(ctx, addr); err == nil {
		for _, c := range counts {
			timers += c.Count
		}
		x.mayAsk(ctx, check, addr, counts)
	}
	verdict := broker.Good
	if lost > 0 {
		verdict = broker.Warn
	}
	x.say(verdict, check, "%d at delay levels and %d timers wait; %d at delay levels are lost to it",
		waiting, timers, lost)
}
