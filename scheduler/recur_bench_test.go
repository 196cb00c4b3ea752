// SPDX-License-Identifier: Apache-2.0

//go:build unix

package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// BenchmarkFire is schedules that are all due at one instant: each makes a firing, which is
// delivered, and moves on. CICADA_BENCH_SCHEDULES says how many.
func BenchmarkFire(b *testing.B) {
	n := crowdSize(b, "CICADA_BENCH_SCHEDULES", 20_000)
	fired := 0
	for b.Loop() {
		b.StopTimer()
		sink := &crowdSink{latency: func(delay.Target) time.Duration { return 0 }}
		s := crowdShard(b, sink, Options{})
		at := time.Now().UTC().Add(time.Duration(3+n/50_000) * time.Second).Truncate(time.Second)
		expr := fmt.Sprintf("%d %d %d * * *", at.Second(), at.Minute(), at.Hour())
		sendMany(b, s, n, func(i int) delay.Message {
			return delay.Message{
				ID: delay.ID(fmt.Sprint("schedule-", i)), Target: "log:",
				AcceptedAt: s.Now(), Recurrence: &delay.Recurrence{Expr: expr}, Body: make([]byte, 100),
			}
		})
		require.Positive(b, time.Until(at), "sending took too long")
		<-time.After(time.Until(at))
		b.StartTimer()
		for sink.delivered.Load() < int64(n) {
			<-time.After(time.Millisecond)
		}
		b.StopTimer()
		require.EqualValues(b, n, sink.delivered.Load())
		fired += n
		b.StartTimer()
	}
	b.ReportMetric(float64(fired)/b.Elapsed().Seconds(), "firings/s")
}
