// SPDX-License-Identifier: Apache-2.0

package timewheel

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
)

// ref is what the scheduler keeps of a message in memory.
type ref struct {
	due int64
	seq uint64
	_   uint32 // lane
	_   uint32 // size
}

func compareRefs(a, b ref) int { return cmp.Compare(a.seq, b.seq) }

// sizes runs fn for wheels that hold n entries; the largest only without -short.
func sizes(b *testing.B, fn func(b *testing.B, n int)) {
	for _, n := range []int{1e4, 1e6, 1e7} {
		b.Run(fmt.Sprintf("n=%.0e", float64(n)), func(b *testing.B) {
			if n > 1e6 && testing.Short() {
				b.Skip("needs 500 MB")
			}
			fn(b, n)
		})
	}
}

// filled is a wheel with n entries in the next span ticks.
func filled(n int, span int64) *Wheel[ref] {
	w := New(Config[ref]{Compare: compareRefs})
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		at := rng.Int64N(span)
		w.Add(at, 200, ref{due: at, seq: uint64(i)})
	}
	return w
}

// Add and cancel one entry while n are held.
func BenchmarkAdd(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		w := filled(n, minute)
		rng := rand.New(rand.NewPCG(2, 2))
		b.ReportAllocs()
		for b.Loop() {
			w.Cancel(w.Add(rng.Int64N(day), 200, ref{}))
		}
	})
}

// Hand out n entries that are spread over a second, in chunks; the time is per entry.
func BenchmarkAdvance(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		dst := make([]ref, 0, 1000)
		for b.Loop() {
			b.StopTimer()
			w := filled(n, second)
			b.StartTimer()
			for w.Len() > 0 {
				dst = w.Advance(second, dst[:0], 1000)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
	})
}

// Hand out n entries that are spread over a day, so that most cascade three times.
func BenchmarkCascade(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		dst := make([]ref, 0, 1000)
		for b.Loop() {
			b.StopTimer()
			w := filled(n, day)
			b.StartTimer()
			for w.Len() > 0 {
				dst = w.Advance(day, dst[:0], 1000)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
	})
}

// Hand out the entries of one millisecond that came in order, as two runs, and at random.
func BenchmarkSpike(b *testing.B) {
	const n = 100_000
	orders := map[string]func(i int) int{"order=sorted": func(i int) int { return i }}
	orders["order=two-runs"] = func(i int) int { return (i + n/2) % n }
	perm := rand.New(rand.NewPCG(3, 3)).Perm(n)
	orders["order=random"] = func(i int) int { return perm[i] }
	for name, order := range orders {
		b.Run(name, func(b *testing.B) {
			dst := make([]ref, 0, 1000)
			for b.Loop() {
				b.StopTimer()
				w := New(Config[ref]{Compare: compareRefs})
				for i := range n {
					w.Add(500, 200, ref{due: 500, seq: uint64(order(i))})
				}
				b.StartTimer()
				for w.Len() > 0 {
					dst = w.Advance(second, dst[:0], 1000)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
		})
	}
}
