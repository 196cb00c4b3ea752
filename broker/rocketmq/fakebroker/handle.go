// SPDX-License-Identifier: Apache-2.0

package fakebroker

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

const maxTimer = 3 * 24 * time.Hour

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// atoi reads a number; what is none is 0, as for who leaves a field out.
func atoi(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// handle answers one request.
func (b *Broker) handle(ctx context.Context, c *remoting.Command) *remoting.Command {
	switch c.Code {
	case remoting.RequestPull, remoting.RequestLitePull:
		return b.pull(ctx, c)
	case remoting.RequestSend, remoting.RequestSendBatch:
		return b.send(c)
	case remoting.RequestQuery:
		return b.query(c)
	case remoting.RequestView:
		return b.view(c)
	case remoting.RequestMinOffset, remoting.RequestMaxOffset, remoting.RequestOffsetAt:
		return b.offset(c)
	case remoting.RequestGroupOffset, remoting.RequestCommitOffset:
		return b.groupOffset(c)
	case remoting.RequestHeartbeat:
		return b.heartbeat(c)
	case remoting.RequestRecall:
		return b.recall(c)
	case remoting.RequestCreateTopic:
		b.CreateTopic(c.Fields["topic"], int(atoi(c.Fields["readQueueNums"])))
		return c.Reply(remoting.OK, "")
	case remoting.RequestDeleteExpired:
		return c.Reply(remoting.OK, "")
	default:
		return b.tell(c)
	}
}

func reply(c *remoting.Command, fields map[string]string) *remoting.Command {
	r := c.Reply(remoting.OK, "")
	r.Fields = fields
	return r
}

func (b *Broker) send(c *remoting.Command) *remoting.Command {
	f := c.Fields
	if system(f["b"]) {
		return c.Reply(remoting.NoPermission, "Sending message to topic is forbidden.")
	}
	if len(c.Body) > b.cluster.opts.MaxMessage {
		if c.Code == remoting.RequestSendBatch {
			return c.Reply(remoting.SystemError, "RuntimeException: message body size exceeded")
		}
		return c.Reply(remoting.MessageIllegal, "message size exceeded")
	}
	batch := []remoting.Outgoing{{
		Flag: int32(atoi(f["h"])), Properties: remoting.ParseProperties(f["i"]), Body: c.Body,
	}}
	if c.Code == remoting.RequestSendBatch {
		var err error
		if batch, err = remoting.DecodeBatch(c.Body); err != nil || f["m"] != "true" {
			return c.Reply(remoting.SystemError, "RuntimeException: batch")
		}
	} else if len(c.Body) == 0 {
		return c.Reply(remoting.SystemError, "NullPointerException: getBody()")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.topics[f["b"]]; t != nil && t.permission&remoting.PermissionWrite == 0 {
		return c.Reply(remoting.NoPermission, "sending message is forbidden")
	}
	var ids []string
	first, handle, queue := int64(-1), "", int32(atoi(f["e"]))
	for _, m := range batch {
		stored := remoting.Message{
			Topic: f["b"], Queue: queue, Flag: m.Flag, Properties: m.Properties, Body: m.Body,
			SysFlag: int32(atoi(f["f"])), Reconsumed: int32(atoi(f["j"])),
			Born: delay.Due(atoi(f["g"])), BornHost: netip.MustParseAddrPort("127.0.0.1:1"),
		}
		deliverAt, refused := b.postpone(&stored)
		if refused != "" {
			return c.Reply(remoting.MessageIllegal, refused)
		}
		if deliverAt != 0 {
			handle = remoting.RecallHandle{
				Topic: f["b"], Broker: b.name, DeliverAt: deliverAt,
				UniqueKey: m.Properties.Value(remoting.PropertyUniqueKey),
			}.String()
		}
		offset := b.store(&stored)
		if queue = stored.Queue; first < 0 {
			first = offset
		}
		ids = append(ids, stored.MessageID())
	}
	fields := map[string]string{
		"msgId": strings.Join(ids, ","), "queueId": itoa(int64(queue)), "queueOffset": itoa(first),
	}
	if handle != "" {
		fields["recallHandle"] = handle
	}
	return reply(c, fields)
}

// postpone turns m into an entry of a broker's own topic if it has a delay. deliverAt is the
// instant in a timer's handle, 0 for others.
func (b *Broker) postpone(m *remoting.Message) (deliverAt delay.Due, refused string) {
	p, now := m.Properties, b.cluster.now()
	home := remoting.Properties{
		{Name: remoting.PropertyRealTopic, Value: m.Topic},
		{Name: remoting.PropertyRealQueue, Value: itoa(int64(m.Queue))},
	}
	if level := atoi(p.Value(remoting.PropertyDelayLevel)); level > 0 {
		level = min(level, int64(len(levels())))
		m.Topic, m.Queue, m.Properties = remoting.TopicSchedule, int32(level-1), append(p, home...)
		return 0, ""
	}
	due := delay.Due(0)
	if v, ok := p.Get(remoting.PropertyDeliverAt); ok {
		due = delay.Due(atoi(v))
	} else if v, ok := p.Get(remoting.PropertyDelaySeconds); ok {
		due = now.Add(time.Duration(atoi(v)) * time.Second)
	} else if v, ok := p.Get(remoting.PropertyDelayMillis); ok {
		due = now.Add(time.Duration(atoi(v)) * time.Millisecond)
	}
	switch {
	case due <= now:
		return 0, ""
	case due > now.Add(maxTimer):
		return 0, "timer message illegal, the delay time should not be bigger than the max delay"
	}
	floor := due - due%delay.Due(precision.Milliseconds())
	m.Topic, m.Queue = remoting.TopicTimer, 0
	m.Properties = append(append(p, remoting.Property{
		Name: remoting.PropertyTimerOut, Value: itoa(int64(floor)),
	}), home...)
	return floor + 1, ""
}

func (b *Broker) recall(c *remoting.Command) *remoting.Command {
	h, err := remoting.ParseRecallHandle(c.Fields["recallHandle"])
	if err != nil || h.Topic != c.Fields["topic"] || h.Broker != b.name {
		return c.Reply(remoting.IllegalOperation, "recall handle is invalid")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.DeliverAt <= b.cluster.now() {
		return c.Reply(remoting.IllegalOperation, "the timestamp is not valid")
	}
	b.store(&remoting.Message{
		Topic: remoting.TopicTimer, BornHost: b.address(), Body: []byte("0"),
		Properties: remoting.Properties{
			{Name: remoting.PropertyTimerDelete, Value: h.Topic + "+" + h.UniqueKey},
			{Name: remoting.PropertyTimerOut, Value: itoa(int64(h.DeliverAt - 1))},
			{Name: remoting.PropertyRealTopic, Value: h.Topic},
			{Name: remoting.PropertyUniqueKey, Value: h.UniqueKey},
		},
	})
	return reply(c, map[string]string{"msgId": h.UniqueKey})
}

// find is the queue a request is about, or the answer that there is none.
func (b *Broker) find(c *remoting.Command) (*queue, *remoting.Command) {
	t := b.topics[c.Fields["topic"]]
	if t == nil {
		return nil, c.Reply(remoting.TopicNotExist, "topic not exist, apply first please!")
	}
	if n := atoi(c.Fields["queueId"]); n >= 0 && n < int64(len(t.queues)) {
		return &t.queues[n], nil
	}
	return nil, c.Reply(remoting.InvalidParameter, "queueId is illegal")
}

const (
	sysSuspend      = 2
	sysSubscription = 4
)

func (b *Broker) pull(ctx context.Context, c *remoting.Command) *remoting.Command {
	f := c.Fields
	flags := atoi(f["sysFlag"])
	if flags&sysSubscription == 0 {
		return c.Reply(remoting.SubscriptionNotExist, "the consumer's subscription not exist")
	}
	wait := time.Duration(0)
	if flags&sysSuspend != 0 {
		wait = time.Duration(atoi(f["suspendTimeoutMillis"])) * time.Millisecond
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		r, grown := b.pullNow(c)
		if r.Code != remoting.PullNotFound || wait == 0 {
			return r
		}
		select {
		case <-grown:
		case <-timeout.C:
			return r
		case <-ctx.Done():
			return r
		}
	}
}

func (b *Broker) pullNow(c *remoting.Command) (r *remoting.Command, grown <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, r := b.find(c)
	if r != nil {
		return r, nil
	}
	at, most := atoi(c.Fields["queueOffset"]), min(atoi(c.Fields["maxMsgNums"]), remoting.MaxPull)
	next := at
	r = c.Reply(remoting.OK, "FOUND")
	switch {
	case at < q.low:
		r.Code, next = remoting.PullOffsetMoved, q.low
	case at > q.high():
		r.Code, next = remoting.PullOffsetMoved, q.high()
	case at == q.high():
		r.Code = remoting.PullNotFound
	default:
		list := q.list[at-q.low:]
		list = list[:min(int64(len(list)), most)]
		for i := range list {
			r.Body, _ = list[i].Append(r.Body)
		}
		next = at + int64(len(list))
	}
	r.Fields = map[string]string{
		"nextBeginOffset": itoa(next), "minOffset": itoa(q.low), "maxOffset": itoa(q.high()),
	}
	return r, b.grown
}

func (b *Broker) offset(c *remoting.Command) *remoting.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, r := b.find(c)
	if r != nil {
		return r
	}
	at := q.low
	switch c.Code {
	case remoting.RequestMaxOffset:
		at = q.high()
	case remoting.RequestOffsetAt:
		since := delay.Due(atoi(c.Fields["timestamp"]))
		n := slices.IndexFunc(q.list, func(m remoting.Message) bool { return m.Stored >= since })
		if n < 0 {
			n = len(q.list)
		}
		at = q.low + int64(n)
	}
	return reply(c, map[string]string{"offset": itoa(at)})
}

// firstOffset is how long the first offset of a group takes: offsets that come meanwhile are lost,
// because each finds no table of the group and makes one of its own (ConsumerOffsetManager of 5.3).
const firstOffset = 2 * time.Millisecond

// commitOffset sets an offset. The caller holds the lock, which it gives away meanwhile.
func (b *Broker) commitOffset(key groupQueue, at int64) {
	group := groupQueue{key.group, key.topic, -1}
	if _, known := b.groups[group]; !known {
		b.mu.Unlock()
		<-time.After(firstOffset)
		b.mu.Lock()
		maps.DeleteFunc(b.groups, func(k groupQueue, _ int64) bool {
			return k.group == key.group && k.topic == key.topic
		})
		b.groups[group] = 0
	}
	b.groups[key] = at
}

func (b *Broker) groupOffset(c *remoting.Command) *remoting.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := c.Fields
	key := groupQueue{f["consumerGroup"], f["topic"], int32(atoi(f["queueId"]))}
	if c.Code == remoting.RequestCommitOffset {
		b.commitOffset(key, atoi(f["commitOffset"]))
		return reply(c, nil)
	}
	at, ok := b.groups[key]
	if !ok {
		return c.Reply(remoting.QueryNotFound, "Not found, maybe this group boot first")
	}
	return reply(c, map[string]string{"offset": itoa(at)})
}

func (b *Broker) query(c *remoting.Command) *remoting.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := c.Fields
	begin, end := delay.Due(atoi(f["beginTimestamp"])), delay.Due(atoi(f["endTimestamp"]))
	r := c.Reply(remoting.OK, "")
	found := int64(0)
	if t := b.topics[f["topic"]]; t != nil {
		for i := range t.queues {
			for _, m := range t.queues[i].list {
				if m.Stored < begin || m.Stored > end || found >= atoi(f["maxNum"]) ||
					m.Physical < b.unindexed ||
					!hasKey(&m, f["key"], f["_UNIQUE_KEY_QUERY"] == "true") {
					continue
				}
				r.Body, _ = m.Append(r.Body)
				found++
			}
		}
	}
	if found == 0 {
		return c.Reply(remoting.QueryNotFound, "can not find message")
	}
	return r
}

func hasKey(m *remoting.Message, key string, unique bool) bool {
	if unique {
		return m.Properties.Value(remoting.PropertyUniqueKey) == key
	}
	return slices.Contains(strings.Fields(m.Properties.Value(remoting.PropertyKeys)), key)
}

func (b *Broker) view(c *remoting.Command) *remoting.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := atoi(c.Fields["offset"])
	for _, t := range b.topics {
		for i := range t.queues {
			for _, m := range t.queues[i].list {
				if m.Physical == at {
					r := c.Reply(remoting.OK, "")
					r.Body, _ = m.Append(nil)
					return r
				}
			}
		}
	}
	return c.Reply(remoting.SystemError, "can not find message by the offset")
}

func (b *Broker) heartbeat(c *remoting.Command) *remoting.Command {
	var beat struct {
		ClientID string `json:"clientID"`
	}
	if err := json.Unmarshal(c.Body, &beat); err != nil {
		return c.Reply(remoting.SystemError, err.Error())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats[beat.ClientID]++
	return c.Reply(remoting.OK, "")
}

// tell answers what a broker tells of itself.
func (b *Broker) tell(c *remoting.Command) *remoting.Command {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch c.Code {
	case remoting.RequestRuntimeInfo:
		table := map[string]string{
			"commitLogMinOffset": itoa(b.low), "commitLogMaxOffset": itoa(b.high),
			"earliestMessageTimeStamp": itoa(b.earliest()), "bootTimestamp": itoa(int64(b.booted)),
		}
		for i, q := range b.topics[remoting.TopicSchedule].queues {
			if q.high() > 0 {
				table["scheduleMessageOffset_"+strconv.Itoa(i+1)] =
					itoa(b.delivered[i+1]) + "," + itoa(q.high())
			}
		}
		return jsonReply(c, map[string]any{"table": table})
	case remoting.RequestDelayOffsets:
		return jsonReply(c, map[string]any{"offsetTable": b.delivered})
	case remoting.RequestTimerMetrics:
		b.turnWheel(b.cluster.now())
		counts := map[string]remoting.TimerMetric{}
		for _, t := range b.pending {
			name := t.message.Properties.Value(remoting.PropertyRealTopic)
			one := counts[name]
			one.Count++
			counts[name] = one
		}
		return jsonReply(c, map[string]any{"timingCount": counts})
	case remoting.RequestTimerCheckpoint:
		r := c.Reply(remoting.OK, "")
		for _, v := range [...]int64{int64(b.wheel), 0, b.read, b.read} {
			r.Body = binary.BigEndian.AppendUint64(r.Body, uint64(v))
		}
		return r
	case remoting.RequestBrokerConfig:
		var words []string
		for _, d := range levels() {
			words = append(words, delay.FormatDuration(d))
		}
		r := c.Reply(remoting.OK, "")
		r.Body = []byte("brokerName=" + b.name + "\nfileReservedTime=72\nmessageDelayLevel=" +
			strings.Join(words, " ") + "\nmappedFileSizeCommitLog=" +
			itoa(b.cluster.opts.FileSize) + "\ntimerWheelEnable=true\nrecallMessageEnable=true\n" +
			b.settings)
		return r
	default:
		return c.Reply(remoting.NotSupported, "request type not supported")
	}
}
