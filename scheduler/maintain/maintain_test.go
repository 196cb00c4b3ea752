// SPDX-License-Identifier: Apache-2.0

package maintain

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// tested is a maintainer of a tier in memory, in virtual time, that compacts as soon as it can.
func tested(t *testing.T, edit func(c *Config)) (*Maintainer, *tiered.Tier) {
	tier, err := tiered.Open(t.Context(), memory.New(memory.Options{Now: time.Now}),
		tiered.Options{Now: time.Now, DeleteGrace: time.Minute})
	require.NoError(t, err)
	_, err = tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	start := time.Now()
	c := Config{
		Tier: tier, Log: zap.NewNop(), Now: func() delay.Due { return delay.InstantOf(time.Now()) },
		Boot:            func() time.Duration { return time.Since(start) },
		CompactInterval: time.Second, CollectInterval: 10 * time.Second, DedupeWindow: time.Minute,
		Limits: tiered.CompactLimits{Objects: 1},
		Around: func(ctx context.Context, do func(context.Context) error) error { return do(ctx) },
		Busy:   func() bool { return false }, Over: func() bool { return false },
	}
	if edit != nil {
		edit(&c)
	}
	return New(c), tier
}

func row(t *testing.T, tier *tiered.Tier, n uint64, due delay.Due, size int) {
	m := delay.Message{Target: "log:", Due: due, Body: make([]byte, size)}
	_, err := tier.Commit(t.Context(), tiered.Cut{Rows: []tiered.Row{
		{Key: delay.Key{Due: due, Seq: delay.MakeSeq(1, n)}, Record: delay.AppendRecord(nil, &m)},
	}})
	require.NoError(t, err)
}

// A compaction must keep to its rate, make room for a flush but not for ever, and end when the
// shard does.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, over := false, false
		m, _ := tested(t, func(c *Config) {
			c.CompactRate = 1 << 20
			c.Busy, c.Over = func() bool { return busy }, func() bool { return over }
		})
		time.Sleep(time.Hour) // unused time is worth one burst
		took := func(n int) time.Duration {
			start := time.Now()
			for range n {
				require.NoError(t, m.wait(t.Context(), 256<<10))
			}
			return time.Since(start)
		}
		require.Zero(t, took(4))
		require.InDelta(t, 2*time.Second, took(8), float64(10*time.Millisecond))
		m.c.CompactRate = 0
		require.Zero(t, took(1000))
		busy = true
		require.InDelta(t, busyMost, took(1), float64(2*busyLook))
		over = true
		require.ErrorIs(t, m.wait(t.Context(), 1), errOver)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, m.wait(ctx, 1), context.Canceled)
	})
}

// Run must compact, collect and sweep when it is time, tell of trouble once, and end with the shard.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		jobs, sweeps := map[string]int{}, 0
		var broken atomic.Bool
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		m, tier := tested(t, func(c *Config) {
			c.Log = zap.New(core)
			c.Events.Compact = func(done tiered.Compacted, _ time.Duration, _ error) { jobs[done.Job]++ }
			c.Events.Sweep = func(tiered.Swept, error) { sweeps++ }
			c.Around = func(ctx context.Context, do func(context.Context) error) error {
				if broken.Load() {
					return errors.New("broken")
				}
				return do(ctx)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		far := delay.InstantOf(time.Now().Add(time.Hour))
		row(t, tier, 1, far, 100)
		row(t, tier, 2, far, 100)
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"fresh": 1}, jobs)
		require.Len(t, tier.State().Deletes, 2)
		pass(2 * time.Minute)
		require.Empty(t, tier.State().Deletes, "not collected")
		require.Equal(t, 1, sweeps)
		broken.Store(true)
		row(t, tier, 3, far, 100)
		row(t, tier, 4, far, 100)
		pass(5 * time.Second)
		broken.Store(false)
		pass(2 * time.Second)
		require.Equal(t, 1, logs.FilterMessageSnippet("fails").Len())
		require.Equal(t, 1, logs.FilterMessageSnippet("again").Len())
		pass(24 * time.Hour)
		require.Equal(t, 2, sweeps)
		cancel()
		require.NoError(t, <-ended)
	})
}

// A shard that another owner took must end; one that is drained must not commit any more.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := false
		m, tier := tested(t, func(c *Config) {
			c.Over = func() bool { return over }
			around := c.Around
			c.Around = func(ctx context.Context, do func(context.Context) error) error {
				over = !over // drained while the merge was under way
				return around(ctx, do)
			}
		})
		far := delay.InstantOf(time.Now().Add(time.Hour))
		row(t, tier, 1, far, 100)
		row(t, tier, 2, far, 100)
		more, err := m.Compact(t.Context())
		require.NoError(t, err)
		require.False(t, more)
		require.Empty(t, tier.State().Deletes)
		require.True(t, ends(delay.ErrFenced))
		require.False(t, ends(delay.ErrUnavailable))
	})
}
