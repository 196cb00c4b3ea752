// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

const (
	// behind is the pause while the mirror is on its way.
	behind = 200 * time.Millisecond
	// undecidedGraces is how many graces a message may stay undecided while its broker answers (R18).
	undecidedGraces = 3
)

// docket is one message that is judged.
type docket struct {
	d   *broker.Delivery
	j   *broker.Judgment
	e   entry
	key uint64 // of its marks

	gone, passed, known bool // of its copy
	uncertain           bool // it is released, though it may have been delivered
	covered             bool // the mirror has stored all that its queue got until after its due
	stalled             bool // it never will
	hit                 hit
}

// open reads the entry of a delivery. It reports whether there is something to be looked at.
func (g *Guardian) open(c *docket) bool {
	err := fmt.Errorf("%w: no guard", delay.ErrCorrupt)
	if c.d.Guard != nil {
		c.e, err = parseEntry(c.d.Guard.Entry)
	}
	if err != nil { // it was written by another version, or by nobody
		*c.j = broker.Judgment{Fate: broker.Refused, Reason: err.Error()}
		return false
	}
	c.e.RealTopic = strings.Clone(c.e.RealTopic) // it stays as the key of a route
	c.key = g.marks.key(c.d.ID, c.d.Guard.Entry)
	return true
}

// Judge implements broker.Guardian. The order is fixed: where the copies are first, then the keys.
// The other way round a delivery in between is seen by neither.
func (g *Guardian) Judge(
	ctx context.Context, batch []broker.Delivery, judgments []broker.Judgment,
) {
	if len(batch) == 0 {
		return
	}
	all := make([]docket, len(batch))
	var open []*docket
	for i := range batch {
		c := &all[i]
		c.d, c.j = &batch[i], &judgments[i]
		*c.j = broker.Judgment{After: g.o.Grace}
		if g.open(c) {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return
	}
	name, err := g.brokerOf(open[0].d.Guard.Lane)
	if err != nil {
		g.log().Warn("rocketmq guardian is asked for another's messages", zap.Error(err))
		return
	}
	if g.isRetired(ctx, name) {
		g.inherit(ctx, name, open)
		return
	}
	if planted.Is(planted.KeyBeforeLocator) {
		if addr, err := g.master(ctx, name); err == nil {
			s := &sight{broker: name, addr: addr}
			pool(len(open), maxQueries, func(i int) { g.ask(ctx, s, open[i]) })
		}
	}
	g.together(ctx, name, open)
}

// decide judges what a look was made for.
func (g *Guardian) decide(ctx context.Context, s *sight, open []*docket) {
	g.cover(s, open)
	asked := open[:0]
	for _, c := range open {
		if g.waits(s, c) || g.firstLook(s, c) {
			continue
		}
		asked = append(asked, c)
	}
	if !planted.Is(planted.KeyBeforeLocator) {
		rest := g.survey(ctx, s, asked)
		pool(len(rest), maxQueries, func(i int) { g.ask(ctx, s, rest[i]) })
	}
	var release []*docket
	for _, c := range asked {
		if g.lost(s, c) {
			release = append(release, c)
		}
	}
	g.release(ctx, s, release)
	g.forget(open)
}

// forget drops what is remembered of those that are decided.
func (g *Guardian) forget(open []*docket) {
	for _, c := range open {
		if c.j.Fate != broker.Held {
			g.marks.forget(c.key)
		}
	}
}

// inherit releases what a retired broker held three graces after its due, as what is uncertain.
func (g *Guardian) inherit(ctx context.Context, name string, open []*docket) {
	now := g.now()
	var release []*docket
	for _, c := range open {
		if wait := c.since().Add(undecidedGraces * g.o.Grace).Sub(now); wait > 0 {
			c.j.After = wait
			continue
		}
		c.uncertain = true
		release = append(release, c)
	}
	g.release(ctx, &sight{broker: name}, release)
	g.forget(open)
}

// cover finds out for which messages the mirror has seen all that may concern them (R18): of each
// queue what it held at some instant after their due.
func (g *Guardian) cover(s *sight, open []*docket) {
	type state struct {
		until   delay.Due
		stalled bool
	}
	states := make(map[place]state, len(s.queues))
	long := undecidedGraces * g.o.Grace
	for at, q := range s.queues {
		g.mu.Lock()
		m, started := g.mirror[at], g.started
		g.mu.Unlock()
		if m == nil {
			states[at] = state{stalled: started > 0 && s.at.Sub(started) > long}
			continue
		}
		until, moved := m.coverage.update(s.at, q.high, m.Next())
		states[at] = state{until, s.at.Sub(moved) > long}
	}
	for _, c := range open {
		st := states[c.e.place(s.broker)]
		c.covered = st.until >= c.d.Due || planted.Is(planted.MirrorNotAwaited)
		c.stalled = st.stalled && !c.covered
	}
}

// waits reports whether c is held without its key being looked for.
func (g *Guardian) waits(s *sight, c *docket) bool {
	if !c.covered && !c.stalled {
		c.j.After = behind
		return true
	}
	c.gone = s.gone(&c.e)
	c.passed, c.known = s.passed(&c.e)
	if c.gone || c.passed || !c.known {
		return false
	}
	g.marks.forget(c.key) // it is the broker's again
	return true
}

// firstLook reports whether a copy is seen gone for the first time. Its key is asked for after the
// second look: that is what R18 asks for, and half the questions.
func (g *Guardian) firstLook(s *sight, c *docket) bool {
	if reaches, _ := s.reaches(c.since()); !c.gone || !c.covered || !reaches ||
		planted.Is(planted.OneLook) {
		return false
	}
	m := g.marks.note(c.key, s.at, func(m *mark) {
		if m.lost == 0 {
			m.lost = s.at
		}
	})
	return m.lost == s.at
}

// since is the instant from which on a message under the key of c is its delivery.
func (c *docket) since() delay.Due {
	if planted.Is(planted.EarlyHitCounts) {
		return 0
	}
	return min(c.e.Due, c.d.Due)
}

// ask looks for the key of c: in the index, and in the queue when the index may have forgotten.
func (g *Guardian) ask(ctx context.Context, s *sight, c *docket) {
	slots := g.shared(s.broker).queries
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		c.hit.err = context.Cause(ctx)
		return
	}
	c.hit = g.search(ctx, s.addr, c.d.ID, &c.e, c.since())
	if c.hit.err != nil || c.hit.found || c.hit.ours || s.info == nil {
		return
	}
	if _, indexed := s.reaches(c.since()); !indexed {
		c.hit = g.scan(ctx, s.addr, c.d.ID, &c.e, c.since())
	}
}

// lost decides c by what is known now, and reports whether it is to be released.
func (g *Guardian) lost(s *sight, c *docket) bool {
	switch {
	case c.hit.ours:
		c.j.Fate = broker.Released
		g.n.rescued.Add(1)
		return false
	case c.hit.found:
		c.j.Fate = broker.Suppressed
		g.n.delivered.Add(1)
		return false
	case c.hit.err != nil && !isAnswer(c.hit.err):
		return false
	}
	reaches, _ := s.reaches(c.since())
	lost := c.gone || c.passed && !c.e.timer()
	switch {
	case lost && c.covered && reaches && c.hit.whole && c.hit.err == nil:
		m := g.marks.note(c.key, s.at, func(m *mark) {
			if m.lost == 0 {
				m.lost = s.at
			}
		})
		if wait := g.o.Grace - s.at.Sub(m.lost); wait > 0 && !planted.Is(planted.OneLook) {
			c.j.After = wait
			return false
		}
		return true
	case lost || c.passed:
		return g.undecided(s, c)
	default:
		g.marks.forget(c.key)
		return false
	}
}

// isAnswer reports whether err is what a broker said.
func isAnswer(err error) bool {
	e, ok := errors.AsType[*remoting.Error](err)
	return !ok || e.Code >= 0
}

// undecided reports whether c, of which nothing can be said, is to be released: the index is too
// young or does not answer, the mirror stands still, or the wheel is beyond a timer that it has
// and has not delivered it. Only the time in which the broker answers counts.
func (g *Guardian) undecided(s *sight, c *docket) bool {
	absences := g.shared(s.broker).absences.Load()
	m := g.marks.note(c.key, s.at, func(m *mark) {
		if m.undecided == 0 || m.absences != absences {
			m.undecided, m.absences = s.at, absences
		}
	})
	if wait := undecidedGraces*g.o.Grace - s.at.Sub(m.undecided); wait > 0 {
		c.j.After = min(wait, g.o.Grace)
		return false
	}
	c.uncertain = true
	return true
}

// Lost implements broker.Guardian: it looks now. A copy that is gone may have been delivered first,
// so the key is asked for as well.
func (g *Guardian) Lost(ctx context.Context, guards []*delay.Guard) []bool {
	out := make([]bool, len(guards))
	entries := make([]entry, len(guards))
	byBroker := map[string]map[place]span{}
	names := make([]string, len(guards))
	for i, guard := range guards {
		name, err := g.brokerOf(guard.Lane)
		if err != nil {
			continue
		}
		if entries[i], err = parseEntry(guard.Entry); err != nil {
			continue
		}
		names[i] = name
		if byBroker[name] == nil {
			byBroker[name] = map[place]span{}
		}
		byBroker[name][entries[i].place(name)] = span{}
	}
	for name, queues := range byBroker {
		if g.isRetired(ctx, name) {
			for i := range guards {
				out[i] = out[i] || names[i] == name
			}
			continue
		}
		s, err := g.look(ctx, name, queues)
		if err != nil {
			continue // what cannot be said is not lost
		}
		for i := range guards {
			if names[i] == name && s.gone(&entries[i]) {
				out[i] = g.undelivered(ctx, s, &entries[i])
			}
		}
	}
	return out
}

// undelivered reports whether it is certain that a lost copy was not delivered before.
func (g *Guardian) undelivered(ctx context.Context, s *sight, e *entry) bool {
	reaches, indexed := s.reaches(e.Due)
	h := g.search(ctx, s.addr, "", e, e.Due)
	if !indexed && h.err == nil && !h.found && !h.ours {
		h = g.scan(ctx, s.addr, "", e, e.Due)
	}
	return reaches && h.whole && h.err == nil && !h.found && !h.ours
}

// Recall implements broker.Guardian: timers can be recalled, delay levels cannot.
func (g *Guardian) Recall(ctx context.Context, d *broker.Delivery) error {
	if d.Guard == nil {
		return fmt.Errorf("%w: message %s is not guarded", delay.ErrUnimplemented, d.ID)
	}
	name, err := g.brokerOf(d.Guard.Lane)
	if err != nil {
		return err
	}
	e, err := parseEntry(d.Guard.Entry)
	if err != nil {
		return err
	}
	if !e.timer() {
		return fmt.Errorf("%w: RocketMQ cannot recall a delay level", delay.ErrUnimplemented)
	}
	addr, err := g.master(ctx, name)
	if err != nil {
		return err
	}
	return g.client.Recall(ctx, addr, remoting.RecallHandle{
		Topic: e.RealTopic, Broker: name, DeliverAt: e.Out + 1, UniqueKey: e.Unique,
	})
}
