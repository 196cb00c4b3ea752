// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// small makes a compaction of three segments or more.
var small = CompactLimits{Objects: 2, Overlap: 2, TargetBytes: 64 << 10, LeastBytes: 4 << 10}

func smallAt(now delay.Due) Upkeep {
	u := upkeepAt(now, time.Hour)
	u.Limits = small
	return u
}

func (w *world) compact(u Upkeep) Compacted {
	w.t.Helper()
	c, err := w.tier.Compact(w.t.Context(), u)
	require.NoError(w.t, err)
	return c
}

// scanned gives the keys of the segments, by their number.
func (w *world) scanned() (found []int) {
	require.NoError(w.t, w.tier.Scan(w.t.Context(), delay.Key{}, delay.MaxKey,
		func(k delay.Key, rec []byte) bool {
			i := int(k.Seq.Counter()) - 1
			require.Equal(w.t, key(i), k)
			require.Equal(w.t, record(i), rec)
			found = append(found, i)
			return true
		}))
	return found
}

func upTo(n int, without ...int) (all []int) {
	for i := range n {
		if !slices.Contains(without, i) {
			all = append(all, i)
		}
	}
	return all
}

// fill commits n messages in four cuts, each over the whole range.
func (w *world) fill(n int) {
	for part := range 4 {
		var rows []Row
		for i := part; i < n; i += 4 {
			rows = append(rows, Row{Key: key(i), Record: record(i)})
		}
		w.commit(Cut{Rows: rows, Uploaded: delay.MakeSeq(1, uint64(n))})
	}
}

// Level 0 becomes sorted, disjoint segments that hold the same messages, and the inputs wait for
// their deletion in the very commit that lists the outputs (T8).
func TestCompactFresh(t *testing.T) {
	w := newWorld(t, Options{DeleteGrace: time.Hour})
	w.fill(2000)
	before := w.tier.State()
	now := key(0).Due - 1000
	u := smallAt(now)
	u.Limits.TargetBytes = 16 << 10
	c := w.compact(u)
	require.Equal(t, "fresh", c.Job)
	require.Equal(t, 4, c.Inputs)
	require.Greater(t, c.Outputs, 1)
	require.Zero(t, c.Dropped)
	s := w.tier.State()
	require.Equal(t, before.Version+1, s.Version)
	require.Len(t, s.Deletes, 4)
	for i, d := range s.Deletes {
		require.Equal(t, PendingDelete{Name: before.Segments[i].Name, NotBefore: now.Add(time.Hour)}, d)
	}
	for i, x := range s.Segments {
		require.EqualValues(t, 1, x.Level)
		require.True(t, strings.HasPrefix(x.Name, l1Folder), x.Name)
		require.LessOrEqual(t, x.Stored, int64(32<<10))
		if i > 0 {
			require.True(t, s.Segments[i-1].Last.Less(x.First), "outputs overlap")
		}
	}
	require.Equal(t, upTo(2000), w.scanned())
	require.Equal(t, "none", w.compact(u).Job)
	require.Len(t, w.keys(), 4+len(s.Segments))
	report, err := w.tier.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, report.Problems)
}

// Near days get segments of their own, years of a few messages share one.
func TestCompactCutsDays(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t, Options{})
	var rows [3][]Row
	n := uint64(0)
	for d := range 100 { // 300 messages on each of the first three days, then one a day
		for i := range 300 {
			if d >= 3 && i > 0 {
				break
			}
			n++
			k := delay.Key{
				Due: key(0).Due.Add(time.Duration(d)*day + time.Duration(i)*time.Second),
				Seq: delay.MakeSeq(1, n),
			}
			rows[n%3] = append(rows[n%3], Row{Key: k, Record: record(int(n))})
		}
	}
	for _, part := range rows {
		w.commit(Cut{Rows: part})
	}
	u := smallAt(0)
	u.Limits.LeastBytes = 16 << 10
	require.Equal(t, "fresh", w.compact(u).Job)
	var days []string
	for _, s := range w.tier.State().Segments {
		days = append(days, s.First.Due.String()[5:10]+" "+s.Last.Due.String()[5:10])
	}
	require.Equal(t, []string{"01-15 01-15", "01-16 01-16", "01-17 01-17", "01-18 04-24"}, days)
}

// What may be left out, and above all what may not. The records 0, 3, 6 ... have an id of their
// client. Cites U1, R6 and R14.
func TestCompactLeavesOut(t *testing.T) {
	now := key(50).Due
	named := markOf(6)
	named.ID, named.Identity = "client-6", delay.Identity{Key: key(6), Generation: 1}
	named.At = now
	moved := delay.Mark{Key: key(9), Forward: key(77), At: now}
	at := func(i int, at delay.Due) delay.Mark {
		return delay.Mark{Key: key(i), State: delay.Cancelled, At: at}
	}
	for _, c := range []struct {
		name      string
		marks     []delay.Mark
		watermark int
		window    time.Duration
		gone      []int
	}{
		{name: "nothing"},
		{name: "marked", marks: []delay.Mark{at(1, now), at(2, now)}, gone: []int{1, 2}},
		{name: "marked, with an id whose outcome is nowhere else", marks: []delay.Mark{at(3, now)}},
		{name: "the same, window over", marks: []delay.Mark{at(3, now.Add(-time.Hour-2*time.Millisecond))},
			gone: []int{3}},
		{name: "marked, outcome in the mark", marks: []delay.Mark{named}, gone: []int{6}},
		{name: "moved, id with it", marks: []delay.Mark{moved}, gone: []int{9}},
		{name: "behind the watermark, with ids in the window", watermark: 5, gone: []int{1, 2, 4}},
		{name: "behind the watermark, window over", watermark: 5, window: time.Second,
			gone: []int{0, 1, 2, 3, 4}},
		{name: "old, not behind the watermark", window: time.Nanosecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.fill(20)
			cut := Cut{Marks: c.marks, Uploaded: delay.MakeSeq(1, 100)}
			if c.watermark > 0 {
				cut.Watermark = key(c.watermark)
			}
			w.commit(cut)
			u := smallAt(now)
			if c.window > 0 {
				u.DedupeWindow = c.window
			}
			require.EqualValues(t, len(c.gone), w.compact(u).Dropped)
			require.Equal(t, upTo(20, c.gone...), w.scanned())
			_, err := w.tier.Collect(t.Context(), u)
			require.NoError(t, err)
			require.Len(t, w.tier.State().Marks, min(1, len(c.marks)), "retired by a compaction")
		})
	}
}

// Everything left out: the inputs go and nothing takes their place.
func TestCompactToNothing(t *testing.T) {
	w := newWorld(t, Options{})
	w.fill(20)
	w.commit(Cut{Watermark: key(100)})
	c := w.compact(smallAt(key(100).Due.Add(2 * time.Hour)))
	require.Positive(t, c.Read)
	c.Read = 0
	require.Equal(t, Compacted{Job: "fresh", Inputs: 4, Dropped: 20}, c)
	require.Empty(t, w.tier.State().Segments)
	require.Len(t, w.tier.State().Deletes, 4)
}

// A segment most of which is marked is rewritten once, not again and again; one of which little is
// marked is not.
func TestCompactRewrites(t *testing.T) {
	w := newWorld(t, Options{})
	w.fill(1000)
	u := smallAt(key(0).Due - 1)
	require.Equal(t, "fresh", w.compact(u).Job)
	var marks []delay.Mark
	for i := range 800 {
		if i%3 != 0 {
			marks = append(marks, markOf(i))
		}
	}
	uploaded := delay.MakeSeq(1, 1000)
	w.commit(Cut{Marks: marks[:100], Uploaded: uploaded})
	require.Equal(t, "none", w.compact(u).Job)
	w.commit(Cut{Marks: marks[100:], Uploaded: uploaded})
	c := w.compact(u)
	require.Equal(t, "rewrite", c.Job)
	require.EqualValues(t, len(marks), c.Dropped)
	require.Equal(t, 1, c.Outputs)
	require.Equal(t, "none", w.compact(u).Job)
	// Another process knows nothing of it: it looks once, and writes nothing.
	other := w.open(w.bucket, Options{})
	_, err := other.Take(t.Context(), [16]byte{2}, false)
	require.NoError(t, err)
	w.tier = other
	version := other.State().Version
	require.Equal(t, "none", w.compact(u).Job)
	require.Equal(t, "none", w.compact(u).Job)
	require.Equal(t, version, other.State().Version)
}

// Kept segments are merged as neighbours: of a message that was uploaded several times the newest
// is given before and after. A finished one goes.
func TestCompactKept(t *testing.T) {
	w := newWorld(t, Options{})
	for n := range 6 {
		w.commit(Cut{Kept: []delay.Kept{keptOf(1, uint32(n+1)), keptOf(10+n, 1)}})
	}
	w.commit(Cut{Marks: []delay.Mark{markOf(11)}})
	c := w.compact(smallAt(key(0).Due))
	require.Equal(t, "kept", c.Job)
	require.Equal(t, 6, c.Inputs)
	require.EqualValues(t, 1, c.Dropped)
	w.commit(Cut{Kept: []delay.Kept{keptOf(1, 7)}})
	got := map[delay.Key]uint32{}
	require.NoError(t, w.tier.ScanKept(t.Context(), func(k delay.Kept) bool {
		got[k.Key] = k.Progress.Attempts
		return true
	}))
	want := map[delay.Key]uint32{key(1): 7}
	for _, n := range []int{0, 2, 3, 4, 5} {
		want[key(10+n)] = 1
	}
	require.Equal(t, want, got)
}

// Small marks objects become one, sorted, without those that nothing can need.
func TestCompactMarks(t *testing.T) {
	w := newWorld(t, Options{})
	w.fill(20)
	uploaded := delay.MakeSeq(1, 30)
	idOnly := delay.Mark{State: delay.Dead, At: key(0).Due, ID: "x"}
	for _, i := range []int{7, 3, 25, 40} { // 25: no segment holds it; 40: it may still be uploaded
		w.commit(Cut{Marks: []delay.Mark{idOnly, markOf(i)}, Uploaded: uploaded})
	}
	u := smallAt(key(0).Due)
	u.Limits.Objects = 3
	require.Equal(t, "fresh", w.compact(u).Job)
	c := w.compact(u)
	require.Equal(t, "marks", c.Job)
	require.Equal(t, 1, c.Outputs)
	var got []delay.Mark
	require.NoError(t, w.tier.ScanMarks(t.Context(), func(m delay.Mark) bool {
		got = append(got, m)
		return true
	}))
	require.Equal(t, []delay.Mark{idOnly, markOf(3), markOf(7), markOf(40)}, got)
}

// What happens between the merge and its commit decides whether it counts: a flush does not matter,
// an input that went or a new owner does, and a merge that is an hour old is not committed.
func TestCompactOvertaken(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w *world)
		err  error
		job  string
	}{
		{"flush", func(w *world) { w.commit(Cut{Rows: rowsOf(100, 101)}) }, nil, "fresh"},
		{"input gone", func(w *world) {
			require.NoError(w.t, w.tier.commit(w.t.Context(), func(base *State) (State, error) {
				next := base.Clone()
				next.Segments = next.Segments[1:]
				return next, nil
			}))
		}, nil, "none"},
		{"too late", func(w *world) { w.now = w.now.Add(commitWithin + 1) }, nil, "none"},
		{"another owner", func(w *world) {
			_, err := w.open(w.bucket, Options{}).Take(w.t.Context(), [16]byte{9}, false)
			require.NoError(w.t, err)
		}, delay.ErrFenced, "none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.fill(20)
			u := smallAt(key(0).Due)
			u.Around = func(ctx context.Context, do func(context.Context) error) error {
				c.do(w)
				return do(ctx)
			}
			done, err := w.tier.Compact(t.Context(), u)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.job, done.Job)
			if c.job == "none" {
				require.Empty(t, w.tier.State().Deletes)
			} else {
				require.Equal(t, append(upTo(20), 100), w.scanned())
			}
		})
	}
}

// The process dies, or the answer is lost, at each single request of a compaction: what is listed
// exists, and every message is there once (T2, T6, T8).
func TestCompactCrashes(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for at := 1; ; at++ {
			var died atomic.Bool // readers of a merge ask at the same time
			t.Run(fmt.Sprintf("lost=%v at %d", lost, at), func(t *testing.T) {
				w, hooks := hooked(t, Options{Attempts: 1})
				w.fill(300)
				var marks []delay.Mark
				for i := range 40 {
					marks = append(marks, markOf(i))
				}
				w.commit(Cut{Marks: marks, Uploaded: delay.MakeSeq(1, 300)})
				var calls atomic.Int64
				fail := func() error {
					if calls.Add(1) >= int64(at) {
						died.Store(true)
						return errLost
					}
					return nil
				}
				if lost {
					hooks.After = func(_ context.Context, _ faulty.Call, err error) error {
						if e := fail(); e != nil {
							return e
						}
						return err
					}
				} else {
					hooks.Before = func(context.Context, faulty.Call) error { return fail() }
				}
				u := smallAt(key(0).Due)
				u.Limits.TargetBytes = 4 << 10
				_, err := w.tier.Compact(t.Context(), u)
				require.Equal(t, died.Load(), err != nil)
				*hooks = faulty.Options{}
				next := w.open(w.bucket, Options{})
				_, err = next.Load(t.Context())
				require.NoError(t, err)
				w.tier = next
				listed := next.State()
				for name := range listed.Names(true) {
					require.Contains(t, w.keys(), name)
				}
				found := w.scanned()
				for _, i := range upTo(300) {
					if i >= 40 || i%3 == 0 {
						require.Contains(t, found, i)
					}
				}
				require.Len(t, listed.Marks, 1)
			})
			if !died.Load() || t.Failed() {
				break
			}
		}
	}
}

// BenchmarkCompact merges 17 segments of level 0 that all cover the same days, a tenth of it marked.
func BenchmarkCompact(b *testing.B) {
	const n, parts = 170_000, 17
	body := func(i int) []byte {
		m := delay.Message{
			Target: "pull:orders", Due: 1_800_000_000_000, AcceptedAt: 1_790_000_000_000,
			Body: fmt.Appendf(nil, `{"order":%d,"customer":"%08x","items":[{"sku":"%06d","qty":%d}],`+
				`"state":"waiting","note":"please deliver in the morning, ring twice","total":"%d.00"}`,
				i, uint32(i)*2654435761, i%5000, i%7, i*7%1000),
		}
		return delay.AppendRecord(nil, &m)
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		bucket := memory.New(memory.Options{})
		tier, err := Open(b.Context(), bucket, Options{})
		require.NoError(b, err)
		_, err = tier.Take(b.Context(), [16]byte{1}, true)
		require.NoError(b, err)
		bytes := 0
		for part := range parts {
			var cut Cut
			for i := part; i < n; i += parts {
				cut.Rows = append(cut.Rows, Row{Key: key(i), Record: body(i)})
				bytes += len(cut.Rows[len(cut.Rows)-1].Record)
				if i%10 == 0 {
					cut.Marks = append(cut.Marks, markOf(i))
				}
			}
			_, err := tier.Commit(b.Context(), cut)
			require.NoError(b, err)
		}
		b.SetBytes(int64(bytes))
		b.StartTimer()
		c, err := tier.Compact(b.Context(), upkeepAt(0, time.Hour))
		require.NoError(b, err)
		require.Equal(b, parts, c.Inputs)
	}
}
