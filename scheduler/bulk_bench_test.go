// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// BenchmarkPurgeCold cancels a million messages that are only in the bucket: the time until the
// answer, and until all of them are counted.
func BenchmarkPurgeCold(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	for range b.N {
		b.StopTimer()
		tier, err := tiered.Open(b.Context(), memory.New(memory.Options{Now: time.Now}), tiered.Options{})
		require.NoError(b, err)
		now := delay.InstantOf(time.Now())
		benchCold(b, tier, n, now.Add(48*time.Hour))
		s, stop := coldShard(b, tier)
		require.Eventually(b, func() bool {
			m := s.parts.Store.Meta()
			return m.Boundary.Due >= now.Add(time.Hour) && m.IDsComplete
		}, time.Minute, time.Millisecond)
		b.StartTimer()
		start := time.Now()
		r, err := s.Purge(b.Context(), Filter{Target: "pull:q"}, false)
		require.NoError(b, err)
		b.ReportMetric(time.Since(start).Seconds(), "s/answer")
		b.ReportMetric(float64(r.Count), "counted-then")
		require.NoError(b, s.bulk.Work(b.Context()))
		require.Zero(b, s.parts.Store.Books().Pending)
		b.ReportMetric(time.Since(start).Seconds(), "s/counted")
		b.StopTimer()
		stop()
	}
}
