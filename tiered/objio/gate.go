// SPDX-License-Identifier: Apache-2.0

package objio

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The bounds of the gate.
const (
	readLimit       = 64 // requests of the class under way
	writeLimit      = 16
	backgroundLimit = 8
	maxQueue        = 4096 // requests of a class that wait for a slot

	// retryCost is what a retry takes from a budget into which every request pays one (I4).
	retryCost  = 10
	retryBurst = 20 // retries that a full budget holds

	backgroundPause = 3 // attempts in a row without an answer that pause the class (I6)
	writePause      = 6 // more than one request has: a single object may be at fault

	// probeAfter is how long a paused class waits for its next probe.
	probeAfter = 5 * time.Second
)

// gate decides about attempts before they are made, and learns from what became of them.
type gate struct {
	changed func(Change)

	mu    sync.Mutex
	lanes [classes]lane
}

// lane is the state of one class.
type lane struct {
	limit, most int
	under       int             // slots taken
	queue       []chan struct{} // who waits for a slot, the oldest first
	good        int             // answers since limit changed
	halved      time.Time       // when limit was halved last

	budget int // of retries, in tenths

	fails   int // attempts in a row without an answer
	paused  bool
	by      Class // the most urgent one whose failures are enough
	since   time.Time
	probed  time.Time // when it was paused, or the last probe failed
	probing bool
}

// slot is the right to one attempt.
type slot struct {
	class Class
	start time.Time
	probe bool
}

func newGate(changed func(Change)) *gate {
	g := &gate{changed: changed}
	for c, most := range [classes]int{readLimit, writeLimit, backgroundLimit} {
		g.lanes[c] = lane{limit: most, most: most, budget: retryBurst * retryCost}
	}
	return g
}

// enter waits for a slot, unless the class is paused. first says that it is not a retry.
func (g *gate) enter(ctx context.Context, c Class, first bool, now time.Time) (slot, error) {
	s := slot{class: c, start: now}
	wait, err := g.ask(&s, first)
	if wait == nil || err != nil {
		return s, err
	}
	select {
	case <-wait:
		return s, nil
	case <-ctx.Done():
		g.forgo(s, wait)
		return s, context.Cause(ctx)
	}
}

// ask takes a slot, or a place in the queue.
func (g *gate) ask(s *slot, first bool) (wait chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := &g.lanes[s.class]
	if first {
		l.budget = min(l.budget+1, retryBurst*retryCost)
	}
	if l.paused {
		if !l.mayProbe(s.start) {
			return nil, ErrPaused
		}
		l.probing, s.probe = true, true
	}
	if l.under < l.limit && len(l.queue) == 0 {
		l.under++
		return nil, nil
	}
	if len(l.queue) == maxQueue {
		l.probing = l.probing && !s.probe
		return nil, errQueue
	}
	wait = make(chan struct{})
	l.queue = append(l.queue, wait)
	return wait, nil
}

// mayProbe reports whether the next attempt of a paused class may be made. A clock that went back
// does not prolong the pause.
func (l *lane) mayProbe(now time.Time) bool {
	return !l.probing && (now.Sub(l.probed) >= probeAfter || now.Before(l.probed))
}

// forgo gives up waiting, and the slot that may have come at the same moment.
func (g *gate) forgo(s slot, wait chan struct{}) {
	g.mu.Lock()
	l := &g.lanes[s.class]
	l.probing = l.probing && !s.probe
	var next []chan struct{}
	if i := slices.Index(l.queue, wait); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} else {
		l.under--
		next = l.admit()
	}
	g.mu.Unlock()
	wake(next)
}

// admit takes from the queue whoever has a slot now.
func (l *lane) admit() (next []chan struct{}) {
	for len(l.queue) > 0 && l.under < l.limit {
		l.under++
		next = append(next, l.queue[0])
		l.queue = slices.Delete(l.queue, 0, 1)
	}
	return next
}

func wake(waiting []chan struct{}) {
	for _, w := range waiting {
		close(w)
	}
}

// leave gives the slot back and learns from the attempt.
func (g *gate) leave(s slot, o outcome, cause error, now time.Time) {
	g.mu.Lock()
	l := &g.lanes[s.class]
	l.under--
	if s.probe {
		l.probing = false
		if o == silent {
			l.probed = now
		}
	}
	var changes []Change
	switch o {
	case answered:
		l.grow()
		changes = g.resume(s.class, now)
	case throttled:
		for c := s.class; c < classes; c++ {
			g.lanes[c].halve(s.start, now)
		}
	case silent:
		l.fails++
		changes = g.pause(s.class, cause, now)
	case unasked:
	}
	next := l.admit()
	g.mu.Unlock()
	wake(next)
	if g.changed != nil {
		for _, c := range changes {
			g.changed(c)
		}
	}
}

// grow allows one more after a window of answers (I5).
func (l *lane) grow() {
	if l.good++; l.good >= l.limit {
		l.limit, l.good = min(l.limit+1, l.most), 0
	}
}

// halve does so once for all requests that were under way at the time (I5).
func (l *lane) halve(start, now time.Time) {
	if !start.Before(l.halved) || now.Before(l.halved) {
		l.limit, l.good, l.halved = max(l.limit/2, 1), 0, now
	}
}

// pause pauses what the failures of class c are enough for (I6).
func (g *gate) pause(c Class, cause error, now time.Time) (changes []Change) {
	enough := [classes]int{Write: writePause, Background: backgroundPause}
	for k := max(c, Write); k < classes; k++ {
		l := &g.lanes[k]
		if g.lanes[c].fails < enough[k] {
			continue
		}
		if l.paused {
			l.by = min(l.by, c) // not only the less urgent fail: an answer to c will do
			continue
		}
		l.paused, l.by, l.since, l.probed = true, c, now, now
		changes = append(changes, Change{Class: k, Paused: true, Cause: cause})
	}
	return changes
}

// resume lets go on what was paused by class c or a more urgent one. An answer to a read says
// nothing of writes that fail: those go on when a probe of theirs is answered.
func (g *gate) resume(c Class, now time.Time) (changes []Change) {
	for k := range c + 1 {
		g.lanes[k].fails = 0
	}
	for k := range classes {
		l := &g.lanes[k]
		if !l.paused || l.by > c {
			continue
		}
		changes = append(changes, Change{Class: k, For: now.Sub(l.since)})
		l.paused, l.since = false, time.Time{}
	}
	return changes
}

// retry takes a retry from the budget of the class (I4).
func (g *gate) retry(c Class) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := &g.lanes[c]
	if l.budget < retryCost {
		return false
	}
	l.budget -= retryCost
	return true
}

// Paused reports whether a request of the class would be refused now (I6).
func (c *Client) Paused(class Class) bool {
	if c.gate == nil {
		return false
	}
	now := c.policy.Now()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	l := &c.gate.lanes[class]
	return l.paused && !l.mayProbe(now)
}

// Health tells how each class does, the most urgent first; nil when nothing is limited.
func (c *Client) Health() []Health {
	if c.gate == nil {
		return nil
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	all := make([]Health, classes)
	for i := range all {
		l := &c.gate.lanes[i]
		all[i] = Health{Class: Class(i), Paused: l.paused, Since: l.since, Limit: l.limit,
			Under: l.under, Waiting: len(l.queue), Retries: l.budget / retryCost}
	}
	return all
}
