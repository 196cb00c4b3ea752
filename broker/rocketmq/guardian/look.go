// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// span is a queue from its lowest offset to one above its highest.
type span struct{ low, high int64 }

// sight is what a broker told of itself in one look.
type sight struct {
	broker string
	addr   string
	at     delay.Due // when it was looked at, by our clock, before anything was asked
	low    int64     // of the commit log
	info   remoting.Runtime
	wheel  delay.Due // slots before it were delivered; 0 is not known
	queues map[place]span
}

// look asks a broker where its copies are: a few requests, however many messages it is for.
func (g *Guardian) look(ctx context.Context, name string, queues map[place]span) (*sight, error) {
	addr, err := g.master(ctx, name)
	if err != nil {
		return nil, err
	}
	t, err := g.tell(ctx, name, addr)
	if err != nil {
		return nil, err
	}
	s := &sight{
		broker: name, addr: addr, at: t.at, low: t.low, info: t.info, wheel: t.wheel, queues: queues,
	}
	for at := range queues {
		low, err := g.client.MinOffset(ctx, addr, at.topic, at.number)
		if err != nil {
			return nil, err
		}
		high, err := g.client.MaxOffset(ctx, addr, at.topic, at.number)
		if err != nil {
			return nil, err
		}
		queues[at] = span{max(0, low), max(0, high)}
	}
	return s, ctx.Err()
}

// shareFor is how old what a broker told of itself may be for a look. To be asked costs it a walk
// through its whole wheel.
const shareFor = 200 * time.Millisecond

// told is what a broker tells of itself, for all looks of a moment.
type told struct {
	at    delay.Due // before it was asked
	ready chan struct{}
	info  remoting.Runtime
	low   int64
	wheel delay.Due
	err   error
}

// tell gives what a broker tells of itself: asked now, by a call under way, or a moment ago.
func (g *Guardian) tell(ctx context.Context, name, addr string) (*told, error) {
	sh, now := g.shared(name), g.now()
	g.mu.Lock()
	t := sh.told
	mine := t == nil || now.Sub(t.at) > shareFor || now < t.at
	if mine {
		t = &told{at: now, ready: make(chan struct{})}
		sh.told = t
	}
	g.mu.Unlock()
	if mine {
		t.err = g.question(ctx, addr, t)
		close(t.ready)
	}
	select {
	case <-t.ready:
		if t.err != nil {
			g.mu.Lock()
			if sh.told == t {
				sh.told = nil // an error is not shared with those that come later
			}
			g.mu.Unlock()
		}
		if t.err != nil && !mine { // its asker may have gone away
			t = &told{at: g.now()}
			t.err = g.question(ctx, addr, t)
		}
		return t, t.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g *Guardian) question(ctx context.Context, addr string, t *told) (err error) {
	if t.info, err = g.client.RuntimeInfo(ctx, addr); err != nil {
		return err
	}
	if t.low, _, err = t.info.CommitLog(); err != nil {
		return err
	}
	// A broker that cannot say is one whose wheel is not known.
	if point, err := g.client.TimerCheckpoint(ctx, addr); err == nil {
		t.wheel = point.ReadAt
	}
	return nil
}

// place is the queue that e lies in.
func (e *entry) place(broker string) place { return place{broker, e.Topic, e.Queue} }

// gone reports whether the broker has lost the copy: below what it holds, or above, when a slave
// took over that had less.
func (s *sight) gone(e *entry) bool {
	q := s.queues[e.place(s.broker)]
	return e.Physical < s.low || e.Offset < q.low || e.Offset >= q.high
}

// wheelTrust is how far behind a wheel may be that is believed to be on its way. One that is
// farther behind may be no wheel at all: newer brokers can keep timers elsewhere.
const wheelTrust = 10 * time.Minute

// passed reports whether the broker is beyond the message, delivered or not; known is false when it
// does not say.
func (s *sight) passed(e *entry) (passed, known bool) {
	if e.timer() {
		return s.wheel > e.Out, s.wheel > 0 && s.at.Sub(s.wheel) < wheelTrust
	}
	delivered, _, ok := s.info.Level(e.level())
	return ok && delivered > e.Offset, ok
}

// reaches reports whether the index of keys holds what was stored since an instant. A broker that
// was killed forgets a part of it when it starts again.
func (s *sight) reaches(since delay.Due) (reaches, indexed bool) {
	earliest, ok := s.info.Earliest()
	booted, ok2 := s.info.Booted()
	return ok && earliest <= since, !ok2 || booted <= since
}

// Limits of a search of a queue for a key.
const (
	maxScan   = 128 // pulls
	scanSlack = 2 * time.Second
)

// hit is what became known of a message by its key.
type hit struct {
	found bool // stored at or after its due: the broker delivered it
	ours  bool // it is what this Guardian sent
	whole bool // if neither, it is not there: everything was looked at
	err   error
}

// search looks for the key of a message among what its topic got at or after since, at one broker.
func (g *Guardian) search(
	ctx context.Context, addr string, id delay.ID, e *entry, since delay.Due,
) hit {
	found, err := g.client.Query(ctx, addr, remoting.Query{
		Topic: e.RealTopic, Key: e.Unique, Unique: true,
		Begin: max(0, since.Add(-scanSlack)), End: delay.MaxDue,
	})
	h := hit{whole: true, err: err}
	h.look(found, id, e, since)
	return h
}

// look takes messages with the key into account.
func (h *hit) look(found []remoting.Message, id delay.ID, e *entry, since delay.Due) {
	for i := range found {
		m := &found[i]
		if m.Properties.Value(remoting.PropertyUniqueKey) != e.Unique {
			continue
		}
		h.count(arrival{m.Stored, m.Properties.Value(PropertyRescued)}, id, since)
	}
}

// count takes one message with the key into account.
func (h *hit) count(m arrival, id delay.ID, since delay.Due) {
	switch {
	case m.rescued == string(id):
		h.ours = true
	case m.stored >= since:
		h.found = true
	}
}

// scan is search without the index, in the queue that the message is for.
func (g *Guardian) scan(
	ctx context.Context, addr string, id delay.ID, e *entry, since delay.Due,
) (h hit) {
	at, err := g.client.OffsetAt(ctx, addr, e.RealTopic, e.RealQueue, since)
	if err != nil {
		return hit{err: err}
	}
	for range maxScan {
		p, err := g.client.Pull(ctx, addr, remoting.Pull{
			Group: Group, Topic: e.RealTopic, Queue: e.RealQueue, Offset: at, Raw: true,
		})
		if err != nil {
			h.err = err
			return h
		}
		if h.look(p.Messages, id, e, since); h.ours || h.found {
			return h
		}
		if p.Next <= at || p.Next >= p.Max {
			h.whole = true
			return h
		}
		at = p.Next
	}
	h.err = fmt.Errorf("%w: more than %d answers", delay.ErrOverloaded, maxScan)
	return h
}
