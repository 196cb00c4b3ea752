// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// A real broker that delivers must be seen to deliver: levels, timers, and one that is recalled. The
// mirror begins in the middle of what the broker has, as it does for whoever turns it on.
func TestRealBrokerDelivers(t *testing.T) {
	const each = 20
	ns, _ := realtest.RocketMQ(t)
	c, err := remoting.New(remoting.Config{NameServers: []string{ns.Addr}})
	require.NoError(t, err)
	defer c.Close()
	route, err := c.Route(t.Context(), remoting.TopicSchedule)
	require.NoError(t, err)
	addr, topic := route.Master(route.Brokers[0].Name), realtest.Name(t)
	require.NoError(t, c.CreateTopic(t.Context(), addr, topic, 4))
	g, err := New(rocketmq.Config{Broker: "rmq", NameServers: []string{ns.Addr}}, Options{
		// The default: in a shorter one, a broker that does not get to run may be behind its own
		// checkpoint and its index.
		Grace: 5 * time.Second, DelayLevels: true, Timers: true,
	})
	require.NoError(t, err)
	s := newShard()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, s) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, g.Close())
	}()
	require.Eventually(t, func() bool { return g.Stats().Queues == 19 }, time.Minute,
		10*time.Millisecond)
	ours := map[delay.ID]bool{}
	send := func(key string, p remoting.Property) remoting.Sent {
		var sent remoting.Sent
		require.Eventually(t, func() (ok bool) { // a busy broker refuses
			var err error
			sent, err = c.Send(t.Context(), addr, topic, 1, &remoting.Outgoing{
				Born: s.now(), Body: []byte(key), Properties: remoting.Properties{
					p, {Name: remoting.PropertyUniqueKey, Value: topic + key},
				},
			})
			return err == nil
		}, 20*time.Second, 20*time.Millisecond)
		return sent
	}
	for i := range each {
		send(fmt.Sprint("level", i), level(2)) // 5 s
		send(fmt.Sprint("timer", i), timerAt(s.now().Add(6*time.Second)))
	}
	recalled := send("recalled", timerAt(s.now().Add(20*time.Second)))
	require.Eventually(t, func() bool {
		for _, id := range s.pending() {
			if s.target(id) == delay.Target("rocketmq:rmq/"+topic) {
				ours[id] = true
			}
		}
		return len(ours) >= 2*each+1
	}, 30*time.Second, 10*time.Millisecond)
	if h, err := remoting.ParseRecallHandle(recalled.Recall); err == nil {
		require.NoError(t, c.Recall(t.Context(), addr, h))
	}
	require.Eventually(t, func() bool {
		s.step(t.Context(), g, false)
		for _, id := range s.pending() {
			if ours[id] {
				return false
			}
		}
		return true
	}, 90*time.Second, 100*time.Millisecond)
	for id := range ours {
		require.Equal(t, broker.Suppressed, s.ended[id], "%s", id)
	}
	require.Len(t, ours, 2*each+1)
	require.Zero(t, g.Stats().Rescued)
	require.Zero(t, g.Stats().Uncertain)
	require.Zero(t, g.Stats().Missed)
}
