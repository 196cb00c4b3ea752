// SPDX-License-Identifier: Apache-2.0

// Package limit bounds what clients can make the front end hold: bytes of requests, long polls and
// connections.
//
// # Invariants
//
//	G1  What is claimed never exceeds the bound, and what is refused takes no memory.
//	G2  The pause asked for is the time that what is held needs to go at the present rate.
//
// All types are safe for concurrent use.
package limit

import (
	"context"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Bounds of the pause that an overloaded server asks for.
const (
	leastPause = time.Second
	mostPause  = 30 * time.Second
	meterSpan  = time.Second // over which the rate is taken
)

// Bytes bounds the bytes of requests being served.
type Bytes struct {
	most int64
	now  func() time.Time
	used atomic.Int64
	gone atomic.Int64 // released so far

	mu struct {
		sync.Mutex
		at   time.Time // of the last look
		gone int64     // by then
		rate float64   // bytes a second
	}
}

// NewBytes makes a bound of most bytes. now is the wall clock.
func NewBytes(most int64, now func() time.Time) *Bytes { return &Bytes{most: most, now: now} }

// Claim counts n more bytes, or refuses with delay.ErrOverloaded (G1).
func (b *Bytes) Claim(n int64) error {
	if b.used.Add(n) > b.most {
		b.used.Add(-n)
		return fmt.Errorf("%w: %d bytes of requests in flight", delay.ErrOverloaded, b.most)
	}
	return nil
}

// Add counts n more bytes that are there already: replies. They go beyond the bound if they must,
// and whoever makes them asks Full before the next.
func (b *Bytes) Add(n int64) { b.used.Add(n) }

// Full reports whether the bound is reached.
func (b *Bytes) Full() bool { return b.used.Load() >= b.most }

// Used is what is counted now.
func (b *Bytes) Used() int64 { return b.used.Load() }

// Release gives n bytes back.
func (b *Bytes) Release(n int64) {
	b.used.Add(-n)
	b.gone.Add(n)
}

// Pause is how long a client that was refused should wait: until what is held has gone at the rate
// of late (G2), in whole seconds from 1 to 30.
func (b *Bytes) Pause() time.Duration {
	rate := b.rate()
	if rate <= 0 {
		return leastPause
	}
	seconds := math.Ceil(float64(b.used.Load()) / rate)
	return min(max(time.Duration(min(seconds, 60))*time.Second, leastPause), mostPause)
}

// rate is how many bytes a second were released since the look before; 0 when that is not known.
func (b *Bytes) rate() float64 {
	now, gone := b.now(), b.gone.Load()
	b.mu.Lock()
	defer b.mu.Unlock()
	since := now.Sub(b.mu.at)
	switch {
	case b.mu.at.IsZero(), since > mostPause: // nobody has looked for long
		b.mu.at, b.mu.gone, b.mu.rate = now, gone, 0
	case since >= meterSpan:
		// Nothing released in a whole second is a rate, too: a byte keeps it from being unknown.
		b.mu.rate = max(float64(gone-b.mu.gone), 1) / since.Seconds()
		b.mu.at, b.mu.gone = now, gone
	}
	return b.mu.rate
}

// Polls bounds the requests that wait for something to happen, and ends them all at once. It is
// made by NewPolls.
type Polls struct {
	most int

	mu      sync.Mutex
	waiting map[*poll]struct{}
	done    bool
}

type poll struct{ cancel context.CancelFunc }

// NewPolls makes a bound of most polls.
func NewPolls(most int) *Polls { return &Polls{most: most, waiting: map[*poll]struct{}{}} }

// Begin registers a poll and returns its end. It refuses with delay.ErrOverloaded when too many
// wait, and with delay.ErrUnavailable after Close.
func (p *Polls) Begin(ctx context.Context) (_ context.Context, end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	one := &poll{cancel}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.done:
		cancel()
		return nil, nil, fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	case len(p.waiting) >= p.most:
		cancel()
		return nil, nil, fmt.Errorf("%w: %d pulls and streams", delay.ErrOverloaded, p.most)
	}
	p.waiting[one] = struct{}{}
	return ctx, func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, one)
	}, nil
}

// Close ends all polls; none begins any more. It may be called more than once.
func (p *Polls) Close() {
	p.mu.Lock()
	p.done = true
	waiting := p.waiting
	p.waiting = map[*poll]struct{}{}
	p.mu.Unlock()
	for one := range waiting {
		one.cancel()
	}
}

// Closed reports whether Close was called.
func (p *Polls) Closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Listener is l with at most most connections at a time: the others wait in the system's queue,
// which is short, and then get no answer.
func Listener(l net.Listener, most int) net.Listener {
	return &listener{Listener: l, room: make(chan struct{}, most), closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	room   chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept waits for room and for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &conn{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

// Close ends Accept, also where it waits for room.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type conn struct {
	net.Conn
	leave func()
}

// Close makes room.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
