// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Limits of arrivals.
const (
	fewKeys     = 16      // of a topic: they are asked for one by one
	worthwhile  = 8       // messages that are read, at most, for each key that is looked for
	maxArrived  = 1 << 16 // keys of a topic; beyond, its arrivals are forgotten
	maxArriving = 64      // topics of a broker; likewise
	maxReaders  = 8       // queues that are read at a time
)

// arrivals are what a topic got at one broker since an instant, by UNIQ_KEY. A thousand lost
// messages of one topic need a few pulls and not a thousand questions; and what the queues say the
// index says a moment later.
type arrivals struct {
	turn  chan struct{} // capacity 1: who holds it may read on
	run   run           // of the broker: another one may have lost the end of a queue
	since delay.Due
	next  []int64 // of each queue: what is below it is in seen, from since on
	seen  map[string][]arrival
}

// run is a broker between two starts.
type run struct {
	addr   string
	booted delay.Due
}

// arrival is a message that its topic got, as far as it tells whose it is.
type arrival struct {
	stored  delay.Due
	rescued string // what PropertyRescued says
}

// arrivals of a topic, which are the caller's until it gives its turn back. Nil: ctx is done.
func (g *Guardian) arrivals(ctx context.Context, broker, topic string) *arrivals {
	sh := g.shared(broker)
	g.mu.Lock()
	a := sh.arrivals[topic]
	if a == nil {
		a = &arrivals{turn: make(chan struct{}, 1)}
		if sh.arrivals == nil || len(sh.arrivals) >= maxArriving {
			sh.arrivals = map[string]*arrivals{}
		}
		sh.arrivals[topic] = a
	}
	g.mu.Unlock()
	select {
	case a.turn <- struct{}{}:
		return a
	case <-ctx.Done():
		return nil
	}
}

// survey looks for the keys of those topics of which many are asked for, and returns the rest. What
// it finds out is as of now, after the look at the copies.
func (g *Guardian) survey(ctx context.Context, s *sight, asked []*docket) (rest []*docket) {
	topics := map[string][]*docket{}
	for _, c := range asked {
		topics[c.e.RealTopic] = append(topics[c.e.RealTopic], c)
	}
	for topic, some := range topics {
		if len(some) < g.few || !g.surveyTopic(ctx, s, topic, some) {
			rest = append(rest, some...)
		}
	}
	return rest
}

func (g *Guardian) surveyTopic(
	ctx context.Context, s *sight, topic string, some []*docket,
) (done bool) {
	n, ok := g.queuesOf(ctx, s.broker, topic, some)
	if !ok {
		return false
	}
	since := some[0].since()
	for _, c := range some {
		since = min(since, c.since())
	}
	a := g.arrivals(ctx, s.broker, topic)
	if a == nil {
		return false
	}
	defer func() { <-a.turn }()
	if err := g.readOn(ctx, s, topic, a, n, since, worthwhile*int64(len(some))); err != nil {
		return false // the index is asked
	}
	for _, c := range some {
		c.hit = hit{whole: true}
		for _, m := range a.seen[c.e.Unique] {
			c.hit.count(m, c.d.ID, c.since())
		}
	}
	return true
}

// queuesOf is the number of queues of a topic at a broker; ok is false when one of some may lie in
// another.
func (g *Guardian) queuesOf(
	ctx context.Context, broker, topic string, some []*docket,
) (n int32, ok bool) {
	route, err := g.client.Route(ctx, topic)
	if err != nil {
		return 0, false
	}
	for i := range route.Brokers {
		if b := &route.Brokers[i]; b.Name == broker {
			n = max(b.ReadQueues, b.WriteQueues)
		}
	}
	for _, c := range some {
		if c.e.RealQueue >= n {
			return 0, false
		}
	}
	return n, n > 0
}

// readOn reads what a's topic got meanwhile, of at most most messages, and what it got since the
// instant if that is not there. Its error says that the keys are to be asked for by themselves.
func (g *Guardian) readOn(
	ctx context.Context, s *sight, topic string, a *arrivals, n int32, since delay.Due, most int64,
) error {
	booted, _ := s.info.Booted()
	now, ends := run{s.addr, booted}, make([]int64, n)
	err := g.each(n, func(q int32) (err error) {
		ends[q], err = g.client.MaxOffset(ctx, s.addr, topic, q)
		return err
	})
	if err != nil {
		return err
	}
	if a.run != now || len(a.next) != int(n) || since < a.since || len(a.seen) >= maxArrived ||
		!a.within(ends, most) {
		a.run, a.since, a.next = now, since.Add(-scanSlack), make([]int64, n)
		a.seen = map[string][]arrival{}
		err = g.each(n, func(q int32) (err error) {
			a.next[q], err = g.client.OffsetAt(ctx, s.addr, topic, q, a.since)
			return err
		})
		if err != nil {
			return err
		}
	}
	if !a.within(ends, most) {
		return fmt.Errorf("%w: more than %d messages in %s", delay.ErrOverloaded, most, topic)
	}
	var mu sync.Mutex
	return g.each(n, func(q int32) (err error) {
		for err == nil && a.next[q] < ends[q] {
			var p remoting.Pulled
			if p, err = g.pullOn(ctx, s.addr, topic, q, a.next[q]); err == nil {
				mu.Lock()
				a.add(p.Messages)
				mu.Unlock()
				a.next[q] = p.Next
			}
		}
		return err
	})
}

// pullOn reads some messages of a queue that has more.
func (g *Guardian) pullOn(
	ctx context.Context, addr, topic string, q int32, at int64,
) (remoting.Pulled, error) {
	p, err := g.client.Pull(ctx, addr, remoting.Pull{
		Group: Group, Topic: topic, Queue: q, Offset: at, Raw: true,
	})
	if err == nil && (p.Status != remoting.PullFound || p.Next <= at) {
		err = fmt.Errorf("%w: queue %s/%d has nothing at %d", delay.ErrUnavailable, topic, q, at)
	}
	return p, err
}

func (a *arrivals) add(messages []remoting.Message) {
	for i := range messages {
		m := &messages[i]
		key := m.Properties.Value(remoting.PropertyUniqueKey)
		a.seen[strings.Clone(key)] = append(a.seen[key], arrival{
			stored: m.Stored, rescued: strings.Clone(m.Properties.Value(PropertyRescued)),
		})
	}
}

// within reports whether at most most messages lie before ends. A queue that has become shorter is
// not what was read.
func (a *arrivals) within(ends []int64, most int64) bool {
	var n int64
	for q, end := range ends {
		if end < a.next[q] {
			return false
		}
		n += end - a.next[q]
	}
	return n <= most
}

// each calls do for each queue, some at a time, and returns one of the errors.
func (*Guardian) each(n int32, do func(q int32) error) error {
	errs := make([]error, n)
	pool(int(n), maxReaders, func(i int) { errs[i] = do(int32(i)) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
