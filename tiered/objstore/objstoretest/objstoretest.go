// SPDX-License-Identifier: Apache-2.0

// Package objstoretest is the suite that every objstore.Bucket passes:
//
//	func TestConformance(t *testing.T) {
//		objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return memory.New(...) })
//	}
package objstoretest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore"
)

const (
	writers    = 16
	rounds     = 20
	largeBytes = 3<<20 + 17
)

// Run runs the suite against buckets made by newBucket, an empty one for each part.
func Run(t *testing.T, newBucket func(t *testing.T) objstore.Bucket) {
	t.Helper()
	for _, part := range []struct {
		name string
		run  func(*testing.T, objstore.Bucket)
	}{
		{"round trip", testRoundTrip},
		{"conditions", testConditions},
		{"race to create", testRaceCreate},
		{"race to replace", testRaceReplace},
		{"tags tell contents apart", testTags},
		{"ranges", testRanges},
		{"delete", testDelete},
		{"list", testList},
		{"keys", testKeys},
		{"cancelled", testCancelled},
		{"readers see whole objects", testAtomic},
	} {
		t.Run(part.name, func(t *testing.T) {
			b := newBucket(t)
			part.run(t, b)
			require.NoError(t, b.Close())
		})
	}
}

func put(t *testing.T, b objstore.Bucket, key, body string) string {
	t.Helper()
	tag, err := b.Put(t.Context(), key, []byte(body), objstore.Condition{})
	require.NoError(t, err)
	require.NotEmpty(t, tag)
	return tag
}

// Bodies of any size must come back as they were, also after the caller reuses its buffer.
func testRoundTrip(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	rng := rand.New(rand.NewPCG(1, 2))
	for i, size := range []int{0, 1, 4096, largeBytes} {
		key := fmt.Sprintf("v1/ab/0/l0/body-%d.seg", i)
		body := make([]byte, size)
		for j := range body {
			body[j] = byte(rng.Uint32())
		}
		want := bytes.Clone(body)
		tag, err := b.Put(ctx, key, body, objstore.Condition{})
		require.NoError(t, err)
		clear(body)
		got, info, err := b.Get(ctx, key)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "size %d", size)
		require.Equal(t, key, info.Key)
		require.Equal(t, tag, info.ETag)
		require.EqualValues(t, size, info.Size)
		require.False(t, info.Modified.IsZero())
	}
	_, _, err := b.Get(ctx, "v1/none")
	require.ErrorIs(t, err, objstore.ErrNotFound)
	_, err = b.GetRange(ctx, "v1/none", 0, 1)
	require.ErrorIs(t, err, objstore.ErrNotFound)
	_, _, err = b.Get(ctx, "v1/ab")
	require.ErrorIs(t, err, objstore.ErrNotFound, "a folder is not an object")
}

// Every combination of condition and object must be answered right, and a refused Put must leave
// the object alone.
func testConditions(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	absent := objstore.Condition{Absent: true}
	_, err := b.Put(ctx, "k", []byte("x"), objstore.Condition{ETag: "nothing"})
	require.ErrorIs(t, err, objstore.ErrPrecondition, "If-Match on a missing key")
	first, err := b.Put(ctx, "k", []byte("one"), absent)
	require.NoError(t, err)
	_, err = b.Put(ctx, "k", []byte("two"), absent)
	require.ErrorIs(t, err, objstore.ErrPrecondition)
	second, err := b.Put(ctx, "k", []byte("three"), objstore.Condition{ETag: first})
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	_, err = b.Put(ctx, "k", []byte("four"), objstore.Condition{ETag: first})
	require.ErrorIs(t, err, objstore.ErrPrecondition)
	body, info, err := b.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "three", string(body))
	require.Equal(t, second, info.ETag)
	require.NoError(t, b.Delete(ctx, "k"))
	_, err = b.Put(ctx, "k", []byte("five"), objstore.Condition{ETag: second})
	require.ErrorIs(t, err, objstore.ErrPrecondition)
	_, err = b.Put(ctx, "k", []byte("five"), absent)
	require.NoError(t, err)
}

// race lets all writers put under cond at once and gives the one that won.
func race(t *testing.T, b objstore.Bucket, key string, round int, cond objstore.Condition) string {
	t.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	tags, errs := make([]string, writers), make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			<-start
			body := fmt.Appendf(nil, "writer %02d round %02d", w, round)
			tags[w], errs[w] = b.Put(t.Context(), key, body, cond)
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for w, err := range errs {
		if err != nil {
			require.ErrorIs(t, err, objstore.ErrPrecondition)
			continue
		}
		require.Equal(t, -1, winner, "round %d: two writers won", round)
		winner = w
	}
	require.NotEqual(t, -1, winner, "round %d: nobody won", round)
	body, info, err := b.Get(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("writer %02d round %02d", winner, round), string(body))
	require.Equal(t, tags[winner], info.ETag)
	return info.ETag
}

// A store that checks before it writes lets two creators win (O2).
func testRaceCreate(t *testing.T, b objstore.Bucket) {
	for round := range rounds {
		race(t, b, fmt.Sprintf("race/%d", round), round, objstore.Condition{Absent: true})
	}
}

// The same for replacing, each round on top of the winner of the last.
func testRaceReplace(t *testing.T, b objstore.Bucket) {
	tag := put(t, b, "race", "begin")
	for round := range rounds {
		tag = race(t, b, "race", round, objstore.Condition{ETag: tag})
	}
}

// Two contents of one length written within one tick of a clock must not share a tag.
func testTags(t *testing.T, b objstore.Bucket) {
	seen := make(map[string]int)
	for i := range 50 {
		tag := put(t, b, "tag", fmt.Sprintf("%04d", i))
		require.NotContains(t, seen, tag)
		seen[tag] = i
	}
}

// A range must be exact or an error (O3).
func testRanges(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	body := strings.Repeat("0123456789", 1000)
	put(t, b, "r", body)
	for _, r := range [][2]int64{{0, 1}, {0, 10000}, {9999, 1}, {5, 64}, {10000, 0}} {
		got, err := b.GetRange(ctx, "r", r[0], r[1])
		require.NoError(t, err, "%v", r)
		require.Equal(t, body[r[0]:r[0]+r[1]], string(got))
	}
	for _, r := range [][2]int64{{0, 10001}, {9999, 2}, {10001, 0}, {10001, 1}, {-1, 2}, {1, -1},
		{1 << 62, 1 << 62}} {
		_, err := b.GetRange(ctx, "r", r[0], r[1])
		require.ErrorIs(t, err, objstore.ErrRefused, "%v", r)
	}
}

// Deleting must take what is there and not mind what is not.
func testDelete(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	put(t, b, "d/1", "x")
	put(t, b, "d/2", "x")
	put(t, b, "d/3", "x")
	require.NoError(t, b.Delete(ctx))
	require.NoError(t, b.Delete(ctx, "d/1", "d/none", "none/none", "d/3"))
	require.NoError(t, b.Delete(ctx, "d/1"))
	require.Equal(t, []string{"d/2"}, list(t, b, ""))
}

func list(t *testing.T, b objstore.Bucket, prefix string) (keys []string) {
	t.Helper()
	require.NoError(t, b.List(t.Context(), prefix, func(i objstore.Info) bool {
		keys = append(keys, i.Key)
		return true
	}))
	return keys
}

// Lists must be complete, in byte order of the whole key, and cut by any prefix: '-' and '.' sort
// before '/', which trips walks of directories.
func testList(t *testing.T, b objstore.Bucket) {
	keys := []string{"a", "b/a", "b-a/x", "b.a/x", "b/b/c", "b/b-c", "b0", "c/d/e/f", "c/d/e.f",
		"c/de"}
	for i, key := range keys {
		put(t, b, key, strings.Repeat("x", i))
	}
	sorted := slices.Sorted(slices.Values(keys))
	require.Equal(t, sorted, list(t, b, ""))
	for _, prefix := range []string{"b", "b/", "b/b", "b/b/", "c/d", "c/d/", "c/d/e/f", "z", "z/z",
		"b-"} {
		var want []string
		for _, key := range sorted {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		require.Equal(t, want, list(t, b, prefix), "prefix %q", prefix)
	}
	n := 0
	require.NoError(t, b.List(t.Context(), "", func(i objstore.Info) bool {
		n++
		require.EqualValues(t, slices.Index(keys, i.Key), i.Size)
		require.False(t, i.Modified.IsZero())
		if i.ETag != "" {
			_, info, err := b.Get(t.Context(), i.Key)
			require.NoError(t, err)
			require.Equal(t, info.ETag, i.ETag)
		}
		return n < 3
	}))
	require.Equal(t, 3, n, "List went on after false")
}

// A key that could leave the bucket, or that stores treat differently, must be refused by all.
func testKeys(t *testing.T, b objstore.Bucket) {
	ctx := t.Context()
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/.", ".tmp/a", "A", "a b",
		"a\x00", "ä", `a\b`, strings.Repeat("a", objstore.MaxKeyBytes+1)} {
		_, err := b.Put(ctx, key, nil, objstore.Condition{})
		require.ErrorIs(t, err, objstore.ErrRefused, "%q", key)
		_, _, err = b.Get(ctx, key)
		require.ErrorIs(t, err, objstore.ErrRefused, "%q", key)
		_, err = b.GetRange(ctx, key, 0, 0)
		require.ErrorIs(t, err, objstore.ErrRefused, "%q", key)
		require.ErrorIs(t, b.Delete(ctx, key), objstore.ErrRefused, "%q", key)
	}
	require.Empty(t, list(t, b, ""))
}

// A call with a ctx that is done must fail and change nothing.
func testCancelled(t *testing.T, b objstore.Bucket) {
	put(t, b, "c", "before")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Put(ctx, "c", []byte("after"), objstore.Condition{})
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = b.Get(ctx, "c")
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.GetRange(ctx, "c", 0, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, b.Delete(ctx, "c"), context.Canceled)
	err = b.List(ctx, "", func(objstore.Info) bool { return true })
	require.ErrorIs(t, err, context.Canceled)
	body, _, err := b.Get(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, "before", string(body))
}

// A reader must never see half of an object or a mix of two, nor a gap between them.
func testAtomic(t *testing.T, b objstore.Bucket) {
	const size = 200_000
	bodyOf := func(i int) []byte { return bytes.Repeat([]byte{'a' + byte(i%26)}, size) }
	put(t, b, "w", string(bodyOf(0)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			body, info, err := b.Get(t.Context(), "w")
			if err == nil && (len(body) != size || info.Size != size ||
				!bytes.Equal(body, bytes.Repeat(body[:1], size))) {
				err = errors.New("a mix of two objects")
			}
			if err != nil {
				readErr = err
				return
			}
		}
	})
	for i := range 30 {
		put(t, b, "w", string(bodyOf(i)))
	}
	close(done)
	wg.Wait()
	require.NoError(t, readErr)
}
