// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
)

// The sinks against a plain producer, on a real broker: 200-byte messages, one lane with batches of
// 250 and 1,000 in flight, as the scheduler has it.
func BenchmarkRealSink(b *testing.B) {
	r := newReal(b, 4)
	b.Run("plain", func(b *testing.B) {
		cl := r.plain(kgo.ProducerLinger(0))
		defer cl.Close()
		body := noise(200)
		var all sync.WaitGroup
		b.ReportAllocs()
		for range b.N {
			all.Add(1)
			cl.Produce(b.Context(), &kgo.Record{Topic: r.topic, Value: body},
				func(*kgo.Record, error) { all.Done() })
		}
		all.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		b.Run(mode, func(b *testing.B) {
			var s broker.Sink
			if mode == ExactlyOnce {
				s = r.take(ignoreEntries)
			} else {
				s = r.open(mode)
			}
			batch := r.batch("m", 250)
			for i := range batch {
				batch[i].Body = noise(200)
			}
			requireAll(b, broker.Delivered, deliver(b, s, batch))
			var lanes sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range 4 {
				lanes.Go(func() {
					for n := 0; n < b.N/4; n += len(batch) {
						require.Equal(b, broker.Delivered, deliver(b, s, batch)[0].Outcome)
					}
				})
			}
			lanes.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
