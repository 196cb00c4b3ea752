// SPDX-License-Identifier: Apache-2.0

// Package memory is a broker.Sink that delivers into a log in memory: the receiver of tests and of
// the simulator. It does what a script tells it and keeps the ground truth apart from what it told
// the sender, so that a checker can count losses and duplicates.
//
//	Deliver --> gate --> script --Delay--> taken? --> log --ReplyDelay--> result
//
// # Invariants
//
//	M1  The log holds one Attempt for every delivery that reached the receiver, in that order,
//	    with copies of everything.
//	M2  Taken is the truth: what the script says the receiver took, whatever the sender was told.
//	M3  No lock is held while a script runs or a delay passes.
//
// A Sink is safe for concurrent use. Delays use timers, so in a testing/synctest bubble they are
// virtual. Nothing is kept across a crash, which is what a crash of the receiver means here.
package memory

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Answer is what a script decides for one delivery.
type Answer struct {
	// Result is what the sender is told. Outcome Delivered implies Taken.
	Result broker.Result
	// Taken says that the receiver took the message. With another outcome than Delivered it is
	// the reply that got lost or lied.
	Taken bool
	// Delay passes before the message is taken, ReplyDelay after it and before the result. When
	// the sender's context ends first, the outcome stays Unknown.
	Delay, ReplyDelay time.Duration
}

// Script decides what becomes of d, the n-th delivery (from 0) the sink was given. It is called
// from concurrent Delivers, must not keep d's strings and slices, and may block.
type Script func(n int, d broker.Delivery) Answer

// Attempt is one delivery that reached the receiver. Everything in it is a copy.
type Attempt struct {
	broker.Delivery
	At    delay.Due     // when it was taken or refused, by Options.Now
	Taken bool          // the truth
	Told  broker.Result // what the script decided to tell the sender
}

// DefaultKeep bounds the log.
const DefaultKeep = 1 << 20

// Options of a Sink. The zero value delivers everything at once.
type Options struct {
	Script Script           // nil: take everything
	Keep   int              // attempts kept; later ones are only counted. 0: DefaultKeep
	Now    func() time.Time // nil: time.Now
}

// Sink is the memory sink.
type Sink struct {
	script Script
	keep   int
	now    func() time.Time

	mu       sync.Mutex
	given    int
	attempts []Attempt
	reached  int
	taken    map[delay.ID]int
	changed  chan struct{} // closed and replaced with every attempt
	gate     chan struct{} // nil when open; closed to open
}

var _ broker.Sink = (*Sink)(nil)

// New is an empty sink.
func New(opts Options) *Sink {
	s := &Sink{
		script: opts.Script, keep: opts.Keep, now: opts.Now,
		taken: map[delay.ID]int{}, changed: make(chan struct{}),
	}
	if s.script == nil {
		s.script = func(int, broker.Delivery) Answer {
			return Answer{Result: broker.Result{Outcome: broker.Delivered}}
		}
	}
	if s.keep <= 0 {
		s.keep = DefaultKeep
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

// Deliver runs the script over batch in order.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	for i := range batch {
		if !s.pass(ctx) {
			return
		}
		a := s.script(s.number(), batch[i])
		if !pause(ctx, a.Delay) {
			return
		}
		s.record(batch[i], a)
		if !pause(ctx, a.ReplyDelay) {
			return
		}
		results[i] = a.Result
	}
}

// Close does nothing: there is nothing to release, and the log stays readable.
func (s *Sink) Close() error { return nil }

// Hold shuts the gate: deliveries wait in front of it, until Release or the end of their context.
func (s *Sink) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate == nil {
		s.gate = make(chan struct{})
	}
}

// Release opens the gate.
func (s *Sink) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// Attempts is a copy of the log in the order of arrival. Its bodies and headers are shared with
// the log and must not be changed.
func (s *Sink) Attempts() []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

// Reached is the number of deliveries that reached the receiver, those beyond Options.Keep
// included.
func (s *Sink) Reached() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached
}

// Taken is how often the receiver took each message, by id: 1 is right, more is a duplicate. It
// counts beyond Options.Keep too.
func (s *Sink) Taken() map[delay.ID]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[delay.ID]int, len(s.taken))
	maps.Copy(out, s.taken)
	return out
}

// Wait returns nil as soon as n deliveries have reached the receiver, or the error of ctx.
func (s *Sink) Wait(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		reached, changed := s.reached, s.changed
		s.mu.Unlock()
		if reached >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pass waits at the gate.
func (s *Sink) pass(ctx context.Context) bool {
	for ctx.Err() == nil {
		s.mu.Lock()
		gate := s.gate
		s.mu.Unlock()
		if gate == nil {
			return true
		}
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	return false
}

func (s *Sink) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given++
	return s.given - 1
}

func (s *Sink) record(d broker.Delivery, a Answer) {
	taken := a.Taken || a.Result.Outcome == broker.Delivered
	at := Attempt{Delivery: clone(d), At: delay.InstantOf(s.now()), Taken: taken, Told: a.Result}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached++
	if len(s.attempts) < s.keep {
		s.attempts = append(s.attempts, at)
	}
	if taken {
		s.taken[at.ID]++
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// clone copies what is valid only until Deliver returns.
func clone(d broker.Delivery) broker.Delivery {
	d.ID = delay.ID(strings.Clone(string(d.ID)))
	d.Target = delay.Target(strings.Clone(string(d.Target)))
	d.RoutingKey = strings.Clone(d.RoutingKey)
	d.Headers = slices.Clone(d.Headers)
	for i, h := range d.Headers {
		d.Headers[i] = delay.Header{Name: strings.Clone(h.Name), Value: strings.Clone(h.Value)}
	}
	d.Body = bytes.Clone(d.Body)
	return d
}

// pause waits for d. It reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
