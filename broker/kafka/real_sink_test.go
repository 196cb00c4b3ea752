// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/delay"
)

// realBroker is a real broker with topics of the test's own.
type realBroker struct {
	realtest.Broker

	t      testing.TB
	topic  string
	ledger string
}

func newReal(t testing.TB, partitions int32) *realBroker {
	t.Helper()
	r := &realBroker{Broker: realtest.Kafka(t), t: t, topic: realtest.Name(t), ledger: realtest.Name(t)}
	cl := r.plain()
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, r.topic)
	require.NoError(t, err)
	return r
}

func (r *realBroker) plain(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(r.Addr))...)
	require.NoError(r.t, err)
	return cl
}

func (r *realBroker) target() delay.Target { return delay.Target("kafka:main/" + r.topic) }

func (r *realBroker) batch(prefix string, n int) []broker.Delivery {
	batch := messages(prefix, n)
	now := delay.Due(time.Now().UnixMilli()) // brokers delete at once what is older than a week
	for i := range batch {
		batch[i].Target, batch[i].FiredAt = r.target(), now
	}
	return batch
}

func (r *realBroker) open(mode string) broker.Sink {
	r.t.Helper()
	s, err := NewSink(SinkConfig{
		Config:      Config{Broker: "main", Seeds: []string{r.Addr}, Logger: r.logger()},
		LedgerTopic: r.ledger, Mode: mode, Cluster: func() string { return r.ledger },
	})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, s.Close()) })
	return s
}

// logger keeps benchmarks quiet.
func (r *realBroker) logger() *zap.Logger {
	if t, ok := r.t.(*testing.T); ok {
		return zaptest.NewLogger(t)
	}
	return zap.NewNop()
}

// take opens a sink in exactly_once mode and takes the ledger, which may need a few tries.
func (r *realBroker) take(apply func(uint64, []broker.Done) error) *Exact {
	r.t.Helper()
	s := r.open(ExactlyOnce).(*Exact)
	for range 60 {
		err := s.Recover(r.t.Context(), 0, apply)
		if err == nil {
			return s
		}
		require.ErrorIs(r.t, err, delay.ErrUnavailable)
		doze(r.t.Context(), time.Second/2)
	}
	require.Fail(r.t, "the ledger cannot be taken")
	return nil
}

func ignoreEntries(uint64, []broker.Done) error { return nil }

// produceAll delivers all in lanes until everything is finished or the sink is fenced; it returns
// what is left.
func produceAll(t testing.TB, s broker.Sink, all []broker.Delivery, lanes int) []broker.Delivery {
	t.Helper()
	var mu sync.Mutex
	var left []broker.Delivery
	var wg sync.WaitGroup
	each := max(1, (len(all)+lanes-1)/lanes)
	for mine := range slices.Chunk(all, each) {
		wg.Go(func() {
			mine := slices.Clone(mine)
			for tries := 0; len(mine) > 0 && tries < 200; tries++ {
				n := min(len(mine), 100)
				var again []broker.Delivery
				for i, r := range deliver(t, s, mine[:n]) {
					if r.Outcome != broker.Delivered {
						again = append(again, mine[i])
					}
				}
				if len(again) > 0 {
					doze(t.Context(), 50*time.Millisecond)
				}
				if e, ok := s.(*Exact); ok {
					select {
					case <-e.Fenced():
						tries = 1000
					default:
					}
				}
				mine = append(again, mine[n:]...)
			}
			mu.Lock()
			left = append(left, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return left
}

// The broker may be killed in the middle of transactions: each message is seen once.
func TestRealSinkBrokerKilled(t *testing.T) {
	r := newReal(t, 4)
	s := r.take(ignoreEntries)
	all := r.batch("m", 8_000)
	var chaos sync.WaitGroup
	stop := make(chan struct{})
	chaos.Go(func() {
		for range 2 {
			for now := s.Stats().Committed; s.Stats().Committed < now+3; {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
			r.Kill(t)
			r.Start(t)
		}
	})
	left := produceAll(t, s, all, 8)
	close(stop)
	chaos.Wait()
	require.Empty(t, left)
	once(t, readAll(t, r.plain, true, r.topic), all)
	t.Logf("%+v", s.Stats())
}

// The process may be replaced in the middle of transactions, and wake up later.
func TestRealSinkTakeover(t *testing.T) {
	r := newReal(t, 4)
	all := r.batch("m", 5_000)
	pending := slices.Clone(all)
	forget := func(_ uint64, done []broker.Done) error {
		for _, d := range done {
			pending = slices.DeleteFunc(pending, func(m broker.Delivery) bool { return m.ID == d.ID })
		}
		return nil
	}
	var old []*Exact
	for range 4 {
		s := r.take(forget)
		var wg sync.WaitGroup
		mine := slices.Clone(pending)
		wg.Go(func() { produceAll(t, s, mine, 4) })
		doze(t.Context(), 150*time.Millisecond)
		if len(old) == 3 {
			wg.Wait()
			break
		}
		old = append(old, s)
		defer wg.Wait() // it goes on beside its successor, until it is fenced
	}
	s := r.take(forget)
	require.Empty(t, produceAll(t, s, pending, 4))
	for i, o := range old {
		results := deliver(t, o, r.batch(fmt.Sprint("late", i, "-"), 10))
		require.Zero(t, outcomes(results)[broker.Delivered])
	}
	once(t, readAll(t, r.plain, true, r.topic), all)
}

// The idempotent sink repeats at most what was under way when the broker was killed.
func TestRealSinkIdempotent(t *testing.T) {
	r := newReal(t, 4)
	s := r.open(Idempotent)
	all := r.batch("m", 8_000)
	var chaos sync.WaitGroup
	chaos.Go(func() {
		doze(t.Context(), 300*time.Millisecond)
		r.Kill(t)
		r.Start(t)
	})
	require.Empty(t, produceAll(t, s, all, 8))
	chaos.Wait()
	seen := map[string]int{}
	for _, rec := range readAll(t, r.plain, true, r.topic) {
		seen[headerOf(rec, "cicada-id")]++
	}
	require.Len(t, seen, len(all))
	twice := 0
	for _, n := range seen {
		twice += n - 1
	}
	t.Logf("%d repeated", twice)
	require.LessOrEqual(t, twice, 8*100, "what was in flight")
}
