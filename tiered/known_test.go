// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// A bucket that was used before is opened without being asked. Until its manifest was read nothing
// may be taken for empty (T9): whoever scanned it would lose what is there. And nothing is created.
func TestKnownBucket(t *testing.T) {
	ctx := t.Context()
	inner := memory.New(memory.Options{Now: time.Now})
	bucket := faulty.New(inner, rand.New(rand.NewPCG(1, 1)), faulty.Options{})
	open := func(o Options) *Tier {
		t.Helper()
		o.RetryBase, o.Now = -1, time.Now
		tier, err := Open(ctx, bucket, o)
		require.NoError(t, err)
		return tier
	}
	first := open(Options{ClusterID: "c1"})
	_, err := first.Take(ctx, [16]byte{1}, true)
	require.NoError(t, err)

	bucket.SetDown(true)
	tried := errors.New("not tried out")
	known := open(Options{Known: true, ClusterID: "c1", TryOut: func(context.Context) error {
		return tried
	}})
	require.Equal(t, "c1", known.ClusterID())
	none := func(delay.Key, []byte) bool { return true }
	for name, read := range map[string]func() error{
		"scan":  func() error { return known.Scan(ctx, delay.Key{}, delay.MaxKey, none) },
		"kept":  func() error { return known.ScanKept(ctx, func(delay.Kept) bool { return true }) },
		"marks": func() error { return known.ScanMarks(ctx, func(delay.Mark) bool { return true }) },
		"fetch": func() error {
			return known.Fetch(ctx, []delay.Key{{Due: 1}}, func(int, []byte, error) {})
		},
		"count": func() error {
			_, err := known.Count(ctx, delay.Key{}, delay.MaxKey)
			return err
		},
		"id": func() error {
			_, _, err := known.FindID(ctx, "x")
			return err
		},
		"ids": func() error {
			return known.ScanIDs(ctx, func(string, delay.Identity) bool { return true })
		},
		"commit": func() error {
			_, err := known.Commit(ctx, Cut{})
			return err
		},
	} {
		require.ErrorIs(t, read(), delay.ErrUnavailable, name)
	}
	_, err = known.Load(ctx)
	require.ErrorIs(t, err, tried)
	tried = nil
	_, err = known.Load(ctx)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.ErrorIs(t, known.Scan(ctx, delay.Key{}, delay.MaxKey, none), delay.ErrUnavailable)
	bucket.SetDown(false)
	st, err := known.Load(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Epoch)
	require.NoError(t, known.Scan(ctx, delay.Key{}, delay.MaxKey, none))

	other := open(Options{Known: true, ClusterID: "c2"})
	_, err = other.Load(ctx)
	require.ErrorIs(t, err, delay.ErrInvalid)
	require.ErrorContains(t, err, "c1")
	require.ErrorContains(t, err, "c2")

	empty := memory.New(memory.Options{Now: time.Now})
	gone, err := Open(ctx, empty, Options{Known: true, ClusterID: "c1", RetryBase: -1})
	require.NoError(t, err)
	_, err = gone.Load(ctx)
	require.ErrorIs(t, err, ErrVanished)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, _, err = empty.Get(ctx, formatKey)
	require.Error(t, err, "a bucket that was emptied must not be made anew")
}

// The owner sees another one although its own commit is on the way.
func TestLook(t *testing.T) {
	ctx := t.Context()
	bucket := memory.New(memory.Options{Now: time.Now})
	open := func() *Tier {
		tier, err := Open(ctx, bucket, Options{RetryBase: -1})
		require.NoError(t, err)
		return tier
	}
	a, b := open(), open()
	require.NoError(t, a.Look(ctx), "nothing was taken")
	_, err := a.Take(ctx, [16]byte{1}, true)
	require.NoError(t, err)
	require.NoError(t, a.Look(ctx))
	a.turn <- struct{}{} // as a commit under way
	require.NoError(t, a.Look(ctx))
	_, err = b.Take(ctx, [16]byte{2}, false)
	require.NoError(t, err)
	err = a.Look(ctx)
	require.ErrorIs(t, err, delay.ErrFenced)
	require.ErrorContains(t, err, "epoch 2")
	<-a.turn
	_, err = a.Commit(ctx, Cut{})
	require.ErrorIs(t, err, delay.ErrFenced)
	require.NoError(t, b.Look(ctx))
}
