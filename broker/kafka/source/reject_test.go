// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// What could go wrong: a record that is no request stops its partition, vanishes, or reaches the
// reject topic as something else than it was (B6).
func TestSourceRejectsPoison(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		bad := poisonRecord(0)
		bad.Key = []byte("k")
		bad.Headers = append(bad.Headers, kgo.RecordHeader{Key: headerError, Value: []byte("old")})
		w.produce(request(0, "", "0/0"), bad, request(0, "", "0/1"))
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("it is committed", func() bool { return w.committed(0) == 3 })
		stop()
		sh.complete(1, 2)
		got := w.rejects(1)[0]
		require.Equal(t, "poison", string(got.Value))
		require.Equal(t, "k", string(got.Key))
		require.Equal(t, "schedule/0/1", header(got, headerSource))
		require.Contains(t, header(got, headerError), "cicada-delay")
		require.Equal(t, "soon", header(got, "cicada-delay"))
		require.Equal(t, map[string]int64{"invalid_argument": 1}, src.Stats().Rejected)
		require.Zero(t, src.Stats().Uncopied)
	})
}

// What could go wrong: what the shard refuses is lost without a copy, because the cursor passes it or
// the group is told of it first (B4), or because the copy is not tried again (K3).
func TestSourceRejectsWhatTheShardRefuses(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 10)
		sh := newShard(t)
		var asked atomic.Bool
		sh.refuse = func(i *broker.Item) error {
			if i.Offset == 4 {
				asked.Store(true)
				return fmt.Errorf("id x: %w", delay.ErrExists)
			}
			return nil
		}
		fault := w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1,
		})
		opts := w.options()
		opts.CommitInterval = 10 * time.Millisecond
		src, stop := w.run(opts, sh)
		w.until("it is refused", asked.Load)
		w.sleep(rejectPatience / 2)
		next, _ := sh.Cursor(w.name(0))
		require.LessOrEqual(t, next, int64(4), "before the copy is there")
		require.LessOrEqual(t, w.committed(0), int64(0), "before the copy is there")
		fault.Remove()
		w.until("they are committed", func() bool { return w.committed(0) == 10 })
		stop()
		require.Equal(t, "schedule/0/4", header(w.rejects(1)[0], headerSource))
		require.Equal(t, map[string]int64{"already_exists": 1}, src.Stats().Rejected)
	})
}

// What could go wrong: the cursor passes a record that is no request before its copy is there, so
// that a crash loses it (K3, B6).
func TestSourceCopiesPoisonBeforeTheCursorPasses(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.produce(request(0, "", "0/0"), poisonRecord(0))
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1,
		})
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.sleep(rejectPatience / 2)
		_, known := sh.Cursor(w.name(0))
		require.False(t, known)
		stop()
		require.Zero(t, sh.count())
	})
}

// What could go wrong: a reject topic that does not exist, is forbidden or never answers stops the
// source for ever (K3, B6).
func TestSourceGoesOnWithoutItsRejectTopic(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(w *world, o *Options)
	}{
		{"none", func(_ *world, o *Options) { o.RejectTopic = "" }},
		{"missing", func(_ *world, o *Options) { o.RejectTopic = "missing" }},
		{"forbidden", func(w *world, _ *Options) {
			w.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1,
			})
		}},
		{"never", func(w *world, _ *Options) {
			w.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1,
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, w *world) {
				w.produce(poisonRecord(0), request(0, "", "0/0"))
				opts := w.options()
				c.spoil(w, &opts)
				sh := newShard(t)
				src, stop := w.run(opts, sh)
				w.until("it is committed", func() bool { return w.committed(0) == 2 })
				stop()
				sh.complete(1, 1)
				require.Equal(t, int64(1), src.Stats().Uncopied)
				require.Equal(t, int64(1), src.Stats().Rejected["invalid_argument"])
			})
		})
	}
}

// What could go wrong: one record that is too large for the reject topic takes its neighbours' values
// with it, or leaves nothing at all.
func TestSourceCutsWhatTheRejectTopicCannotTake(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		small, large := poisonRecord(0), poisonRecord(0)
		small.Value = []byte(strings.Repeat("s", 1000))
		large.Value = make([]byte, 20_000)
		_, _ = rand.NewChaCha8([32]byte{}).Read(large.Value) // cannot be compressed
		w.produce(small, large, small)
		w.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			return answerTooLarge(r.(*kmsg.ProduceRequest), 10_000)
		})
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("all are committed", func() bool { return w.committed(0) == 3 })
		stop()
		require.Zero(t, src.Stats().Uncopied)
		values := map[int]int{}
		for _, r := range w.rejects(3) {
			values[len(r.Value)]++
			if len(r.Value) == 0 {
				require.Equal(t, "20000", header(r, headerCut))
				require.Equal(t, "schedule/0/1", header(r, headerSource))
			}
		}
		require.Equal(t, map[int]int{1000: 2, 0: 1}, values)
	})
}

// answerTooLarge answers MESSAGE_TOO_LARGE to batches above limit.
func answerTooLarge(r *kmsg.ProduceRequest, limit int) (kmsg.Response, error, bool) {
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			if len(p.Records) <= limit {
				return nil, nil, false
			}
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, kerr.MessageTooLarge.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil, true
}

// What could go wrong: a topic of nothing but poison is passed at the speed of one round trip each.
func TestSourceRejectsInBatches(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		all := make([]*kgo.Record, 2000)
		for i := range all {
			all[i] = poisonRecord(0)
		}
		w.produce(all...)
		var requests atomic.Int64
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1,
			When: func(kmsg.Request) bool { requests.Add(1); return true },
		})
		_, stop := w.run(w.options(), newShard(t))
		w.until("all are committed", func() bool { return w.committed(0) == 2000 })
		stop()
		require.Less(t, requests.Load(), int64(200))
		w.rejects(2000)
	})
}
