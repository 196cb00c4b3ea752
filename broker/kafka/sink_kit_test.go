// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// The tests of the sinks run against kfake in virtual time, as those of the source do.

const outTopic = "orders"

// outTarget is where the tests deliver to.
const outTarget delay.Target = "kafka:main/" + outTopic

// sinkConfig is of a sink in the bubble.
func (w *world) sinkConfig(mode string) SinkConfig {
	return SinkConfig{
		Config: Config{
			Broker: "main", Seeds: w.cluster.ListenAddrs(), Dial: w.net.DialContext,
			Logger: zap.NewNop(),
		},
		Mode: mode, Cluster: func() string { return "c-1" },
	}
}

func (w *world) topic(name string, partitions int32, config map[string]string) {
	w.t.Helper()
	set := map[string]*string{}
	for k, v := range config {
		set[k] = &v
	}
	_, err := w.adm.CreateTopic(w.t.Context(), partitions, 1, set, name)
	require.NoError(w.t, err)
}

// messages are n deliveries with ids prefix0, prefix1, ...
func messages(prefix string, n int) []broker.Delivery {
	batch := make([]broker.Delivery, n)
	for i := range batch {
		id := delay.ID(prefix + strconv.Itoa(i))
		batch[i] = broker.Delivery{
			ID: id, Generation: 1, Target: outTarget, Due: 946_684_800_000, FiredAt: 946_684_800_007,
			Attempt: 1, RoutingKey: "key" + strconv.Itoa(i%7), Body: []byte("body of " + string(id)),
		}
	}
	return batch
}

// deliver runs a Deliver.
func deliver(t testing.TB, s broker.Sink, batch []broker.Delivery) []broker.Result {
	t.Helper()
	results := make([]broker.Result, len(batch))
	s.Deliver(t.Context(), batch, results)
	return results
}

// outcomes counts results.
func outcomes(results []broker.Result) map[broker.Outcome]int {
	n := map[broker.Outcome]int{}
	for _, r := range results {
		n[r.Outcome]++
	}
	return n
}

func requireAll(t testing.TB, want broker.Outcome, results []broker.Result) {
	t.Helper()
	for i, r := range results {
		require.Equal(t, want, r.Outcome, "%d of %d: %s", i, len(results), r.Reason)
	}
}

// readAll reads topics to their ends.
func readAll(
	t testing.TB, cl func(...kgo.Opt) *kgo.Client, committed bool, topics ...string,
) []*kgo.Record {
	t.Helper()
	level := kgo.ReadUncommitted()
	if committed {
		level = kgo.ReadCommitted()
	}
	c := cl(kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	defer c.Close()
	ends, err := kadm.NewClient(c).ListEndOffsets(t.Context(), topics...)
	require.NoError(t, err)
	left := 0
	want := map[string]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		require.NoError(t, o.Err)
		if o.Offset > 0 {
			want[fmt.Sprintf("%s/%d", o.Topic, o.Partition)] = o.Offset
			left++
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all []*kgo.Record
	for left > 0 {
		f := c.PollFetches(ctx)
		require.NoError(t, f.Err())
		f.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				all = append(all, r)
			}
			if p := fmt.Sprintf("%s/%d", r.Topic, r.Partition); r.Offset == want[p]-1 {
				left--
			}
		})
	}
	return all
}

// read is what readers of committed messages find in topic.
func (w *world) read(topics ...string) []*kgo.Record {
	w.t.Helper()
	return readAll(w.t, w.plain, true, topics...)
}

func headerOf(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// once counts records by id and fails where one is missing or there twice.
func once(t testing.TB, records []*kgo.Record, batches ...[]broker.Delivery) {
	t.Helper()
	n := map[string]int{}
	for _, r := range records {
		n[headerOf(r, "cicada-id")]++
	}
	total := 0
	for _, batch := range batches {
		for _, d := range batch {
			require.Equal(t, 1, n[string(d.ID)], "%s", d.ID)
		}
		total += len(batch)
	}
	require.Len(t, records, total)
}

// on has do run for the requests with key, after the first skip, until it returns done or stop is
// called. Where do says so the connection is cut instead of an answer.
func (w *world) on(key kmsg.Key, skip int, do func() (done, cut bool)) (stop func()) {
	var off atomic.Bool
	w.cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		if off.Load() {
			w.cluster.DropControl()
			return nil, nil, false
		}
		if skip--; skip >= 0 {
			return nil, nil, false
		}
		done, cut := do()
		if done {
			w.cluster.DropControl()
		} else {
			w.cluster.KeepControl()
		}
		if cut {
			return nil, errors.New("cut"), true
		}
		return nil, nil, false
	})
	return func() { off.Store(true) }
}

// doze waits in real time, for brokers that do not live in ours.
func doze(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
