// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
)

// The level of the JetStream API that can set a consumer back (nats-server 2.14), and where a
// stream tells its server's.
const (
	resetLevel = 4
	levelKey   = "_nats.level"
)

// place is where a session begins.
type place struct {
	partition broker.Partition
	start     uint64 // the first sequence to be delivered
	cursor    uint64 // what is below it is stored
}

// begin finds the stream, makes its consumer or sets it back, and says where that is.
func (s *Source) begin(ctx context.Context, in broker.Intake) (place, error) {
	stream, err := s.js.Stream(ctx, s.sc.Stream)
	if err != nil {
		return place{}, fmt.Errorf("look up stream %s: %w", s.sc.Stream, err)
	}
	info := stream.CachedInfo()
	p := place{partition: broker.Partition(fmt.Sprintf("nats:%s/%s@%d/0",
		s.cfg.Broker, s.sc.Stream, info.Created.UnixMilli()))}
	next, known := in.Cursor(p.partition)
	if known && next > 0 {
		p.cursor = uint64(next)
	}
	if p.cursor > info.State.LastSeq+1 {
		return place{}, fmt.Errorf("read stream %s: it ends at %d and was read up to %d: it is not the "+
			"stream that was read, make it anew", s.sc.Stream, info.State.LastSeq, p.cursor-1)
	}
	if err := s.setBack(ctx, stream, info, &p); err != nil {
		return place{}, err
	}
	limits := info.Config.Retention == jetstream.LimitsPolicy
	if first := info.State.FirstSeq; known && limits && first > p.cursor {
		s.n.missed.Add(first - p.cursor)
		s.log.Error("the stream dropped records before they were read",
			zap.Uint64("from", p.cursor), zap.Uint64("below", first))
	}
	return p, nil
}

// setBack lets the consumer deliver from the lower of its ack floor and the cursor on.
func (s *Source) setBack(
	ctx context.Context, stream jetstream.Stream, info *jetstream.StreamInfo, p *place,
) error {
	want := jetstream.ConsumerConfig{
		Durable: s.sc.Consumer, FilterSubject: s.sc.Subject,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxDeliver: -1, MaxAckPending: s.sc.MaxAckPending,
		Description: "Cicada reads schedules; its cursor is stored with them",
	}
	p.start = max(p.cursor, 1)
	old, err := stream.Consumer(ctx, s.sc.Consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		old = nil
	case err != nil:
		return fmt.Errorf("look up consumer %s: %w", s.sc.Consumer, err)
	default:
		if floor := old.CachedInfo().AckFloor.Stream + 1; p.cursor == 0 || floor < p.start {
			p.start = floor
		}
	}
	if level, _ := strconv.Atoi(info.Config.Metadata[levelKey]); level < resetLevel || s.old {
		return s.makeAgain(ctx, stream, info, want, old != nil, p)
	}
	if old != nil { // what it was made with stays, or the server refuses the change
		had := old.CachedInfo().Config
		want.DeliverPolicy, want.OptStartSeq = had.DeliverPolicy, had.OptStartSeq
	}
	if _, err := stream.CreateOrUpdateConsumer(ctx, want); err != nil {
		return fmt.Errorf("make consumer %s: %w", s.sc.Consumer, err)
	}
	_, err = stream.ResetConsumerToSequence(ctx, s.sc.Consumer, p.start)
	if errors.Is(err, jetstream.ErrConsumerInvalidReset) { // it was made to begin later
		want.DeliverPolicy, want.OptStartSeq = jetstream.DeliverAllPolicy, 0
		return s.makeAgain(ctx, stream, info, want, true, p)
	}
	if err != nil {
		return fmt.Errorf("set consumer %s back to %d: %w", s.sc.Consumer, p.start, err)
	}
	return nil
}

// makeAgain does the same by deleting the consumer. With limits and work-queue retention the stream
// keeps what nobody acknowledged all the same; a work queue gives exactly that to a new consumer.
func (s *Source) makeAgain(
	ctx context.Context, stream jetstream.Stream, info *jetstream.StreamInfo,
	want jetstream.ConsumerConfig, exists bool, p *place,
) error {
	switch info.Config.Retention {
	case jetstream.InterestPolicy:
		return fmt.Errorf("set consumer %s back: a stream with interest retention needs "+
			"nats-server 2.14", s.sc.Consumer)
	case jetstream.WorkQueuePolicy:
		p.start = 1
	default:
		want.DeliverPolicy, want.OptStartSeq = jetstream.DeliverByStartSequencePolicy, p.start
	}
	if exists {
		err := stream.DeleteConsumer(ctx, s.sc.Consumer)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("delete consumer %s: %w", s.sc.Consumer, err)
		}
	}
	if _, err := stream.CreateConsumer(ctx, want); err != nil {
		return fmt.Errorf("make consumer %s: %w", s.sc.Consumer, err)
	}
	return nil
}
