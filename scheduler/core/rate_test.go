// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

func limit(t *testing.T, perSecond float64, burst int64) delay.Limit {
	t.Helper()
	l, err := delay.NewLimit(perSecond, burst)
	require.NoError(t, err)
	return l
}

// In no stretch of time may a bucket give more than its burst and what the rate brings in it, nor
// may what comes be lost to rounding: the sum of many looks is the sum of one.
func TestBucket(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 7))
		perHour := 1 + rng.Uint32N(3_600_000)
		if rng.IntN(3) == 0 {
			perHour = 1 + rng.Uint32N(100)
		}
		now := delay.Due(1_700_000_000_000)
		l := delay.Limit{PerHour: perHour, Burst: 1 + rng.Uint32N(500)}
		b := bucket{}
		b.set(l, now)
		level, full := int64(tokenCost), int64(l.Burst)*tokenCost // the model
		for range 300 {
			since := int64(rng.IntN(50))
			if rng.IntN(20) == 0 {
				since = rng.Int64N(7_200_000)
			}
			now += delay.Due(since)
			level = min(full, level+since*int64(perHour))
			want := 1 + rng.IntN(1000)
			got := b.may(want, now)
			require.EqualValues(t, min(int64(want), level/tokenCost), got, "seed %d", seed)
			b.spend(got)
			level -= int64(got) * tokenCost
			if b.dry(now) {
				at, before, then := b.next(), b, b
				require.Greater(t, at, now)
				require.False(t, then.dry(at), "seed %d: the promised token is there", seed)
				require.True(t, at <= now+limitStep || before.dry(at-1), "seed %d: not before", seed)
			}
		}
	}
}

// The longest time away and the fastest rate may overflow.
func TestBucketIsFullAfterCenturies(t *testing.T) {
	b := bucket{}
	b.set(delay.Limit{PerHour: delay.MaxLimitPerHour, Burst: delay.MaxLimitBurst}, 0)
	require.Equal(t, delay.MaxLimitBurst, b.may(1<<30, delay.MaxDue))
	b.spend(delay.MaxLimitBurst)
	require.Zero(t, b.may(1, delay.MaxDue))
}

// A receiver is promised so many a second: a backlog, retries and a second lane must not break
// that, and the backlog must not wait longer than it has to.
func TestLimit(t *testing.T) {
	w := newCrowd(t)
	failed := map[delay.Key]bool{}
	w.answer = func(r Ref) broker.Outcome {
		if r.Key.Seq%10 == 0 && !failed[r.Key] {
			failed[r.Key] = true
			return broker.Retry
		}
		return broker.Delivered
	}
	w.table.give(0)
	w.step(EvLimit{Lane: 0, Limit: limit(t, 100, 50)})
	w.accept(0, 20_000, 100)
	w.accept(2, 20_000, 100)
	begin, seen := w.now, 0
	count := func() (n int) {
		for _, r := range w.claims[seen:] {
			if r.Lane == 0 {
				n++
			}
		}
		return n
	}
	total := 0
	for range 20 {
		seen = len(w.claims)
		w.pass(time.Second, nil)
		n := count()
		total += n
		require.LessOrEqual(t, n, 100+50)
	}
	most := 1 + 100*int(w.now-begin)/1000
	require.LessOrEqual(t, total, most)
	require.Greater(t, total, most-50)
	require.Less(t, w.longest(2), 2*time.Second, "the other lane has its own way")
	require.Positive(t, len(w.parked[0]), "what waits for long is parked")

	w.step(EvLimit{Lane: 0})
	w.pass(3*time.Minute, nil)
	require.Zero(t, len(w.parked[0]), "without the limit all of it goes out")
}

// What a lane did not use it has later, up to its burst and no further.
func TestLimitBurst(t *testing.T) {
	w := newCrowd(t)
	w.table.give(0)
	w.step(EvLimit{Lane: 0, Limit: limit(t, 10, 30)})
	w.pass(time.Minute, nil)
	w.accept(0, 1000, 100)
	require.Len(t, w.claims, 30)
	w.pass(time.Second, nil)
	require.InDelta(t, 40, len(w.claims), 1)
}

// A consumer gets at most what the bucket has, and one that waits gets the next one in time.
func TestLimitOfQueue(t *testing.T) {
	w := newCrowd(t)
	const lane = 1
	w.table.give(lane)
	w.step(EvLimit{Lane: lane, Limit: limit(t, 2, 5)})
	w.pass(10*time.Second, nil)
	w.accept(lane, 100, 100)
	w.take(lane, 100)
	require.Len(t, w.claims, 5)
	w.take(lane, 100)
	require.Len(t, w.claims, 5, "nothing is left")
	x := &Waiter{Lane: lane, Max: 100, Lease: time.Minute, Grant: make(chan Grant, 1)}
	w.step(EvPull{Waiter: x})
	begin := w.now
	w.pass(time.Second, func() {
		if len(w.claims) == 6 && begin != 0 {
			require.InDelta(t, 500, w.now.Sub(begin).Milliseconds(), 10)
			begin = 0
		}
	})
	require.Len(t, w.claims, 6)
	require.Len(t, (<-x.Grant).Claims, 1)
}

// A limit is a promise to the receiver: an idle lane must not be let go with it.
func TestLimitOfIdleLane(t *testing.T) {
	w := newCrowd(t)
	w.accept(0, 1, 100)
	w.accept(2, 1, 100)
	w.step(EvLimit{Lane: 0, Limit: limit(t, 1, 1)})
	w.pass(10*time.Minute, nil)
	require.NotNil(t, w.core.live.Get(0))
	require.Nil(t, w.core.live.Get(2))
	w.step(EvLimit{Lane: 0})
	w.pass(10*time.Minute, nil)
	require.Nil(t, w.core.live.Get(0))
}

// A receiver whose lane is resumed must not be met by all that piled up meanwhile.
func TestSlowResume(t *testing.T) {
	w := newCrowd(t)
	const lane = 0
	w.latency = func(uint32) time.Duration { return 100 * time.Millisecond }
	w.table.give(lane)
	w.step(EvPause{Lane: lane, Paused: true})
	w.accept(lane, 20_000, 100)
	w.pass(time.Minute, nil)
	w.step(EvPause{Lane: lane})
	w.pass(time.Minute, nil)
	sizes := w.batches[lane]
	answered := 0
	for _, n := range sizes {
		require.LessOrEqual(t, n, answered+1000/slowPart, "%v", sizes[:min(20, len(sizes))])
		answered += n
	}
	require.Len(t, w.claims, 20_000)

	w.table.give(2)
	w.step(EvPause{Lane: 2}) // it was not paused: nothing to begin slowly
	w.accept(2, 1000, 100)
	require.Equal(t, []int{1000}, w.batches[2][len(w.batches[2])-1:])
}
