// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// realCluster is a real broker, a client of it and a topic of the test's own.
type realCluster struct {
	*remoting.Client
	nameServer, addr string
	kill             func(t *testing.T)
}

func real53(t *testing.T) realCluster {
	t.Helper()
	ns, b := realtest.RocketMQ(t)
	r := realCluster{Client: client(t, ns.Addr), nameServer: ns.Addr}
	route, err := r.Route(t.Context(), remoting.TopicSchedule)
	require.NoError(t, err)
	r.addr = route.Master(route.Brokers[0].Name)
	r.kill = func(t *testing.T) {
		b.Kill(t)
		b.Start(t)
	}
	return r
}

func (r realCluster) config() Config {
	return Config{Broker: "rmq", NameServers: []string{r.nameServer}}
}

func (r realCluster) newTopic(t *testing.T, queues int) string {
	t.Helper()
	name := realtest.Name(t)
	require.NoError(t, r.CreateTopic(t.Context(), r.addr, name, queues))
	require.Eventually(t, func() bool {
		route, err := r.Refresh(t.Context(), name)
		return err == nil && len(route.Writable()) == queues
	}, 30*time.Second, 20*time.Millisecond)
	return name
}

// all reads a topic.
func (r realCluster) all(t *testing.T, topic string) (out []remoting.Message) {
	t.Helper()
	route, err := r.Route(t.Context(), topic)
	require.NoError(t, err)
	for _, q := range route.Readable() {
		for at := int64(0); ; {
			p, err := r.Pull(t.Context(), r.addr, remoting.Pull{
				Group: "reader", Topic: topic, Queue: q.Number, Offset: at,
			})
			require.NoError(t, err)
			if p.Status != remoting.PullFound {
				break
			}
			out, at = append(out, p.Messages...), p.Next
		}
	}
	return out
}

// The suite of the sinks, against the real one.
func TestRealSinkConforms(t *testing.T) {
	c := real53(t)
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		name := c.newTopic(t, 3)
		s, err := NewSink(c.config())
		require.NoError(t, err)
		return brokertest.Subject{
			Sink: s, Target: delay.Target("rocketmq:rmq/" + name),
			Received: func() (out []brokertest.Received) {
				// The broker shows a message a moment after it took it: look until nothing comes.
				seen := -1
				require.Eventually(t, func() bool {
					before := seen
					out = received(c.all(t, name))
					seen = len(out)
					return seen == before
				}, 30*time.Second, 200*time.Millisecond)
				return out
			},
			Carries: true, Ordered: true,
		}
	})
}

// The suite of the sources, against the real one, which is killed once.
func TestRealSourceConforms(t *testing.T) {
	c := real53(t)
	brokertest.RunSource(t, func(t *testing.T, tier bool) brokertest.SourceSubject {
		from, bad := c.newTopic(t, 2), c.newTopic(t, 1)
		return brokertest.SourceSubject{
			Partitions: 2,
			Open: func(t *testing.T) broker.Source {
				s, err := NewSource(c.config(), SourceConfig{
					Topic: from, Group: from, Tier: tier, RejectTopic: bad,
				})
				require.NoError(t, err)
				return s
			},
			Append: func(t *testing.T, p int, records ...brokertest.Sent) {
				require.Eventually(t, func() bool { // the connection may be in its pause
					_, err := c.MaxOffset(t.Context(), c.addr, from, int32(p))
					return err == nil
				}, 30*time.Second, 10*time.Millisecond)
				produce(t, c.Client, c.addr, from, p, records...)
			},
			Acknowledged: func(t *testing.T, p int) int64 {
				at, err := c.GroupOffset(t.Context(), c.addr, from, from, int32(p))
				if err != nil {
					return 0
				}
				return at
			},
			Rejected: func(t *testing.T) (out []brokertest.Reject) {
				for _, m := range c.all(t, bad) {
					out = append(out, brokertest.Reject{
						Value: m.Body, Error: m.Properties.Value(intake.HeaderError),
					})
				}
				return out
			},
			Restart: c.kill,
		}
	})
}

// A broker that is killed while it takes messages: each must be there in the end, and those whose
// answer was lost, once.
func TestRealKillWhileSending(t *testing.T) {
	const lanes, each = 4, 2000
	c := real53(t)
	name := c.newTopic(t, 4)
	s := newSink(t, c.config())
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			var left []broker.Delivery
			for i := range each {
				left = append(left, broker.Delivery{
					ID: delay.ID(fmt.Sprintf("%d/%d", lane, i)), Generation: 1, Attempt: 1,
					Target: delay.Target("rocketmq:rmq/" + name), Due: delay.DueOf(time.Now()),
					Body: make([]byte, 200),
				})
			}
			for len(left) > 0 && t.Context().Err() == nil {
				batch := left[:min(len(left), 50)]
				results := make([]broker.Result, len(batch))
				s.Deliver(t.Context(), batch, results)
				left = left[len(batch):]
				for i, r := range results {
					if r.Outcome != broker.Delivered {
						batch[i].Attempt++
						left = append(left, batch[i])
					}
				}
			}
		})
	}
	require.Eventually(t, func() bool {
		at, err := c.MaxOffset(t.Context(), c.addr, name, 0)
		return err == nil && at > 200
	}, 30*time.Second, time.Millisecond)
	c.kill(t)
	wg.Wait()
	require.Eventually(t, func() bool {
		_, err := c.MaxOffset(t.Context(), c.addr, name, 0)
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	count := map[string]int{}
	for _, m := range c.all(t, name) {
		count[m.Properties.Value(propertyID)]++
	}
	require.Len(t, count, lanes*each)
	twice := 0
	for _, n := range count {
		twice += n - 1
	}
	t.Logf("%d messages, %d of them twice", len(count), twice)
	require.Zero(t, twice)
}
