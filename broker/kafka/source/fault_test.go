// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// What could go wrong: after the loss of the disk reading goes on where the group is, and what lay
// between the bucket's cursor and that is a gap (K1).
func TestSourceBeginsAtTheCursor(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 100)
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.until("all are committed", func() bool { return w.committed(0) == 100 })
		stop()

		sh.cursors[w.name(0)] = 40
		_, stop = w.run(w.options(), sh)
		w.until("the refill", func() bool { return sh.count() == 160 })
		stop()
		require.Equal(t, int64(40), sh.got[w.name(0)][100].Offset)
		require.Equal(t, int64(100), w.committed(0), "never back")
	})
}

// What could go wrong: a shard that never read the topic reads again what the group is past (K1).
func TestSourceBeginsAtTheGroup(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 10)
		var at kadm.Offsets
		at.AddOffset(inTopic, 0, 7, -1)
		_, err := w.adm.CommitOffsets(t.Context(), testGroup, at)
		require.NoError(t, err)
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.until("the rest is taken", func() bool { return sh.count() == 3 })
		stop()
		require.Equal(t, int64(7), sh.got[w.name(0)][0].Offset)
	})
}

// What could go wrong: retention passes the cursor and nobody is told, or the source stands still.
func TestSourceCountsWhatRetentionRemoved(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 50)
		var upTo kadm.Offsets
		upTo.AddOffset(inTopic, 0, 30, -1)
		_, err := w.adm.DeleteRecords(t.Context(), upTo)
		require.NoError(t, err)
		sh := newShard(t)
		sh.cursors[w.name(0)] = 10
		src, stop := w.run(w.options(), sh)
		w.until("the rest is taken", func() bool { return sh.count() == 20 })
		stop()
		require.Equal(t, int64(20), src.Stats().Missing)
		require.Equal(t, int64(50), sh.cursors[w.name(0)])
	})
}

// What could go wrong: gaps of aborted transactions and their markers are taken for lost records, or
// an aborted request is kept (K7).
func TestSourceReadsWhatWasCommitted(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		cl := w.plain(kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer cl.Close()
		for i, end := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
			require.NoError(t, cl.BeginTransaction())
			r := request(0, "", fmt.Sprint("tx ", i))
			require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
			require.NoError(t, cl.EndTransaction(t.Context(), end))
		}
		w.produce(request(0, "", "after"))
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("they are taken", func() bool { return sh.count() == 2 })
		stop()
		require.Equal(t, map[string]int{"tx 1": 1, "after": 1}, sh.bodies)
		require.Zero(t, src.Stats().Missing)
		require.Zero(t, src.Stats().Truncated)
	})
}

// What could go wrong: an overloaded shard, a full disk or an unknown outcome skips records, stores
// them twice, or stops the source for good; a committed offset is above what was stored (B4).
func TestSourceTriesAgain(t *testing.T) {
	for _, why := range []error{
		delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrUnavailable, errors.New("who knows"),
	} {
		t.Run(why.Error(), func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, w *world) {
				w.requests(2, 1500)
				sh := newShard(t)
				var calls atomic.Int64
				sh.before = func(*broker.Batch) error {
					if calls.Add(1)%3 != 0 {
						return fmt.Errorf("take: %w", why)
					}
					return nil
				}
				sh.after = func(*broker.Batch) error {
					if calls.Add(1)%2 == 0 {
						return errors.New("stored, but who knows")
					}
					return nil
				}
				_, stop := w.run(w.options(), sh)
				w.until("all are committed", func() bool {
					return w.committed(0) == 1500 && w.committed(1) == 1500
				})
				stop()
				sh.complete(2, 1500)
			})
		})
	}
}

// What could go wrong: a shard that is closed or fenced is asked for ever, or the daemon is not told.
func TestSourceEndsWithTheShard(t *testing.T) {
	for _, c := range []struct{ err, want error }{
		{delay.ErrClosed, nil}, {delay.ErrFenced, delay.ErrFenced},
	} {
		inBubble(t, 1, func(t *testing.T, w *world) {
			w.requests(1, 1)
			sh := newShard(t)
			sh.before = func(*broker.Batch) error { return c.err }
			src, err := New(w.options())
			require.NoError(t, err)
			require.ErrorIs(t, src.Run(t.Context(), sh), c.want)
			require.Equal(t, int64(-1), w.committed(0))
		})
	}
}

// What could go wrong: with commit: tier offsets are committed that only the local disk has (K4).
func TestSourceCommitsWhatTheTierCovers(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 100)
		opts := w.options()
		opts.Tier = true
		sh := newShard(t)
		sh.before = func(b *broker.Batch) error {
			if !b.Tier {
				t.Error("the batch does not ask for the tier")
			}
			return nil
		}
		_, stop := w.run(opts, sh)
		w.until("all are taken", func() bool { return sh.count() == 100 })
		w.sleep(10 * DefaultCommitInterval)
		require.Equal(t, int64(-1), w.committed(0))
		sh.mu.Lock()
		sh.covered[w.name(0)] = 60
		sh.mu.Unlock()
		w.until("they are committed", func() bool { return w.committed(0) == 60 })
		stop()
		require.Equal(t, int64(60), w.committed(0))
	})
}

// What could go wrong: a process dies at any moment and the next one leaves a gap (K4, B4).
func TestSourceAfterACrash(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprint("disk lost ", lost), func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, w *world) {
				w.requests(2, 3000)
				sh := newShard(t)
				opts := w.options()
				opts.Tier = lost
				for life := range 40 {
					var takes atomic.Int64
					ctx, crash := context.WithTimeout(t.Context(), 20*time.Second)
					sh.before = func(*broker.Batch) error {
						if takes.Add(1) > int64(life%4) {
							crash()
							return context.Canceled
						}
						return nil
					}
					src, err := New(opts)
					require.NoError(t, err)
					require.NoError(t, src.Run(ctx, sh))
					crash()
					if lost {
						sh.loseDisk(w)
					}
				}
				sh.before = nil
				_, stop := w.run(opts, sh)
				w.until("all are taken", func() bool {
					n, _ := sh.Cursor(w.name(0))
					m, _ := sh.Cursor(w.name(1))
					return n == 3000 && m == 3000
				})
				stop()
				sh.complete(2, 3000)
			})
		})
	}
}

// What could go wrong: an error of the brokers, or brokers that are away for minutes, stop the
// source, repeat what was stored, or leave a gap.
func TestSourceOutlivesTheBrokersErrors(t *testing.T) {
	retriable := []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.CoordinatorNotAvailable,
		kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.RebalanceInProgress,
		kerr.RequestTimedOut, kerr.UnknownServerError, kerr.TopicAuthorizationFailed,
		kerr.GroupAuthorizationFailed, kerr.IllegalGeneration, kerr.UnknownMemberID,
		kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.KafkaStorageError,
		kerr.OffsetNotAvailable, kerr.ClusterAuthorizationFailed,
	}
	for _, e := range retriable {
		t.Run(e.Message, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, w *world) {
				w.requests(2, 400)
				w.cluster.Fault(kfake.Fault{
					Keys: []kmsg.Key{
						kmsg.Fetch, kmsg.Metadata, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat,
						kmsg.OffsetFetch, kmsg.OffsetCommit, kmsg.ListOffsets, kmsg.FindCoordinator,
					},
					Err: e, Count: 12,
				})
				sh := newShard(t)
				_, stop := w.run(w.options(), sh)
				w.until("all are committed", func() bool {
					return w.committed(0) == 400 && w.committed(1) == 400
				})
				stop()
				sh.complete(2, 400)
			})
		})
	}
}

// What could go wrong: connections that break in the middle, for a long time.
func TestSourceOutlivesBrokenConnections(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		w.requests(2, 400)
		var seen atomic.Int64
		w.cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			if n := seen.Add(1); n%5 == 3 && n < 400 {
				return nil, errors.New("broken"), true
			}
			return nil, nil, false
		})
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.until("all are taken", func() bool { return sh.count() == 800 })
		stop()
		sh.complete(2, 400)
	})
}
