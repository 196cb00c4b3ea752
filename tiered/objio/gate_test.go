// SPDX-License-Identifier: Apache-2.0

package objio

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// busy is a bucket whose requests take a while; say decides what becomes of each.
type busy struct {
	stub
	took time.Duration
	say  func(write bool) error

	mu          sync.Mutex
	under, most int
	attempts    int
}

func (b *busy) serve(ctx context.Context, write bool) error {
	b.mu.Lock()
	b.attempts++
	b.under++
	b.most = max(b.most, b.under)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.under--
		b.mu.Unlock()
	}()
	if b.took > 0 {
		select {
		case <-time.After(b.took):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if b.say == nil {
		return nil
	}
	return b.say(write)
}

func (b *busy) Put(
	ctx context.Context, _ string, _ []byte, _ objstore.Condition,
) (string, error) {
	return "tag", b.serve(ctx, true)
}

func (b *busy) GetRange(ctx context.Context, _ string, _, n int64) ([]byte, error) {
	return make([]byte, n), b.serve(ctx, false)
}

func put(ctx context.Context, c *Client) error {
	_, err := c.Put(ctx, "k", nil)
	return err
}

func get(ctx context.Context, c *Client) error {
	_, err := c.GetRange(ctx, "k", 0, 1)
	return err
}

// Without a budget every request of an outage is five: the store that comes back is met by a storm.
// Cites I4: retries are a tenth of the requests and one burst.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{say: func(bool) error { return errLost }}
		c := client(b, Policy{})
		const requests = 1000
		for range requests {
			err := get(t.Context(), c)
			require.ErrorIs(t, err, delay.ErrUnavailable)
			require.ErrorIs(t, err, errLost, "the cause must be told")
		}
		require.LessOrEqual(t, b.attempts, requests+requests/10+retryBurst)
		require.GreaterOrEqual(t, b.attempts, requests+requests/10)
		require.Zero(t, c.Health()[Read].Retries)
		require.Equal(t, retryBurst, c.Health()[Write].Retries, "another class pays")

		b.say = nil
		for range retryBurst * retryCost {
			require.NoError(t, get(t.Context(), c))
		}
		require.Equal(t, retryBurst, c.Health()[Read].Retries)
		fails := 0
		b.say = func(bool) error {
			fails++
			if fails%2 == 1 {
				return errLost
			}
			return nil
		}
		require.NoError(t, get(t.Context(), c), "the budget must come back")
	})
}

// A conditional Put is repeated by its caller, who must ask for each repetition (I1, I4).
func TestBudgetOfConditionalPuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(&stub{}, Policy{})
		for range retryBurst {
			require.NoError(t, c.Pause(t.Context(), 1))
		}
		start := time.Now()
		require.ErrorIs(t, c.Pause(t.Context(), 1), delay.ErrUnavailable)
		require.Zero(t, time.Since(start))
	})
}

// A store that asks to be left in peace must be, by half each time and not by half for each of the
// requests that were under way at the time; and once it answers, load must come back slowly (I5).
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{took: 100 * time.Millisecond}
		c := client(b, Policy{})
		burst := func(class Class, n int) {
			b.most = 0
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() { _ = get(As(t.Context(), class), c) })
			}
			wg.Wait()
		}
		burst(Read, 3*readLimit)
		require.Equal(t, readLimit, b.most)
		burst(Background, 3*backgroundLimit)
		require.Equal(t, backgroundLimit, b.most)

		left := readLimit
		b.say = func(bool) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if left == 0 {
				return nil
			}
			left--
			return objstore.ErrThrottled
		}
		burst(Read, readLimit)
		h := c.Health()
		require.Equal(t, readLimit/2, h[Read].Limit, "one wave is one sign")
		require.Equal(t, writeLimit/2, h[Write].Limit, "the less urgent give way, too")
		require.Equal(t, backgroundLimit/2, h[Background].Limit)
		burst(Read, readLimit)
		require.LessOrEqual(t, b.most, readLimit/2+2)
		require.Greater(t, c.Health()[Read].Limit, readLimit/2)
		require.LessOrEqual(t, c.Health()[Read].Limit, readLimit/2+3)

		b.say = func(bool) error { return objstore.ErrThrottled }
		for range 20 {
			burst(Background, 1)
		}
		require.Equal(t, 1, c.Health()[Background].Limit, "never none")
		require.Greater(t, c.Health()[Read].Limit, readLimit/2, "the more urgent do not")
		b.say = nil
		for range 1000 {
			burst(Background, 1)
		}
		require.Equal(t, backgroundLimit, c.Health()[Background].Limit)
	})
}

// When the bucket does not answer, what nobody waits for must stop first and reads never, and a
// request that is refused must cost nothing (I6).
func TestPausesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Change
		b := &busy{say: func(bool) error { return errLost }}
		c := client(b, Policy{Attempts: 1, Changed: func(ch Change) { told = append(told, ch) }})
		ctx := t.Context()
		var order []Class
		for range 20 {
			before := b.attempts
			require.ErrorIs(t, get(ctx, c), errLost)
			require.Equal(t, before+1, b.attempts, "a read must always be tried")
			for _, class := range []Class{Background, Write} {
				if c.Paused(class) && len(order) < 2 && (len(order) == 0 || order[0] != class) {
					order = append(order, class)
				}
			}
		}
		require.Equal(t, []Class{Background, Write}, order)
		require.Len(t, told, 2, "once per change")
		require.Equal(t, Change{Class: Write, Paused: true, Cause: errLost}, told[1])

		before, start := b.attempts, time.Now()
		err := put(As(ctx, Write), c)
		require.ErrorIs(t, err, ErrPaused)
		require.ErrorIs(t, err, delay.ErrUnavailable)
		_, err = c.PutIf(As(ctx, Background), "k", nil, objstore.Condition{Absent: true})
		require.ErrorIs(t, err, ErrPaused)
		require.Equal(t, before, b.attempts)
		require.Zero(t, time.Since(start))

		time.Sleep(time.Minute - time.Second)
		b.say = nil
		require.NoError(t, get(ctx, c))
		require.Len(t, told, 4, "an answer to a read ends what reads began")
		require.Equal(t, Change{Class: Write, For: 59 * time.Second}, told[2])
		require.NoError(t, put(As(ctx, Background), c))
	})
}

// A store that reads and does not write must not be believed because of its reads, and must be
// tried by one request now and then, not by all of them (I6).
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		b := &busy{took: time.Second, say: func(write bool) error {
			if write && bad {
				return errLost
			}
			return nil
		}}
		c := client(b, Policy{Attempts: 1})
		ctx := As(t.Context(), Write)
		for range writePause {
			require.ErrorIs(t, put(ctx, c), errLost)
		}
		for range 3 {
			require.NoError(t, get(t.Context(), c))
		}
		require.ErrorIs(t, put(ctx, c), ErrPaused)
		time.Sleep(probeAfter)
		try := func() (asked, refused int) {
			before := b.attempts
			var wg sync.WaitGroup
			errs := make([]error, 10)
			for i := range errs {
				wg.Go(func() { errs[i] = put(ctx, c) })
			}
			wg.Wait()
			for _, err := range errs {
				if errors.Is(err, ErrPaused) {
					refused++
				}
			}
			return b.attempts - before, refused
		}
		asked, refused := try()
		require.Equal(t, []int{1, 9}, []int{asked, refused}, "one probe at a time")
		asked, _ = try()
		require.Zero(t, asked, "the probe failed: it waits again")
		time.Sleep(probeAfter)

		// A caller that gives up says nothing, and must not take the probe with it.
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		require.Error(t, put(short, c))
		cancel()
		bad = false
		require.NoError(t, put(ctx, c))
		require.NoError(t, put(As(ctx, Background), c))
		for _, h := range c.Health() {
			require.False(t, h.Paused)
			require.Zero(t, h.Since)
		}
	})
}

// When reads fail as well, the store is gone and not only unwilling to write: the first answer to a
// read must end it, so that offload need not wait for its next probe.
func TestReadsExplainWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &busy{say: func(bool) error { return errLost }}
		c := client(b, Policy{Attempts: 1})
		ctx := As(t.Context(), Write)
		for range writePause {
			require.Error(t, put(ctx, c))
		}
		for range writePause {
			require.ErrorIs(t, put(ctx, c), ErrPaused)
			require.Error(t, get(t.Context(), c))
		}
		b.say = nil
		require.NoError(t, get(t.Context(), c))
		require.NoError(t, put(ctx, c))
	})
}

// What is certain, throttled or given up by the caller is no sign that the bucket is gone (I6).
func TestWhatDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, err := range []error{objstore.ErrNotFound, objstore.ErrPrecondition,
			objstore.ErrRefused, objstore.ErrThrottled} {
			c := client(&busy{say: func(bool) error { return err }}, Policy{Attempts: 1})
			for range 3 * writePause {
				require.Error(t, get(t.Context(), c))
			}
			require.False(t, c.Paused(Background), "%v", err)
		}
		c := client(&stub{hang: true}, Policy{Attempts: 1})
		for range 3 * writePause {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			require.Error(t, get(ctx, c))
			cancel()
		}
		require.False(t, c.Paused(Background))
		for range backgroundPause { // but its own time limit is
			require.Error(t, get(t.Context(), c))
		}
		require.True(t, c.Paused(Background))
		require.False(t, c.Paused(Write))
	})
}

// A clock that is set back must not make a pause endless.
func TestClockGoesBack(t *testing.T) {
	now := time.Unix(1000, 0)
	b := &busy{say: func(bool) error { return errLost }}
	c := New(b, Policy{Attempts: 1, Base: 1, Jitter: rand.Float64,
		Now: func() time.Time { return now }})
	for range writePause {
		require.Error(t, get(t.Context(), c))
	}
	require.True(t, c.Paused(Write))
	now = now.Add(-time.Hour)
	require.False(t, c.Paused(Write))
	b.say = func(bool) error { return objstore.ErrThrottled }
	require.Error(t, get(t.Context(), c))
	require.Equal(t, readLimit/2, c.Health()[Read].Limit)
	now = now.Add(-time.Hour)
	require.Error(t, get(t.Context(), c))
	require.Equal(t, readLimit/4, c.Health()[Read].Limit)
}

// Without pauses nothing may be limited, refused or remembered: a simulation's history would depend
// on which of two readers came first.
func TestNoLimitsWithoutPauses(t *testing.T) {
	b := &busy{say: func(bool) error { return errLost }}
	c := client(b, Policy{Base: -1})
	for range 100 {
		require.Error(t, put(As(t.Context(), Background), c))
	}
	require.Equal(t, 500, b.attempts)
	require.False(t, c.Paused(Background))
	require.Nil(t, c.Health())
}

// Slots must come back whatever happens to their holders: each that is lost is lost for ever, and
// after the last one the tier stands still.
func TestSlotsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng, fates := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(8, 8))
		b := &busy{took: 50 * time.Millisecond}
		b.say = func(bool) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			return []error{nil, nil, errLost, objstore.ErrThrottled, objstore.ErrNotFound}[fates.IntN(5)]
		}
		c := client(b, Policy{Attempts: 2})
		var wg sync.WaitGroup
		for range 2000 {
			patience := time.Duration(rng.IntN(400)) * time.Millisecond
			class := Class(rng.IntN(int(classes)))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(As(t.Context(), class), patience)
				defer cancel()
				_ = get(ctx, c)
			})
			if rng.IntN(20) == 0 {
				time.Sleep(30 * time.Millisecond)
			}
		}
		wg.Wait()
		for _, h := range c.Health() {
			require.Zero(t, h.Under)
			require.Zero(t, h.Waiting)
		}
		b.say = nil
		time.Sleep(probeAfter)
		for class := range classes {
			require.NoError(t, get(As(t.Context(), class), c), class)
		}
	})
}

// A queue must end somewhere: what waits holds memory of its caller.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(&busy{took: time.Second}, Policy{})
		var wg sync.WaitGroup
		ctx := As(t.Context(), Background)
		for range backgroundLimit + maxQueue {
			wg.Go(func() { _ = get(ctx, c) })
		}
		synctest.Wait()
		require.Equal(t, maxQueue, c.Health()[Background].Waiting)
		require.ErrorIs(t, get(ctx, c), delay.ErrUnavailable)
		wg.Wait()
	})
}

// The limits of tiering: an attempt must end before its caller does, and not before a slow network
// has moved its bytes.
func TestTimeLimits(t *testing.T) {
	for _, c := range []struct {
		n    int
		size int64
		want time.Duration
	}{
		{1, 0, 2 * time.Second}, {2, 0, 4 * time.Second},
		{1, 64 << 10, 2*time.Second + time.Second/16}, {1, 1 << 20, 3 * time.Second},
		{1, 8 << 20, 10 * time.Second}, {5, 8 << 20, 20 * time.Second},
		{1, deleteSize, 10 * time.Second}, {1, listSize, 32 * time.Second},
		{1, 64 << 20, 66 * time.Second}, {2, 64 << 20, maxTimeout},
	} {
		require.Equal(t, c.want, timeout(c.n, c.size), "attempt %d at %d bytes", c.n, c.size)
	}
}
