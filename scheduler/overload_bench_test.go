// SPDX-License-Identifier: Apache-2.0

//go:build unix

package scheduler

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// crowdSink is many receivers: how long each takes, and what came of it.
type crowdSink struct {
	latency func(delay.Target) time.Duration
	ended   chan struct{} // closed with the benchmark: nobody waits longer

	delivered, calls, most atomic.Int64
	mu                     sync.Mutex
	late                   []time.Duration // of targets without latency
}

func (s *crowdSink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	now := time.Now()
	n := s.calls.Add(1)
	defer s.calls.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); {
		most = s.most.Load()
	}
	if d := s.latency(batch[0].Target); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		case <-s.ended:
		}
	} else {
		s.mu.Lock()
		for i := range batch {
			s.late = append(s.late, now.Sub(time.UnixMilli(int64(batch[i].Due))))
		}
		s.mu.Unlock()
	}
	for i := range results {
		results[i].Outcome = broker.Delivered
	}
	s.delivered.Add(int64(len(batch)))
}

func (s *crowdSink) Close() error { return nil }

// p99 is the 99th percentile of the lateness so far.
func (s *crowdSink) p99() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.late)
	if len(s.late) == 0 {
		return 0
	}
	return s.late[len(s.late)*99/100]
}

// crowdShard is a shard on the real disk that delivers to sink.
func crowdShard(b *testing.B, sink *crowdSink, opts Options) *Shard {
	b.Helper()
	store, err := localstore.Open(localstore.OS(), b.TempDir()+"/store", localstore.Options{})
	require.NoError(b, err)
	sink.ended = make(chan struct{})
	s, err := Open(b.Context(), Parts{
		Store: store, Logger: zap.NewNop(), Now: time.Now,
		Sinks: func(delay.Target) broker.Sink { return sink },
	}, opts)
	require.NoError(b, err)
	ran := make(chan error, 1)
	go func() { ran <- s.Run(context.WithoutCancel(b.Context())) }()
	b.Cleanup(func() {
		close(sink.ended)
		require.NoError(b, s.Drain(context.Background()))
		<-ran
		require.NoError(b, store.Close())
	})
	return s
}

// sendMany accepts n messages.
func sendMany(b *testing.B, s *Shard, n int, message func(i int) delay.Message) {
	b.Helper()
	const chunk = 1000
	drafts, receipts := make([]delay.Draft, 0, chunk), make([]Receipt, chunk)
	for i := range n {
		drafts = append(drafts, delay.Draft{Message: message(i)})
		if len(drafts) == chunk || i == n-1 {
			clear(receipts)
			require.NoError(b, s.Accept(b.Context(), drafts, receipts[:len(drafts)]))
			drafts = drafts[:0]
		}
	}
}

func crowdSize(b *testing.B, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	require.NoError(b, err)
	return n
}

func heapBytes() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkLanes has one message due in each of many lanes at the same instant: how long the last
// one waits, what a lane costs in memory, and how much is with the sinks at a time.
func BenchmarkLanes(b *testing.B) {
	n := crowdSize(b, "CICADA_BENCH_LANES", 100_000)
	for range b.N {
		sink := &crowdSink{latency: func(delay.Target) time.Duration { return 5 * time.Millisecond }}
		s := crowdShard(b, sink, Options{})
		before := heapBytes()
		due := s.Now().Add(4 * time.Second)
		sendMany(b, s, n, func(i int) delay.Message {
			return delay.Message{
				Target: delay.Target(fmt.Sprintf("https://host%d.example/hooks/%d", i%1000, i)),
				Due:    due, Body: []byte("{}"),
			}
		})
		late := s.Now().Sub(due)
		for sink.delivered.Load() < int64(n) {
			runtime.Gosched()
			<-time.After(time.Millisecond)
		}
		b.ReportMetric(float64(s.Now().Sub(due).Milliseconds()), "ms-last")
		b.ReportMetric(float64(late.Milliseconds()), "ms-sent")
		b.ReportMetric(float64(sink.most.Load()), "calls-at-once")
		<-time.After(time.Second)
		b.ReportMetric((heapBytes()-before)/float64(n), "B/lane")
		start := cpuTime()
		<-time.After(2 * time.Second)
		b.ReportMetric((cpuTime()-start).Seconds()/2*100, "%cpu-idle")
	}
}

// BenchmarkSlowLane measures the lateness of a hundred good lanes beside one that takes seconds for
// each message, of which very many are due at once.
func BenchmarkSlowLane(b *testing.B) {
	for _, backlog := range []int{0, crowdSize(b, "CICADA_BENCH_BACKLOG", 200_000)} {
		b.Run(fmt.Sprint("backlog=", backlog), func(b *testing.B) {
			for range b.N {
				sink := &crowdSink{latency: func(t delay.Target) time.Duration {
					if t == "https://slow.example/" {
						return 5 * time.Second
					}
					return 0
				}}
				s := crowdShard(b, sink, Options{})
				begin := s.Now().Add(time.Duration(backlog/12_000+2) * time.Second)
				sendMany(b, s, backlog, func(int) delay.Message {
					return delay.Message{Target: "https://slow.example/", Due: begin, Body: []byte("{}")}
				})
				const good = 20_000 // over 10 s
				sendMany(b, s, good, func(i int) delay.Message {
					return delay.Message{
						Target: delay.Target(fmt.Sprintf("https://good%d.example/", i%100)),
						Due:    begin.Add(time.Duration(i) * time.Millisecond / 2), Body: []byte("{}"),
					}
				})
				require.Less(b, s.Now(), begin, "sent too late: what follows would measure that")
				done := func() bool {
					sink.mu.Lock()
					defer sink.mu.Unlock()
					return len(sink.late) == good
				}
				for !done() {
					<-time.After(10 * time.Millisecond)
				}
				b.ReportMetric(float64(sink.p99().Milliseconds()), "ms-p99-good")
				b.ReportMetric(float64(sink.late[len(sink.late)-1].Milliseconds()), "ms-max-good")
			}
		})
	}
}

// cpuTime is what the program has spent so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
