// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// The properties that a released message carries beside its own.
const (
	// PropertyRescued is the id here. It tells our copy from the broker's.
	PropertyRescued = "cicada-rescued"

	propertyID  = "cicada-id" // the same, unless the message has one of its own
	propertyDue = "cicada-due"
)

// release sends what its broker cannot deliver. What is not known to have arrived stays Held, and
// the next look finds it.
func (g *Guardian) release(ctx context.Context, s *sight, all []*docket) {
	pool(len(all), maxSends, func(i int) {
		c := all[i]
		if ctx.Err() != nil || g.elsewhere(ctx, s, c) {
			return
		}
		c.j.Fate, c.j.Reason = g.send(ctx, s.broker, c)
		switch c.j.Fate {
		case broker.Released:
			g.n.rescued.Add(1)
			if c.uncertain {
				g.n.uncertain.Add(1)
			}
		case broker.Refused:
			g.cfg.Logger.Warn("rocketmq refuses a lost delay", zap.String("id", string(c.d.ID)),
				zap.String("topic", c.e.RealTopic), zap.String("reason", c.j.Reason))
		default:
		}
	})
}

// elsewhere reports whether c is not to be sent: an earlier process sent it to another broker of
// the topic, or that cannot be found out now.
func (g *Guardian) elsewhere(ctx context.Context, s *sight, c *docket) bool {
	route, err := g.client.Route(ctx, c.e.RealTopic)
	if err != nil {
		g.noRoute(c, err)
		return true
	}
	for i := range route.Brokers {
		b := &route.Brokers[i]
		if b.Name == s.broker || b.Addresses[0] == "" {
			continue
		}
		switch h := g.search(ctx, b.Addresses[0], c.d.ID, &c.e, c.since()); {
		case h.ours:
			c.j.Fate = broker.Released
			return true
		case h.err != nil: // while a broker is away it may hold our copy
			return true
		}
	}
	return false
}

func (g *Guardian) noRoute(c *docket, err error) {
	g.log().Warn("rocketmq guardian has no route", zap.String("topic", c.e.RealTopic),
		zap.Error(err))
	if errors.Is(err, delay.ErrNotFound) {
		c.j.Reason = "topic " + c.e.RealTopic + " does not exist"
	}
}

// target is the queue that a message goes to: its own at the broker that had it, else another.
func target(route *remoting.Route, broker string, e *entry) (remoting.Queue, bool) {
	all := route.Writable()
	if len(all) == 0 {
		return remoting.Queue{}, false
	}
	own := remoting.Queue{Broker: broker, Number: e.RealQueue}
	var same []remoting.Queue
	for _, q := range all {
		if q == own {
			return q, true
		}
		if q.Broker == broker {
			same = append(same, q)
		}
	}
	if len(same) > 0 {
		all = same
	}
	return all[int(uint32(e.RealQueue))%len(all)], true
}

// outgoing is the message as it was sent first, without what made it wait.
func outgoing(c *docket) (remoting.Outgoing, error) {
	p, err := properties(c.d.Headers)
	if err != nil {
		return remoting.Outgoing{}, err
	}
	add := func(name, value string) { p = append(p, remoting.Property{Name: name, Value: value}) }
	if _, ok := p.Get(propertyID); !ok {
		add(propertyID, string(c.d.ID))
	}
	add(propertyDue, c.e.Due.String())
	add(PropertyRescued, string(c.d.ID))
	m := remoting.Outgoing{
		Flag: c.e.Flag, SysFlag: c.e.SysFlag, Reconsumed: c.e.Reconsumed, Born: c.e.Born,
		Properties: p, Body: c.d.Body,
	}
	err = p.Invalid()
	return m, err
}

// send makes one attempt.
func (g *Guardian) send(
	ctx context.Context, name string, c *docket,
) (fate broker.Fate, reason string) {
	route, err := g.client.Route(ctx, c.e.RealTopic)
	if err != nil {
		g.noRoute(c, err)
		return broker.Held, c.j.Reason
	}
	to, ok := target(route, name, &c.e)
	if !ok {
		g.client.Doubt(c.e.RealTopic)
		return broker.Held, "topic " + c.e.RealTopic + " cannot be written"
	}
	m, err := outgoing(c)
	if err != nil {
		return broker.Refused, err.Error()
	}
	addr := route.Master(to.Broker)
	if len(m.Body) == 0 { // a single message without a body is an error to brokers
		_, err = g.client.SendBatch(ctx, addr, c.e.RealTopic, to.Number, []remoting.Outgoing{m})
	} else {
		_, err = g.client.Send(ctx, addr, c.e.RealTopic, to.Number, &m)
	}
	if err == nil {
		return broker.Released, ""
	}
	g.client.Doubt(c.e.RealTopic)
	if e, ok := errors.AsType[*remoting.Error](err); ok {
		switch e.Outcome {
		case remoting.Never:
			return broker.Refused, e.Error()
		case remoting.No:
			c.j.After = behind // it is certainly not there
		default:
		}
	}
	if ctx.Err() == nil {
		g.log().Warn("rocketmq guardian cannot release", zap.String("topic", c.e.RealTopic),
			zap.Error(err))
	}
	return broker.Held, ""
}
