// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"flag"
	"fmt"
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

var (
	restoreMessages = flag.Int("restore.messages", 100_000, "messages in the bucket")
	restoreBucket   = flag.String("restore.bucket", "", "keep the bucket here; filled if empty")
)

// fillBucket commits n messages of 200 bytes due within 30 days: of each hundred ten are marked as
// finished, ten have an id of the client's own, and one is a dead letter.
func fillBucket(b *testing.B, dir string, n int) {
	b.Helper()
	bucket, err := filesystem.Open(dir)
	require.NoError(b, err)
	tier, err := tiered.Open(b.Context(), bucket, tiered.Options{Logger: zap.NewNop()})
	require.NoError(b, err)
	st, err := tier.Load(b.Context())
	require.NoError(b, err)
	if st != nil {
		return
	}
	st2, err := tier.Take(b.Context(), [16]byte{1}, true)
	require.NoError(b, err)
	rng := rand.New(rand.NewPCG(1, 1))
	now := delay.InstantOf(time.Now())
	cut := tiered.Cut{Watermark: delay.Key{Due: now}}
	const perCut = 50_000
	for done := 0; done < n; {
		cut.Rows, cut.Marks, cut.Kept = nil, nil, nil
		for i := range min(perCut, n-done) {
			done++
			m := delay.Message{
				Target: "pull:q", AcceptedAt: now, Cold: true,
				Due: now.Add(time.Hour + time.Duration(rng.Int64N(int64(30*24*time.Hour)))),
				Body: fmt.Appendf(nil, `{"order":%d,"customer":%d,"amount":%d,"note":"%064x"}`,
					done, rng.IntN(100_000), rng.IntN(10_000), rng.Uint64()),
			}
			if i%10 == 0 {
				m.ID = delay.ID(fmt.Sprint("order-", done))
			}
			key := delay.Key{Due: m.Due, Seq: delay.MakeSeq(st2.Epoch, uint64(done))}
			rec := delay.AppendRecord(nil, &m)
			cut.Rows = append(cut.Rows, tiered.Row{Key: key, Record: rec})
			if i%10 == 1 {
				cut.Marks = append(cut.Marks, delay.Mark{Key: key, State: delay.Delivered, At: now})
			}
			if i%100 == 2 {
				cut.Kept = append(cut.Kept, delay.Kept{Key: key, Record: rec, Progress: delay.Progress{
					State: delay.Dead, Attempts: 3, Reason: "rejected", DiedAt: now,
				}})
			}
		}
		slices.SortFunc(cut.Rows, func(a, b tiered.Row) int { return a.Key.Compare(b.Key) })
		slices.SortFunc(cut.Marks, func(a, b delay.Mark) int { return a.Key.Compare(b.Key) })
		slices.SortFunc(cut.Kept, func(a, b delay.Kept) int { return a.Key.Compare(b.Key) })
		cut.Uploaded = delay.MakeSeq(st2.Epoch, uint64(done))
		cut.Books = delay.Books{Accepted: int64(done), Pending: int64(done)}
		_, err := tier.Commit(b.Context(), cut)
		require.NoError(b, err)
	}
	require.NoError(b, tier.Release(b.Context()))
	require.NoError(b, tier.Close())
}

// BenchmarkRestore is a start with an empty disk up to the moment that messages are accepted.
func BenchmarkRestore(b *testing.B) {
	dir := *restoreBucket
	if dir == "" {
		dir = b.TempDir()
	}
	fillBucket(b, dir, *restoreMessages)
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		disk := b.TempDir()
		bucket, err := filesystem.Open(dir)
		require.NoError(b, err)
		b.StartTimer()
		store, err := localstore.Open(localstore.OS(), disk, localstore.Options{})
		require.NoError(b, err)
		tier, err := tiered.Open(b.Context(), bucket, tiered.Options{})
		require.NoError(b, err)
		s, err := Open(b.Context(), Parts{
			Store: store, Tier: tier, Logger: zap.NewNop(), Now: time.Now,
			Sinks: func(delay.Target) broker.Sink { return sink.New(sink.Options{}) },
		}, Options{})
		require.NoError(b, err)
		ran := make(chan error, 1)
		ctx, cancel := context.WithCancel(b.Context())
		go func() { ran <- s.Run(ctx) }()
		d := delay.Draft{Message: delay.Message{Target: "pull:q", Due: s.Now().Add(time.Hour)}}
		var r [1]Receipt
		require.NoError(b, s.Accept(b.Context(), []delay.Draft{d}, r[:]))
		require.NoError(b, r[0].Err)
		b.StopTimer()
		cancel()
		<-ran
		require.NoError(b, store.Close())
		require.NoError(b, tier.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/restore")
}
