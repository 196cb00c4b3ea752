// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// MaxPull is the most messages a broker gives at once, and of old ones it gives fewer.
const MaxPull = 32

// The bits of a pull's sysFlag.
const (
	pullSuspend      = 2 // wait for messages
	pullSubscription = 4 // the subscription is in the request
)

// holdCheck is how often a broker looks which waiting pulls have waited long enough: a pull may
// take so much longer.
const holdCheck = 5 * time.Second

// Pull is what to read.
type Pull struct {
	Group  string
	Topic  string
	Queue  int32
	Offset int64
	Max    int // 0 is MaxPull
	// Wait is how long the broker may wait for a message when there is none.
	Wait time.Duration
	// Raw leaves bodies as their producer packed them; Message.SysFlag says how.
	Raw bool
}

// PullStatus is how a pull was answered.
type PullStatus uint8

// The statuses.
const (
	// PullFound: there are messages, from Offset on or later ones, when those before are gone.
	PullFound PullStatus = iota
	// PullEmpty: nothing new came within Wait. The messages begin at Pulled.Next.
	PullEmpty
	// PullMoved: Offset is outside of the queue. The broker proposes Pulled.Next: Min when Offset
	// is too low, Max when it is beyond the end, which means that the broker lost messages.
	PullMoved
)

// Pulled is the answer to a pull. Messages alias its frame.
type Pulled struct {
	Status   PullStatus
	Messages []Message
	Next     int64 // the offset to go on with
	Min, Max int64 // of the queue: the lowest that is there, and one above the highest
}

// Pull reads messages of one queue at addr, the master or a slave of its broker. An error is an
// *Error, or wraps delay.ErrCorrupt.
func (c *Client) Pull(ctx context.Context, addr string, p Pull) (Pulled, error) {
	const request = "pull"
	if p.Max == 0 {
		p.Max = MaxPull
	}
	sysFlag, think := pullSubscription, time.Duration(0)
	if p.Wait > 0 {
		sysFlag |= pullSuspend
		think = p.Wait + holdCheck
	}
	r, err := c.call(ctx, request, addr, &Command{
		Code: RequestPull,
		Fields: map[string]string{
			"consumerGroup": p.Group, "topic": p.Topic, "queueId": itoa(p.Queue),
			"queueOffset": itoa(p.Offset), "maxMsgNums": itoa(p.Max), "sysFlag": itoa(sysFlag),
			"commitOffset": "0", "suspendTimeoutMillis": itoa(p.Wait.Milliseconds()),
			"subscription": "*", "subVersion": "0", "expressionType": "TAG",
		},
	}, think)
	if err != nil {
		return Pulled{}, err
	}
	var out Pulled
	switch r.Code {
	case OK:
	case PullNotFound, PullRetry:
		out.Status = PullEmpty
	case PullOffsetMoved:
		out.Status = PullMoved
	default:
		return Pulled{}, answered(request, addr, r)
	}
	for name, at := range map[string]*int64{
		"nextBeginOffset": &out.Next, "minOffset": &out.Min, "maxOffset": &out.Max,
	} {
		if *at, err = number(r, name); err != nil {
			return Pulled{}, err
		}
	}
	if out.Status == PullFound {
		out.Messages, err = decodeMessages(r.Body, p.Raw)
	}
	if err != nil {
		return out, fmt.Errorf("pull %s/%d at %d: %w", p.Topic, p.Queue, p.Offset, err)
	}
	return out, nil
}

// number reads a field of an answer.
func number(r *Command, name string) (int64, error) {
	n, err := strconv.ParseInt(r.Fields[name], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: answer: field %s is %.40q", delay.ErrCorrupt, name, r.Fields[name])
	}
	return n, nil
}

func (c *Client) offset(
	ctx context.Context, request, addr string, cmd *Command,
) (int64, error) {
	r, err := c.ask(ctx, request, addr, cmd)
	if err != nil {
		return 0, err
	}
	return number(r, "offset")
}

func queueFields(topic string, queue int32) map[string]string {
	return map[string]string{"topic": topic, "queueId": itoa(queue)}
}

// MinOffset is the lowest offset of a queue that is still there.
func (c *Client) MinOffset(
	ctx context.Context, addr, topic string, queue int32,
) (int64, error) {
	return c.offset(ctx, "min offset", addr,
		&Command{Code: RequestMinOffset, Fields: queueFields(topic, queue)})
}

// MaxOffset is the offset that the next message of a queue will get.
func (c *Client) MaxOffset(
	ctx context.Context, addr, topic string, queue int32,
) (int64, error) {
	return c.offset(ctx, "max offset", addr,
		&Command{Code: RequestMaxOffset, Fields: queueFields(topic, queue)})
}

// OffsetAt is the offset of the first message of a queue stored at or after an instant.
func (c *Client) OffsetAt(
	ctx context.Context, addr, topic string, queue int32, at delay.Due,
) (int64, error) {
	fields := queueFields(topic, queue)
	fields["timestamp"] = itoa(at)
	return c.offset(ctx, "offset at", addr, &Command{Code: RequestOffsetAt, Fields: fields})
}

// GroupOffset is the position of a consumer group in a queue; one it never committed wraps
// delay.ErrNotFound.
func (c *Client) GroupOffset(
	ctx context.Context, addr, group, topic string, queue int32,
) (int64, error) {
	fields := queueFields(topic, queue)
	fields["consumerGroup"], fields["setZeroIfNotFound"] = group, yesNo(false)
	return c.offset(ctx, "group offset", addr, &Command{Code: RequestGroupOffset, Fields: fields})
}

// CommitOffset sets the position of a consumer group in a queue.
func (c *Client) CommitOffset(
	ctx context.Context, addr, group, topic string, queue int32, offset int64,
) error {
	fields := queueFields(topic, queue)
	fields["consumerGroup"], fields["commitOffset"] = group, itoa(offset)
	_, err := c.ask(ctx, "commit offset", addr, &Command{Code: RequestCommitOffset, Fields: fields})
	return err
}

// Query is what to look for in the index of a topic.
type Query struct {
	Topic string
	Key   string
	// Unique looks among the unique keys, else among the words of KEYS.
	Unique     bool
	Max        int // 0 is MaxPull
	Begin, End delay.Due
}

// Query lists the messages with a key that the index of addr has, newest first. The index follows
// the store by some milliseconds, knows the topic a message is in now (of a pending timer that is
// not the one it was sent to), and hashes: messages of another key are left out here.
func (c *Client) Query(ctx context.Context, addr string, q Query) ([]Message, error) {
	const request = "query"
	if q.Max == 0 {
		q.Max = MaxPull
	}
	fields := map[string]string{
		"topic": q.Topic, "key": q.Key, "maxNum": itoa(q.Max),
		"beginTimestamp": itoa(q.Begin), "endTimestamp": itoa(q.End),
	}
	if q.Unique {
		fields["_UNIQUE_KEY_QUERY"] = yesNo(true)
	}
	r, err := c.call(ctx, request, addr, &Command{Code: RequestQuery, Fields: fields}, 0)
	switch {
	case err != nil:
		return nil, err
	case r.Code == QueryNotFound:
		return nil, nil
	case r.Code != OK:
		return nil, answered(request, addr, r)
	}
	found, err := DecodeMessages(r.Body)
	if err != nil {
		return nil, fmt.Errorf("query %s for %.60q: %w", q.Topic, q.Key, err)
	}
	kept := found[:0]
	for _, m := range found {
		if m.Topic == q.Topic && (!q.Unique || m.Properties.Value(PropertyUniqueKey) == q.Key) {
			kept = append(kept, m)
		}
	}
	return kept, nil
}

// View reads the message at an offset of the commit log of addr. One that is gone wraps
// delay.ErrNotFound, which here may also mean that the broker erred: it answers both alike. At an
// offset where no message begins the broker may give whatever lies there: delay.ErrCorrupt.
func (c *Client) View(ctx context.Context, addr string, physical int64) (*Message, error) {
	const request = "view"
	r, err := c.call(ctx, request, addr, &Command{
		Code: RequestView, Fields: map[string]string{"offset": itoa(physical)},
	}, 0)
	if err != nil {
		return nil, err
	}
	if r.Code != OK {
		e := &Error{
			Request: request, Addr: addr, Code: r.Code, Remark: cutRemark(r.Remark),
			Outcome: OutcomeOf(r.Code), Err: delay.ErrUnavailable,
		}
		if r.Code == SystemError {
			e.Err = delay.ErrNotFound
		}
		return nil, e
	}
	found, err := DecodeMessages(r.Body)
	if err == nil && (len(found) != 1 || found[0].Physical != physical) {
		err = fmt.Errorf("%w: %d messages, not the one asked for", delay.ErrCorrupt, len(found))
	}
	if err != nil {
		return nil, fmt.Errorf("view %d: %w", physical, err)
	}
	return &found[0], nil
}
