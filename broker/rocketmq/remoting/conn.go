// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/delay"
)

const (
	readBuffer  = 256 << 10
	writeBuffer = 64 << 10
	writeQueue  = 64 // frames that wait for the writer
)

// The states of a frame on its way out (M1).
const (
	frameWaits uint32 = iota
	frameLeaves
	frameWithdrawn
)

// exchange is a request on its way and its answer.
type exchange struct {
	frame  []byte
	state  atomic.Uint32
	answer chan *Command // holds one
}

// conn is one connection. After an error it is of no more use.
type conn struct {
	nc       net.Conn
	addr     string
	maxFrame int
	timeout  time.Duration // for writing
	now      func() time.Time

	out  chan *exchange
	gone chan struct{} // closed when the connection has failed
	used atomic.Int64  // when the last frame came or went, in nanoseconds
	fine atomic.Bool   // an answer has come

	mu      sync.Mutex
	waiting map[int32]*exchange
	err     error
}

func newConn(nc net.Conn, addr string, cfg *Config) *conn {
	c := &conn{
		nc: nc, addr: addr, maxFrame: cfg.MaxFrame, timeout: cfg.Timeout, now: cfg.Now,
		out: make(chan *exchange, writeQueue), gone: make(chan struct{}),
		waiting: map[int32]*exchange{},
	}
	c.touch()
	return c
}

func (c *conn) touch() { c.used.Store(c.now().UnixNano()) }

// idle is how long nothing came or went.
func (c *conn) idle() time.Duration { return time.Duration(c.now().UnixNano() - c.used.Load()) }

func (c *conn) broken() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// fail closes the connection. The first reason is kept.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
	}
	c.mu.Unlock()
	if first {
		close(c.gone)
		c.nc.Close() //nolint:errcheck // it has failed already
	}
}

func (c *conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// readLoop gives answers to whoever waits for them until the connection fails.
func (c *conn) readLoop() {
	r := bufio.NewReaderSize(c.nc, readBuffer)
	for {
		cmd, err := ReadCommand(r, c.maxFrame)
		if err != nil {
			c.fail(fmt.Errorf("read: %w", noEOF(err)))
			return
		}
		c.touch()
		c.fine.Store(true)
		if !cmd.Response() {
			continue // a broker tells its clients of others; we ask instead
		}
		c.mu.Lock()
		x := c.waiting[cmd.Opaque]
		delete(c.waiting, cmd.Opaque)
		c.mu.Unlock()
		if x != nil {
			x.answer <- cmd
		}
	}
}

// writeLoop writes frames, as many at once as there are, until the connection fails.
func (c *conn) writeLoop() {
	w := bufio.NewWriterSize(c.nc, writeBuffer)
	for {
		select {
		case <-c.gone:
			return
		case x := <-c.out:
			if err := c.write(w, x); err != nil {
				c.fail(fmt.Errorf("write: %w", err))
				return
			}
		}
	}
}

// write writes x and what waits behind it.
func (c *conn) write(w *bufio.Writer, x *exchange) error {
	for {
		if err := c.nc.SetWriteDeadline(c.now().Add(c.timeout)); err != nil {
			return err
		}
		if x.state.CompareAndSwap(frameWaits, frameLeaves) {
			if _, err := w.Write(x.frame); err != nil {
				return err
			}
		}
		select {
		case x = <-c.out:
			continue
		default:
		}
		c.touch()
		return w.Flush()
	}
}

var errWithdrawn = errors.New("not sent")

// do sends a frame and waits for its answer. left says that some of it may have been sent (M1).
func (c *conn) do(
	ctx context.Context, opaque int32, frame []byte,
) (r *Command, left bool, err error) {
	x := &exchange{frame: frame, answer: make(chan *Command, 1)}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, false, err
	}
	c.waiting[opaque] = x
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, opaque)
		c.mu.Unlock()
	}()
	select {
	case c.out <- x:
	case <-c.gone:
		return nil, false, fmt.Errorf("%w: %w", errWithdrawn, c.failure())
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%w: %w", errWithdrawn, context.Cause(ctx))
	}
	select {
	case r := <-x.answer:
		return r, true, nil
	case <-c.gone:
		err = c.failure()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	select { // the answer may have come at the same time
	case r := <-x.answer:
		return r, true, nil
	default:
	}
	if x.state.CompareAndSwap(frameWaits, frameWithdrawn) {
		return nil, false, fmt.Errorf("%w: %w", errWithdrawn, err)
	}
	return nil, true, err
}

// closedError is what calls of a closed client get.
func closedError() error { return fmt.Errorf("%w: remoting client", delay.ErrClosed) }
