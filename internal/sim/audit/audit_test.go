// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// bench is an audited bucket with a tier that has uploaded one segment, and what was complained of.
type bench struct {
	*Bucket
	now   time.Time
	tier  *tiered.Tier
	wrong string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{now: time.UnixMilli(1_800_000_000_000)}
	b.Bucket = New(memory.New(memory.Options{Now: func() time.Time { return b.now }}), Options{
		Now: func() time.Time { return b.now }, Grace: time.Hour, OrphanAge: 72 * time.Hour,
		Window: time.Hour, IDs: delay.NewIDMaker("c"),
		Fail:      func(format string, args ...any) { b.wrong += fmt.Sprintf(format, args...) },
		Committed: func(_, _ *manifest.State) {},
	})
	var err error
	b.tier, err = tiered.Open(t.Context(), b.Bucket, tiered.Options{
		ClusterID: "c", RetryBase: -1, Now: func() time.Time { return b.now },
	})
	require.NoError(t, err)
	_, err = b.tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	key := delay.Key{Due: delay.InstantOf(b.now), Seq: delay.MakeSeq(1, 1)}
	m := delay.Message{Target: "log:", Due: key.Due, Body: []byte("x"), ID: "named"}
	_, err = b.tier.Commit(t.Context(), tiered.Cut{
		Rows: []tiered.Row{{Key: key, Record: delay.AppendRecord(nil, &m)}},
	})
	require.NoError(t, err)
	require.Empty(t, b.wrong)
	return b
}

// next stores the manifest that change makes of the current one.
func (b *bench) next(t *testing.T, change func(s *manifest.State)) {
	t.Helper()
	s := b.state.Clone()
	s.Version++
	change(&s)
	_, err := b.Put(t.Context(), b.prefix+"manifest", manifest.Encode(codec.NewZstd(), &s),
		objstore.Condition{})
	require.NoError(t, err)
}

// An auditor that never speaks proves nothing: each rule is broken once.
func TestComplains(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(t *testing.T, b *bench)
		want string
	}{
		"version": {func(t *testing.T, b *bench) {
			b.next(t, func(s *manifest.State) { s.Version++ })
		}, "follows"},
		"epoch": {func(t *testing.T, b *bench) {
			b.next(t, func(s *manifest.State) { s.Nonce[0]++ })
		}, "another nonce"},
		"again": {func(t *testing.T, b *bench) {
			require.NoError(t, b.Vanish(t.Context()))
			b.next(t, func(*manifest.State) {})
		}, "created again"},
		"missing": {func(t *testing.T, b *bench) {
			b.next(t, func(s *manifest.State) {
				s.Segments = append(s.Segments, manifest.SegmentInfo{Name: "l0/none"})
			})
		}, "lists l0/none"},
		"dropped": {func(t *testing.T, b *bench) {
			b.next(t, func(s *manifest.State) { s.Segments = nil })
		}, "has no mark"},
		"dropped id": {func(t *testing.T, b *bench) {
			b.next(t, func(s *manifest.State) {
				s.Watermark, s.Segments = delay.MaxKey, nil
			})
		}, "within the window of its id"},
		"listed": {func(t *testing.T, b *bench) {
			name := b.State().Segments[0].Name
			require.NoError(t, b.Delete(t.Context(), b.prefix+name))
		}, "lists it"},
		"grace": {func(t *testing.T, b *bench) {
			name := b.State().Segments[0].Name
			b.next(t, func(s *manifest.State) {
				s.WrittenAt, s.Segments = delay.InstantOf(b.now), nil
			})
			b.wrong, b.now = "", b.now.Add(time.Minute)
			require.NoError(t, b.Delete(t.Context(), b.prefix+name))
		}, "after it left the lists"},
		"orphan": {func(t *testing.T, b *bench) {
			_, err := b.Put(t.Context(), b.prefix+"l0/x", nil, objstore.Condition{})
			require.NoError(t, err)
			require.NoError(t, b.Delete(t.Context(), b.prefix+"l0/x"))
		}, "as an orphan"},
		"manifest": {func(t *testing.T, b *bench) {
			require.NoError(t, b.Delete(t.Context(), b.prefix+"manifest"))
		}, "is deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.do(t, b)
			require.Contains(t, b.wrong, c.want)
		})
	}
}

// What would come back is what is listed, above the watermark and not marked.
func TestPending(t *testing.T) {
	b := newBench(t)
	count := func() (n int) {
		b.Pending(func(delay.Key, []byte) { n++ })
		return n
	}
	require.Equal(t, 1, count())
	b.next(t, func(s *manifest.State) {
		s.Predicates = []delay.Predicate{{Seq: delay.MakeSeq(1, 9)}}
	})
	require.Zero(t, count(), "covered by a bulk cancel")
	b.next(t, func(s *manifest.State) { s.Predicates, s.Watermark = nil, delay.MaxKey })
	require.Zero(t, count())
	require.Empty(t, b.wrong)
}

// A process that is cut off reaches nothing, and one that deletes must have looked.
func TestLink(t *testing.T) {
	b := newBench(t)
	saw, read := false, 0
	l := &Link{
		Bucket: b, Read: func(*manifest.State) { read++ }, Saw: func() bool { return saw },
		Part: func(n int) int { return n },
		Fail: func(format string, args ...any) { b.wrong = fmt.Sprintf(format, args...) },
	}
	require.NoError(t, l.Delete(t.Context(), b.prefix+"l0/y"))
	require.Contains(t, b.wrong, "not read after the decision")
	_, _, err := l.Get(t.Context(), b.prefix+"manifest")
	require.NoError(t, err)
	require.Equal(t, 1, read)
	b.wrong = ""
	require.NoError(t, l.Delete(t.Context(), b.prefix+"l0/y"))
	require.Empty(t, b.wrong)
	saw = true
	require.NoError(t, l.Delete(t.Context(), b.prefix+"l0/y"))
	require.Contains(t, b.wrong, "has seen that it was replaced")
	l.Cut = true
	_, _, err = l.Get(t.Context(), "k")
	require.ErrorIs(t, err, ErrCut)
	_, err = l.Put(t.Context(), "k", nil, objstore.Condition{})
	require.ErrorIs(t, err, ErrCut)
}
