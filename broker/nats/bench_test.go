// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

const benchBatch = 500

// BenchmarkRealPublish compares Deliver, with its headers and outcomes, with a plain client's
// asynchronous publish of the same bodies and an id, both of 200 bytes.
func BenchmarkRealPublish(b *testing.B) {
	body := make([]byte, 200)
	b.Run("plain", func(b *testing.B) {
		r := realStream(b, jetstream.StreamConfig{})
		for i := range b.N {
			_, err := r.js.PublishMsgAsync(&nats.Msg{
				Subject: r.name + ".a", Data: body, Header: nats.Header{msgID: {strconv.Itoa(i)}},
			}, jetstream.WithStallWait(patience))
			require.NoError(b, err)
		}
		<-r.js.PublishAsyncComplete()
		perSecond(b)
	})
	b.Run("sink", func(b *testing.B) {
		r := realStream(b, jetstream.StreamConfig{})
		s := r.sink()
		batch := make([]broker.Delivery, benchBatch)
		results := make([]broker.Result, benchBatch)
		for i := 0; i < b.N; i += benchBatch {
			for j := range batch {
				batch[j] = delivery1(delay.ID(strconv.Itoa(i + j)))
				batch[j].Target, batch[j].Body = r.target("a"), body
			}
			s.Deliver(b.Context(), batch, results)
			for j := range results {
				require.Equal(b, broker.Delivered, results[j].Outcome, results[j].Reason)
			}
		}
		perSecond(b)
	})
}

// BenchmarkRealConsume compares a source, to a shard that takes everything, with a plain client
// that fetches and acknowledges.
func BenchmarkRealConsume(b *testing.B) {
	b.Run("plain", func(b *testing.B) {
		r := realStream(b, jetstream.StreamConfig{})
		r.send(0, b.N)
		c, err := r.stream.CreateConsumer(b.Context(), jetstream.ConsumerConfig{
			Durable: "plain", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000,
		})
		require.NoError(b, err)
		b.ResetTimer()
		for n := 0; n < b.N; {
			batch, err := c.Fetch(min(1000, b.N-n))
			require.NoError(b, err)
			for m := range batch.Messages() {
				require.NoError(b, m.Ack())
				n++
			}
		}
		perSecond(b)
	})
	b.Run("source", func(b *testing.B) {
		r := realStream(b, jetstream.StreamConfig{})
		r.send(0, b.N)
		d := newDesk(b)
		b.ResetTimer()
		s := r.read(d, nil)
		waitFor(b, func() bool { return d.count() >= b.N })
		perSecond(b)
		s.stop()
	})
}

func perSecond(b *testing.B) {
	b.Helper()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
