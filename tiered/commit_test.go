// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/filesystem"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// hooked is a world whose bucket calls before and after every call.
func hooked(t *testing.T, opts Options) (*world, *faulty.Options) {
	w := &world{t: t, now: time.UnixMilli(1_800_000_000_000)}
	w.bucket = memory.New(memory.Options{Now: func() time.Time { return w.now }})
	hooks := &faulty.Options{}
	b := faulty.New(w.bucket, rand.New(rand.NewPCG(1, 1)), faulty.Options{
		Before: func(ctx context.Context, c faulty.Call) error {
			if hooks.Before == nil {
				return nil
			}
			return hooks.Before(ctx, c)
		},
		After: func(ctx context.Context, c faulty.Call, err error) error {
			if hooks.After == nil {
				return err
			}
			return hooks.After(ctx, c, err)
		},
	})
	w.tier = w.open(b, opts)
	_, err := w.tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	return w, hooks
}

var errLost = errors.New("connection reset")

// failing fails the calls of op.
func failing(op string) func(context.Context, faulty.Call) error {
	return func(_ context.Context, c faulty.Call) error {
		if c.Op == op {
			return errLost
		}
		return nil
	}
}

// A commit that failed and is made again must use its uploads again, unless they are too old to be
// safe from the sweep, and list everything once. Cites T1, T4 and R22.
func TestCommitAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		wait    time.Duration
		landed  bool // the first commit's manifest was written, its answer lost
		objects int
	}{
		{"not landed", time.Minute, false, 3},
		{"landed", time.Minute, true, 3},
		{"too old", commitWithin + time.Second, false, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, hooks := hooked(t, Options{})
			cut := Cut{
				Rows: rowsOf(0, 100), Kept: []delay.Kept{keptOf(3, 1)}, Marks: []delay.Mark{markOf(5)},
				Watermark: key(1),
			}
			hooks.Before = failing("put_if")
			if c.landed {
				puts := 0
				hooks.Before = func(_ context.Context, c faulty.Call) error {
					if puts > 0 {
						return errLost // down after the first conditional put
					}
					return nil
				}
				hooks.After = func(_ context.Context, c faulty.Call, err error) error {
					if c.Op == "put_if" {
						puts++
						return errLost
					}
					return err
				}
			}
			_, err := w.tier.Commit(t.Context(), cut)
			require.ErrorIs(t, err, delay.ErrUnavailable)
			require.Empty(t, w.tier.State().Segments)
			require.Len(t, w.keys(), 3)
			require.Contains(t, w.tier.Stats().LastCommitError, "unavailable")
			*hooks = faulty.Options{}
			w.now = w.now.Add(c.wait)
			s := w.commit(cut)
			require.Len(t, s.Segments, 1)
			require.Len(t, s.Kept, 1)
			require.Len(t, s.Marks, 1)
			require.Len(t, w.keys(), c.objects)
			require.Empty(t, w.tier.staged)
		})
	}
}

// The clock may run on while a large cut is uploaded: what is too old at its end is made again, and
// when that is too slow too, nothing is committed. Cites T4.
func TestCommitTooSlow(t *testing.T) {
	w, hooks := hooked(t, Options{})
	slow := 1
	hooks.After = func(_ context.Context, c faulty.Call, err error) error {
		if c.Op == "put" && slow > 0 {
			slow--
			w.now = w.now.Add(commitWithin + time.Second)
		}
		return err
	}
	s := w.commit(Cut{Rows: rowsOf(0, 10)})
	require.Len(t, s.Segments, 1)
	require.Len(t, w.keys(), 2)
	slow = 9
	_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(10, 20)})
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.Equal(t, s.Version, w.tier.State().Version)
}

// An object that is not what was sent must never be listed. Cites T1.
func TestCommitVerifies(t *testing.T) {
	w, hooks := hooked(t, Options{})
	hooks.After = func(ctx context.Context, c faulty.Call, err error) error {
		if c.Op == "put" { // the store cut it short
			body, _, _ := w.bucket.Get(ctx, c.Key)
			_, err = w.bucket.Put(ctx, c.Key, body[:len(body)-1], objstore.Condition{})
		}
		return err
	}
	_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(0, 10)})
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.ErrorContains(t, err, "not what was written")
	require.Empty(t, w.tier.State().Segments)
}

// A cut must be checked before anything is stored, and an unchanged one must write nothing but
// still look who the owner is (R11).
func TestCommitEdges(t *testing.T) {
	ctx := t.Context()
	var results []string
	w := newWorld(t, Options{Events: Events{Commit: func(r string) { results = append(results, r) }}})
	cut := Cut{Rows: rowsOf(0, 5), Watermark: key(1), Books: delay.Books{Accepted: 5, Pending: 5}}
	s := w.commit(cut)
	cut.Rows = nil
	require.Equal(t, s, w.commit(cut))
	cut.Watermark = key(0)
	_, err := w.tier.Commit(ctx, cut)
	require.ErrorIs(t, err, delay.ErrInvalid, "the watermark fell")
	cut.Watermark, cut.Rows = key(1), []Row{{key(8), record(8)}, {key(7), record(7)}}
	_, err = w.tier.Commit(ctx, cut)
	require.ErrorIs(t, err, delay.ErrInvalid, "rows out of order")
	require.Len(t, w.keys(), 1)

	other := w.open(w.bucket, Options{})
	_, err = other.Commit(ctx, cut)
	require.ErrorIs(t, err, delay.ErrInvalid, "not taken")
	_, err = other.Take(ctx, [16]byte{2}, true)
	require.ErrorIs(t, err, delay.ErrExists)
	_, err = other.Take(ctx, [16]byte{2}, false)
	require.NoError(t, err)
	cut.Rows = nil
	_, err = w.tier.Commit(ctx, cut)
	require.ErrorIs(t, err, delay.ErrFenced, "an unchanged cut did not look")
	require.Equal(t, []string{"ok", "unchanged", "error", "error", "fenced"}, results)
	require.EqualValues(t, 1, w.tier.Stats().Commits)
}

// Taking a shard must survive an owner that commits at the same moment, give way to another that
// takes it, and never begin anew when the manifest is gone. Cites T3.
func TestTake(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		name  string
		other func(w *world) error // happens between the read and the write
		err   error
	}{
		{"the old owner commits", func(w *world) error {
			_, err := w.tier.Commit(ctx, Cut{Rows: rowsOf(0, 3)})
			return err
		}, nil},
		{"another takes it", func(w *world) error {
			_, err := w.open(w.bucket, Options{}).Take(ctx, [16]byte{9}, false)
			return err
		}, delay.ErrFenced},
		{"the manifest is deleted", func(w *world) error {
			return w.bucket.Delete(ctx, w.tier.prefix+manifestKey)
		}, delay.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			done := false
			b := faulty.New(w.bucket, rand.New(rand.NewPCG(1, 1)), faulty.Options{
				Before: func(_ context.Context, call faulty.Call) error {
					if call.Op == "put_if" && !done {
						done = true
						return c.other(w)
					}
					return nil
				},
			})
			s, err := w.open(b, Options{}).Take(ctx, [16]byte{2}, false)
			require.ErrorIs(t, err, c.err)
			if c.err == nil {
				require.EqualValues(t, 2, s.Epoch)
				require.EqualValues(t, 3, s.Version)
				require.Len(t, s.Segments, 1)
				require.ErrorIs(t, w.tier.Check(ctx), delay.ErrFenced)
			}
		})
	}
}

// A bucket must belong to one cluster for ever, whoever comes first, and an answer that is lost must
// not make a second id.
func TestClusterID(t *testing.T) {
	ctx := t.Context()
	inner := memory.New(memory.Options{})
	_, err := Open(ctx, inner, Options{ReadOnly: true})
	require.ErrorIs(t, err, delay.ErrNotFound)
	lost := false
	b := faulty.New(inner, rand.New(rand.NewPCG(1, 1)), faulty.Options{
		After: func(_ context.Context, c faulty.Call, err error) error {
			if c.Op == "put_if" && !lost {
				lost = true
				return errLost
			}
			return err
		},
	})
	first, err := Open(ctx, b, Options{RetryBase: -1})
	require.NoError(t, err)
	require.True(t, first.Created())
	require.Len(t, first.ClusterID(), 26)
	second, err := Open(ctx, inner, Options{ClusterID: first.ClusterID()})
	require.NoError(t, err)
	require.False(t, second.Created())
	_, err = Open(ctx, inner, Options{ClusterID: "another"})
	require.ErrorIs(t, err, delay.ErrInvalid)
	require.ErrorContains(t, err, "another")
	require.ErrorContains(t, err, first.ClusterID())
	_, err = Open(ctx, inner, Options{ClusterID: "two words"})
	require.ErrorIs(t, err, delay.ErrInvalid)
	body, _, err := inner.Get(ctx, formatKey)
	require.NoError(t, err)
	body[len(body)-2] ^= 1
	_, err = inner.Put(ctx, formatKey, body, objstore.Condition{})
	require.NoError(t, err)
	_, err = Open(ctx, inner, Options{})
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// No name may depend on what a user chose, and every name must be one a bucket takes and give its
// parts back.
func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for shard := range 256 {
		prefix := shardPrefix(delay.Shard(shard))
		require.NoError(t, objstore.CheckKey(prefix+manifestKey))
		seen[prefix] = true
	}
	require.Len(t, seen, 256)
	d := dice{rng: rand.New(rand.NewPCG(1, 2))}
	for _, folder := range []string{l0Folder, keptFolder, marksFolder} {
		id := d.id(1_800_000_000_000)
		name := objectName(folder, 12, id)
		require.NoError(t, objstore.CheckKey(name))
		epoch, got, err := parseName(name)
		require.NoError(t, err)
		require.EqualValues(t, 12, epoch)
		require.Equal(t, id, got)
	}
	for _, bad := range []string{"", "l0/x.seg", "l0/1.seg", "l0/9999999-" + strings.Repeat("0", 26),
		"l0/0000001-" + strings.Repeat("u", 26) + ".seg"} {
		_, _, err := parseName(bad)
		require.ErrorIs(t, err, delay.ErrCorrupt, bad)
	}
}

func FuzzFormat(f *testing.F) {
	f.Add(encodeFormat("01jcz7"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if id, err := decodeFormat(body); err == nil {
			require.Equal(t, body, encodeFormat(id))
		}
	})
}

func BenchmarkCommit(b *testing.B) {
	const n = 100_000
	rows := make([]Row, n)
	bytes := 0
	for i := range rows {
		m := delay.Message{
			Target: "pull:orders", Due: 1_800_000_000_000, AcceptedAt: 1_790_000_000_000,
			Body: fmt.Appendf(nil, `{"order":%d,"customer":"%08x","items":[{"sku":"%06d","qty":%d}],`+
				`"state":"waiting","note":"please deliver in the morning, ring twice","total":"%d.00"}`,
				i, rand.Uint32(), i%5000, i%7, i*7%1000),
		}
		rows[i] = Row{Key: key(i), Record: delay.AppendRecord(nil, &m)}
		bytes += len(rows[i].Record)
	}
	bucket, err := filesystem.Open(b.TempDir())
	require.NoError(b, err)
	tier, err := Open(b.Context(), bucket, Options{})
	require.NoError(b, err)
	_, err = tier.Take(b.Context(), [16]byte{1}, true)
	require.NoError(b, err)
	b.SetBytes(int64(bytes))
	for b.Loop() {
		_, err := tier.Commit(b.Context(), Cut{Rows: rows})
		require.NoError(b, err)
	}
}

// benchTier is a tier on files with one commit of n messages.
func benchTier(b *testing.B, n int) (*Tier, int64) {
	bucket, err := filesystem.Open(b.TempDir())
	require.NoError(b, err)
	tier, err := Open(b.Context(), bucket, Options{})
	require.NoError(b, err)
	_, err = tier.Take(b.Context(), [16]byte{1}, true)
	require.NoError(b, err)
	s, err := tier.Commit(b.Context(), Cut{Rows: rowsOf(0, n)})
	require.NoError(b, err)
	return tier, s.Segments[0].Bytes
}

func BenchmarkScan(b *testing.B) {
	const n = 100_000
	tier, bytes := benchTier(b, n)
	b.SetBytes(bytes)
	for b.Loop() {
		seen := 0
		require.NoError(b, tier.Scan(b.Context(), key(0), key(n), func(delay.Key, []byte) bool {
			seen++
			return true
		}))
		require.Equal(b, n, seen)
	}
}

func BenchmarkFetch(b *testing.B) {
	const n = 100_000
	tier, _ := benchTier(b, n)
	keys := make([]delay.Key, 1000)
	for b.Loop() {
		for i := range keys {
			keys[i] = key(rand.IntN(n))
		}
		require.NoError(b, tier.Fetch(b.Context(), keys, func(_ int, _ []byte, err error) {
			require.NoError(b, err)
		}))
	}
}

// A process that read the manifest, and stood still while another took the shard, must not take it
// from that one: its disk was believed for what it had read (rule R10).
func TestTakeWhatWasLoaded(t *testing.T) {
	w := newWorld(t, Options{})
	slow, quick := w.open(w.bucket, Options{}), w.open(w.bucket, Options{})
	_, err := slow.Load(t.Context())
	require.NoError(t, err)
	w.commit(Cut{Rows: rowsOf(0, 1)}) // the same owner once more does no harm
	_, err = quick.Take(t.Context(), [16]byte{2}, false)
	require.NoError(t, err)
	_, err = slow.Take(t.Context(), [16]byte{3}, false)
	require.ErrorIs(t, err, delay.ErrFenced)
	_, err = quick.Commit(t.Context(), Cut{Rows: rowsOf(1, 2), Watermark: key(0)})
	require.NoError(t, err)
}
