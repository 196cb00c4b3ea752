// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/witness"
)

var update = flag.Bool("update", false, "write the golden store anew")

const (
	goldenDir     = "testdata/store-1"
	goldenBatches = 90
)

// goldenStore is a killed store with tables, a log and values of every kind.
func goldenStore(t *testing.T) *vfs.MemFS {
	mem := vfs.NewCrashableMem()
	w := newWorld(5)
	s := open(t, mem)
	for i := range goldenBatches {
		commit(t, s, w.step)
		if i == goldenBatches/2 {
			require.NoError(t, s.db.Flush())
		}
	}
	require.NoError(t, s.Close())
	s = open(t, mem)
	for range goldenBatches / 10 {
		commit(t, s, w.step)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	return clone
}

// contents reads the files of a store's directory, but for its lock, by name.
func contents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range filesOf(t, fs) {
		info, err := fs.Stat(path)
		require.NoError(t, err)
		if info.IsDir() || strings.HasSuffix(path, "/LOCK") {
			continue
		}
		f, err := fs.Open(path)
		require.NoError(t, err)
		data, err := io.ReadAll(io.LimitReader(f, 64<<20))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		out[strings.TrimPrefix(path, testDir+"/")] = string(data)
	}
	return out
}

// digest stands for all names and bytes of a directory.
func digest(t *testing.T, fs vfs.FS) string {
	t.Helper()
	h := sha256.New()
	files := contents(t, fs)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256([]byte(files[name]))
		h.Write([]byte(name))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// golden copies the committed store into memory.
func golden(t *testing.T) *vfs.MemFS {
	t.Helper()
	mem := vfs.NewCrashableMem()
	require.NoError(t, mem.MkdirAll(testDir+"/"+dbName, directoryMode))
	require.NoError(t, filepath.WalkDir(goldenDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, filepath.FromSlash(goldenDir)))
		f, err := mem.Create(testDir+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Close()
	}))
	return mem
}

// A store that an earlier build of the same format wrote must open and hold all it held: what the
// code of today writes and reads back by itself proves nothing of the stores of users.
func TestGoldenStore(t *testing.T) {
	if *update {
		require.NoError(t, os.RemoveAll(goldenDir))
		require.NoError(t, os.MkdirAll(filepath.Join(goldenDir, dbName), 0o755))
		files := contents(t, goldenStore(t))
		delete(files, filterName) // large, and of an earlier state: not read
		for name, data := range files {
			require.NoError(t, os.WriteFile(filepath.Join(goldenDir, name), []byte(data), 0o600))
		}
	}
	w := newWorld(5)
	scratch := open(t, vfs.NewMem())
	for range goldenBatches + goldenBatches/10 {
		b := scratch.NewBatch()
		w.step(b)
		b.Discard()
	}
	require.NoError(t, scratch.Close())
	mem := golden(t)
	for range 2 { // as it was left, and as this build leaves it
		s := open(t, mem)
		same(t, w.m, s)
		require.NoError(t, s.Close())
	}
}

// newer makes a record of the witness one of the next format.
func newer(slot []byte) {
	const sumAt = 8 + 1 + 1 + 16 + 8 + 8 + 8
	slot[8]++
	binary.BigEndian.PutUint32(slot[sumAt:],
		crc32.Checksum(slot[:sumAt], crc32.MakeTable(crc32.Castagnoli)))
}

// A program that is set back after an upgrade must refuse the store of the newer one, say which
// version it is of, and leave every byte as it is: the newer one is started again on it. The newer
// program has perhaps written only one slot of the witness.
func TestNewerStore(t *testing.T) {
	const slotSize = 4096
	for name, change := range map[string]func(data []byte){
		"both slots": func(data []byte) {
			newer(data)
			newer(data[slotSize:])
		},
		"first slot":  func(data []byte) { newer(data) },
		"second slot": func(data []byte) { newer(data[slotSize:]) },
	} {
		t.Run(name, func(t *testing.T) {
			fs := golden(t)
			rewrite(t, fs, testDir+"/"+witnessName, func(data []byte) []byte {
				change(data)
				return data
			})
			before := digest(t, fs)
			for _, readOnly := range []bool{false, true} {
				_, err := Open(fs, testDir, Options{Simulated: true, ReadOnly: readOnly})
				require.ErrorIs(t, err, ErrVersion)
				require.ErrorContains(t, err, "2, this program knows 1")
				require.NotErrorIs(t, err, delay.ErrCorrupt)
				require.Equal(t, before, digest(t, fs), "the store was changed")
			}
		})
	}
	t.Run("of Pebble", func(t *testing.T) {
		fs := golden(t)
		for _, path := range filesOf(t, fs) {
			if strings.Contains(path, "marker.format-version") {
				require.NoError(t, fs.Rename(path, path[:len(path)-3]+"999"))
			}
		}
		before := digest(t, fs)
		_, err := Open(fs, testDir, Options{Simulated: true})
		require.ErrorIs(t, err, ErrVersion)
		require.ErrorContains(t, err, "999")
		require.Equal(t, before, digest(t, fs), "the store was changed")
	})
	require.EqualValues(t, witness.Version, formatVersion)
}
