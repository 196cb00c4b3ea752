// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// The tests of the source run against kfake in virtual time: no test waits, and a goroutine that
// does not end fails its test.

const (
	inTopic     = "schedule"
	rejectTopic = "schedule.rejected"
	testGroup   = "cicada"
)

// world is a cluster in a bubble.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	client  *kgo.Client
	adm     *kadm.Client
}

// inBubble runs test with a cluster that has the two topics.
func inBubble(t *testing.T, partitions int32, test func(t *testing.T, w *world), more ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: new(kfake.VirtualNetwork)}
		opts := append([]kfake.Opt{
			kfake.NumBrokers(2), kfake.Ports(9001, 9002), kfake.ListenFn(w.net.Listen),
			kfake.SeedTopics(partitions, inTopic), kfake.SeedTopics(1, rejectTopic),
		}, more...)
		cluster, err := kfake.NewCluster(opts...)
		require.NoError(t, err)
		defer cluster.Close()
		w.cluster = cluster
		w.client = w.plain(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer w.client.Close()
		w.adm = kadm.NewClient(w.client)
		test(t, w)
	})
}

// plain is a client that knows nothing of us.
func (w *world) plain(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.net.DialContext),
		kgo.MetadataMinAge(10 * time.Millisecond),
	}, opts...)...)
	require.NoError(w.t, err)
	return cl
}

func (w *world) options() Options {
	return Options{
		Config: Config{
			Broker: "main", Seeds: w.cluster.ListenAddrs(), Dial: w.net.DialContext,
			Logger: zaptest.NewLogger(w.t),
		},
		Topic: inTopic, Group: testGroup, RejectTopic: rejectTopic,
	}
}

// request is a record that asks to keep body for a minute.
func request(partition int32, id, body string) *kgo.Record {
	r := &kgo.Record{
		Topic: inTopic, Partition: partition, Value: []byte(body),
		Headers: []kgo.RecordHeader{
			{Key: "cicada-target", Value: []byte("pull:orders")},
			{Key: "cicada-delay", Value: []byte("60000")},
		},
	}
	if id != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "cicada-id", Value: []byte(id)})
	}
	return r
}

func poisonRecord(partition int32) *kgo.Record {
	r := request(partition, "", "poison")
	r.Headers[1].Value = []byte("soon")
	return r
}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	require.NoError(w.t, w.client.ProduceSync(w.t.Context(), records...).FirstErr())
}

// requests produces n requests to each partition.
func (w *world) requests(partitions int32, n int) {
	w.t.Helper()
	var all []*kgo.Record
	for i := range n {
		for p := range partitions {
			all = append(all, request(p, "", fmt.Sprintf("%d/%d", p, i)))
		}
	}
	w.produce(all...)
}

// committed is the group's offset of a partition, -1 for none.
func (w *world) committed(partition int32) int64 {
	w.t.Helper()
	offsets, err := w.adm.FetchOffsets(w.t.Context(), testGroup)
	if err != nil {
		return -1 // the group does not exist yet
	}
	o, ok := offsets.Lookup(inTopic, partition)
	if !ok {
		return -1
	}
	return o.At
}

// rejects reads the reject topic.
func (w *world) rejects(n int) []*kgo.Record {
	w.t.Helper()
	cl := w.plain(kgo.ConsumeTopics(rejectTopic))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	var all []*kgo.Record
	for len(all) < n && ctx.Err() == nil {
		all = append(all, cl.PollFetches(ctx).Records()...)
	}
	require.Len(w.t, all, n)
	return all
}

// run starts a source; the function it returns stops it and waits.
func (w *world) run(opts Options, in broker.Intake) (src *Source, stop func()) {
	w.t.Helper()
	src, err := New(opts)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, in) }()
	return src, func() {
		w.t.Helper()
		cancel()
		select {
		case err := <-done:
			require.NoError(w.t, err)
		case <-time.After(10 * time.Minute):
			panic("the source does not end")
		}
		require.NoError(w.t, src.Close())
	}
}

// sleep lets virtual time pass.
func (*world) sleep(d time.Duration) { time.Sleep(d) }

// until waits, in virtual time, for something that must happen within an hour, and for what follows
// from it at the same instant.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for range 36_000 {
		if ok() {
			synctest.Wait()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	require.FailNow(w.t, "it did not happen: "+what)
}

// shard is an Intake that remembers.
type shard struct {
	t *testing.T

	mu      sync.Mutex
	cursors map[broker.Partition]int64
	covered map[broker.Partition]int64
	got     map[broker.Partition][]broker.Item
	taking  map[broker.Partition]bool
	bodies  map[string]int // how often each body was stored

	// before is asked before anything is stored; after, when it is. Their error is Take's.
	before, after func(b *broker.Batch) error
	// refuse is an item's error.
	refuse func(i *broker.Item) error
}

func newShard(t *testing.T) *shard {
	t.Helper()
	return &shard{
		t: t, cursors: map[broker.Partition]int64{}, covered: map[broker.Partition]int64{},
		got:    map[broker.Partition][]broker.Item{},
		taking: map[broker.Partition]bool{}, bodies: map[string]int{},
	}
}

func (*shard) Now() delay.Due { return delay.Due(time.Now().UnixMilli()) }

func (s *shard) Cursor(p broker.Partition) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.cursors[p]
	return n, ok
}

func (s *shard) Covered(p broker.Partition) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.covered[p]
	return n, ok
}

// Take checks what every shard may rely on.
func (s *shard) Take(ctx context.Context, b *broker.Batch) error {
	s.mu.Lock()
	twice := s.taking[b.Partition]
	s.taking[b.Partition] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.taking[b.Partition] = false
		s.mu.Unlock()
	}()
	if twice {
		s.t.Errorf("two goroutines take from %s", b.Partition)
	}
	if len(b.Items) > broker.MaxBatch {
		s.t.Errorf("%d items", len(b.Items))
	}
	if s.before != nil {
		if err := s.before(b); err != nil {
			return err
		}
	}
	if s.refuse != nil {
		for i := range b.Items {
			b.Items[i].Err = s.refuse(&b.Items[i])
		}
	}
	from, _ := s.Cursor(b.Partition)
	if err := b.CopyRefused(ctx, from); err != nil {
		return err
	}
	s.store(b)
	if s.after != nil {
		return s.after(b)
	}
	return nil
}

func (s *shard) store(b *broker.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cursor := s.cursors[b.Partition]
	last := int64(-1)
	for i := range b.Items {
		item := &b.Items[i]
		if item.Offset <= last || item.Offset >= b.Next {
			s.t.Errorf("%s: offset %d after %d, next %d", b.Partition, item.Offset, last, b.Next)
		}
		last = item.Offset
		if item.Offset < cursor || item.Err != nil {
			continue
		}
		kept := *item
		kept.Draft.Body = append([]byte(nil), item.Draft.Body...)
		s.got[b.Partition] = append(s.got[b.Partition], kept)
		s.bodies[string(kept.Draft.Body)]++
	}
	s.cursors[b.Partition] = max(cursor, b.Next)
}

func (s *shard) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, items := range s.got {
		n += len(items)
	}
	return n
}

// complete requires that each partition's n requests were stored once, in order.
func (s *shard) complete(partitions int32, n int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range partitions {
		for i := range n {
			require.Equal(s.t, 1, s.bodies[fmt.Sprintf("%d/%d", p, i)], "%d/%d", p, i)
		}
	}
	for name, items := range s.got {
		for i := 1; i < len(items); i++ {
			require.Greater(s.t, items[i].Offset, items[i-1].Offset, "%s", name)
		}
	}
}

// loseDisk brings half of what is new into the bucket and then forgets the rest. The group must know
// of nothing that is gone (B4).
func (s *shard) loseDisk(w *world) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = map[string]int{}
	for p, next := range s.cursors {
		if next > s.covered[p] {
			s.covered[p] += (next - s.covered[p] + 1) / 2
		}
		s.cursors[p] = s.covered[p]
		kept := s.got[p][:0]
		for _, item := range s.got[p] {
			if item.Offset < s.covered[p] {
				kept = append(kept, item)
				s.bodies[string(item.Draft.Body)]++
			}
		}
		s.got[p] = kept
	}
	for i := range 2 {
		require.LessOrEqual(s.t, w.committed(int32(i)), s.covered[w.name(i)])
	}
}

// name is the identity of a partition of the topic as it is now.
func (w *world) name(partition int) broker.Partition {
	w.t.Helper()
	topics, err := w.adm.ListTopics(w.t.Context(), inTopic)
	require.NoError(w.t, err)
	id := topics[inTopic].ID
	return broker.Partition("kafka:main/" + base64.RawURLEncoding.EncodeToString(id[:]) + "/" +
		strconv.Itoa(partition))
}
