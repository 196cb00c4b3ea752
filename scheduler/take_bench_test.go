// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// BenchmarkTake is intake from sources without their brokers: batches of 500 messages of 200 bytes
// with ids of their identity, a partition for each goroutine. Beside it the same through Accept.
func BenchmarkTake(b *testing.B) {
	for _, way := range []string{"take", "accept"} {
		b.Run(way, func(b *testing.B) {
			s := benchShard(b, true)
			var number atomic.Int64
			b.SetParallelism(4)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				n := number.Add(1)
				rng := rand.New(rand.NewPCG(uint64(n), 0))
				batch := &broker.Batch{Partition: broker.Partition(fmt.Sprintf("kafka:main/3fK0/%d", n))}
				body := make([]byte, 200)
				drafts, receipts := make([]delay.Draft, 500), make([]Receipt, 500)
				for pb.Next() {
					now := s.Now()
					batch.Items = batch.Items[:0]
					for i := range drafts {
						id := fmt.Sprintf("%s/%d", batch.Partition, batch.Next)
						drafts[i] = delay.Draft{Message: delay.Message{
							ID: delay.ID(id), Target: "pull:q", AcceptedAt: now, Body: body,
							Due: now.Add(time.Duration(rng.Int64N(int64(24 * time.Hour)))),
						}}
						batch.Items = append(batch.Items, broker.Item{Offset: batch.Next, Draft: drafts[i]})
						batch.Next++
					}
					var err error
					if way == "take" {
						err = s.Intake().Take(b.Context(), batch)
					} else {
						err = s.Accept(b.Context(), drafts, receipts)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)*500/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
