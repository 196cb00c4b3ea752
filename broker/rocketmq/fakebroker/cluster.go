// SPDX-License-Identifier: Apache-2.0

package fakebroker

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Options of a Cluster.
type Options struct {
	Brokers []string // their names; none: "broker-a"
	// Now is the clock of stores and deliveries. nil: the wall clock.
	Now func() time.Time
	// AccessKey and SecretKey, if set, must sign every request.
	AccessKey, SecretKey string
	// RollWindow is how far ahead a timer is kept before it is written anew. 0: 48 hours.
	RollWindow time.Duration
	// MaxMessage bounds the body of a message or a batch. 0: 4 MiB.
	MaxMessage int
	// FileSize is what the brokers say of the size of the files of their commit logs. 0: 1 GiB.
	FileSize int64
	// Stored is told of every message that is stored, with the broker's name; nil: nobody is. It
	// must not call back.
	Stored func(broker string, m remoting.Message)
	// Pipes connects in memory, by Cluster.Dial alone, for tests in virtual time.
	Pipes bool
}

// Cluster is a name server and its brokers.
type Cluster struct {
	opts    Options
	server  *server
	brokers []*Broker
	pipes   *pipes // nil: the network
}

const (
	clusterName       = "DefaultCluster"
	defaultRollWindow = 48 * time.Hour
	defaultMaxMessage = 4 << 20
	defaultFileSize   = 1 << 30
)

// Start starts a cluster on free ports of the loopback.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	if len(opts.Brokers) == 0 {
		opts.Brokers = []string{"broker-a"}
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.RollWindow == 0 {
		opts.RollWindow = defaultRollWindow
	}
	if opts.MaxMessage == 0 {
		opts.MaxMessage = defaultMaxMessage
	}
	if opts.FileSize == 0 {
		opts.FileSize = defaultFileSize
	}
	c := &Cluster{opts: opts}
	if opts.Pipes {
		c.pipes = &pipes{open: map[string]*pipeListener{}}
	}
	c.server = &server{handle: c.route, sign: c.signed, pipes: c.pipes}
	if err := c.server.start(ctx); err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	for _, name := range opts.Brokers {
		b := newBroker(c, name)
		if err := b.server.start(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("broker %s: %w", name, err)
		}
		c.brokers = append(c.brokers, b)
	}
	return c, nil
}

// Close stops everything and waits for it.
func (c *Cluster) Close() {
	c.server.stop()
	for _, b := range c.brokers {
		b.server.stop()
	}
}

// NameServer is the address of the name server.
func (c *Cluster) NameServer() string { return c.server.address() }

// StopNameServer and StartNameServer make it go away and come back, at the same address.
func (c *Cluster) StopNameServer() { c.server.stop() }

// StartNameServer is the reverse of StopNameServer.
func (c *Cluster) StartNameServer(ctx context.Context) error { return c.server.start(ctx) }

// Names are the names of the brokers, in their order.
func (c *Cluster) Names() (all []string) {
	for _, b := range c.brokers {
		all = append(all, b.name)
	}
	return all
}

// Broker is the i-th broker.
func (c *Cluster) Broker(i int) *Broker { return c.brokers[i] }

// CreateTopic makes a topic on every broker, or changes the number of its queues.
func (c *Cluster) CreateTopic(name string, queues int) {
	for _, b := range c.brokers {
		b.CreateTopic(name, queues)
	}
}

// DeleteTopic removes a topic from every broker.
func (c *Cluster) DeleteTopic(name string) {
	for _, b := range c.brokers {
		b.mu.Lock()
		delete(b.topics, name)
		b.mu.Unlock()
	}
}

// Messages lists what a topic holds, broker by broker and queue by queue.
func (c *Cluster) Messages(topic string) []remoting.Message {
	var all []remoting.Message
	for _, b := range c.brokers {
		all = append(all, b.Messages(topic)...)
	}
	return all
}

// Deliver moves on every broker what is due.
func (c *Cluster) Deliver() {
	for _, b := range c.brokers {
		b.Deliver()
	}
}

func (c *Cluster) now() delay.Due { return delay.InstantOf(c.opts.Now()) }

func (c *Cluster) signed(cmd *remoting.Command) bool {
	return c.opts.SecretKey == "" || cmd.Fields["AccessKey"] == c.opts.AccessKey &&
		cmd.Fields["Signature"] == remoting.Signature(cmd, c.opts.SecretKey)
}

type (
	brokerData struct {
		Name      string           `json:"brokerName"`
		Cluster   string           `json:"cluster"`
		Addresses map[int64]string `json:"brokerAddrs"`
	}
	queueData struct {
		Name       string `json:"brokerName"`
		Read       int    `json:"readQueueNums"`
		Write      int    `json:"writeQueueNums"`
		Permission int    `json:"perm"`
	}
)

func (b *Broker) data() brokerData {
	return brokerData{b.name, clusterName, map[int64]string{0: b.Addr()}}
}

// route answers for the name server.
func (c *Cluster) route(_ context.Context, cmd *remoting.Command) *remoting.Command {
	var body any
	switch cmd.Code {
	case remoting.RequestRoute:
		brokers, queues := []brokerData{}, []queueData{}
		for _, b := range c.brokers {
			if n := b.queues(cmd.Fields["topic"]); n > 0 && !b.Stopped() {
				brokers = append(brokers, b.data())
				queues = append(queues, queueData{b.name, n, n, b.permission(cmd.Fields["topic"])})
			}
		}
		if len(brokers) == 0 {
			return cmd.Reply(remoting.TopicNotExist, "No topic route info in name server")
		}
		body = map[string]any{"brokerDatas": brokers, "queueDatas": queues}
	case remoting.RequestCluster:
		all := map[string]brokerData{}
		for _, b := range c.brokers {
			all[b.name] = b.data()
		}
		body = map[string]any{"brokerAddrTable": all}
	default:
		return cmd.Reply(remoting.NotSupported, "request type not supported")
	}
	return jsonReply(cmd, body)
}

func jsonReply(cmd *remoting.Command, body any) *remoting.Command {
	r := cmd.Reply(remoting.OK, "")
	text, err := json.Marshal(body)
	if err != nil {
		return cmd.Reply(remoting.SystemError, err.Error())
	}
	r.Body = text
	return r
}

// server is a listener that comes back at the same address.
type server struct {
	handle func(ctx context.Context, c *remoting.Command) *remoting.Command
	fault  func(c *remoting.Command) Fault // nil: none
	sign   func(c *remoting.Command) bool
	pipes  *pipes

	mu    sync.Mutex
	addr  string
	ln    net.Listener
	conns []net.Conn
	end   context.CancelFunc
	wg    sync.WaitGroup
}

func (s *server) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

func (s *server) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ln == nil
}

func (s *server) hasFault() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault != nil
}

func (s *server) start(ctx context.Context) error {
	ln, err := s.listen(ctx, s.address())
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.ln, s.addr, s.end = ln, ln.Addr().String(), end
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, nc)
			gone := s.ln != ln
			s.mu.Unlock()
			if gone {
				nc.Close() //nolint:errcheck // it came too late
				return
			}
			s.wg.Go(func() { s.serve(ctx, nc) })
		}
	})
	return nil
}

func (s *server) listen(ctx context.Context, addr string) (net.Listener, error) {
	if s.pipes != nil {
		return s.pipes.listen(addr), nil
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
}

func (s *server) stop() {
	s.mu.Lock()
	ln, conns, end := s.ln, s.conns, s.end
	s.ln, s.conns = nil, nil
	s.mu.Unlock()
	if ln == nil {
		return
	}
	end()
	ln.Close() //nolint:errcheck // it is a test's
	for _, nc := range conns {
		nc.Close() //nolint:errcheck // as above
	}
	s.wg.Wait()
}

// cut closes all connections; new ones are taken.
func (s *server) cut() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, nc := range conns {
		nc.Close() //nolint:errcheck // it is a test's
	}
}

// serve answers the requests of one connection, at the same time as a broker does where it matters.
func (s *server) serve(ctx context.Context, nc net.Conn) {
	defer nc.Close() //nolint:errcheck // it is a test's
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	var mu sync.Mutex // frames must not mix
	for {
		cmd, err := remoting.ReadCommand(nc, remoting.DefaultMaxFrame)
		if err != nil {
			return
		}
		work := func() {
			frame, closes := s.answer(ctx, cmd)
			mu.Lock()
			defer mu.Unlock()
			if _, err := nc.Write(frame); err != nil || closes {
				nc.Close() //nolint:errcheck // it is a test's
			}
		}
		waits := cmd.Code == remoting.RequestPull || cmd.Code == remoting.RequestLitePull ||
			cmd.Code == remoting.RequestCommitOffset || s.hasFault()
		if waits {
			wg.Go(work)
		} else {
			work()
		}
	}
}
