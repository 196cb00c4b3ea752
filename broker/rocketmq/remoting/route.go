// SPDX-License-Identifier: Apache-2.0

package remoting

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Route says where the queues of a topic are.
type Route struct {
	Topic   string
	Brokers []BrokerRoute // by name
}

// BrokerRoute is one broker of a route.
type BrokerRoute struct {
	Name        string
	Cluster     string
	Addresses   map[int64]string // by broker id; 0 is the master
	ReadQueues  int32
	WriteQueues int32
	Permission  int // 4 readable, 2 writable
}

// Bits of BrokerRoute.Permission.
const (
	PermissionRead  = 4
	PermissionWrite = 2
)

// Queue names one queue of a topic.
type Queue struct {
	Broker string
	Number int32
}

// limits of what a name server may say.
const (
	maxRouteBrokers = 4096
	maxRouteQueues  = 1 << 16
)

type cachedRoute struct {
	route *Route
	at    time.Time
}

// Master is the address of the master of a broker, or "" when the route has none.
func (r *Route) Master(broker string) string {
	for i := range r.Brokers {
		if r.Brokers[i].Name == broker {
			return r.Brokers[i].Addresses[0]
		}
	}
	return ""
}

// Writable are the queues to send to, of brokers that have a master, by broker and number.
func (r *Route) Writable() []Queue {
	return r.queues(PermissionWrite, func(b *BrokerRoute) int32 { return b.WriteQueues })
}

// Readable are the queues to read, of brokers that have a master, by broker and number.
func (r *Route) Readable() []Queue {
	return r.queues(PermissionRead, func(b *BrokerRoute) int32 { return b.ReadQueues })
}

func (r *Route) queues(permission int, count func(*BrokerRoute) int32) []Queue {
	var all []Queue
	for i := range r.Brokers {
		b := &r.Brokers[i]
		if b.Permission&permission == 0 || b.Addresses[0] == "" {
			continue
		}
		for n := range count(b) {
			all = append(all, Queue{Broker: b.Name, Number: n})
		}
	}
	return all
}

// routeBody is the body of an answer to RequestRoute.
type routeBody struct {
	Brokers []struct {
		Name      string           `json:"brokerName"`
		Cluster   string           `json:"cluster"`
		Addresses map[int64]string `json:"brokerAddrs"`
	} `json:"brokerDatas"`
	Queues []struct {
		Name       string `json:"brokerName"`
		Read       int32  `json:"readQueueNums"`
		Write      int32  `json:"writeQueueNums"`
		Permission int    `json:"perm"`
	} `json:"queueDatas"`
}

func decodeRoute(topic string, body []byte) (*Route, error) {
	var b routeBody
	if err := json.Unmarshal(standardJSON(body), &b); err != nil {
		return nil, fmt.Errorf("%w: route of %s: %w", delay.ErrCorrupt, topic, err)
	}
	if len(b.Brokers) > maxRouteBrokers || len(b.Queues) > maxRouteBrokers {
		return nil, fmt.Errorf("%w: route of %s: too many brokers", delay.ErrCorrupt, topic)
	}
	r := &Route{Topic: topic}
	for _, d := range b.Brokers {
		one := BrokerRoute{Name: d.Name, Cluster: d.Cluster, Addresses: d.Addresses}
		for _, q := range b.Queues {
			if q.Name != d.Name {
				continue
			}
			if q.Read < 0 || q.Read > maxRouteQueues || q.Write < 0 || q.Write > maxRouteQueues {
				return nil, fmt.Errorf("%w: route of %s: %d, %d queues", delay.ErrCorrupt, topic,
					q.Read, q.Write)
			}
			one.ReadQueues, one.WriteQueues, one.Permission = q.Read, q.Write, q.Permission
		}
		r.Brokers = append(r.Brokers, one)
	}
	slices.SortFunc(r.Brokers, func(a, b BrokerRoute) int { return cmp.Compare(a.Name, b.Name) })
	return r, nil
}

// Route is where the topic is, asked for anew when what is known is older than Config.RouteAge.
// While no name server answers what is known goes on to be used. A topic that no name server knows
// wraps delay.ErrNotFound.
func (c *Client) Route(ctx context.Context, topic string) (*Route, error) {
	c.mu.Lock()
	known, ok := c.routes[topic]
	c.mu.Unlock()
	if ok && c.cfg.Now().Sub(known.at) < c.cfg.RouteAge {
		return known.route, nil
	}
	fresh, err := c.Refresh(ctx, topic)
	if err != nil && ok && !errors.Is(err, delay.ErrNotFound) && ctx.Err() == nil {
		return known.route, nil
	}
	return fresh, err
}

// Refresh asks for the route of a topic, one name server after the other until one answers.
func (c *Client) Refresh(ctx context.Context, topic string) (*Route, error) {
	r, err := c.askServers(ctx, "route", func() *Command {
		return &Command{
			Code:   RequestRoute,
			Fields: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"},
		}
	})
	if err != nil {
		if errors.Is(err, delay.ErrNotFound) {
			c.mu.Lock()
			delete(c.routes, topic)
			c.mu.Unlock()
		}
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	route, err := decodeRoute(topic, r.Body)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.routes) >= maxRoutes {
		clear(c.routes)
	}
	c.routes[topic] = cachedRoute{route: route, at: c.cfg.Now()}
	return route, nil
}

// askServers asks the name servers in turn, beginning with the one that answered last. An answer
// that the thing does not exist is an answer too.
func (c *Client) askServers(
	ctx context.Context, request string, cmd func() *Command,
) (*Command, error) {
	n := len(c.cfg.NameServers)
	if n == 0 {
		return nil, fmt.Errorf("%w: no name server is configured", delay.ErrUnavailable)
	}
	c.mu.Lock()
	first := c.server
	c.mu.Unlock()
	var all error
	for i := range n {
		at := (first + i) % n
		r, err := c.ask(ctx, request, c.cfg.NameServers[at], cmd())
		if err == nil || errors.Is(err, delay.ErrNotFound) {
			c.mu.Lock()
			c.server = at
			c.mu.Unlock()
			return r, err
		}
		all = errors.Join(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, all
}

// Cluster lists every broker that the name servers know, by name; queues and permissions are not
// told.
func (c *Client) Cluster(ctx context.Context) ([]BrokerRoute, error) {
	r, err := c.askServers(ctx, "cluster", func() *Command {
		return &Command{Code: RequestCluster}
	})
	if err != nil {
		return nil, err
	}
	var body struct {
		Brokers map[string]struct {
			Name      string           `json:"brokerName"`
			Cluster   string           `json:"cluster"`
			Addresses map[int64]string `json:"brokerAddrs"`
		} `json:"brokerAddrTable"`
	}
	if err := json.Unmarshal(standardJSON(r.Body), &body); err != nil {
		return nil, fmt.Errorf("%w: list of brokers: %w", delay.ErrCorrupt, err)
	}
	all := make([]BrokerRoute, 0, len(body.Brokers))
	for _, b := range body.Brokers {
		all = append(all, BrokerRoute{Name: b.Name, Cluster: b.Cluster, Addresses: b.Addresses})
	}
	slices.SortFunc(all, func(a, b BrokerRoute) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Doubt makes the next Route ask for this topic anew: what was done with the known one failed.
func (c *Client) Doubt(topic string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.routes[topic]; ok {
		c.routes[topic] = cachedRoute{route: known.route}
	}
}
