// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var zstd = codec.NewZstd()

func sample(segments int) State {
	s := State{
		ClusterID: "01jcz7", Shard: 4, Epoch: 7, Version: 1234, Nonce: [16]byte{1, 2, 3},
		Released: true, WrittenAt: 1_800_000_000_000,
		Watermark: delay.Key{Due: 5, Seq: 6}, ClaimHorizon: 99, Uploaded: delay.MakeSeq(7, 8),
		Books:       delay.Books{Accepted: 10, Pending: 4, Delivered: 3, Cancelled: 2, Dead: 1},
		NotUploaded: -3,
		Cursors:     map[string][]byte{"kafka:main/a": {0, 1}, "b": {}, "a": {7}},
		Deletes:     []PendingDelete{{Name: "l0/x.seg", NotBefore: 77}},
		Predicates: []delay.Predicate{
			{Seq: 9, At: 70, Target: "pull:a", Counted: delay.MaxKey, Cancelled: 12},
			{Seq: delay.MakeSeq(7, 8), At: 80, Lower: delay.Key{Due: 90}, IDPrefix: "b-",
				From: 100, To: 200, Counted: delay.Key{Due: 100}, Swept: delay.Key{Due: 95}},
		},
	}
	for i := range segments {
		s.Segments = append(s.Segments, SegmentInfo{
			Name:  fmt.Sprintf("l0/0000007-%026d.seg", i*7919),
			Level: 1, Epoch: 7, First: delay.Key{Due: delay.Due(i), Seq: 1},
			Last: delay.Key{Due: delay.Due(i) + 9, Seq: delay.MakeSeq(7, 1)}, MinSeq: 1, MaxSeq: 9,
			Count: 100, Bytes: 20000, Stored: 7000, TailOffset: 6000, Checksum: 0xfedcba98,
			IDs: 3, LastID: 50, CommittedAt: 60, Purged: 4,
		})
	}
	s.Kept, s.Marks = s.Segments[:min(2, segments)], s.Segments[:min(1, segments)]
	return s
}

// Nothing of a state may be lost on the way through its bytes, and equal states must have equal
// bytes. Cites M5.
func TestRoundTrip(t *testing.T) {
	for n, paused := range map[int][]delay.Target{
		0: nil, 1: {"pull:a"}, 500: {"http://a/b", "log:", "pull:a"},
	} {
		s := sample(n)
		s.Paused = paused
		for i, t := range paused[:min(n, 2)] {
			s.Limits = append(s.Limits, delay.TargetLimit{
				Target: t, Limit: delay.Limit{PerHour: uint32(i) + 1, Burst: delay.MaxLimitBurst},
			})
		}
		b := Encode(zstd, &s)
		got, err := Decode(zstd, b)
		require.NoError(t, err)
		if n == 0 {
			got.Kept, got.Marks = s.Kept, s.Marks // nil or empty
		}
		require.Equal(t, s, got)
		require.Equal(t, b, Encode(zstd, &got))
	}
}

// Any flipped bit and any cut must be found.
func TestEveryBitCounts(t *testing.T) {
	s := sample(20)
	b := Encode(zstd, &s)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			_, err := Decode(zstd, b)
			require.ErrorIs(t, err, delay.ErrCorrupt)
			b[i] ^= 1 << bit
		}
		_, err := Decode(zstd, b[:i])
		require.ErrorIs(t, err, delay.ErrCorrupt)
	}
}

// The bytes in a bucket must stay readable; -update writes them anew. A manifest that needs no
// reader of version 2 must be one of version 1, so that an older program can still take the shard.
func TestGolden(t *testing.T) {
	plain, paused := sample(5), sample(5)
	paused.Paused = []delay.Target{"https://example.com/hook", "pull:orders"}
	golden(t, plain, "manifest.bin", 1)
	golden(t, paused, "manifest2.bin", 2)
	paused.Books.Schedules, paused.Books.Suppressed = 3, 4
	paused.Limits = []delay.TargetLimit{
		{Target: "log:", Limit: delay.Limit{PerHour: 1, Burst: 1}},
		{Target: "pull:orders", Limit: delay.Limit{PerHour: 360_000, Burst: 200}},
	}
	golden(t, paused, "manifest3.bin", 3)
}

func golden(t *testing.T, s State, name string, writer byte) {
	path := filepath.Join("testdata", name)
	b := Encode(zstd, &s)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	stored, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(stored, b), "the format changed")
	require.Equal(t, []byte{writer, writer}, b[8:10])
	got, err := Decode(zstd, stored)
	require.NoError(t, err)
	require.Equal(t, s, got)
}

// A clone must not share what a later change of the original touches.
func TestClone(t *testing.T) {
	s, want := sample(3), sample(3)
	s.Paused, want.Paused = []delay.Target{"log:"}, []delay.Target{"log:"}
	s.Limits = []delay.TargetLimit{{Target: "log:", Limit: delay.Limit{PerHour: 1, Burst: 1}}}
	want.Limits = []delay.TargetLimit{{Target: "log:", Limit: delay.Limit{PerHour: 1, Burst: 1}}}
	c := s.Clone()
	s.Limits[0].Burst = 2
	s.Segments[0].Name, s.Deletes[0].Name, s.Cursors["a"] = "x", "x", nil
	s.Predicates[0].Counted = delay.Key{}
	s.Paused[0] = "x"
	require.Equal(t, want, c)
}

// Paused targets that are out of order, twice, or not there in a version that says they are, are
// no manifest: equal states would have different bytes.
func TestPausedInOrder(t *testing.T) {
	s := sample(1)
	for _, bad := range [][]delay.Target{{"b", "a"}, {"a", "a"}, {""}, {"a", ""}} {
		s.Paused = bad
		_, err := Decode(zstd, Encode(zstd, &s))
		require.ErrorIs(t, err, delay.ErrCorrupt, "%q", bad)
	}
	s.Paused = nil
	_, err := readState(append(appendState(&s), 0), version)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	_, err = readState(append(appendState(&s), 1, 1, 'a'), basic)
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// So are limits, and one without a number is none.
func TestLimitsInOrder(t *testing.T) {
	limit := func(target delay.Target, perHour, burst uint32) delay.TargetLimit {
		return delay.TargetLimit{Target: target, Limit: delay.Limit{PerHour: perHour, Burst: burst}}
	}
	s := sample(1)
	for _, bad := range [][]delay.TargetLimit{
		{limit("b", 1, 1), limit("a", 1, 1)}, {limit("a", 1, 1), limit("a", 1, 1)},
		{limit("", 1, 1)}, {limit("a", 0, 1)}, {limit("a", 1, 0)},
		{limit("a", delay.MaxLimitPerHour+1, 1)}, {limit("a", 1, delay.MaxLimitBurst+1)},
	} {
		s.Limits = bad
		_, err := Decode(zstd, Encode(zstd, &s))
		require.ErrorIs(t, err, delay.ErrCorrupt, "%v", bad)
	}
	s.Limits = []delay.TargetLimit{limit("a", 1, 1)}
	_, err := Decode(zstd, Encode(zstd, &s))
	require.NoError(t, err)
}

func FuzzDecode(f *testing.F) {
	s := sample(3)
	f.Add(Encode(zstd, &s)[headSize:])
	f.Add(appendState(&s))
	s.Paused = []delay.Target{"log:", "pull:a"}
	f.Add(appendState(&s))
	s.Limits = []delay.TargetLimit{{Target: "log:", Limit: delay.Limit{PerHour: 1, Burst: 1}}}
	f.Add(appendState(&s))
	f.Fuzz(func(t *testing.T, b []byte) {
		for writer := byte(basic); writer <= version; writer++ {
			if got, err := readState(b, writer); err == nil {
				again, err := readState(appendState(&got), writer)
				require.NoError(t, err)
				require.Equal(t, got, again)
			}
		}
		_, _ = Decode(zstd, b)
	})
}

// trick is a bucket whose next conditional Put is played with.
type trick struct {
	objstore.Bucket
	before, after func(ctx context.Context, key string, body []byte, cond objstore.Condition) error
	puts          int
}

func (b *trick) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	b.puts++
	if fn := b.before; fn != nil {
		b.before = nil
		if err := fn(ctx, key, body, cond); err != nil {
			return "", err
		}
	}
	tag, err := b.Bucket.Put(ctx, key, body, cond)
	if fn := b.after; fn != nil {
		b.after = nil
		if lost := fn(ctx, key, body, cond); lost != nil {
			return "", lost
		}
	}
	return tag, err
}

var errLost = errors.New("connection reset")

func lose(context.Context, string, []byte, objstore.Condition) error { return errLost }

func newStore(b objstore.Bucket) *Store {
	rng := rand.New(rand.NewPCG(1, 1))
	return NewStore(objio.New(b, objio.Policy{
		Base: -1, Attempts: 3, Jitter: rng.Float64, Now: time.Now,
	}), zstd, "v1/00/0/manifest")
}

var me, other = [16]byte{1}, [16]byte{2}

// mark is a build that leaves its name in a cursor.
func mark(name string) Build {
	return func(base *State) (State, error) {
		s := State{ClusterID: "c", Epoch: 1}
		if base != nil {
			s = base.Clone()
		}
		if s.Cursors == nil {
			s.Cursors = map[string][]byte{}
		}
		s.Cursors[name] = []byte{1}
		return s, nil
	}
}

func names(s State) (out []string) {
	for _, name := range []string{"a", "b", "c", "x"} {
		if _, ok := s.Cursors[name]; ok {
			out = append(out, name)
		}
	}
	return out
}

// What can happen to a conditional write and its answer, and what its writer must then believe.
// Cites M1, M2, M3, M4.
func TestCommitOutcomes(t *testing.T) {
	for _, c := range []struct {
		name    string
		create  bool
		arrange func(b *trick, s *Store, base *Snapshot)
		want    []string // what the manifest holds after the commit of "b"
		version uint64
		err     error
	}{
		{name: "plain", want: []string{"a", "b"}, version: 2},
		{name: "plain create", create: true, want: []string{"b"}, version: 1},
		{name: "answer lost, not applied", want: []string{"a", "b"}, version: 2,
			arrange: func(b *trick, _ *Store, _ *Snapshot) { b.before = lose }},
		{name: "answer lost, applied", want: []string{"a", "b"}, version: 2,
			arrange: func(b *trick, _ *Store, _ *Snapshot) { b.after = lose }},
		{name: "create, answer lost, not applied", create: true, want: []string{"b"}, version: 1,
			arrange: func(b *trick, _ *Store, _ *Snapshot) { b.before = lose }},
		{name: "create, answer lost, applied", create: true, want: []string{"b"}, version: 1,
			arrange: func(b *trick, _ *Store, _ *Snapshot) { b.after = lose }},
		{name: "own write became a 412", want: []string{"a", "b"}, version: 2,
			arrange: func(b *trick, _ *Store, _ *Snapshot) {
				// A proxy or client below repeated the request: its first one was applied.
				b.before = func(ctx context.Context, k string, p []byte, c objstore.Condition) error {
					_, err := b.Bucket.Put(ctx, k, p, c)
					return err
				}
			}},
		{name: "an earlier own commit lands late", want: []string{"a", "b", "x"}, version: 3,
			arrange: func(b *trick, s *Store, base *Snapshot) {
				b.before = func(ctx context.Context, _ string, _ []byte, _ objstore.Condition) error {
					_, err := s.Commit(ctx, base, me, mark("x"))
					return err
				}
			}},
		{name: "another owner", err: delay.ErrFenced, want: []string{"a", "x"}, version: 2,
			arrange: func(b *trick, s *Store, base *Snapshot) {
				b.before = func(ctx context.Context, _ string, _ []byte, _ objstore.Condition) error {
					_, err := s.Commit(ctx, base, other, mark("x"))
					return err
				}
			}},
		{name: "another owner, answer lost", err: delay.ErrFenced, want: []string{"a", "x"}, version: 2,
			arrange: func(b *trick, s *Store, base *Snapshot) {
				b.before = func(ctx context.Context, _ string, _ []byte, _ objstore.Condition) error {
					_, err := s.Commit(ctx, base, other, mark("x"))
					return errors.Join(err, errLost)
				}
			}},
		{name: "another creates", create: true, err: delay.ErrFenced, want: []string{"x"}, version: 1,
			arrange: func(b *trick, s *Store, _ *Snapshot) {
				b.before = func(ctx context.Context, _ string, _ []byte, _ objstore.Condition) error {
					_, err := s.Commit(ctx, nil, other, mark("x"))
					return err
				}
			}},
		{name: "deleted by hand", err: delay.ErrCorrupt,
			arrange: func(b *trick, s *Store, _ *Snapshot) {
				b.before = func(ctx context.Context, k string, _ []byte, _ objstore.Condition) error {
					return b.Delete(ctx, k)
				}
			}},
		{name: "refused", err: objstore.ErrRefused, want: []string{"a"}, version: 1,
			arrange: func(b *trick, _ *Store, _ *Snapshot) {
				b.before = func(context.Context, string, []byte, objstore.Condition) error {
					return objstore.ErrRefused
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			b := &trick{Bucket: memory.New(memory.Options{})}
			s := newStore(b)
			var base *Snapshot
			if !c.create {
				var err error
				base, err = s.Commit(ctx, nil, me, mark("a"))
				require.NoError(t, err)
			}
			if c.arrange != nil {
				c.arrange(b, s, base)
			}
			got, err := s.Commit(ctx, base, me, mark("b"))
			require.ErrorIs(t, err, c.err)
			stored, err := s.Load(ctx)
			require.NoError(t, err)
			if c.want == nil {
				require.Nil(t, stored)
				return
			}
			require.Equal(t, c.want, names(stored.State))
			require.Equal(t, c.version, stored.State.Version)
			if c.err == nil {
				require.Equal(t, stored.State, got.State)
				_, err = s.Commit(ctx, got, me, mark("c"))
				require.NoError(t, err, "the next commit from the result")
			}
		})
	}
}

// A write that is still on its way when its writer gives up, and lands after the next attempt has
// read the old manifest, must neither be lost nor overwritten.
func TestDelayedWrite(t *testing.T) {
	ctx := t.Context()
	b := &trick{Bucket: memory.New(memory.Options{})}
	s := newStore(b)
	base, err := s.Commit(ctx, nil, me, mark("a"))
	require.NoError(t, err)
	var late func() error
	b.before = func(_ context.Context, k string, p []byte, c objstore.Condition) error {
		p = bytes.Clone(p)
		late = func() error { _, err := b.Bucket.Put(t.Context(), k, p, c); return err }
		b.before = func(context.Context, string, []byte, objstore.Condition) error { return late() }
		return errLost
	}
	got, err := s.Commit(ctx, base, me, mark("b"))
	require.NoError(t, err)
	require.EqualValues(t, 2, got.State.Version)
	require.Equal(t, []string{"a", "b"}, names(got.State))
	require.ErrorIs(t, late(), objstore.ErrPrecondition)
}

// Without any answer the error must say that it may be tried again, and trying again must work.
func TestCommitUnavailable(t *testing.T) {
	ctx := t.Context()
	b := &trick{Bucket: memory.New(memory.Options{})}
	s := newStore(b)
	base, err := s.Commit(ctx, nil, me, mark("a"))
	require.NoError(t, err)
	var again func(context.Context, string, []byte, objstore.Condition) error
	again = func(context.Context, string, []byte, objstore.Condition) error {
		b.before = again
		return errLost
	}
	b.before = again
	_, err = s.Commit(ctx, base, me, mark("b"))
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.ErrorIs(t, err, errLost)
	require.Equal(t, 1+3, b.puts)
	b.before = nil
	got, err := s.Commit(ctx, base, me, mark("c"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "c"}, names(got.State))
}

// A manifest spoilt on its way must be read again, a spoilt object must be an error and not an
// invitation to begin anew.
func TestLoadCorrupt(t *testing.T) {
	ctx := t.Context()
	b := memory.New(memory.Options{})
	s := newStore(b)
	_, err := s.Commit(ctx, nil, me, mark("a"))
	require.NoError(t, err)
	body, _, err := b.Get(ctx, "v1/00/0/manifest")
	require.NoError(t, err)
	body[20] ^= 1
	_, err = b.Put(ctx, "v1/00/0/manifest", body, objstore.Condition{})
	require.NoError(t, err)
	_, err = s.Load(ctx)
	require.ErrorIs(t, err, delay.ErrCorrupt)
	require.ErrorContains(t, err, "v1/00/0/manifest")
	_, err = s.Commit(ctx, nil, me, mark("b"))
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

func BenchmarkEncode(b *testing.B) {
	const n = 8640 // a day of commits every ten seconds
	s := sample(n)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range s.Segments {
		s.Segments[i].Name = fmt.Sprintf("l0/0000007-01jcz%05x%016x.seg", i, rng.Uint64())
		s.Segments[i].Checksum = rng.Uint32()
		s.Segments[i].Stored = int64(rng.Uint32N(1 << 23))
		s.Segments[i].MaxSeq = delay.MakeSeq(7, uint64(i)*1000+uint64(rng.Uint32N(1000)))
	}
	for b.Loop() {
		Encode(zstd, &s)
	}
	b.ReportMetric(float64(len(Encode(zstd, &s)))/n, "bytes/segment")
}
