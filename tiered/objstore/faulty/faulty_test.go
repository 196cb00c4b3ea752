// SPDX-License-Identifier: Apache-2.0

package faulty

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
	"github.com/cicadamq/cicada/tiered/objstore/objstoretest"
)

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }

// A decorator without faults must be a bucket like any other.
func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(*testing.T) objstore.Bucket {
		return New(memory.New(memory.Options{}), rng(1), Options{})
	})
}

// history runs a fixed list of calls and writes down what happened.
func history(seed uint64, opts Options) (log []string, inner *memory.Bucket) {
	ctx := context.Background()
	inner = memory.New(memory.Options{})
	b := New(inner, rng(seed), opts)
	for i := range 200 {
		key := fmt.Sprintf("k/%d", i%20)
		_, err := b.Put(ctx, key, []byte("0123456789"), objstore.Condition{})
		log = append(log, fmt.Sprint(err))
		body, _, err := b.Get(ctx, key)
		log = append(log, fmt.Sprint(body, err))
		body, err = b.GetRange(ctx, key, 2, 4)
		log = append(log, fmt.Sprint(body, err))
		n := 0
		err = b.List(ctx, "k/", func(objstore.Info) bool { n++; return true })
		log = append(log, fmt.Sprint(n, err))
	}
	return log, inner
}

// A simulation can be replayed only if one seed gives one history (X1).
func TestDeterministic(t *testing.T) {
	opts := Options{FailBefore: .1, FailAfter: .1, Throttle: .1, Truncate: .1, FlipBit: .1,
		StaleList: .1}
	first, _ := history(7, opts)
	again, _ := history(7, opts)
	require.Equal(t, first, again)
	other, _ := history(8, opts)
	require.NotEqual(t, first, other)
}

// Each fault must do what its name says and nothing else.
func TestFaults(t *testing.T) {
	ctx := t.Context()
	try := func(opts Options) (*Bucket, *memory.Bucket, error) {
		inner := memory.New(memory.Options{})
		b := New(inner, rng(1), opts)
		_, err := b.Put(ctx, "k", []byte("0123456789"), objstore.Condition{Absent: true})
		return b, inner, err
	}
	_, inner, err := try(Options{FailBefore: 1})
	require.ErrorIs(t, err, ErrInjected)
	_, _, err = inner.Get(ctx, "k")
	require.ErrorIs(t, err, objstore.ErrNotFound)

	_, inner, err = try(Options{FailAfter: 1})
	require.ErrorIs(t, err, ErrInjected)
	_, _, err = inner.Get(ctx, "k")
	require.NoError(t, err)

	_, inner, err = try(Options{Throttle: 1})
	require.ErrorIs(t, err, objstore.ErrThrottled)
	_, _, err = inner.Get(ctx, "k")
	require.ErrorIs(t, err, objstore.ErrNotFound)

	b, _, err := try(Options{Truncate: 1})
	require.NoError(t, err)
	body, info, err := b.Get(ctx, "k")
	require.NoError(t, err)
	require.Less(t, int64(len(body)), info.Size)

	b, inner, err = try(Options{FlipBit: 1})
	require.NoError(t, err)
	body, err = b.GetRange(ctx, "k", 0, 10)
	require.NoError(t, err)
	require.NotEqual(t, "0123456789", string(body))
	body, _, err = inner.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(body), "the stored object was changed")

	b, _, err = try(Options{StaleList: 1})
	require.NoError(t, err)
	require.NoError(t, b.List(ctx, "", func(objstore.Info) bool {
		return errors.Is(nil, ErrDown) // never called
	}))
	b.SetQuiet(true)
	n := 0
	require.NoError(t, b.List(ctx, "", func(objstore.Info) bool { n++; return true }))
	require.Equal(t, 1, n)

	b.SetDown(true)
	require.ErrorIs(t, b.Delete(ctx, "k"), ErrDown)
	b.SetDown(false)
	require.NoError(t, b.Delete(ctx, "k"))
}

// The hooks must see every call and be able to stop it before and after.
func TestHooks(t *testing.T) {
	ctx := t.Context()
	var before, after []Call
	stop := errors.New("stop")
	var fail bool
	b := New(memory.New(memory.Options{}), rng(1), Options{
		Before: func(_ context.Context, c Call) error { before = append(before, c); return nil },
		After: func(_ context.Context, c Call, err error) error {
			after = append(after, c)
			if fail {
				return stop
			}
			return err
		},
	})
	_, err := b.Put(ctx, "k", []byte("abc"), objstore.Condition{Absent: true})
	require.NoError(t, err)
	fail = true
	_, err = b.GetRange(ctx, "k", 1, 2)
	require.ErrorIs(t, err, stop)
	require.Equal(t, []Call{{"put_if", "k", 3}, {"get_range", "k", 2}}, before)
	require.Equal(t, before, after)
	require.Equal(t, 2, b.Calls())
}

// Latency must pass and must end with the caller's patience.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(memory.New(memory.Options{}), rng(1),
			Options{Before: Latency(rng(2), time.Second)})
		start := time.Now()
		for range 20 {
			require.NoError(t, b.Delete(t.Context(), "k"))
		}
		took := time.Since(start)
		require.Greater(t, took, time.Second)
		require.Less(t, took, 20*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		require.ErrorIs(t, b.Delete(ctx, "k"), context.DeadlineExceeded)
	})
}
