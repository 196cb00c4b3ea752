// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Defaults and limits of a Client.
const (
	DefaultTimeout     = 5 * time.Second
	DefaultMaxInFlight = 256
	DefaultRouteAge    = 30 * time.Second

	MinBackoff = 100 * time.Millisecond
	MaxBackoff = 5 * time.Second

	maxEndpoints = 1024
	maxRoutes    = 4096
	// A broker closes a connection on which nothing came for 120 s; a request that meets the close
	// on its way would be Unknown for nothing.
	maxIdle = 90 * time.Second
)

// Config says how to reach the brokers of some name servers.
type Config struct {
	// NameServers are asked for routes, host:port; the one that answered last is asked first.
	NameServers []string
	// Group is the producer group told with what is sent. "": cicada.
	Group string
	// AccessKey and SecretKey sign each request; both empty: nothing is signed.
	AccessKey, SecretKey string
	// SecurityToken goes with a temporary key.
	SecurityToken string
	// Encoding of headers.
	Encoding Encoding
	// TLS, if not nil, encrypts every connection.
	TLS *tls.Config
	// Timeout bounds connecting, writing, and waiting for an answer beyond the time the broker was
	// allowed to think. 0: DefaultTimeout.
	Timeout time.Duration
	// MaxInFlight bounds the requests that wait for answers of one address. 0: DefaultMaxInFlight.
	MaxInFlight int
	// MaxFrame bounds a frame in bytes, both ways. 0: DefaultMaxFrame.
	MaxFrame int
	// RouteAge is how old a route may be before it is asked for again. 0: DefaultRouteAge.
	RouteAge time.Duration
	// Dial connects instead of a net.Dialer, without TLS; for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time // nil: time.Now
}

// Client talks to the name servers and brokers of one configuration.
type Client struct {
	cfg    Config
	opaque atomic.Int32
	wg     sync.WaitGroup // the goroutines of connections
	end    chan struct{}  // closed by Close

	mu        sync.Mutex
	closed    bool
	endpoints map[string]*endpoint
	routes    map[string]cachedRoute
	server    int // the name server to ask first
}

// endpoint is what is known of one address. The client's lock guards it.
type endpoint struct {
	conn     *conn
	dialing  chan struct{} // closed when the dial under way has ended; nil: none is
	failures int           // dials in a row
	retryAt  time.Time
	last     error
	slots    chan struct{} // one for each request that waits for an answer (M3)
}

// New checks cfg; what is wrong with it wraps delay.ErrInvalid. It does no I/O.
func New(cfg Config) (*Client, error) {
	if cfg.Timeout < 0 || cfg.MaxInFlight < 0 || cfg.MaxFrame < 0 || cfg.RouteAge < 0 {
		return nil, fmt.Errorf("%w: rocketmq: a limit is negative", delay.ErrInvalid)
	}
	if (cfg.AccessKey == "") != (cfg.SecretKey == "") {
		return nil, fmt.Errorf("%w: rocketmq: access key and secret key go together", delay.ErrInvalid)
	}
	if cfg.Encoding > Binary {
		return nil, fmt.Errorf("%w: rocketmq: header encoding %d", delay.ErrInvalid, cfg.Encoding)
	}
	for _, s := range cfg.NameServers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return nil, fmt.Errorf("%w: rocketmq: name server: %w", delay.ErrInvalid, err)
		}
	}
	setDefault(&cfg.Timeout, DefaultTimeout)
	setDefault(&cfg.MaxInFlight, DefaultMaxInFlight)
	setDefault(&cfg.MaxFrame, DefaultMaxFrame)
	setDefault(&cfg.RouteAge, DefaultRouteAge)
	setDefault(&cfg.Group, "cicada")
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	return &Client{
		cfg: cfg, end: make(chan struct{}),
		endpoints: map[string]*endpoint{}, routes: map[string]cachedRoute{},
	}, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Close ends all calls and connections and waits for their goroutines.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.end)
	}
	var open []*conn
	for _, e := range c.endpoints {
		if e.conn != nil {
			open = append(open, e.conn)
		}
	}
	c.mu.Unlock()
	for _, n := range open {
		n.fail(closedError())
	}
	c.wg.Wait()
	return nil
}

// call asks addr once. think is what the broker may take beyond Config.Timeout. A response with
// any code is no error here; an error is an *Error.
func (c *Client) call(
	ctx context.Context, request, addr string, cmd *Command, think time.Duration,
) (*Command, error) {
	fail := func(o Outcome, err error) error {
		return &Error{Request: request, Addr: addr, Code: answerNone, Outcome: o, Err: err}
	}
	cmd.Opaque, cmd.Encoding = c.opaque.Add(1), c.cfg.Encoding
	// A broker reads an empty value of a binary header as none, and signs it as the word null.
	maps.DeleteFunc(cmd.Fields, func(_, value string) bool { return value == "" })
	c.sign(cmd)
	frame, err := cmd.Append(make([]byte, 0, 512+len(cmd.Body)), c.cfg.MaxFrame)
	if err != nil {
		return nil, fail(Never, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout+think,
		fmt.Errorf("%w: no answer in time", delay.ErrUnavailable))
	defer cancel()
	e, err := c.endpoint(addr)
	if err != nil {
		return nil, fail(No, err)
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return nil, fail(No, context.Cause(ctx))
	case <-c.end:
		return nil, fail(No, closedError())
	}
	n, err := c.connection(ctx, addr, e)
	if err != nil {
		return nil, fail(No, err)
	}
	r, left, err := n.do(ctx, cmd.Opaque, frame)
	switch {
	case err == nil:
		return r, nil
	case left:
		return nil, fail(Unknown, unavailable(err))
	default:
		return nil, fail(No, unavailable(err))
	}
}

// unavailable makes err one that callers know, unless it is already.
func unavailable(err error) error {
	for _, known := range []error{
		delay.ErrUnavailable, delay.ErrClosed, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", delay.ErrUnavailable, err)
}

// ask is call for requests whose only good answer is OK.
func (c *Client) ask(
	ctx context.Context, request, addr string, cmd *Command,
) (*Command, error) {
	r, err := c.call(ctx, request, addr, cmd, 0)
	if err != nil {
		return nil, err
	}
	if r.Code != OK {
		return nil, answered(request, addr, r)
	}
	return r, nil
}

func (c *Client) endpoint(addr string) (*endpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, closedError()
	}
	e := c.endpoints[addr]
	if e == nil {
		c.makeRoom()
		e = &endpoint{slots: make(chan struct{}, c.cfg.MaxInFlight)}
		c.endpoints[addr] = e
	}
	return e, nil
}

// makeRoom forgets an address without a connection when there are too many.
func (c *Client) makeRoom() {
	if len(c.endpoints) < maxEndpoints {
		return
	}
	for addr, e := range c.endpoints {
		if e.dialing == nil && (e.conn == nil || e.conn.broken()) {
			delete(c.endpoints, addr)
			return
		}
	}
}

// connection is the endpoint's connection, made if there is none. One dial runs at a time.
func (c *Client) connection(ctx context.Context, addr string, e *endpoint) (*conn, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, closedError()
		}
		if n := e.conn; n != nil {
			if n.fine.Load() {
				e.failures, e.retryAt = 0, time.Time{}
			}
			if !n.broken() && n.idle() < maxIdle {
				c.mu.Unlock()
				return n, nil
			}
		}
		if e.dialing == nil {
			if e.conn != nil && e.conn.broken() {
				e.last = e.conn.failure()
			}
			if wait := e.retryAt.Sub(c.cfg.Now()); wait > 0 {
				err := e.last
				c.mu.Unlock()
				return nil, fmt.Errorf("%w: not tried again for %v: %w", delay.ErrUnavailable,
					wait.Round(time.Millisecond), err)
			}
			done := make(chan struct{})
			stale := e.conn
			e.dialing, e.conn = done, nil
			c.mu.Unlock()
			if stale != nil {
				stale.fail(errors.New("idle for too long"))
			}
			return c.dial(ctx, addr, e, done)
		}
		dialing := e.dialing
		c.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-c.end:
			return nil, closedError()
		}
	}
}

func (c *Client) dial(
	ctx context.Context, addr string, e *endpoint, done chan struct{},
) (*conn, error) {
	nc, err := c.open(ctx, addr)
	var gaveUp error // the caller's doing: it says nothing of the address
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), delay.ErrUnavailable) {
		gaveUp = context.Cause(ctx)
	}
	n, err := c.dialed(addr, e, nc, err, gaveUp)
	close(done)
	if err != nil && nc != nil {
		nc.Close() //nolint:errcheck // nobody wants it
	}
	return n, err
}

// dialed notes how a dial ended. Until an answer has come over a connection it counts as one that
// failed, so that who closes each at once is left alone too (M4).
func (c *Client) dialed(
	addr string, e *endpoint, nc net.Conn, err, gaveUp error,
) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.dialing = nil
	switch {
	case c.closed:
		return nil, closedError()
	case gaveUp != nil:
		return nil, gaveUp
	}
	e.retryAt = c.cfg.Now().Add(min(MinBackoff<<min(e.failures, 10), MaxBackoff))
	e.failures++
	if e.last = err; err != nil {
		return nil, fmt.Errorf("%w: connect: %w", delay.ErrUnavailable, err)
	}
	e.conn = newConn(nc, addr, &c.cfg)
	c.wg.Go(e.conn.readLoop)
	c.wg.Go(e.conn.writeLoop)
	return e.conn, nil
}

// open connects, with TLS if so configured. Close ends it too.
func (c *Client) open(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		select {
		case <-c.end:
			cancel()
		case <-stop:
		}
	})
	nc, err := c.cfg.Dial(ctx, "tcp", addr)
	if err != nil || c.cfg.TLS == nil {
		return nc, err
	}
	config := c.cfg.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(nc, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close() //nolint:errcheck // it has failed already
		return nil, err
	}
	return secure, nil
}
