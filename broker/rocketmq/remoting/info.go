// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// Runtime is what a broker tells of itself, by name.
type Runtime map[string]string

// RuntimeInfo asks addr for what it tells of itself.
func (c *Client) RuntimeInfo(ctx context.Context, addr string) (Runtime, error) {
	r, err := c.ask(ctx, "runtime info", addr, &Command{Code: RequestRuntimeInfo})
	if err != nil {
		return nil, err
	}
	var body struct {
		Table Runtime `json:"table"`
	}
	if err := json.Unmarshal(standardJSON(r.Body), &body); err != nil {
		return nil, fmt.Errorf("%w: runtime info: %w", delay.ErrCorrupt, err)
	}
	return body.Table, nil
}

func (r Runtime) number(name string) (int64, error) {
	n, err := strconv.ParseInt(r[name], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: runtime info: %s is %.40q", delay.ErrCorrupt, name, r[name])
	}
	return n, nil
}

// CommitLog is the range of offsets that the commit log holds. What is below low is gone.
func (r Runtime) CommitLog() (low, high int64, err error) {
	if low, err = r.number("commitLogMinOffset"); err != nil {
		return 0, 0, err
	}
	high, err = r.number("commitLogMaxOffset")
	return low, high, err
}

// Earliest is when the oldest message that the commit log holds was stored, and so how far back
// the index of keys reaches. ok is false when the broker does not say.
func (r Runtime) Earliest() (at delay.Due, ok bool) {
	n, err := r.number("earliestMessageTimeStamp")
	return delay.Due(n), err == nil && n > 0
}

// Booted is when the broker started. ok is false when it does not say.
func (r Runtime) Booted() (at delay.Due, ok bool) {
	n, err := r.number("bootTimestamp")
	return delay.Due(n), err == nil && n > 0
}

// Level is how far a delay level has been delivered, and how far its queue reaches. ok is false
// for a level nobody used yet.
func (r Runtime) Level(level int) (delivered, end int64, ok bool) {
	text, ok := r["scheduleMessageOffset_"+strconv.Itoa(level)]
	if !ok {
		return 0, 0, false
	}
	d, e, _ := strings.Cut(text, ",")
	delivered, err := strconv.ParseInt(d, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	end, err = strconv.ParseInt(e, 10, 64)
	return delivered, end, err == nil
}

// DelayOffsets is how far each delay level was delivered, by level from 1, as the broker would
// write it to its disk now.
func (c *Client) DelayOffsets(ctx context.Context, addr string) (map[int]int64, error) {
	r, err := c.ask(ctx, "delay offsets", addr, &Command{Code: RequestDelayOffsets})
	if err != nil {
		return nil, err
	}
	var body struct {
		Offsets map[int]int64 `json:"offsetTable"`
	}
	if err := json.Unmarshal(standardJSON(r.Body), &body); err != nil {
		return nil, fmt.Errorf("%w: delay offsets: %w", delay.ErrCorrupt, err)
	}
	return body.Offsets, nil
}

// TimerCheckpoint is how far the timer wheel of a broker has come.
type TimerCheckpoint struct {
	ReadAt     delay.Due `json:"lastReadTimeMs"`         // slots before it were delivered
	LogFlushed int64     `json:"lastTimerLogFlushPos"`   // offset in the timer's log
	Enqueued   int64     `json:"lastTimerQueueOffset"`   // offset in the timer's queue
	MasterAt   int64     `json:"masterTimerQueueOffset"` // the master's, on a slave
}

// timerCheckpointBytes is the length of a checkpoint on the wire: four numbers, and from 5.0 on a
// version of 24 bytes.
const timerCheckpointBytes = 32

// TimerCheckpoint asks how far the timer wheel of addr has come.
func (c *Client) TimerCheckpoint(ctx context.Context, addr string) (TimerCheckpoint, error) {
	r, err := c.ask(ctx, "timer checkpoint", addr, &Command{Code: RequestTimerCheckpoint})
	if err != nil {
		return TimerCheckpoint{}, err
	}
	if len(r.Body) < timerCheckpointBytes {
		return TimerCheckpoint{}, fmt.Errorf("%w: timer checkpoint of %d bytes", delay.ErrCorrupt,
			len(r.Body))
	}
	b := reader{b: r.Body}
	return TimerCheckpoint{
		ReadAt: delay.Due(b.int64()), LogFlushed: b.int64(), Enqueued: b.int64(), MasterAt: b.int64(),
	}, nil
}

// TimerMetric counts the pending timers of one topic.
type TimerMetric struct {
	Count  int64     `json:"count"`
	Newest delay.Due `json:"timeStamp"` // when the count last changed
}

// TimerMetrics counts the pending timers of addr by topic.
func (c *Client) TimerMetrics(
	ctx context.Context, addr string,
) (map[string]TimerMetric, error) {
	r, err := c.ask(ctx, "timer metrics", addr, &Command{Code: RequestTimerMetrics})
	if err != nil {
		return nil, err
	}
	var body struct {
		Counts map[string]TimerMetric `json:"timingCount"`
	}
	if err := json.Unmarshal(standardJSON(r.Body), &body); err != nil {
		return nil, fmt.Errorf("%w: timer metrics: %w", delay.ErrCorrupt, err)
	}
	return body.Counts, nil
}

// BrokerConfig is the configuration a broker runs with, as it tells it: messageDelayLevel,
// fileReservedTime, timerMaxDelaySec and so on.
func (c *Client) BrokerConfig(ctx context.Context, addr string) (map[string]string, error) {
	r, err := c.ask(ctx, "broker config", addr, &Command{Code: RequestBrokerConfig})
	if err != nil {
		return nil, err
	}
	config := map[string]string{}
	for line := range strings.Lines(string(r.Body)) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok {
			config[name] = value
		}
	}
	return config, nil
}

// CreateTopic makes a topic at addr, a master, or changes the number of its queues. The name
// servers learn of it a moment later.
func (c *Client) CreateTopic(ctx context.Context, addr, topic string, queues int) error {
	_, err := c.ask(ctx, "create topic", addr, &Command{
		Code: RequestCreateTopic,
		Fields: map[string]string{
			"topic": topic, "defaultTopic": topicDefault, "readQueueNums": itoa(queues),
			"writeQueueNums": itoa(queues), "perm": itoa(PermissionRead | PermissionWrite),
			"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": yesNo(false),
		},
	})
	return err
}

// DeleteExpired asks a broker to look for commit log files that may be deleted, whatever the hour.
func (c *Client) DeleteExpired(ctx context.Context, addr string) error {
	_, err := c.ask(ctx, "delete expired", addr, &Command{Code: RequestDeleteExpired})
	return err
}

// heartbeat is the body of a RequestHeartbeat.
type heartbeat struct {
	ClientID  string              `json:"clientID"`
	Consumers []heartbeatConsumer `json:"consumerDataSet"`
	Producers []heartbeatProducer `json:"producerDataSet"`
}

type heartbeatProducer struct {
	Group string `json:"groupName"`
}

type heartbeatConsumer struct {
	Group         string                  `json:"groupName"`
	Type          string                  `json:"consumeType"`
	Model         string                  `json:"messageModel"`
	From          string                  `json:"consumeFromWhere"`
	Subscriptions []heartbeatSubscription `json:"subscriptionDataSet"`
	Unit          bool                    `json:"unitMode"`
}

type heartbeatSubscription struct {
	Topic   string   `json:"topic"`
	Words   string   `json:"subString"`
	Tags    []string `json:"tagsSet"`
	Codes   []int    `json:"codeSet"`
	Version int64    `json:"subVersion"`
	Kind    string   `json:"expressionType"`
	Class   bool     `json:"classFilterMode"`
}

// Heartbeat tells addr that this client is there: a producer of Config.Group, and a consumer of
// group that reads topics by itself. It shows in the broker's lists of connections, which is all
// it is for; without a group only the producer is told.
func (c *Client) Heartbeat(ctx context.Context, addr, id, group string, topics []string) error {
	beat := heartbeat{
		ClientID: id, Consumers: []heartbeatConsumer{},
		Producers: []heartbeatProducer{{Group: c.cfg.Group}},
	}
	if group != "" {
		one := heartbeatConsumer{
			Group: group, Type: "CONSUME_ACTIVELY", Model: "CLUSTERING",
			From: "CONSUME_FROM_FIRST_OFFSET", Subscriptions: []heartbeatSubscription{},
		}
		for _, t := range topics {
			one.Subscriptions = append(one.Subscriptions, heartbeatSubscription{
				Topic: t, Words: "*", Tags: []string{}, Codes: []int{}, Kind: "TAG",
			})
		}
		beat.Consumers = append(beat.Consumers, one)
	}
	body, err := json.Marshal(beat)
	if err != nil {
		return fmt.Errorf("encode heartbeat: %w", err)
	}
	_, err = c.ask(ctx, "heartbeat", addr, &Command{Code: RequestHeartbeat, Body: body})
	return err
}
