// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/queue"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// lookEvery is how often new brokers and queues are looked for, and what brokers tell of
// themselves.
const lookEvery = 10 * time.Second

// linger is how much later than it could an entry may be mirrored, for the sake of its broker: what
// is guarded is not needed before it is due.
const linger = 100 * time.Millisecond

// shared is what the queues of one broker share.
type shared struct {
	levels   atomic.Pointer[[]time.Duration]
	fileSize atomic.Int64  // of its commit log
	low      atomic.Int64  // of its commit log, as of the last look
	absences atomic.Int64  // looks that failed
	wheel    atomic.Bool   // it has a timer wheel
	queries  chan struct{} // one for each key that is looked for
	rounds   *rounds
	told     *told                // the Guardian's lock guards it
	arrivals map[string]*arrivals // by topic; likewise
}

// shared is what is known of a broker.
func (g *Guardian) shared(name string) *shared {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.brokers[name]
	if s == nil {
		s = &shared{queries: make(chan struct{}, maxQueries), rounds: newRounds()}
		g.brokers[name] = s
	}
	return s
}

// mirrored is one of a broker's own queues while it is read.
type mirrored struct {
	*queue.Reader
	g         *Guardian
	topic     string
	at        remoting.Queue
	partition broker.Partition
	lane      delay.Target
	shared    *shared

	// Of the goroutine that reads: without a cursor, what was due before since is passed over.
	fresh bool
	since delay.Due

	seen     atomic.Int64 // the physical offset of the last record that was read
	seenAt   atomic.Int64 // and when it was stored
	coverage coverage
}

// saw notes how far the mirror has read.
func (m *mirrored) saw(r *remoting.Message) {
	m.seen.Store(r.Physical)
	m.seenAt.Store(int64(r.Stored))
}

// first is where to begin without a cursor. Of a level, what was delivered already is left out.
func (m *mirrored) first(ctx context.Context, addr string) (int64, error) {
	m.fresh, m.since = true, m.g.now()
	low, err := m.g.client.MinOffset(ctx, addr, m.topic, m.at.Number)
	if err != nil || m.topic == remoting.TopicTimer {
		return max(0, low), err
	}
	info, err := m.g.client.RuntimeInfo(ctx, addr)
	if err != nil {
		return 0, err
	}
	delivered, end, ok := info.Level(int(m.at.Number) + 1)
	if !ok || delivered > end {
		delivered = 0
	}
	return max(0, low, delivered), nil
}

// reject counts what cannot be guarded. What is there already is no surprise: a producer sent it
// twice, or it is read again.
func (m *mirrored) reject(_ context.Context, r *remoting.Message, why error) error {
	if errors.Is(why, delay.ErrExists) {
		return nil
	}
	m.g.n.unguarded.Add(1)
	m.g.log().Warn("rocketmq delay is not guarded", zap.String("partition", string(m.partition)),
		zap.Int64("offset", r.Offset), zap.Error(why))
	return nil
}

// Run mirrors the queues until ctx is done. The error of a shard that takes nothing more is
// returned.
func (g *Guardian) Run(ctx context.Context, in broker.Intake) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g.mu.Lock()
	g.started = g.now()
	g.mu.Unlock()
	var wg sync.WaitGroup
	defer func() {
		g.mu.Lock()
		clear(g.mirror)
		g.mu.Unlock()
	}()
	defer wg.Wait()
	pause := queue.Backoff{}
	for {
		wait := lookEvery
		if err := g.spread(ctx, in, &wg, stop); err == nil {
			pause.Reset()
		} else {
			if ctx.Err() == nil {
				g.log().Warn("rocketmq guardian finds no brokers", zap.Error(err))
			}
			wait = pause.Next()
		}
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); errors.Is(err, delay.ErrClosed) ||
				errors.Is(err, delay.ErrFenced) {
				return err
			}
			return nil
		case <-time.After(wait):
		}
	}
}

// spread looks at every broker and begins to read the queues that are not read yet. One broker
// that is away does not keep the others waiting for more than an answer's time.
func (g *Guardian) spread(
	ctx context.Context, in broker.Intake, wg *sync.WaitGroup, stop context.CancelCauseFunc,
) error {
	route, err := g.client.Refresh(ctx, remoting.TopicSchedule)
	if err != nil {
		return err
	}
	var failed error
	for i := range route.Brokers {
		b := &route.Brokers[i]
		addr := b.Addresses[0]
		if addr == "" {
			continue
		}
		s, err := g.examine(ctx, b.Name, addr)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if levels := s.levels.Load(); g.o.DelayLevels && b.Permission&remoting.PermissionRead != 0 {
			for n := range min(int(b.ReadQueues), len(*levels)) {
				g.read(ctx, in, place{b.Name, remoting.TopicSchedule, int32(n)}, s, wg, stop)
			}
		}
		if g.o.Timers && s.wheel.Load() {
			g.read(ctx, in, place{b.Name, remoting.TopicTimer, 0}, s, wg, stop)
		}
	}
	g.alarm(ctx)
	return failed
}

// examine asks a broker for what it tells of itself.
func (g *Guardian) examine(ctx context.Context, name, addr string) (*shared, error) {
	s := g.shared(name)
	config, err := g.client.BrokerConfig(ctx, addr)
	if err != nil {
		return nil, err
	}
	levels, err := delayLevels(config["messageDelayLevel"])
	if err != nil {
		return nil, err
	}
	s.levels.Store(&levels)
	s.wheel.Store(config["timerWheelEnable"] != "false")
	size, err := strconv.ParseInt(config["mappedFileSizeCommitLog"], 10, 64)
	if err == nil && size > 0 {
		s.fileSize.Store(size)
	}
	info, err := g.client.RuntimeInfo(ctx, addr)
	if err != nil {
		return nil, err
	}
	low, _, err := info.CommitLog()
	if err == nil {
		s.low.Store(low)
	}
	return s, err
}

// read begins to read a queue, unless it is read.
func (g *Guardian) read(
	ctx context.Context, in broker.Intake, at place, s *shared, wg *sync.WaitGroup,
	stop context.CancelCauseFunc,
) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mirror[at] != nil {
		return
	}
	p := broker.Partition(rocketmq.Kind + ":" + g.cfg.Broker + "/" + at.broker + "/" + at.topic + "/" +
		strconv.FormatInt(int64(at.number), 10))
	m := &mirrored{
		g: g, topic: at.topic, at: remoting.Queue{Broker: at.broker, Number: at.number},
		partition: p, lane: g.lane(at.broker), shared: s,
	}
	m.Reader = queue.New(queue.Options{
		Client: g.client, Group: Group, Topic: at.topic, At: m.at, Partition: p, Raw: true,
		Pin: true, Linger: linger,
		First: m.first, Prepare: m.prepare, Parse: m.parse, Reject: m.reject, Counts: &g.counts,
		Log: g.cfg.Logger.With(zap.String("partition", string(p))), Quiet: g.quiet,
	})
	g.mirror[at] = m
	wg.Go(func() { m.Run(ctx, in, stop) })
}

// coverage is up to when it is known what a queue got: the mirror has stored all of that (R18).
type coverage struct {
	mu       sync.Mutex
	until    delay.Due
	asked    delay.Due // when end was asked for; 0: nothing is under way
	end      int64
	next     int64 // of the mirror, when it last moved
	movedAt  delay.Due
	reaching bool
}

// update notes that the queue ended at end as asked for at an instant, while the mirror stood at
// next. A busy queue always ends beyond the mirror, so one end is kept until the mirror passes it.
func (c *coverage) update(at delay.Due, end, next int64) (until delay.Due, movedAt delay.Due) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next != c.next || !c.reaching {
		c.next, c.movedAt, c.reaching = next, at, true
	}
	if c.asked != 0 && next >= c.end {
		c.until, c.asked = max(c.until, c.asked), 0
	}
	switch {
	case next >= end:
		c.until, c.movedAt = max(c.until, at), at
	case c.asked == 0:
		c.asked, c.end = at, end
	}
	return c.until, c.movedAt
}
