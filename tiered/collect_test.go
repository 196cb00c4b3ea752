// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// world is one tier over a bucket in memory, with a clock.
type world struct {
	t      *testing.T
	now    time.Time
	bucket *memory.Bucket
	tier   *Tier
}

func newWorld(t *testing.T, opts Options) *world {
	w := &world{t: t, now: time.UnixMilli(1_800_000_000_000)}
	w.bucket = memory.New(memory.Options{Now: func() time.Time { return w.now }})
	w.tier = w.open(w.bucket, opts)
	_, err := w.tier.Take(t.Context(), [16]byte{1}, true)
	require.NoError(t, err)
	return w
}

func (w *world) open(b objstore.Bucket, opts Options) *Tier {
	opts.Now = func() time.Time { return w.now }
	opts.RetryBase = -1
	tier, err := Open(w.t.Context(), b, opts)
	require.NoError(w.t, err)
	return tier
}

func (w *world) commit(cut Cut) State {
	w.t.Helper()
	s, err := w.tier.Commit(w.t.Context(), cut)
	require.NoError(w.t, err)
	return s
}

// keys gives the names in the bucket below the shard, without the manifest.
func (w *world) keys() (names []string) {
	require.NoError(w.t, w.bucket.List(w.t.Context(), w.tier.prefix, func(i objstore.Info) bool {
		if name := i.Key[len(w.tier.prefix):]; name != manifestKey {
			names = append(names, name)
		}
		return true
	}))
	return names
}

// upkeepAt is upkeep with a clock that stands.
func upkeepAt(now delay.Due, window time.Duration) Upkeep {
	return Upkeep{Now: func() delay.Due { return now }, DedupeWindow: window}
}

func rowsOf(from, to int) (rows []Row) {
	for i := from; i < to; i++ {
		rows = append(rows, Row{Key: key(i), Record: record(i)})
	}
	return rows
}

func markOf(i int) delay.Mark { return delay.Mark{Key: key(i), State: delay.Delivered, At: key(i).Due} }

func keptOf(i int, attempts uint32) delay.Kept {
	return delay.Kept{Key: key(i), Record: record(i), Progress: delay.Progress{Attempts: attempts}}
}

// What leaves the lists too early is lost, what never leaves is paid for for ever. The rows are the
// keys 0 to 9, one second apart; times are after the last of them.
func TestCollectDecides(t *testing.T) {
	const window = time.Hour
	last := key(9).Due
	after := func(d time.Duration) delay.Due { return last.Add(d) }
	idMark := delay.Mark{State: delay.Dead, At: last, ID: "x"}
	for _, c := range []struct {
		name                  string
		behind                bool // rows are still to be uploaded
		cuts                  []Cut
		watermark             delay.Key
		now                   delay.Due
		segments, kept, marks int
	}{
		{name: "segment behind watermark and window", cuts: []Cut{{Rows: rowsOf(0, 10)}},
			watermark: key(10), now: after(window + time.Second), segments: 1},
		{name: "segment, watermark at its last key", cuts: []Cut{{Rows: rowsOf(0, 10)}},
			watermark: key(9), now: after(window + time.Second)},
		{name: "segment within the window", cuts: []Cut{{Rows: rowsOf(0, 10)}},
			watermark: key(10), now: after(window)},
		{name: "old by age alone", cuts: []Cut{{Rows: rowsOf(0, 10)}},
			now: after(1000 * time.Hour)},
		{name: "kept without marks", cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1)}}},
			watermark: key(10), now: after(9 * time.Hour)},
		{name: "kept, every key marked", kept: 1, marks: 1,
			cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1)}},
				{Marks: []delay.Mark{markOf(1), markOf(2)}}}},
		{name: "kept, one key not marked",
			cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1)}},
				{Marks: []delay.Mark{markOf(1), markOf(3)}}}},
		{name: "kept, repeated by newer ones", kept: 1,
			cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1)}}, {Kept: []delay.Kept{keptOf(1, 2)}}}},
		{name: "kept, repeated or marked", kept: 1,
			cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1)}},
				{Kept: []delay.Kept{keptOf(1, 2)}, Marks: []delay.Mark{markOf(2)}}},
			marks: 1},
		{name: "kept, older does not cover newer",
			cuts: []Cut{{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1)}},
				{Kept: []delay.Kept{keptOf(1, 2)}}}},
		{name: "mark of a listed segment", now: after(9 * time.Hour),
			cuts: []Cut{{Rows: rowsOf(0, 10)}, {Marks: []delay.Mark{markOf(4)}}}},
		{name: "mark of a segment that goes too", now: after(9 * time.Hour), watermark: key(10),
			cuts:     []Cut{{Rows: rowsOf(0, 10)}, {Marks: []delay.Mark{markOf(4)}}},
			segments: 1, marks: 1},
		{name: "mark of a kept segment", cuts: []Cut{
			{Kept: []delay.Kept{keptOf(1, 1), keptOf(2, 1)}, Marks: []delay.Mark{markOf(1)}}}},
		{name: "mark of no object", cuts: []Cut{{Rows: rowsOf(0, 2)},
			{Marks: []delay.Mark{markOf(5)}}}, marks: 1},
		{name: "mark of a row that is still to be uploaded", behind: true,
			cuts: []Cut{{Rows: rowsOf(0, 2)}, {Marks: []delay.Mark{markOf(5)}}}},
		{name: "segment without ids behind the watermark", cuts: []Cut{{Rows: rowsOf(1, 3)}},
			watermark: key(10), segments: 1},
		{name: "outcome of an id, in the window", now: after(window),
			cuts: []Cut{{Marks: []delay.Mark{idMark}}}},
		{name: "outcome of an id, after the window", now: after(window + time.Second),
			cuts: []Cut{{Marks: []delay.Mark{idMark}}}, marks: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			for i := range c.cuts {
				c.cuts[i].Uploaded = delay.MakeSeq(1, 1000)
				if c.behind {
					c.cuts[i].Uploaded = 0
				}
				if i == len(c.cuts)-1 {
					c.cuts[i].Watermark = c.watermark
				}
				w.commit(c.cuts[i])
			}
			before, version := w.keys(), w.tier.State().Version
			u := upkeepAt(c.now, window)
			u.DryRun = true
			dry, err := w.tier.Collect(t.Context(), u)
			require.NoError(t, err)
			require.Equal(t, version, w.tier.State().Version, "a dry run wrote")
			got, err := w.tier.Collect(t.Context(), upkeepAt(c.now, window))
			require.NoError(t, err)
			require.Equal(t, dry, got)
			require.Len(t, got.Segments, c.segments)
			require.Len(t, got.Kept, c.kept)
			require.Len(t, got.Marks, c.marks)
			require.Len(t, w.tier.State().Deletes, c.segments+c.kept+c.marks)
			require.Equal(t, before, w.keys(), "deleted without grace")
		})
	}
}

// Objects must be deleted after the grace period, not before, and only once the manifest says so.
func TestCollectGrace(t *testing.T) {
	w := newWorld(t, Options{DeleteGrace: time.Hour})
	w.commit(Cut{Rows: rowsOf(0, 10), Watermark: key(10)})
	now := key(0).Due.Add(48 * time.Hour)
	collect := func(now delay.Due) Collected {
		c, err := w.tier.Collect(t.Context(), upkeepAt(now, time.Hour))
		require.NoError(t, err)
		return c
	}
	require.Len(t, collect(now).Segments, 1)
	require.Empty(t, collect(now.Add(time.Hour-time.Millisecond)).Deleted)
	require.Len(t, w.keys(), 1)
	require.Len(t, collect(now.Add(time.Hour)).Deleted, 1)
	require.Empty(t, w.keys())
	require.Empty(t, w.tier.State().Deletes)
	version := w.tier.State().Version
	require.Equal(t, Collected{}, collect(now.Add(time.Hour)))
	require.Equal(t, version, w.tier.State().Version, "nothing to say, but it wrote")
}

// The sweep must take what no manifest lists and is old by the store's clock, and nothing else:
// neither what is young, nor a later owner's, nor what it does not know. Nothing is deleted the
// first time it is seen.
func TestSweep(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, Options{})
	put := func(name string) {
		_, err := w.bucket.Put(ctx, w.tier.prefix+name, []byte("x"), objstore.Condition{})
		require.NoError(t, err)
	}
	orphan, merged := objectName(l0Folder, 1, objectID{1}), objectName(l1Folder, 1, objectID{1})
	put(orphan)
	put(merged)
	put(objectName(l0Folder, 2, objectID{1}))
	put("l0/readme.txt")
	put("other/0000001-00000000000000000000000000.seg")
	w.commit(Cut{Rows: rowsOf(0, 10)})
	w.now = w.now.Add(OrphanAge)
	young := objectName(marksFolder, 1, objectID{2})
	put(young)
	sweep := func() Swept {
		// The shard's clock is far ahead: it must not matter.
		s, err := w.tier.Sweep(ctx, upkeepAt(delay.InstantOf(w.now).Add(8000*time.Hour), time.Hour))
		require.NoError(t, err)
		return s
	}
	require.Empty(t, sweep().Orphans)
	w.commit(Cut{ClaimHorizon: 1}) // the manifest's time moves with the store's clock
	require.Empty(t, sweep().Orphans, "exactly 72 hours old")
	w.now = w.now.Add(time.Millisecond)
	w.commit(Cut{ClaimHorizon: 2})
	require.Equal(t, Swept{Orphans: []string{orphan, merged}, Bytes: 2}, sweep())
	require.Len(t, w.keys(), 7)
	require.Equal(t, Swept{Deleted: []string{orphan, merged}}, sweep())
	require.Len(t, w.keys(), 5)
	require.Contains(t, w.keys(), young)
	require.Equal(t, Swept{}, sweep())
}

// Between the list and the delete another commit may list what was an orphan in the eyes of the
// sweep. Only the manifest that is read after the list counts (T2).
func TestSweepReadsAgain(t *testing.T) {
	w, hooks := hooked(t, Options{})
	w.commit(Cut{Rows: rowsOf(0, 10)})
	name := w.tier.State().Segments[0].Name
	unlist := func(list bool) {
		require.NoError(t, w.tier.commit(t.Context(), func(base *State) (State, error) {
			next := base.Clone()
			next.Segments = nil
			if list {
				next.Segments = []SegmentInfo{{Name: name}}
			}
			return next, nil
		}))
	}
	unlist(false)
	w.now = w.now.Add(2 * OrphanAge)
	w.commit(Cut{ClaimHorizon: 1})
	u := upkeepAt(delay.InstantOf(w.now), time.Hour)
	s, err := w.tier.Sweep(t.Context(), u)
	require.NoError(t, err)
	require.Equal(t, []string{name}, s.Orphans)
	hooks.After = func(_ context.Context, c faulty.Call, err error) error {
		if c.Op == "list" {
			hooks.After = nil
			unlist(true)
		}
		return err
	}
	s, err = w.tier.Sweep(t.Context(), u)
	require.NoError(t, err)
	require.Empty(t, s.Deleted)
	require.Contains(t, w.keys(), name)
}

// A manifest that lists and deletes one object is broken; deleting would lose messages.
func TestCollectRefusesContradiction(t *testing.T) {
	w := newWorld(t, Options{})
	s := w.commit(Cut{Rows: rowsOf(0, 10)})
	err := w.tier.commit(t.Context(), func(base *State) (State, error) {
		next := base.Clone()
		next.Deletes = []PendingDelete{{Name: s.Segments[0].Name}}
		return next, nil
	})
	require.NoError(t, err)
	_, err = w.tier.Collect(t.Context(), upkeepAt(delay.InstantOf(w.now), time.Hour))
	require.ErrorIs(t, err, delay.ErrCorrupt)
	require.Len(t, w.keys(), 1)
}
