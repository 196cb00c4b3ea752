// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/broker/rocketmq/queue"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Limits of a source.
const (
	DefaultGroup = "cicada"

	maxGroupBytes = 120
	maxQueues     = 1024             // of one topic
	routeEvery    = 10 * time.Second // new queues and brokers are seen after it
	ackEvery      = 500 * time.Millisecond
	lastAck       = 2 * time.Second // for the offsets at the end
)

// SourceConfig says what to read: an ordinary topic, whose delay is ours alone.
type SourceConfig struct {
	Topic string
	// Group is the consumer group whose offsets follow. "": DefaultGroup. Groups do not share a
	// topic here: two daemons with one group read everything twice.
	Group string
	// Tier sets the group's offsets only behind what the bucket holds (commit: tier).
	Tier bool
	// RejectTopic takes the records that cannot be requests, with cicada-error. "", or one that does
	// not exist: they are counted and logged.
	RejectTopic string
	// Target is that of records that name none. "": such a record is refused.
	Target delay.Target
	// CheckTarget refuses targets that can never work, as the API does. nil: only their form is
	// looked at.
	CheckTarget func(delay.Target) error
}

var groupName = regexp.MustCompile(`^[A-Za-z0-9_|%-]+$`)

func (c SourceConfig) complete(cfg *Config) (SourceConfig, error) {
	field := "brokers." + cfg.Broker + ".sources"
	if c.Group == "" {
		c.Group = DefaultGroup
	}
	switch {
	case badTopic(c.Topic) != "":
		return c, delay.Invalid(field+".topic", "%s", badTopic(c.Topic))
	case len(c.Group) > maxGroupBytes || !groupName.MatchString(c.Group):
		return c, delay.Invalid(field+".group", "want 1 to %d of A-Z a-z 0-9 _ - | %%", maxGroupBytes)
	case c.RejectTopic != "" && badTopic(c.RejectTopic) != "":
		return c, delay.Invalid(field+".reject_topic", "%s", badTopic(c.RejectTopic))
	case c.RejectTopic == c.Topic:
		return c, delay.Invalid(field+".reject_topic", "want another topic than the source's")
	}
	return c, nil
}

// Source reads one topic.
type Source struct {
	cfg    Config
	sc     SourceConfig
	client *remoting.Client
	turn   atomic.Uint32 // the queue of the reject topic that comes next
	n      counters
	counts queue.Counts
	quiet  *queue.Quiet

	mu    sync.Mutex
	feeds map[remoting.Queue]*feed // those that are read, until the end of Run
}

var _ broker.Source = (*Source)(nil)

type counters struct{ refused, rejected atomic.Uint64 }

// Stats are counts since the source was made, and its lag. It is safe to ask while Run runs.
type Stats struct {
	Taken    uint64 // records handed to the shard and kept, or known to it
	Refused  uint64 // records that could not be parsed or that the shard refused
	Rejected uint64 // of these, how many went to the reject topic
	Missed   uint64 // records that the broker lost before they were read
	Lag      uint64 // records that lie in the queues and were not taken yet, as of the last pulls
	Queues   int    // that are read
}

// NewSource checks the configuration; what is wrong with it wraps delay.ErrInvalid. It connects
// nowhere yet.
func NewSource(cfg Config, sc SourceConfig) (*Source, error) {
	sc, err := sc.complete(&cfg)
	if err != nil {
		return nil, err
	}
	cfg, client, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	cfg.Logger = cfg.Logger.With(zap.String("topic", sc.Topic))
	return &Source{
		cfg: cfg, sc: sc, client: client, quiet: queue.NewQuiet(cfg.Now),
		feeds: map[remoting.Queue]*feed{},
	}, nil
}

// Stats tells how it goes.
func (s *Source) Stats() Stats {
	st := Stats{
		Taken: s.counts.Taken.Load(), Refused: s.n.refused.Load(), Rejected: s.n.rejected.Load(),
		Missed: s.counts.Missed.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Queues = len(s.feeds)
	for _, q := range s.feeds {
		st.Lag += q.Lag()
	}
	return st
}

// Close ends the connections.
func (s *Source) Close() error { return s.client.Close() }

// Run reads all queues of the topic until ctx is done. The error of a shard that takes nothing
// more is returned.
func (s *Source) Run(ctx context.Context, in broker.Intake) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	defer func() {
		s.mu.Lock()
		clear(s.feeds)
		s.mu.Unlock()
	}()
	defer s.acknowledgeLast(ctx, in)
	defer wg.Wait()
	look := time.NewTicker(routeEvery)
	defer look.Stop()
	ack := time.NewTicker(ackEvery)
	defer ack.Stop()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-ack.C:
				s.acknowledge(ctx, in)
			}
		}
	})
	pause := queue.Backoff{}
	for {
		wait := look.C
		if err := s.spread(ctx, in, &wg, stop); err == nil {
			pause.Reset()
		} else {
			if ctx.Err() == nil && s.quiet.May() {
				s.cfg.Logger.Warn("rocketmq source has no route", zap.Error(err))
			}
			wait = time.After(pause.Next())
		}
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-wait:
		}
	}
}

// ended is what Run returns: the shard's end, if that was the cause.
func ended(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced) {
		return err
	}
	return nil
}

// spread begins to read the queues that are not read yet.
func (s *Source) spread(
	ctx context.Context, in broker.Intake, wg *sync.WaitGroup, stop context.CancelCauseFunc,
) error {
	route, err := s.client.Route(ctx, s.sc.Topic)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range route.Readable() {
		if s.feeds[at] != nil {
			continue
		}
		if len(s.feeds) >= maxQueues {
			return fmt.Errorf("%w: topic %s has more than %d queues", delay.ErrInvalid, s.sc.Topic,
				maxQueues)
		}
		q := s.newFeed(at)
		s.feeds[at] = q
		wg.Go(func() { q.Run(ctx, in, stop) })
	}
	return nil
}

// partition is the name of a queue for ever (Q5).
func (s *Source) partition(at remoting.Queue) broker.Partition {
	return broker.Partition(Kind + ":" + s.cfg.Broker + "/" + at.Broker + "/" + s.sc.Topic + "/" +
		strconv.FormatInt(int64(at.Number), 10))
}

func (s *Source) newFeed(at remoting.Queue) *feed {
	p := s.partition(at)
	q := &feed{
		source: s, at: at, name: p,
		log: s.cfg.Logger.With(zap.String("partition", string(p))),
		options: intake.Options{
			Kind: intake.RocketMQ, Broker: s.cfg.Broker, Target: s.sc.Target,
			CheckTarget: s.sc.CheckTarget, Origin: p,
		},
	}
	q.Reader = queue.New(queue.Options{
		Client: s.client, Group: s.sc.Group, Topic: s.sc.Topic, At: at, Partition: p,
		Tier: s.sc.Tier, First: q.first, Parse: q.parse, Reject: q.reject, Counts: &s.counts,
		Log: q.log, Quiet: s.quiet,
	})
	return q
}

// acknowledge sets the group's offsets behind what is durable enough, and never further than the
// records were dealt with (B4). A broker gets them one by one: of a group's first ones that come at
// once it forgets all but one, and answers that all are set.
func (s *Source) acknowledge(ctx context.Context, in broker.Intake) {
	brokers := make(map[string][]*feed)
	s.mu.Lock()
	for at, q := range s.feeds {
		brokers[at.Broker] = append(brokers[at.Broker], q)
	}
	s.mu.Unlock()
	each(slices.Collect(maps.Values(brokers)), func(feeds []*feed) {
		for _, q := range feeds {
			err := s.commit(ctx, in, q)
			if err != nil && ctx.Err() == nil && s.quiet.May() {
				q.log.Warn("rocketmq group offset not set", zap.Error(err))
			}
			if errors.Is(err, delay.ErrUnavailable) {
				return // nor will the others be set
			}
		}
	})
}

// commit sets the group's offset of a queue, if there is something new.
func (s *Source) commit(ctx context.Context, in broker.Intake, q *feed) error {
	durable := in.Cursor
	if s.sc.Tier {
		durable = in.Covered
	}
	at, ok := durable(q.name)
	at = min(at, q.Next())
	if !ok || at <= q.acked {
		return nil
	}
	addr, err := q.Master(ctx)
	if err != nil {
		return err
	}
	err = s.client.CommitOffset(ctx, addr, s.sc.Group, s.sc.Topic, q.at.Number, at)
	if err == nil {
		q.acked = at
	}
	return err
}

// acknowledgeLast sets the offsets once more when all queues have ended.
func (s *Source) acknowledgeLast(ctx context.Context, in broker.Intake) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastAck)
	defer cancel()
	s.acknowledge(ctx, in)
}
