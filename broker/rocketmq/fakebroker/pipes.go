// SPDX-License-Identifier: Apache-2.0

package fakebroker

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// pipes is a network in memory.
type pipes struct {
	mu   sync.Mutex
	last int
	open map[string]*pipeListener
}

// pipeListener listens at one address of pipes.
type pipeListener struct {
	of   *pipes
	addr *net.TCPAddr
	in   chan net.Conn
	end  chan struct{}
	once sync.Once
}

func (p *pipes) listen(addr string) net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr == "" {
		p.last++
		addr = fmt.Sprintf("127.0.0.1:%d", p.last)
	}
	_, port, _ := net.SplitHostPort(addr)
	l := &pipeListener{
		of: p, in: make(chan net.Conn), end: make(chan struct{}),
		addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(atoi(port))},
	}
	p.open[addr] = l
	return l
}

// Accept waits for a connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.in:
		return nc, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.end) })
	l.of.mu.Lock()
	defer l.of.mu.Unlock()
	if addr := l.addr.String(); l.of.open[addr] == l {
		delete(l.of.open, addr)
	}
	return nil
}

// Addr is the address.
func (l *pipeListener) Addr() net.Addr { return l.addr }

// Dial connects to an address of a cluster with Options.Pipes.
func (c *Cluster) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	c.pipes.mu.Lock()
	l := c.pipes.open[addr]
	c.pipes.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("%w: nobody listens at %s", delay.ErrUnavailable, addr)
	}
	near, far := net.Pipe()
	select {
	case l.in <- far:
		return near, nil
	case <-l.end:
		return nil, fmt.Errorf("%w: nobody listens at %s", delay.ErrUnavailable, addr)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
