// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// BenchmarkRescue judges lost messages, 256 a call as the shard does, once their second look has
// come: their keys are looked for and they are sent. The fake broker's part is in it.
func BenchmarkRescue(b *testing.B) {
	const chunk = 256
	c, err := fakebroker.Start(b.Context(), fakebroker.Options{Pipes: true})
	require.NoError(b, err)
	defer c.Close()
	c.CreateTopic(orders, 4)
	g, err := New(rocketmq.Config{
		Broker: "rmq", NameServers: []string{c.NameServer()}, Dial: c.Dial, Logger: zap.NewNop(),
	}, Options{Grace: time.Second, DelayLevels: true, Timers: true})
	require.NoError(b, err)
	defer g.Close()
	name := c.Broker(0).Name()
	due := delay.InstantOf(time.Now())
	batch := make([]broker.Delivery, chunk)
	dockets, release := make([]docket, chunk), make([]*docket, chunk)
	judgments := make([]broker.Judgment, chunk)
	s, err := g.look(b.Context(), name, map[place]span{})
	require.NoError(b, err)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for i := range batch {
			key := fmt.Sprintf("%032d", n)
			n++
			e := entry{
				Topic: remoting.TopicTimer, RealTopic: orders, Unique: key, RealQueue: int32(i % 4),
				Due: due, Out: due, Stored: due, Born: due,
			}
			batch[i] = broker.Delivery{ID: delay.ID(key), Due: due, Body: make([]byte, 200)}
			dockets[i] = docket{d: &batch[i], j: &judgments[i], e: e, gone: true, covered: true}
			release[i] = &dockets[i]
		}
		if rest := g.survey(b.Context(), s, release); len(rest) > 0 {
			b.Fatal("keys were not looked for in the queues")
		}
		g.release(b.Context(), s, release)
		if judgments[0].Fate != broker.Released {
			b.Fatal(judgments[0].Fate)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
}
