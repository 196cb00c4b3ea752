// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/filesystem"
)

// benchCold fills a bucket with n messages of 200 bytes that are due within the day after from, in
// cuts as flushes make them.
func benchCold(b *testing.B, tier *tiered.Tier, n int, from delay.Due) {
	b.Helper()
	_, err := tier.Take(b.Context(), [16]byte{1}, true)
	require.NoError(b, err)
	rng := rand.New(rand.NewPCG(1, 1))
	const perCut = 50_000
	for done := 0; done < n; done += perCut {
		cut := tiered.Cut{}
		for i := range min(perCut, n-done) {
			body := make([]byte, 200)
			for j := range body {
				body[j] = "0123456789abcdef"[rng.IntN(16)]
			}
			key := delay.Key{
				Due: from.Add(time.Duration(rng.Int64N(int64(24 * time.Hour)))),
				Seq: delay.MakeSeq(1, uint64(done+i+1)),
			}
			m := delay.Message{Target: "pull:q", Due: key.Due, Body: body, Cold: true, Generation: 1}
			cut.Rows = append(cut.Rows, tiered.Row{Key: key, Record: delay.AppendRecord(nil, &m)})
			cut.Uploaded = key.Seq
		}
		slices.SortFunc(cut.Rows, func(a, b tiered.Row) int { return a.Key.Compare(b.Key) })
		cut.Books = delay.Books{
			Accepted: int64(done + len(cut.Rows)), Pending: int64(done + len(cut.Rows)),
		}
		_, err := tier.Commit(b.Context(), cut)
		require.NoError(b, err)
	}
	require.NoError(b, tier.Release(b.Context()))
}

// BenchmarkHydrate brings the messages of one day back into the local store, beside what reading
// and decoding them costs alone.
func BenchmarkHydrate(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	dir := b.TempDir()
	bucket, err := filesystem.Open(dir + "/bucket")
	require.NoError(b, err)
	tier, err := tiered.Open(b.Context(), bucket, tiered.Options{})
	require.NoError(b, err)
	now := delay.InstantOf(time.Now())
	from, to := now.Add(48*time.Hour), now.Add(72*time.Hour)
	benchCold(b, tier, n, from)
	b.Run("scan", func(b *testing.B) {
		for b.Loop() {
			seen := 0
			err := tier.Scan(b.Context(), delay.Key{Due: from}, delay.Key{Due: to},
				func(delay.Key, []byte) bool { seen++; return true })
			require.NoError(b, err)
			require.Equal(b, n, seen)
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("hydrate", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s, stop := coldShard(b, tier)
			b.StartTimer()
			got := 0
			from := s.parts.Store.Meta().Boundary
			require.NoError(b, s.hydrator.Range(b.Context(), from, delay.Key{Due: to}, &got))
			require.Equal(b, n, got)
			b.StopTimer()
			stop()
			b.StartTimer()
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}

// coldShard restores a shard with an empty disk from the tier.
func coldShard(b *testing.B, tier *tiered.Tier) (*Shard, func()) {
	b.Helper()
	store, err := localstore.Open(localstore.OS(), b.TempDir(), localstore.Options{})
	require.NoError(b, err)
	s, err := Open(b.Context(), Parts{
		Store: store, Tier: tier, Logger: zap.NewNop(), Now: time.Now,
		Sinks: func(delay.Target) broker.Sink { return sink.New(sink.Options{}) },
	}, Options{Horizon: time.Hour})
	require.NoError(b, err)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(b.Context())) }()
	return s, func() {
		require.NoError(b, s.Drain(context.Background()))
		require.NoError(b, <-ran)
		require.NoError(b, store.Close())
	}
}
