// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
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

// benchShard is a shard on the real disk.
func benchShard(b *testing.B, tier bool) *Shard {
	b.Helper()
	dir := b.TempDir()
	store, err := localstore.Open(localstore.OS(), dir+"/store", localstore.Options{})
	require.NoError(b, err)
	parts := Parts{
		Store: store, Logger: zap.NewNop(), Now: time.Now,
		Sinks: func(delay.Target) broker.Sink { return sink.New(sink.Options{}) },
	}
	if tier {
		bucket, err := filesystem.Open(dir + "/bucket")
		require.NoError(b, err)
		parts.Tier, err = tiered.Open(b.Context(), bucket, tiered.Options{})
		require.NoError(b, err)
	}
	s, err := Open(b.Context(), parts, Options{})
	require.NoError(b, err)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(b.Context())) }()
	b.Cleanup(func() {
		require.NoError(b, s.Drain(context.Background()))
		<-ran
		require.NoError(b, store.Close())
	})
	return s
}

// BenchmarkAccept is intake without the wire: batches of 100 messages of 200 bytes, acked after
// the sync.
func BenchmarkAccept(b *testing.B) {
	for _, tier := range []bool{false, true} {
		for _, order := range []string{"random", "in-order"} {
			b.Run(fmt.Sprintf("tier=%v/due=%s", tier, order), func(b *testing.B) {
				s := benchShard(b, tier)
				var seed atomic.Uint64
				b.SetParallelism(8)
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					rng := rand.New(rand.NewPCG(seed.Add(1), 0))
					body := make([]byte, 200)
					for i := range body {
						body[i] = "0123456789abcdef"[rng.IntN(16)]
					}
					drafts, receipts := make([]delay.Draft, 100), make([]Receipt, 100)
					for pb.Next() {
						now := s.Now()
						for i := range drafts {
							due := now.Add(time.Hour)
							if order == "random" {
								due = now.Add(time.Duration(rng.Int64N(int64(24 * time.Hour))))
							}
							drafts[i] = delay.Draft{Message: delay.Message{
								Target: "pull:q", AcceptedAt: now, Due: due, Body: body,
							}}
							receipts[i] = Receipt{}
						}
						if err := s.Accept(b.Context(), drafts, receipts); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}
