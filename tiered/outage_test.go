// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// outage is a tier with pauses and limits, as the daemon has it, whose bucket comes and goes.
type outage struct {
	t      *testing.T
	bucket *faulty.Bucket
	hooks  *faulty.Options
	tier   *Tier
	logs   *observer.ObservedLogs
	told   []string
	cut    Cut
}

func newOutage(t *testing.T) *outage {
	core, logs := observer.New(zap.InfoLevel)
	o := &outage{t: t, hooks: &faulty.Options{}, logs: logs}
	o.bucket = faulty.New(memory.New(memory.Options{}), rand.New(rand.NewPCG(1, 1)),
		faulty.Options{Before: func(ctx context.Context, c faulty.Call) error {
			if o.hooks.Before == nil {
				return nil
			}
			return o.hooks.Before(ctx, c)
		}})
	o.tier = o.open(Options{Logger: zap.New(core), Events: Events{
		Paused: func(class string, paused bool) {
			o.told = append(o.told, fmt.Sprint(class, " ", paused))
		},
	}})
	_, err := o.tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	return o
}

func (o *outage) open(opts Options) *Tier {
	tier, err := Open(o.t.Context(), o.bucket, opts)
	require.NoError(o.t, err)
	return tier
}

// flush commits one more row, as the shard does every interval.
func (o *outage) flush() error {
	n := len(o.cut.Rows)
	o.cut.Rows = append(o.cut.Rows, rowsOf(n, n+1)...)
	_, err := o.tier.Commit(o.t.Context(), o.cut)
	if err == nil {
		o.cut.Rows = nil
	}
	return err
}

func (o *outage) messages() (lines []string) {
	for _, e := range o.logs.FilterLoggerName("").All() {
		if e.Message != "tier taken" {
			lines = append(lines, e.Message)
		}
	}
	return lines
}

// An hour without a bucket must cost one line in the log and few requests, and the first flush
// after it must work: what waits for the bucket waits no longer than it is away. Cites objio I6.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t)
		require.NoError(t, o.flush())
		o.bucket.SetDown(true)
		before, flushes := o.bucket.Calls(), 0
		for start := time.Now(); time.Since(start) < time.Hour; flushes++ {
			require.ErrorIs(t, o.flush(), delay.ErrUnavailable)
			time.Sleep(time.Second)
		}
		require.Less(t, o.bucket.Calls()-before, 2*flushes)
		_, err := o.tier.Sweep(t.Context(), upkeepAt(0, time.Hour))
		require.ErrorIs(t, err, objio.ErrPaused)
		require.Equal(t, []string{"bucket does not answer, offload paused"}, o.messages())
		require.Equal(t, []string{"background true", "write true"}, o.told)
		health := o.tier.Stats().Health
		require.True(t, health[objio.Write].Paused)
		require.InDelta(t, time.Hour, time.Since(health[objio.Write].Since), float64(time.Minute))

		o.bucket.SetDown(false)
		require.NoError(t, o.flush())
		require.Equal(t, "bucket answers again, offload goes on", o.messages()[1])
		require.Len(t, o.messages(), 2)
		require.False(t, o.tier.Stats().Health[objio.Write].Paused)
		n := 0
		require.NoError(t, o.tier.Scan(t.Context(), delay.Key{}, delay.MaxKey,
			func(delay.Key, []byte) bool { n++; return true }))
		require.Positive(t, n)
	})
}

// A bucket that reads and does not write keeps the owner from flushing, but not from noticing
// another owner: it looks at every flush (rule R11).
func TestPausedOwnerLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t)
		other := o.open(Options{})
		o.hooks.Before = func(_ context.Context, c faulty.Call) error {
			if c.Op == "put" {
				return errLost
			}
			return nil
		}
		for range 4 {
			require.ErrorIs(t, o.flush(), delay.ErrUnavailable)
		}
		require.True(t, o.tier.Stats().Health[objio.Write].Paused)
		before := o.bucket.Calls()
		require.ErrorIs(t, o.flush(), objio.ErrPaused)
		require.Equal(t, before+1, o.bucket.Calls(), "one look and no write")
		_, err := other.Load(t.Context())
		require.NoError(t, err)
		_, err = other.Take(t.Context(), [16]byte{2}, false)
		require.NoError(t, err)
		require.ErrorIs(t, o.flush(), delay.ErrFenced)
	})
}

// The last words of an owner must be tried also while offload is paused: the next owner waits
// without them.
func TestReleaseWhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t)
		o.hooks.Before = failing("put")
		for !o.tier.Stats().Health[objio.Write].Paused {
			require.ErrorIs(t, o.flush(), delay.ErrUnavailable)
		}
		o.hooks.Before = nil
		require.ErrorIs(t, o.flush(), objio.ErrPaused)
		o.cut.Released = true
		require.NoError(t, o.flush())
		require.True(t, o.tier.State().Released)
	})
}

// A bucket that throttles must be asked by fewer at a time, and get its answers in the end.
func TestThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t)
		for range 30 {
			require.NoError(t, o.flush())
		}
		reader := o.open(Options{})
		_, err := reader.Load(t.Context())
		require.NoError(t, err)
		var slow atomic.Int64
		o.hooks.Before = func(_ context.Context, c faulty.Call) error {
			time.Sleep(20 * time.Millisecond)
			if n := slow.Add(1); c.Op == "get_range" && n%8 == 0 {
				return objstore.ErrThrottled
			}
			return nil
		}
		report, err := reader.Verify(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, report.Problems)
		_, err = reader.Count(t.Context(), delay.Key{}, delay.MaxKey)
		require.NoError(t, err)
		require.Less(t, reader.Stats().Health[objio.Read].Limit, 64)
		require.Equal(t, 64, o.tier.Stats().Health[objio.Read].Limit)
	})
}
