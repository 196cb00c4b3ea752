// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "write the golden file")

const name = "c-1/0/main/"

func sample() []broker.Done {
	return []broker.Done{
		{ID: "order-1", Generation: 1}, {ID: "ключ", Generation: 300},
		{ID: delay.ID(strings.Repeat("x", delay.MaxIDBytes)), Generation: 1<<32 - 1},
	}
}

// A change of the bytes may go unnoticed and make ledgers unreadable: the golden file tells.
func TestGolden(t *testing.T) {
	entry, owner := EntryKey(name, 7), OwnerKey(name)
	got := fmt.Sprintf("%s\n%s\n%s\n%s\n",
		entry, hex.EncodeToString(AppendEntry(nil, entry, 0x0102030405060708, 5, sample())),
		owner, hex.EncodeToString(AppendOwner(nil, owner, 0x0102030405060708)))
	file := filepath.Join("testdata", "ledger.golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// What was written may come back changed.
func TestRoundTrip(t *testing.T) {
	for _, done := range [][]broker.Done{{}, sample()} {
		key := EntryKey(name, 7)
		r, ours, err := Read(name, key, AppendEntry(nil, key, 9, 6, done))
		require.NoError(t, err)
		require.True(t, ours)
		require.Equal(t, Record{Number: 7, Writer: 9, Previous: 6, Done: done}, r)
	}
	key := OwnerKey(name)
	r, ours, err := Read(name, key, AppendOwner(nil, key, 9))
	require.NoError(t, err)
	require.True(t, ours)
	require.Equal(t, Record{Owner: true, Writer: 9}, r)
	r, _, err = Read(name, EntryKey(name, 3), nil)
	require.NoError(t, err)
	require.Equal(t, Record{Number: 3, Erased: true}, r)
}

// Another cluster, shard or broker may share the topic: its records must be left alone.
func TestOthers(t *testing.T) {
	for _, other := range []string{
		Name("c-2", 0, "main"), Name("c-1", 1, "main"), Name("c-1", 0, "mai"), Name("c-1", 10, "main"),
		Name("c-1", 0, "main/x"),
	} {
		_, ours, err := Read(name, EntryKey(other, 7), []byte("not even readable"))
		require.NoError(t, err)
		require.False(t, ours, other)
	}
}

// A damaged record may be taken for another one: each changed bit, cut and misplacement is found.
func TestDamage(t *testing.T) {
	key := EntryKey(name, 7)
	good := AppendEntry(nil, key, 9, 6, sample()[:2])
	for i := range good {
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << bit
			_, _, err := Read(name, key, bad)
			require.ErrorIs(t, err, delay.ErrCorrupt, "byte %d bit %d", i, bit)
		}
		_, _, err := Read(name, key, good[:i])
		require.ErrorIs(t, err, delay.ErrCorrupt, "cut at %d", i)
	}
	_, _, err := Read(name, EntryKey(name, 8), good)
	require.ErrorIs(t, err, delay.ErrCorrupt, "under another key")
	_, _, err = Read(name, []byte(name+"7"), good)
	require.ErrorIs(t, err, delay.ErrCorrupt, "a key of another form")
	_, _, err = Read(name, EntryKey(name, 6), AppendEntry(nil, EntryKey(name, 6), 9, 6, nil))
	require.ErrorIs(t, err, delay.ErrCorrupt, "it follows itself")
	_, _, err = Read(name, EntryKey(name, 0), nil)
	require.ErrorIs(t, err, delay.ErrCorrupt, "there is no entry 0")
}

// Whatever a broker hands out must neither panic nor be taken for more than it is.
func FuzzRead(f *testing.F) {
	key := EntryKey(name, 7)
	f.Add(key, AppendEntry(nil, key, 9, 6, sample()))
	f.Add(OwnerKey(name), AppendOwner(nil, OwnerKey(name), 9))
	f.Add(key, []byte(nil))
	f.Add([]byte(name), []byte{Version})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, ours, err := Read(name, key, value)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		if !ours || r.Erased || r.Owner {
			return
		}
		again, _, err := Read(name, key, AppendEntry(nil, key, r.Writer, r.Previous, r.Done))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
