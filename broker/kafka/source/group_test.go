// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/delay"
)

// What could go wrong: members come and go, and a partition is taken from after it moved away (the
// shard sees two goroutines), out of order, or not at all (K2, B5).
func TestSourceSharesItsGroup(t *testing.T) {
	for _, serverSide := range []bool{false, true} {
		t.Run(fmt.Sprint("server side ", serverSide), func(t *testing.T) {
			inBubble(t, 6, func(t *testing.T, w *world) {
				sh := newShard(t)
				sh.before = func(*broker.Batch) error {
					w.sleep(20 * time.Millisecond)
					return nil
				}
				opts := w.options()
				opts.ServerSide = serverSide
				src, stop := w.run(opts, sh)
				var wg sync.WaitGroup
				wg.Go(func() {
					for i := range 1500 {
						for p := range int32(6) {
							w.client.Produce(t.Context(), request(p, "", fmt.Sprintf("%d/%d", p, i)), nil)
						}
						w.sleep(20 * time.Millisecond)
					}
				})
				for range 4 {
					other, leave := w.run(opts, sh)
					w.until("both have some", func() bool {
						return other.Stats().Partitions == 3 && src.Stats().Partitions == 3
					})
					w.sleep(2 * time.Second)
					leave()
					w.until("one has all", func() bool { return src.Stats().Partitions == 6 })
				}
				wg.Wait()
				w.until("all are taken", func() bool { return sh.count() == 9000 })
				require.Greater(t, src.Stats().Rebalances, int64(4))
				stop()
				sh.complete(6, 1500)
				for p := range int32(6) {
					require.Equal(t, int64(1500), w.committed(p))
				}
			})
		})
	}
}

// What could go wrong: a Take that hangs keeps a partition that moved away for ever, or its end is
// not waited for (K2, B5).
func TestSourceGivesUpWhatMovesAway(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 10)
		hung := make(chan struct{})
		sh := &hanging{shard: newShard(t), hung: hung}
		_, stop := w.run(w.options(), sh)
		<-hung
		began := time.Now()
		stop()
		require.Less(t, time.Since(began), revokeGrace+leaveTimeout)
		require.True(t, sh.ended)
		require.Equal(t, int64(-1), w.committed(0))
	})
}

// hanging takes nothing until it is given up.
type hanging struct {
	*shard

	hung  chan struct{}
	ended bool
}

func (h *hanging) Take(ctx context.Context, _ *broker.Batch) error {
	close(h.hung)
	<-ctx.Done()
	h.ended = true
	return ctx.Err()
}

// What could go wrong: a topic that was deleted and made again is read from the old one's cursor
// (R17), or not at all (K5).
func TestSourceKnowsATopicMadeAgain(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 20)
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("all are committed", func() bool { return w.committed(0) == 20 })
		old := w.name(0)
		_, err := w.adm.DeleteTopic(t.Context(), inTopic)
		require.NoError(t, err)
		_, err = w.adm.CreateTopic(t.Context(), 1, 1, nil, inTopic)
		require.NoError(t, err)
		w.client.PurgeTopicsFromClient(inTopic)
		w.produce(request(0, "", "again"))
		w.until("the new one is taken", func() bool { return sh.count() == 21 })
		stop()
		require.NotEqual(t, old, w.name(0))
		require.Len(t, sh.got[w.name(0)], 1)
		require.Equal(t, string(w.name(0))+"/0", string(sh.got[w.name(0)][0].Draft.ID))
		require.Positive(t, src.Stats().Restarts)
	})
}

// What could go wrong: a shard that stands still lets memory grow with the topic, or one partition
// that stands still stops the others (K6).
func TestSourceHoldsBackWhatTheShardCannotTake(t *testing.T) {
	inBubble(t, 8, func(t *testing.T, w *world) {
		const many, few, size = 40, 3, 900 << 10
		for i := range many {
			r := request(0, "", "")
			r.Value = append(fmt.Appendf(nil, "0/%d ", i), make([]byte, size)...)
			w.produce(r)
		}
		for p := range int32(7) {
			for i := range few {
				w.produce(request(p+1, "", fmt.Sprintf("%d/%d", p+1, i)))
			}
		}
		sh := newShard(t)
		stuck := w.name(0)
		var mu sync.Mutex
		open := false
		sh.before = func(b *broker.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if b.Partition == stuck && !open {
				return delay.ErrOverloaded
			}
			return nil
		}
		opts := w.options()
		src, err := New(opts)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- src.Run(ctx, sh) }()
		w.until("the others are taken", func() bool { return sh.count() == 7*few })
		w.sleep(time.Minute)
		p := src.partition(0)
		require.LessOrEqual(t, p.waiting(), int64(maxQueued/maxShares+2*maxFetchBytes))
		require.True(t, p.paused.Load())
		mu.Lock()
		open = true
		mu.Unlock()
		w.until("all are taken", func() bool { return sh.count() == 7*few+many })
		require.Zero(t, p.n.queued.Load())
		cancel()
		require.NoError(t, <-done)
	})
}

// What could go wrong: a batch of a few bytes that becomes gigabytes ends the process, or stops its
// partition for ever (K6, B6).
func TestSourcePassesOverABomb(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 1)
		bomb := w.plain(kgo.ProducerBatchMaxBytes(100<<20), kgo.BrokerMaxWriteBytes(200<<20),
			// Not zstd: the library closes its decoders in finalizers, which a bubble cannot bear.
			kgo.ProducerBatchCompression(kgo.GzipCompression()))
		defer bomb.Close()
		r := request(0, "", "")
		r.Value = make([]byte, maxBatchBytes+1)
		require.NoError(t, bomb.ProduceSync(t.Context(), r).FirstErr())
		w.produce(request(0, "", "after"))
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("the rest is taken", func() bool { return sh.count() == 2 })
		w.until("it is committed", func() bool { return w.committed(0) == 3 })
		stop()
		require.Equal(t, int64(1), src.Stats().Skipped)
		require.Zero(t, src.Stats().Truncated)
		require.Zero(t, src.Stats().Missing)
	})
}

// What could go wrong: the broker loses the end of the log, and nobody is told.
func TestSourceTellsOfATruncatedLog(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 10)
		sh := newShard(t)
		sh.cursors[w.name(0)] = 1000
		sh.before = func(b *broker.Batch) error {
			t.Errorf("offsets up to %d are taken again", b.Next)
			return nil
		}
		src, stop := w.run(w.options(), sh)
		w.until("it is told", func() bool { return src.Stats().Truncated > 0 })
		stop()
		require.Zero(t, sh.count())
		require.Equal(t, int64(1000), sh.cursors[w.name(0)])
	})
}

// What could go wrong: partitions that are added to the topic are never read.
func TestSourceFindsNewPartitions(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		_, err := w.adm.CreatePartitions(t.Context(), 2, inTopic)
		require.NoError(t, err)
		w.client.ForceMetadataRefresh()
		w.sleep(time.Second)
		w.produce(request(2, "", "new"))
		w.until("it is taken", func() bool { return sh.count() == 1 })
		stop()
	})
}

// What could go wrong: what can never work is found at the first record, or never.
func TestOptions(t *testing.T) {
	good := Options{
		Config: Config{Broker: "main", Seeds: []string{"127.0.0.1:1"}}, Topic: "a", Group: "g",
	}
	_, err := New(good)
	require.NoError(t, err)
	for _, c := range []struct {
		field string
		spoil func(o *Options)
	}{
		{"brokers", func(o *Options) { o.Broker = "" }},
		{"brokers.main.seeds", func(o *Options) { o.Seeds = nil }},
		{"brokers.main", func(o *Options) { o.DialTimeout = -1 }},
		{"brokers.main.sasl.mechanism", func(o *Options) { o.SASL.Mechanism = "gssapi" }},
		{"brokers.main.sasl.user", func(o *Options) { o.SASL.Mechanism = client.Plain }},
		{"brokers.main.sources.topic", func(o *Options) { o.Topic = "a b" }},
		{"brokers.main.sources.group", func(o *Options) { o.Group = "" }},
		{"brokers.main.sources.reject_topic", func(o *Options) { o.RejectTopic = ".." }},
		{"brokers.main.sources.reject_topic", func(o *Options) { o.RejectTopic = o.Topic }},
		{"brokers.main.sources.group", func(o *Options) { o.CommitInterval = -1 }},
	} {
		o := good
		c.spoil(&o)
		_, err := New(o)
		var f *delay.FieldError
		require.ErrorAs(t, err, &f)
		require.Equal(t, c.field, f.Field)
	}
}
