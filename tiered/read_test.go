// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
)

// spoil changes the stored object below the tier.
func (w *world) spoil(name string, change func([]byte) []byte) {
	w.t.Helper()
	body, _, err := w.bucket.Get(w.t.Context(), w.tier.prefix+name)
	require.NoError(w.t, err)
	_, err = w.bucket.Put(w.t.Context(), w.tier.prefix+name, change(body), objstore.Condition{})
	require.NoError(w.t, err)
}

// An object that is missing, cut short, damaged or another one must be an error of every read that
// needs it, and never a silent skip. Cites T5.
func TestReadsAlarm(t *testing.T) {
	flip := func(at func(n int) int) func([]byte) []byte {
		return func(b []byte) []byte { b[at(len(b))] ^= 4; return b }
	}
	for name, damage := range map[string]func(w *world, name string){
		"missing": func(w *world, name string) {
			require.NoError(t, w.bucket.Delete(t.Context(), w.tier.prefix+name))
		},
		"cut short": func(w *world, name string) {
			w.spoil(name, func(b []byte) []byte { return b[:len(b)/2] })
		},
		"damaged block":  func(w *world, name string) { w.spoil(name, flip(func(int) int { return 90 })) },
		"damaged footer": func(w *world, name string) { w.spoil(name, flip(func(n int) int { return n - 60 })) },
		"another object": func(w *world, name string) {
			s := w.commit(Cut{
				Rows: rowsOf(50, 60), Kept: []delay.Kept{keptOf(60, 1)}, Marks: []delay.Mark{markOf(61)},
			})
			for _, o := range []SegmentInfo{s.Segments[1], s.Kept[1], s.Marks[1]} {
				if o.Name[:2] == name[:2] {
					body, _, err := w.bucket.Get(t.Context(), w.tier.prefix+o.Name)
					require.NoError(t, err)
					w.spoil(name, func([]byte) []byte { return body })
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			s := w.commit(Cut{
				Rows: rowsOf(0, 20), Kept: []delay.Kept{keptOf(30, 1)}, Marks: []delay.Mark{markOf(40)},
			})
			for _, o := range []SegmentInfo{s.Segments[0], s.Kept[0], s.Marks[0]} {
				damage(w, o.Name)
			}
			r := w.open(w.bucket, Options{ReadOnly: true})
			_, err := r.Load(t.Context())
			require.NoError(t, err)
			ctx := t.Context()
			all := func(delay.Key, []byte) bool { return true }
			require.ErrorIs(t, r.Scan(ctx, key(0), key(99), all), delay.ErrCorrupt)
			require.ErrorIs(t, r.ScanKept(ctx, func(delay.Kept) bool { return true }), delay.ErrCorrupt)
			require.ErrorIs(t, r.ScanMarks(ctx, func(delay.Mark) bool { return true }), delay.ErrCorrupt)
			require.NoError(t, r.Fetch(ctx, []delay.Key{key(1), key(30)},
				func(_ int, _ []byte, err error) {
					require.ErrorIs(t, err, delay.ErrCorrupt)
					require.NotErrorIs(t, err, delay.ErrNotFound)
				}))
			report, err := r.Verify(ctx, nil)
			require.NoError(t, err)
			require.Len(t, report.Problems, 3)
		})
	}
}

// One spoilt answer must be read again and not be an alarm.
func TestReadsAgain(t *testing.T) {
	w, hooks := hooked(t, Options{})
	w.commit(Cut{Rows: rowsOf(0, 2000)})
	for _, wrong := range []error{objstore.ErrNotFound, delay.ErrCorrupt, errLost} {
		once := true
		hooks.Before = func(_ context.Context, c faulty.Call) error {
			if c.Op == "get_range" && once {
				once = false
				return wrong
			}
			return nil
		}
		n := 0
		require.NoError(t, w.tier.Scan(t.Context(), key(5), key(1005),
			func(delay.Key, []byte) bool { n++; return true }))
		require.Equal(t, 1000, n)
		require.False(t, once)
	}
}

// A store that refuses everything is not a broken object.
func TestReadsRefused(t *testing.T) {
	w, hooks := hooked(t, Options{})
	w.commit(Cut{Rows: rowsOf(0, 20)})
	hooks.Before = func(context.Context, faulty.Call) error { return objstore.ErrRefused }
	err := w.tier.Scan(t.Context(), key(0), key(9), func(delay.Key, []byte) bool { return true })
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.NotErrorIs(t, err, delay.ErrCorrupt)
}

// A scan over many overlapping segments must give every key once, in order, from any start, and end
// when told to, without leaving a goroutine or waiting for reads nobody needs. Cites T6.
func TestScanMany(t *testing.T) {
	w := newWorld(t, Options{})
	const n = 3000
	for part := range 30 { // every 30th key, and some twice
		var rows []Row
		for i := part; i < n; i += 30 {
			rows = append(rows, Row{Key: key(i), Record: record(i)})
			if i%7 == 0 && part != 29 {
				rows = append(rows, Row{Key: key(i + 1), Record: record(i + 1)})
			}
		}
		w.commit(Cut{Rows: rows})
	}
	require.Len(t, w.tier.State().Segments, 30)
	for _, c := range [][3]int{{0, n, n}, {17, 1234, n}, {0, n, 100}, {2999, n + 5, n}, {5, 5, 1}} {
		next := c[0]
		require.NoError(t, w.tier.Scan(t.Context(), key(c[0]), key(c[1]),
			func(k delay.Key, rec []byte) bool {
				require.Equal(t, key(next), k)
				require.Equal(t, record(next), rec)
				next++
				return next-c[0] < c[2]
			}))
		require.Equal(t, min(c[1], n, c[0]+c[2]), next)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := 0
	err := w.tier.Scan(ctx, key(0), key(n), func(delay.Key, []byte) bool {
		if seen++; seen == 50 {
			cancel()
		}
		return true
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, w.tier.Fetch(ctx, []delay.Key{key(1)}, func(int, []byte, error) {}),
		context.Canceled)
}

// Of a message that was uploaded as kept several times the newest upload must win.
func TestScanKeptNewest(t *testing.T) {
	w := newWorld(t, Options{})
	w.commit(Cut{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1), keptOf(3, 1)}})
	w.commit(Cut{Kept: []delay.Kept{keptOf(2, 2)}})
	w.commit(Cut{Kept: []delay.Kept{keptOf(1, 3), keptOf(2, 3)}})
	var got []uint32
	require.NoError(t, w.tier.ScanKept(t.Context(), func(k delay.Kept) bool {
		got = append(got, k.Progress.Attempts)
		return true
	}))
	require.Equal(t, []uint32{3, 3, 1}, got)
}

// Many callers that miss the same messages must not read a block more than once.
func TestFetchReadsOnce(t *testing.T) {
	w, hooks := hooked(t, Options{})
	w.commit(Cut{Rows: rowsOf(0, 5000)})
	var reads atomic.Int64
	hooks.Before = func(_ context.Context, c faulty.Call) error {
		reads.Add(1)
		return nil
	}
	var keys []delay.Key
	for i := range 500 {
		keys = append(keys, key(i*10))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			n := 0
			err := w.tier.Fetch(t.Context(), keys, func(i int, rec []byte, err error) {
				if err == nil && string(rec) == string(record(i*10)) {
					n++
				}
			})
			if err != nil || n != len(keys) {
				t.Errorf("%d of %d: %v", n, len(keys), err)
			}
		})
	}
	wg.Wait()
	x, err := w.tier.index(t.Context(), &w.tier.State().Segments[0])
	require.NoError(t, err)
	require.LessOrEqual(t, reads.Load(), int64(len(x.Blocks)))
}
