// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/broker/rocketmq/queue"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// feed is one queue of the topic while it is read.
type feed struct {
	*queue.Reader
	source  *Source
	at      remoting.Queue
	name    broker.Partition
	log     *zap.Logger
	options intake.Options
	acked   int64           // the group's offset; acknowledge alone uses it
	headers []intake.Header // of the goroutine that takes
}

// first is where to begin without a cursor: the group's offset, else the first there is (Q5).
func (q *feed) first(ctx context.Context, addr string) (int64, error) {
	c, topic := q.source.client, q.source.sc.Topic
	at, err := c.GroupOffset(ctx, addr, q.source.sc.Group, topic, q.at.Number)
	if errors.Is(err, delay.ErrNotFound) {
		return c.MinOffset(ctx, addr, topic, q.at.Number)
	}
	return at, err
}

// parse reads what a record asks for.
func (q *feed) parse(
	item *broker.Item, m *remoting.Message, now delay.Due,
) (keep bool, err error) {
	q.headers = q.headers[:0]
	for _, p := range m.Properties {
		if users(p.Name) {
			q.headers = append(q.headers, intake.Header{Name: p.Name, Value: []byte(p.Value)})
		}
	}
	rec := intake.Record{Value: m.Body, Headers: q.headers, Offset: m.Offset, Stored: m.Stored}
	if err := intake.Parse(item, &rec, now, &q.options); err != nil {
		return false, err
	}
	// Without an id of its own a record is known to its producer by the unique key: the message
	// keeps it. One with an id may be sent again, under another key, and must look the same then.
	unique := m.Properties.Value(remoting.PropertyUniqueKey)
	if strings.HasPrefix(string(item.Draft.ID), string(q.name)) && plainKey(unique) {
		item.Draft.Headers = append(item.Draft.Headers, delay.Header{
			Name: remoting.PropertyUniqueKey, Value: unique,
		})
	}
	return true, nil
}

// users reports whether a property is a producer's own, or one that asks for a delay.
func users(name string) bool {
	switch name {
	case remoting.PropertyUniqueKey:
		return false
	case remoting.PropertyDelayLevel, remoting.PropertyDeliverAt, remoting.PropertyDelaySeconds,
		remoting.PropertyDelayMillis:
		return true
	}
	return !owned(name)
}

// reject deals with a record that is no request (B6). An error says that it has to be tried again.
func (q *feed) reject(ctx context.Context, m *remoting.Message, why error) error {
	s := q.source
	err := errNoTopic
	if s.sc.RejectTopic != "" {
		err = q.send(ctx, m, why)
	}
	var e *remoting.Error
	switch {
	case err == nil:
		s.n.refused.Add(1)
		s.n.rejected.Add(1)
		return nil
	case errors.Is(err, errNoTopic), errors.Is(err, delay.ErrNotFound),
		errors.As(err, &e) && e.Outcome == remoting.Never:
		s.n.refused.Add(1)
		if s.quiet.May() {
			q.log.Warn("rocketmq record is dropped", zap.Int64("offset", m.Offset),
				zap.NamedError("why", why), zap.NamedError("reject", err))
		}
		return nil
	default:
		return err
	}
}

var errNoTopic = errors.New("there is no reject topic")

// send writes a record to the reject topic as it was, with what is wrong with it.
func (q *feed) send(ctx context.Context, m *remoting.Message, why error) error {
	s := q.source
	route, err := s.client.Route(ctx, s.sc.RejectTopic)
	if err != nil {
		return err
	}
	queues := route.Writable()
	if len(queues) == 0 {
		s.client.Doubt(s.sc.RejectTopic)
		return fmt.Errorf("%w: topic %s cannot be written", delay.ErrUnavailable, s.sc.RejectTopic)
	}
	to := queues[int(s.turn.Add(1))%len(queues)]
	p := slices.DeleteFunc(slices.Clone(m.Properties), func(p remoting.Property) bool {
		return owned(p.Name) || strings.EqualFold(p.Name, intake.HeaderError) ||
			strings.EqualFold(p.Name, intake.HeaderSource)
	})
	notes := remoting.Properties{
		{Name: intake.HeaderError, Value: plainText(why.Error())},
		{Name: intake.HeaderSource, Value: fmt.Sprintf("%s/%d", q.name, m.Offset)},
	}
	out := remoting.Outgoing{
		Flag: m.Flag, Born: m.Born, Properties: append(p, notes...), Body: m.Body,
	}
	if err := out.Properties.Invalid(); err != nil {
		out.Properties = notes // its own do not fit beside them
	}
	_, err = s.client.SendBatch(ctx, route.Master(to.Broker), s.sc.RejectTopic, to.Number,
		[]remoting.Outgoing{out})
	if err != nil {
		s.client.Doubt(s.sc.RejectTopic)
	}
	return err
}

// plainText is s without control characters, which properties are separated by.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, brief(s))
}
