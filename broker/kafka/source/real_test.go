// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/delay"
)

// realTopic makes a topic and its reject topic on a real broker.
func realTopic(t testing.TB, b realtest.Broker, partitions int32) *topic {
	t.Helper()
	name := realtest.Name(t)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond),
		kgo.UnknownTopicRetries(1000)) // a busy broker tells of a new topic late
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	adm := kadm.NewClient(cl)
	for topic, n := range map[string]int32{name: partitions, name + ".rejected": 1} {
		_, err := adm.CreateTopic(t.Context(), n, 1, nil, topic)
		require.NoError(t, err)
	}
	return &topic{
		seeds: []string{b.Addr}, name: name, reject: name + ".rejected", group: name, client: cl,
	}
}

// The suite for sources, on a real broker; TestRealSourceOutlivesItsBroker restarts it.
func TestRealSource(t *testing.T) {
	b := realtest.Kafka(t)
	brokertest.RunSource(t, func(t *testing.T, tier bool) brokertest.SourceSubject {
		t.Helper()
		return realTopic(t, b, suitePartitions).subject(tier)
	})
}

// What could go wrong: a broker that dies, or stands still, in the middle of reading and of
// committing leaves a gap, or records are stored twice (B4).
func TestRealSourceOutlivesItsBroker(t *testing.T) {
	b := realtest.Kafka(t)
	c := realTopic(t, b, suitePartitions)
	s := c.subject(false)
	in := brokertest.NewIntake()
	src := s.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, in) }()

	const each = 20_000
	var wg sync.WaitGroup
	for i := range each {
		for p := range int32(suitePartitions) {
			r := &kgo.Record{Topic: c.name, Partition: p, Headers: []kgo.RecordHeader{
				{Key: "cicada-id", Value: fmt.Appendf(nil, "%d-%d", p, i)},
				{Key: "cicada-delay", Value: []byte("1h")},
				{Key: "cicada-target", Value: []byte("pull:orders")},
			}, Value: []byte("x")}
			wg.Add(1)
			c.client.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
				defer wg.Done()
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
		switch i {
		case each / 3:
			b.Kill(t)
			b.Start(t)
		case 2 * each / 3:
			b.Pause(t)
			time.AfterFunc(time.Second, func() { b.Continue(t) })
		}
	}
	wg.Wait()
	require.Eventually(t, func() bool { return len(in.Taken()) >= suitePartitions*each },
		time.Minute, 50*time.Millisecond)
	require.Eventually(t, func() bool { return s.Acknowledged(t, 0) == each }, 20*time.Second,
		50*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.Empty(t, in.Breaches())
	seen := make(map[delay.ID]bool)
	for _, k := range in.Taken() {
		require.False(t, seen[k.ID()], "%s twice", k.ID())
		seen[k.ID()] = true
	}
	require.Len(t, seen, suitePartitions*each)
}

// discard is a shard that keeps nothing.
type discard struct {
	taken chan int
	next  sync.Map
}

func (*discard) Now() delay.Due { return delay.Due(1_700_000_000_000) }

func (d *discard) Cursor(p broker.Partition) (int64, bool) {
	n, ok := d.next.Load(p)
	if !ok {
		return 0, false
	}
	return n.(int64), true
}

func (d *discard) Covered(p broker.Partition) (int64, bool) { return d.Cursor(p) }

func (d *discard) Take(_ context.Context, b *broker.Batch) error {
	d.next.Store(b.Partition, b.Next)
	d.taken <- len(b.Items)
	return nil
}

// BenchmarkRealSource reads 200-byte requests from a real broker into nothing.
func BenchmarkRealSource(b *testing.B) {
	benchmarkSource(b, realTopic(b, realtest.Kafka(b), 4), 4)
}

func benchmarkSource(b *testing.B, c *topic, partitions int) {
	b.Helper()
	const batch = 200_000
	body := make([]byte, 200)
	for i := range body {
		body[i] = byte('a' + i%23)
	}
	for i := range batch {
		c.client.Produce(b.Context(), &kgo.Record{
			Topic: c.name, Partition: int32(i % partitions), Value: body,
			Headers: []kgo.RecordHeader{
				{Key: "cicada-id", Value: fmt.Appendf(nil, "id-%d", i)},
				{Key: "cicada-delay", Value: []byte("1h")},
				{Key: "cicada-target", Value: []byte("pull:orders")},
			},
		}, nil)
	}
	require.NoError(b, c.client.Flush(b.Context()))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		src, err := New(Options{
			Config: Config{Broker: "main", Seeds: c.seeds}, Topic: c.name, Group: c.group,
		})
		require.NoError(b, err)
		in := &discard{taken: make(chan int, 1000)}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- src.Run(ctx, &again{discard: in}) }()
		for n := 0; n < batch; {
			n += <-in.taken
		}
		cancel()
		require.NoError(b, <-done)
	}
	b.ReportMetric(float64(batch)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// again is a shard that always begins at the start.
type again struct{ *discard }

func (a *again) Cursor(p broker.Partition) (int64, bool) {
	n, _ := a.discard.Cursor(p)
	return n, true
}

// What could go wrong: a real broker answers otherwise than the fake one, and the doctor tells of
// faults that are none.
func TestRealExamine(t *testing.T) {
	b := realtest.Kafka(t)
	c := realTopic(t, b, 2)
	o := Options{
		Config: Config{Broker: "main", Seeds: c.seeds}, Topic: c.name, Group: c.group,
		RejectTopic: c.reject,
	}
	// A new cluster makes the topics of groups and of transactions when they are first asked for.
	var found []broker.Finding
	require.Eventually(t, func() bool {
		found = Examine(t.Context(), o.Config, []Options{o})
		return verdicts(found)["group "+c.group] == broker.Good
	}, time.Minute, time.Second)
	require.Equal(t, map[string]broker.Verdict{
		"reachable": broker.Good, "source " + c.name: broker.Good, "group " + c.group: broker.Good,
		"reject topic " + c.reject: broker.Good,
	}, verdicts(found), "%v", found)
	require.Eventually(t, func() bool {
		found = ExamineTransactions(t.Context(), o.Config, c.reject)
		return verdicts(found)["transactions"] == broker.Good
	}, time.Minute, time.Second)
	require.Equal(t, map[string]broker.Verdict{
		"ledger " + c.reject: broker.Good, "transactions": broker.Good, "clock": broker.Good,
	}, verdicts(found), "%v", found)
}
