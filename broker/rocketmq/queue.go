// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// queue is one queue of the topic while it is read.
type queue struct {
	source  *Source
	at      remoting.Queue
	name    broker.Partition
	log     *zap.Logger
	options intake.Options

	next  atomic.Int64 // the offset to go on with
	end   atomic.Int64 // one above the highest, as of the last pull
	dealt atomic.Int64 // below it every record is stored or rejected
	acked int64        // the group's offset; acknowledge alone uses it

	// Of the goroutine that takes:
	batch   broker.Batch
	headers []intake.Header
}

// errBehind is a queue that ends before the cursor (Q7).
var errBehind = errors.New("the queue ends before the cursor: its broker lost what was read, or " +
	"the topic was made anew")

func (q *queue) master(ctx context.Context) (string, error) {
	route, err := q.source.client.Route(ctx, q.source.sc.Topic)
	if err != nil {
		return "", err
	}
	if addr := route.Master(q.at.Broker); addr != "" {
		return addr, nil
	}
	q.source.client.Doubt(q.source.sc.Topic)
	return "", fmt.Errorf("%w: broker %s has no master", delay.ErrUnavailable, q.at.Broker)
}

// run reads the queue, a session after the other, until ctx is done or the shard has ended.
func (q *queue) run(ctx context.Context, in broker.Intake, stop context.CancelCauseFunc) {
	pause := backoff{}
	for ctx.Err() == nil {
		taken, err := q.session(ctx, in)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced):
			stop(err)
			return
		case taken:
			pause.reset()
		}
		if q.source.quiet.may() {
			q.log.Warn("rocketmq queue is read again", zap.Error(err))
		}
		q.source.client.Doubt(q.source.sc.Topic)
		select {
		case <-ctx.Done():
		case <-time.After(pause.next()):
		}
	}
}

// where is the offset to begin with: the shard's cursor, else the group's offset, else the first
// there is (Q5).
func (q *queue) where(ctx context.Context, addr string, in broker.Intake) (int64, error) {
	if at, ok := in.Cursor(q.name); ok {
		return at, nil
	}
	c, topic := q.source.client, q.source.sc.Topic
	at, err := c.GroupOffset(ctx, addr, q.source.sc.Group, topic, q.at.Number)
	if errors.Is(err, delay.ErrNotFound) {
		return c.MinOffset(ctx, addr, topic, q.at.Number)
	}
	return at, err
}

// session reads from the cursor on until something goes wrong. taken says that something was
// stored.
func (q *queue) session(ctx context.Context, in broker.Intake) (taken bool, err error) {
	addr, err := q.master(ctx)
	if err != nil {
		return false, err
	}
	at, err := q.where(ctx, addr, in)
	if err != nil {
		return false, err
	}
	q.next.Store(at)
	q.dealt.Store(at)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ahead := make(chan remoting.Pulled, pullsAhead)
	var failed error
	wg.Go(func() {
		defer close(ahead)
		failed = q.pull(ctx, addr, at, ahead)
	})
	for p := range ahead {
		if err := q.take(ctx, in, p, ahead); err != nil {
			return taken, err
		}
		taken = true
	}
	return taken, failed
}

// pull reads ahead into out until something goes wrong.
func (q *queue) pull(
	ctx context.Context, addr string, at int64, out chan<- remoting.Pulled,
) error {
	for {
		p, err := q.source.client.Pull(ctx, addr, remoting.Pull{
			Group: q.source.sc.Group, Topic: q.source.sc.Topic, Queue: q.at.Number, Offset: at,
			Wait: longPoll,
		})
		if err != nil {
			return err
		}
		q.end.Store(p.Max)
		if p.Max < at {
			return fmt.Errorf("%w: cursor %d, end %d", errBehind, at, p.Max)
		}
		first := p.Next
		if len(p.Messages) > 0 {
			first = p.Messages[0].Offset
		}
		if first > at {
			q.source.n.missed.Add(uint64(first - at))
			q.log.Error("rocketmq broker lost records before they were read",
				zap.Int64("from", at), zap.Int64("to", first))
		}
		if p.Next <= at {
			continue
		}
		at = p.Next
		select {
		case out <- p:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take stores what p holds and what was read meanwhile, as one batch.
func (q *queue) take(
	ctx context.Context, in broker.Intake, p remoting.Pulled, more <-chan remoting.Pulled,
) error {
	b := &q.batch
	b.Partition, b.Tier, b.Items = q.name, q.source.sc.Tier, b.Items[:0]
	var messages []remoting.Message // of the items
	for {
		for i := range p.Messages {
			m := &p.Messages[i]
			ok, err := q.add(ctx, in, m)
			if err != nil {
				return err
			}
			if ok {
				messages = append(messages, *m)
			}
		}
		b.Next = p.Next
		if len(b.Items)+remoting.MaxPull > broker.MaxBatch {
			break
		}
		var ok bool
		select {
		case p, ok = <-more:
		default:
		}
		if !ok {
			break
		}
	}
	if err := in.Take(ctx, b); err != nil {
		return err
	}
	q.source.n.taken.Add(uint64(len(b.Items)))
	for i := range b.Items {
		if err := b.Items[i].Err; err != nil {
			if err = q.rejectTaken(ctx, &messages[i], err); err != nil {
				return err
			}
		}
	}
	q.next.Store(b.Next)
	q.dealt.Store(b.Next)
	return nil
}

// add parses m into the batch, or rejects it (B6).
func (q *queue) add(
	ctx context.Context, in broker.Intake, m *remoting.Message,
) (ok bool, err error) {
	b := &q.batch
	if len(b.Items) < cap(b.Items) {
		b.Items = b.Items[:len(b.Items)+1] // with the memory of an earlier item
	} else {
		b.Items = append(b.Items, broker.Item{})
	}
	item := &b.Items[len(b.Items)-1]
	bad := m.Err
	if bad == nil {
		bad = q.parse(item, m, in.Now())
	}
	if bad == nil {
		return true, nil
	}
	b.Items = b.Items[:len(b.Items)-1]
	return false, q.reject(ctx, m, bad)
}

// parse reads what a record asks for.
func (q *queue) parse(item *broker.Item, m *remoting.Message, now delay.Due) error {
	q.headers = q.headers[:0]
	for _, p := range m.Properties {
		if users(p.Name) {
			q.headers = append(q.headers, intake.Header{Name: p.Name, Value: []byte(p.Value)})
		}
	}
	rec := intake.Record{Value: m.Body, Headers: q.headers, Offset: m.Offset, Stored: m.Stored}
	if err := intake.Parse(item, &rec, now, &q.options); err != nil {
		return err
	}
	// Without an id of its own a record is known to its producer by the unique key: the message
	// keeps it. One with an id may be sent again, under another key, and must look the same then.
	unique := m.Properties.Value(remoting.PropertyUniqueKey)
	if strings.HasPrefix(string(item.Draft.ID), string(q.name)) && plainKey(unique) {
		item.Draft.Headers = append(item.Draft.Headers, delay.Header{
			Name: remoting.PropertyUniqueKey, Value: unique,
		})
	}
	return nil
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
func (q *queue) reject(ctx context.Context, m *remoting.Message, why error) error {
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
		if s.quiet.may() {
			q.log.Warn("rocketmq record is dropped", zap.Int64("offset", m.Offset),
				zap.NamedError("why", why), zap.NamedError("reject", err))
		}
		return nil
	default:
		return fmt.Errorf("reject record %d: %w", m.Offset, err)
	}
}

// rejectTaken is reject for a record that the cursor has passed: nothing would bring it back, so it
// is tried until the end.
func (q *queue) rejectTaken(ctx context.Context, m *remoting.Message, why error) error {
	pause := backoff{}
	for {
		err := q.reject(ctx, m, why)
		if err == nil {
			return nil
		}
		if q.source.quiet.may() {
			q.log.Warn("rocketmq reject topic does not answer", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause.next()):
		}
	}
}

var errNoTopic = errors.New("there is no reject topic")

// send writes a record to the reject topic as it was, with what is wrong with it.
func (q *queue) send(ctx context.Context, m *remoting.Message, why error) error {
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
	if _, err := out.Properties.Encode(); err != nil {
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
