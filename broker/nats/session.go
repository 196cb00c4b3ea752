// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// session reads from one setting back of the consumer to the next. It belongs to one goroutine.
type session struct {
	*Source
	place
	intake broker.Intake

	expect uint64        // the number of the consumer's last delivery
	pos    uint64        // records below it were seen in this session
	open   []unacked     // in the order of their sequences
	items  []broker.Item // of the batch under way
	marks  []int         // items[i] is open[marks[i]]

	opts    intake.Options
	headers []intake.Header // scratch
}

// unacked is a record that the server waits for an ack of.
type unacked struct {
	seq   uint64
	reply string
	why   string // not "": it was refused, and says so
}

// session runs one session. It returns an error, or nil when ctx is done.
func (s *Source) session(ctx context.Context, in broker.Intake) error {
	select {
	case <-s.kick: // of an earlier session
	default:
	}
	at, err := s.begin(ctx, in)
	if err != nil {
		return err
	}
	s.log.Info("nats source reads", zap.Uint64("from", at.start), zap.Uint64("cursor", at.cursor))
	p := &puller{
		nc: s.nc, subject: pullSubject + s.sc.Stream + "." + s.sc.Consumer, inbox: s.nc.NewInbox() + ".",
		in:  make(chan *nats.Msg, broker.MaxBatch+statusRoom),
		out: make(chan []*nats.Msg), maxBytes: s.pullBytes(),
	}
	sub, err := s.nc.ChanSubscribe(p.inbox+"*", p.in)
	if err != nil {
		return fmt.Errorf("subscribe to stream %s: %w", s.sc.Stream, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // with its interest the server's request ends
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { over <- p.run(ctx) })
	r := &session{Source: s, place: at, intake: in, pos: at.start, opts: intake.Options{
		Kind: intake.NATS, Broker: s.cfg.Broker, Target: s.sc.Target, CheckTarget: s.sc.CheckTarget,
		Origin: at.partition,
	}}
	return r.loop(ctx, p.out, over)
}

// pullBytes is enough for the largest record that the server takes now.
func (s *Source) pullBytes() int {
	return max(MaxPullBytes, int(min(s.nc.MaxPayload(), maxRecord/2))+frameBytes)
}

func (r *session) loop(ctx context.Context, batches <-chan []*nats.Msg, over <-chan error) error {
	tick := time.NewTicker(ackEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return r.acknowledge()
		case err = <-over:
		case <-r.kick:
			err = errors.New("the connection was lost")
		case b := <-batches:
			if err = r.take(ctx, b); err == nil {
				err = r.acknowledge()
			}
		case <-tick.C:
			err = r.acknowledge()
		}
		if err != nil {
			return err
		}
	}
}

// take hands what is new of msgs to the shard.
func (r *session) take(ctx context.Context, msgs []*nats.Msg) error {
	r.items, r.marks = r.items[:0], r.marks[:0]
	now := r.intake.Now()
	for _, m := range msgs {
		d, ok := parseDelivery(m.Reply)
		if !ok {
			return fmt.Errorf("read stream %s: the reply subject %s is not one of a record",
				r.sc.Stream, brief(m.Reply))
		}
		r.n.lag.Store(d.pending)
		if r.expect++; d.consumer != r.expect { // N5
			return fmt.Errorf("read stream %s: delivery %d follows %d: another process reads with "+
				"consumer %s, or records were lost on their way", r.sc.Stream, d.consumer, r.expect-1,
				r.sc.Consumer)
		}
		if err := r.sort(ctx, m, d, now); err != nil {
			return err
		}
	}
	if r.pos <= r.cursor {
		return nil
	}
	b := broker.Batch{
		Partition: r.partition, Items: r.items, Next: int64(r.pos), Tier: r.sc.Tier,
		Refused: func(ctx context.Context, items []*broker.Item) error {
			return r.refused(ctx, msgs, items)
		},
	}
	if err := r.store(ctx, &b); err != nil {
		return err
	}
	for i := range r.items {
		if r.items[i].Err == nil {
			r.n.taken.Add(1)
		}
	}
	clear(r.items) // let the bodies go
	return nil
}

// sort puts one record where it belongs: it was seen before, it is stored, it is none, or new.
func (r *session) sort(ctx context.Context, m *nats.Msg, d delivery, now delay.Due) error {
	if d.stream < r.pos {
		r.n.skipped.Add(1)
		if len(r.open) > 0 && d.stream >= r.open[0].seq {
			return nil // it will be acknowledged
		}
		return r.ack(unacked{reply: m.Reply}) // it was, and that was lost
	}
	r.pos = d.stream + 1
	r.open = append(r.open, unacked{seq: d.stream, reply: m.Reply})
	if d.stream < r.cursor {
		r.n.skipped.Add(1)
		return nil
	}
	r.items = append(r.items, broker.Item{})
	item := &r.items[len(r.items)-1]
	if err := r.item(item, m, &d, now); err != nil {
		r.items = r.items[:len(r.items)-1]
		return r.reject(ctx, m, len(r.open)-1, err)
	}
	r.marks = append(r.marks, len(r.open)-1)
	return nil
}

// store gives a batch to the shard until it has it. What of it is below the cursor after a try
// whose end is not known is stored.
func (r *session) store(ctx context.Context, b *broker.Batch) error {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		err := r.intake.Take(ctx, b)
		if err == nil {
			r.cursor = uint64(b.Next)
			return nil
		}
		if ended(err) || errors.Is(err, errConnection) || ctx.Err() != nil {
			return err
		}
		r.log.Warn("the shard does not take records now", zap.Error(err),
			zap.Duration("again_after", pause))
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		next, ok := r.intake.Cursor(r.partition)
		for ok && len(b.Items) > 0 && b.Items[0].Offset < next {
			b.Items = b.Items[1:]
		}
	}
}

// refused rejects what the shard refuses, before the cursor passes it (B6).
func (r *session) refused(ctx context.Context, msgs []*nats.Msg, items []*broker.Item) error {
	i := 0
	for _, it := range items { // in the order of their sequences, as r.items
		for r.items[i].Offset != it.Offset {
			i++
		}
		if err := r.reject(ctx, messageAt(msgs, it.Offset), r.marks[i], it.Err); err != nil {
			return err
		}
	}
	return nil
}

// messageAt finds the record of a sequence in its batch.
func messageAt(msgs []*nats.Msg, seq int64) *nats.Msg {
	for _, m := range msgs {
		if d, _ := parseDelivery(m.Reply); d.stream == uint64(seq) {
			return m
		}
	}
	panic("BUG: an item without its record")
}

// acknowledge tells the server of what is as durable as the source is configured for (N4).
func (r *session) acknowledge() error {
	durable := r.intake.Cursor
	if r.sc.Tier {
		durable = r.intake.Covered
	}
	next, ok := durable(r.partition)
	n := 0
	for ok && n < len(r.open) && r.open[n].seq < uint64(max(next, 0)) {
		if err := r.ack(r.open[n]); err != nil {
			return err
		}
		n++
	}
	r.open = r.open[n:]
	return nil
}

// ack ends the server's wait for a record. One that was refused is terminated, which tells those
// who look at the stream's advisories.
func (r *session) ack(u unacked) error {
	body := "+ACK"
	if u.why != "" {
		body = "+TERM " + u.why
	}
	if err := r.nc.Publish(u.reply, []byte(body)); err != nil {
		return fmt.Errorf("acknowledge a record of stream %s: %w", r.sc.Stream, err)
	}
	return nil
}

// refusal is why a record was refused, short enough to be told.
func refusal(err error) string {
	if field, ok := errors.AsType[*delay.FieldError](err); ok {
		return brief(field.Error())
	}
	return brief(err.Error())
}
