// SPDX-License-Identifier: Apache-2.0

package position

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// The stored form of a position is in manifests for years: another reading of it would skip records,
// or read all of them again.
func TestStoredForm(t *testing.T) {
	for next, want := range map[int64][]byte{
		0: {1, 0}, 1: {1, 2}, -1: {1, 1}, 300: {1, 0xd8, 4},
		1<<63 - 1: {1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		require.Equal(t, want, Append(nil, next))
		got, err := Parse(want)
		require.NoError(t, err)
		require.Equal(t, next, got)
	}
	for _, bad := range [][]byte{nil, {}, {1}, {2, 0}, {1, 0, 0}, {1, 0x80}} {
		_, err := Parse(bad)
		require.ErrorIs(t, err, delay.ErrCorrupt, "%v", bad)
	}
}

// Bytes of a damaged manifest must not stop the process, and what is read must be what is written.
func FuzzParse(f *testing.F) {
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		next, err := Parse(b)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		again, err := Parse(Append(nil, next))
		require.NoError(t, err)
		require.Equal(t, next, again)
	})
}

const name = "kafka:main/t/0"

// Notes may be joined, never split or lost: the last one says how far was read, and none may be safe
// before all that came before it are. While a bucket is away for days they must not fill the memory.
func TestNotesAreBounded(t *testing.T) {
	var n Notes
	start := delay.Due(1_700_000_000_000)
	high := delay.Key{Due: start, Seq: 9}
	for i := range int64(100_000) {
		note := Note{Next: i, Since: start.Add(time.Duration(i) * 100 * time.Millisecond)}
		note.Seq, note.Outbox = delay.Seq(i), uint64(i)
		if i == 5 {
			note.Short = high
		}
		n.Add(name, note)
		list := n[name]
		require.Less(t, len(list), noteMost)
		require.Equal(t, i, list[len(list)-1].Next)
		if i >= 5 {
			require.Equal(t, high, list[len(list)-1].Short, "what is below waits for it too")
		}
	}
	for i, list := 1, n[name]; i < len(list); i++ {
		require.Less(t, list[i-1].Next, list[i].Next)
		require.Less(t, list[i-1].Seq, list[i].Seq)
	}
}

// What is split off must be the newest safe position, and the rest must stay as it was.
func TestSplit(t *testing.T) {
	var n Notes
	for i := range int64(5) {
		n.Add(name, Note{Next: 10 * i, Since: delay.Due(10_000 * i), Seq: delay.Seq(i)})
	}
	n.Add("other", Note{Next: 3, Seq: 100})
	covered, left := n.Split(func(n *Note) bool { return n.Seq <= 2 })
	require.Equal(t, map[string][]byte{name: Append(nil, 20)}, covered)
	require.Equal(t, Notes{name: n[name][3:], "other": n["other"]}, left)
	left.Merge(Notes{name: {{Next: 50, Since: 60_000, Seq: 5}}})
	require.Len(t, left[name], 3)
	covered, left = left.Split(func(*Note) bool { return true })
	require.Equal(t, map[string][]byte{name: Append(nil, 50), "other": Append(nil, 3)}, covered)
	require.Empty(t, left)
}

// With a bucket only the manifest says what may be forgotten by a source; without one, the disk.
func TestTable(t *testing.T) {
	table := NewTable(true, map[string]int64{name: 4})
	_, ok := table.Covered(name)
	require.False(t, ok)
	require.NoError(t, table.SetCovered(map[string][]byte{name: Append(nil, 3)}))
	require.ErrorIs(t, table.SetCovered(map[string][]byte{name: {9}}), delay.ErrCorrupt)
	next, ok := table.Covered(name)
	require.True(t, ok)
	require.EqualValues(t, 3, next)
	table.SetRead(name, 3)
	next, _ = table.Read(name)
	require.EqualValues(t, 4, next, "it never moves back")
	table = NewTable(false, nil)
	_, ok = table.Covered(name)
	require.False(t, ok)
	table.SetRead(name, 0)
	next, ok = table.Covered(name)
	require.True(t, ok)
	require.Zero(t, next)
}
