// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cicadamq/cicada/integration/brokers"
)

const (
	logFile = 2 << 20 // bytes of one file of the commit log
	// expireWithin bounds how long a broker takes to expire its log: it does not begin before it
	// has run for a minute.
	expireWithin = 3 * time.Minute
)

// Options of a Cluster.
type Options struct {
	// Tiered switches RocketMQ's own tiered store on.
	Tiered bool
	// Keep lets the log keep what it holds: the control of the experiment.
	Keep bool
	// Two starts a second broker, so that a topic has queues at both.
	Two bool
	// Proxy starts a proxy before the broker, and the users of the cluster speak gRPC with it.
	Proxy bool
	// Admin, if not "", is name:password of an administrator: access is controlled (ACL 2.0). The
	// client is that administrator. It does not go with Proxy.
	Admin string
	// Settings are more lines of broker.conf.
	Settings []string
}

// Cluster is a name server, a broker or two whose log expires when it is told to, and the official
// clients.
type Cluster struct {
	*brokers.RocketMQ
	Second *brokers.RocketMQ // a broker with the same name server, or nil
	Client *Client           // administers, and sees what brokers store
	Users  *Client           // sends and receives: the same, or one that speaks gRPC

	keep bool
	log  *os.File
}

// Start starts all of it with its data in dir.
func Start(ctx context.Context, dir string, opts Options) (*Cluster, error) {
	reserved := 0 // hours: a full file may go at once
	if opts.Keep {
		reserved = 72
	}
	settings := []string{
		fmt.Sprintf("mappedFileSizeCommitLog=%d", logFile), "maxMessageSize=65536",
		// Old files go when that is asked for: not at an hour of the day, and not because the
		// disk is rather full (above 85 % they do all the same).
		fmt.Sprintf("fileReservedTime=%d", reserved), "deleteWhen=99",
		"diskMaxUsedSpaceRatio=95", "cleanResourceInterval=1000", levelSetting(),
	}
	if opts.Tiered {
		settings = append(settings, "tieredStoreGroupCommitTimeout=5", "readAheadCacheEnable=true")
	}
	first := brokers.RocketMQOptions{
		Tiered: opts.Tiered, OwnProxy: opts.Proxy, Admin: opts.Admin,
		Settings: slices.Concat(settings, opts.Settings),
	}
	r, err := brokers.StartRocketMQ(dir, first)
	if err != nil {
		return nil, err
	}
	c := &Cluster{RocketMQ: r, keep: opts.Keep}
	if opts.Two {
		second := first
		second.NameAddr, second.OwnProxy = r.NameAddr, false
		second.Settings = append(slices.Clone(first.Settings), "brokerName=broker-b")
		below := filepath.Join(dir, "second")
		if err = os.Mkdir(below, 0o755); err == nil {
			c.Second, err = brokers.StartRocketMQ(below, second)
		}
		if err != nil {
			c.Close()
			return nil, err
		}
	}
	if err := c.connect(ctx, dir, opts.Proxy); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) connect(ctx context.Context, dir string, proxy bool) (err error) {
	if c.log, err = os.Create(filepath.Join(dir, "client.log")); err != nil {
		return err
	}
	path, err := brokers.Script("rocketmq.sh")
	if err != nil {
		return err
	}
	if c.Client, err = StartClient(ctx, path, Remoting, dir, c.log); err != nil {
		return err
	}
	c.Users = c.Client
	if proxy {
		c.Users, err = StartClient(ctx, path, GRPC, dir, c.log)
	}
	return err
}

// Close kills all of it.
func (c *Cluster) Close() {
	if c.Users != nil && c.Users != c.Client {
		c.Users.Close()
	}
	if c.Client != nil {
		c.Client.Close()
	}
	if c.log != nil {
		_ = c.log.Close()
	}
	for _, b := range c.brokers() {
		_ = b.Kill()
	}
}

// brokers are its brokers, one or two.
func (c *Cluster) brokers() []*brokers.RocketMQ {
	if c.Second == nil {
		return []*brokers.RocketMQ{c.RocketMQ}
	}
	return []*brokers.RocketMQ{c.RocketMQ, c.Second}
}

// Prepare creates the topics of p and starts their consumers.
func (c *Cluster) Prepare(ctx context.Context, p *Plan) error {
	if c.Users != c.Client {
		return c.prepareProxy(ctx, p)
	}
	for i, b := range c.brokers() {
		for _, topic := range append(slices.Clone(p.Topics), filler(i)) {
			if err := c.Client.Topic(ctx, b.BrokerAddr, topic, queues); err != nil {
				return err
			}
		}
	}
	return c.Client.Subscribe(ctx, "consumers", false, p.Topics...)
}

// The consumer groups behind a proxy: two kinds of consumers, and one at the broker that sees what
// a proxy does not tell.
const (
	pushed  = "pushed"
	polled  = "polled"
	watched = "watched"
)

// prepareProxy is Prepare for users that speak gRPC: the last topic is polled.
func (c *Cluster) prepareProxy(ctx context.Context, p *Plan) error {
	for i, b := range c.brokers() {
		for _, topic := range p.Topics {
			if err := c.Client.DelayTopic(ctx, b.BrokerAddr, topic, queues); err != nil {
				return err
			}
		}
		if err := c.Client.Topic(ctx, b.BrokerAddr, filler(i), queues); err != nil {
			return err
		}
		for _, group := range []string{pushed, polled} {
			if err := c.Client.Group(ctx, b.BrokerAddr, group); err != nil {
				return err
			}
		}
	}
	last := len(p.Topics) - 1
	if err := c.Users.Subscribe(ctx, pushed, false, p.Topics[:last]...); err != nil {
		return err
	}
	if err := c.Users.Poll(ctx, polled, p.Topics[last]); err != nil {
		return err
	}
	return c.Client.Subscribe(ctx, watched, false, p.Topics...)
}

// Send sends orders, each timer with its due from now on, and recalls those that are to be.
func (c *Cluster) Send(ctx context.Context, orders []*Order) error {
	messages := make([]*Message, 0, len(orders))
	now := time.Now()
	for _, o := range orders {
		m := &o.Message
		if o.isTimer && m.Delay == 0 {
			m.Due = now.Add(o.delay).UnixMilli()
		}
		messages = append(messages, m)
	}
	sent, err := c.Users.Send(ctx, messages...)
	if err != nil {
		return err
	}
	for i, o := range orders {
		if sent[i].Status != "SEND_OK" {
			return fmt.Errorf("send: %s", sent[i].Status)
		}
		o.Sent = sent[i]
		if o.Recall {
			if err := c.Users.Recall(ctx, o.Topic, o.Sent.Handle); err != nil {
				return err
			}
		}
	}
	return nil
}

// filler is a topic of one broker, to fill its log with.
func filler(broker int) string { return fmt.Sprintf("filler-%d", broker) }

// Bury fills the logs, so that what was sent until now lies in files that may expire, and what is
// sent next does not. It returns where the logs ended before.
func (c *Cluster) Bury(ctx context.Context) ([]int64, error) {
	var ends []int64
	for i, b := range c.brokers() {
		_, end, err := c.Client.Log(ctx, b.BrokerAddr)
		if err != nil {
			return nil, err
		}
		ends = append(ends, end)
		for at := end; at/logFile < end/logFile+2 || at%logFile > logFile/4; {
			if err = c.Client.Fill(ctx, filler(i), logFile/8); err != nil {
				return nil, err
			}
			if _, at, err = c.Client.Log(ctx, b.BrokerAddr); err != nil {
				return nil, err
			}
		}
	}
	return ends, nil
}

// Expire lets the logs expire up to at least ends, and returns when they have.
func (c *Cluster) Expire(ctx context.Context, ends []int64) error {
	if c.keep {
		return nil
	}
	for i, b := range c.brokers() {
		if err := c.expire(ctx, b.BrokerAddr, ends[i]); err != nil {
			return fmt.Errorf("expire the commit log: %w", err)
		}
	}
	return nil
}

func (c *Cluster) expire(ctx context.Context, broker string, end int64) error {
	asked := time.Time{}
	for deadline := time.Now().Add(expireWithin); ; {
		first, _, err := c.Client.Log(ctx, broker)
		if err != nil || first >= end {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it begins at %d, not yet behind %d", first, end)
		}
		if time.Since(asked) > 5*time.Second { // it tries 20 times after each request
			if err := c.Client.Expire(ctx, broker); err != nil {
				return err
			}
			asked = time.Now()
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// Run sends p, expires its doomed part before it is due, and returns then.
func (c *Cluster) Run(ctx context.Context, p *Plan) error {
	if err := c.Send(ctx, append(p.Of(Early), p.Of(Doomed)...)); err != nil {
		return err
	}
	ends, err := c.Bury(ctx)
	if err != nil {
		return err
	}
	from, err := c.files(ctx)
	if err != nil {
		return err
	}
	if err := c.Send(ctx, p.Of(Late)); err != nil {
		return err
	}
	to, err := c.files(ctx)
	if err != nil {
		return err
	}
	if !slices.Equal(from, to) {
		return fmt.Errorf("send late messages: the logs went on into other files: %v, %v", from, to)
	}
	if err := c.Expire(ctx, ends); err != nil {
		return err
	}
	if late := time.Now().UnixMilli() - FirstDue(p.Of(Doomed)); late > 0 && !c.keep {
		return fmt.Errorf("expire the commit log: it took until %d ms after the first due", late)
	}
	return nil
}

// files are the numbers of the files that the logs end in.
func (c *Cluster) files(ctx context.Context) (files []int64, err error) {
	for _, b := range c.brokers() {
		_, end, err := c.Client.Log(ctx, b.BrokerAddr)
		if err != nil {
			return nil, err
		}
		files = append(files, end/logFile)
	}
	return files, nil
}

// FirstDue and LastDue are the first and the last instant at which one of the orders is due.
func FirstDue(orders []*Order) int64 {
	return slices.MinFunc(orders, byDue).due()
}

// LastDue is described with FirstDue.
func LastDue(orders []*Order) int64 {
	return slices.MaxFunc(orders, byDue).due()
}

func byDue(a, b *Order) int { return int(a.due() - b.due()) }

// Await returns what arrived, when that is all of some parts of p and it is enough after the last
// due, so that a second copy would be there too; or when it is longest after it.
func (c *Cluster) Await(
	ctx context.Context, p *Plan, enough, longest time.Duration, parts ...Part,
) (*Verdict, error) {
	last := time.UnixMilli(LastDue(p.Orders))
	for {
		v := p.Judge(c.Users.Received())
		since := time.Since(last)
		missing := slices.ContainsFunc(v.Lost, func(o *Order) bool {
			return slices.Contains(parts, o.Part)
		})
		if since > longest || since > enough && !missing {
			return v, nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
