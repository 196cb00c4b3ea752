// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
)

// damage is one way a disk loses or changes a file.
type damage struct {
	name string
	do   func(rng *rand.Rand, data []byte) []byte // nil result: the file is gone
}

var damages = []damage{
	{"flip", func(rng *rand.Rand, data []byte) []byte {
		if len(data) > 0 {
			data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
		}
		return data
	}},
	{"flip at the end", func(rng *rand.Rand, data []byte) []byte {
		if n := len(data); n > 0 {
			data[n-1-rng.IntN(min(n, 1000))] ^= 1 << rng.IntN(8)
		}
		return data
	}},
	{"halve", func(_ *rand.Rand, data []byte) []byte { return data[:len(data)/2] }},
	{"cut", func(rng *rand.Rand, data []byte) []byte { return data[:rng.IntN(len(data)+1)] }},
	{"empty", func(*rand.Rand, []byte) []byte { return []byte{} }},
	{"zeros", func(rng *rand.Rand, data []byte) []byte {
		if len(data) > 0 {
			from := rng.IntN(len(data))
			clear(data[from:min(len(data), from+4096)])
		}
		return data
	}},
	{"delete", func(*rand.Rand, []byte) []byte { return nil }},
}

// kinds of files, by a part of their name.
var damagedKinds = []string{
	".log", ".sst", "MANIFEST-", "OPTIONS-", "marker.manifest", "marker.format", "witness", "ids",
}

// victims builds a store with tables, a log and a filter, that was killed a second after its last
// acknowledgement, and returns it with all rows it must have.
func victims(t *testing.T) (*vfs.MemFS, map[delay.Key]string) {
	rows := map[delay.Key]string{}
	mem := vfs.NewCrashableMem()
	large := func(o *Options) { o.MemTableBytes = 8 << 20 }
	s := open(t, mem, large)
	put := func(from, n uint64) {
		for i := from; i < from+n; i++ {
			commit(t, s, func(b *Batch) {
				for j := range uint64(4) {
					k := key(delay.Due(1_800_000_000_000+int64(i*7919%1000)*60_000), 4*i+j)
					rec := record("log:", k.Due, strings.Repeat(fmt.Sprint(i), 40))
					b.PutRow(k, rec)
					rows[k] = string(rec)
				}
				b.PutID(fmt.Sprint("id-", i), IDRecord{})
			})
		}
	}
	put(0, 300)
	require.NoError(t, s.db.Flush())
	require.NoError(t, s.Close())
	s = open(t, mem, large)
	put(300, 300)
	time.Sleep(time.Second) // of the bubble: the witness follows
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	return clone, rows
}

// copyMem copies a memory file system.
func copyMem(from *vfs.MemFS) *vfs.MemFS { return from.CrashClone(vfs.CrashCloneCfg{}) }

func filesOf(t *testing.T, fs vfs.FS) []string {
	var out []string
	for _, dir := range []string{testDir, testDir + "/db"} {
		names, err := fs.List(dir)
		require.NoError(t, err)
		for _, name := range names {
			out = append(out, dir+"/"+name)
		}
	}
	return out
}

func rewrite(t *testing.T, fs vfs.FS, path string, change func([]byte) []byte) {
	f, err := fs.Open(path)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	data := make([]byte, info.Size())
	if len(data) > 0 {
		_, err = f.ReadAt(data, 0)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	data = change(data)
	require.NoError(t, fs.Remove(path))
	if data == nil {
		return
	}
	f, err = fs.Create(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// victim is the newest file of a kind, which is in use, or now and then any other.
func victim(rng *rand.Rand, files []string, kind string, trial int) string {
	var of []string
	for _, f := range files {
		if strings.Contains(f, kind) {
			of = append(of, f)
		}
	}
	if len(of) == 0 {
		return ""
	}
	slices.Sort(of)
	if trial%3 == 2 {
		return of[rng.IntN(len(of))]
	}
	return of[len(of)-1]
}

// verdict of one damaged store.
const (
	refused  = "refused"
	detected = "detected on read"
	harmless = "harmless"
	silent   = "SILENT LOSS"
)

func examine(fs vfs.FS, rows map[delay.Key]string) (verdict string, detail error) {
	s, err := Open(fs, testDir, Options{Simulated: true, Fatal: func(error) {}})
	if err != nil {
		return refused, err
	}
	found := map[delay.Key]string{}
	err = s.ScanRows(delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		found[k] = string(rec)
		return true
	})
	for id := range 600 {
		_, ok, idErr := s.LookupID(fmt.Sprint("id-", id))
		if err = errors.Join(err, idErr); !ok && idErr == nil {
			return silent, fmt.Errorf("id-%d: %w", id, s.Close())
		}
	}
	closeErr := s.Close()
	for k, rec := range found {
		if rows[k] != rec {
			return silent, fmt.Errorf("row %s is another", k)
		}
	}
	switch {
	case err != nil:
		return detected, errors.Join(err, closeErr)
	case len(found) != len(rows):
		return silent, fmt.Errorf("%d of %d rows", len(found), len(rows))
	}
	return harmless, closeErr
}

// One damaged file must never lose acknowledged messages without a word (L2, L6): the store
// refuses to open, or a read fails, or nothing is missing.
func TestDamage(t *testing.T) {
	const trials = 3
	results := map[string]map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		clone, rows := victims(t)
		verdict, err := examine(copyMem(clone), rows)
		require.NoError(t, err)
		require.Equal(t, harmless, verdict)
		files := filesOf(t, clone)
		rng := rand.New(rand.NewPCG(1, 3))
		for _, kind := range damagedKinds {
			for _, d := range damages {
				name := kind + " " + d.name
				results[name] = map[string]int{}
				for trial := range trials {
					fs := copyMem(clone)
					path := victim(rng, files, kind, trial)
					require.NotEmpty(t, path, "no file of kind %s", kind)
					rewrite(t, fs, path, func(b []byte) []byte { return d.do(rng, b) })
					verdict, err := examine(fs, rows)
					results[name][verdict]++
					require.NotEqual(t, silent, verdict, "%s: %v", name, err)
				}
			}
		}
	})
	for _, kind := range damagedKinds {
		for _, d := range damages {
			t.Logf("%-16s %-16s %v", kind, d.name, results[kind+" "+d.name])
		}
	}
}

// The log of a store's first life must tell damage from its end by itself, before the witness has
// followed: a log begun in an older format would lose up to 73 % of it without a word (L6).
func TestFirstLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		s := open(t, mem)
		commit(t, s, func(b *Batch) { b.PutCursor("a", nil) })
		synctest.Wait() // the witness has followed, and now waits half a second
		// Fewer bytes than the first memtable takes: the next would begin another log.
		for i := range uint64(300) {
			commit(t, s, func(b *Batch) {
				b.PutRow(key(5, i+1), record("log:", 5, strings.Repeat("x", 200)))
			})
		}
		require.Equal(t, uint64(1), s.witness.Written())
		clone := mem.CrashClone(vfs.CrashCloneCfg{})
		require.NoError(t, s.Close())
		rng := rand.New(rand.NewPCG(5, 5))
		path := victim(rng, filesOf(t, clone), ".log", 0)
		for range 10 {
			fs := copyMem(clone)
			rewrite(t, fs, path, func(b []byte) []byte {
				b[rng.IntN(len(b)/2)] ^= 1 << rng.IntN(8)
				return b
			})
			_, err := Open(fs, testDir, Options{Simulated: true})
			require.ErrorIs(t, err, delay.ErrCorrupt)
		}
	})
}

// A store without its witness, and a witness without its store, tell of a loss that no checksum can
// see. The error must say what is missing.
func TestMissingHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clone, _ := victims(t)
		fs := copyMem(clone)
		require.NoError(t, fs.Remove(testDir+"/witness"))
		_, err := Open(fs, testDir, Options{Simulated: true})
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.ErrorContains(t, err, "witness is missing")

		fs = copyMem(clone)
		require.NoError(t, fs.RemoveAll(testDir+"/db"))
		_, err = Open(fs, testDir, Options{Simulated: true})
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.ErrorContains(t, err, "batches 1 to 600, seq up to 1.2399")

		// The log is gone: what was flushed is there, the rest is named.
		fs = copyMem(clone)
		for _, f := range filesOf(t, fs) {
			if strings.HasSuffix(f, ".log") {
				require.NoError(t, fs.Remove(f))
			}
		}
		_, err = Open(fs, testDir, Options{Simulated: true})
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.ErrorContains(t, err, "batches 301 to 600, seq up to 1.2399")
		require.ErrorContains(t, err, "found seq up to 1.1199")

		// The operator may look at what is left, and nothing else.
		core, logs := observer.New(zap.WarnLevel)
		s, err := Open(fs, testDir, Options{Simulated: true, ReadOnly: true, Logger: zap.New(core)})
		require.NoError(t, err)
		require.NotZero(t, logs.FilterMessageSnippet("in spite of damage").Len())
		require.Equal(t, int64(1200), s.Counts().Warm.Messages)
		_, err = s.Apply(s.NewBatch())
		require.ErrorIs(t, err, delay.ErrClosed)
		require.NoError(t, s.Close())

		// Set aside, the directory gives way to a new store and is kept.
		require.NoError(t, SetAside(fs, testDir, ".old"))
		require.ErrorIs(t, SetAside(fs, testDir, ".old"), delay.ErrExists)
		s = open(t, fs)
		require.Zero(t, s.Counts())
		require.NoError(t, s.Close())
		s, err = Open(fs, testDir+".old", Options{Simulated: true, ReadOnly: true})
		require.NoError(t, err)
		require.Equal(t, int64(1200), s.Counts().Warm.Messages)
		require.NoError(t, s.Close())
	})
}

// A damaged block costs the rows it holds, not the others of the run: they are fetched from the
// tier.
func TestDamagedBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := open(t, mem)
		var keys []delay.Key
		rng := rand.New(rand.NewPCG(1, 1))
		commit(t, s, func(b *Batch) {
			for i := range uint64(500) {
				body := make([]byte, 200)
				for j := range body {
					body[j] = byte(rng.Uint32())
				}
				k := key(delay.Due(1_800_000_000_000+int64(i)), i+1)
				b.PutRow(k, record("log:", k.Due, string(body)))
				keys = append(keys, k)
			}
		})
		require.NoError(t, s.db.Flush())
		require.NoError(t, s.Close())
		for _, f := range filesOf(t, mem) {
			if strings.HasSuffix(f, ".sst") {
				rewrite(t, mem, f, func(b []byte) []byte {
					if len(b) > 50_000 {
						b[50_000] ^= 1
					}
					return b
				})
			}
		}
		core, logs := observer.New(zap.ErrorLevel)
		s, err := Open(mem, testDir, Options{Simulated: true, Logger: zap.New(core)})
		require.NoError(t, err)
		found, missing := 0, 0
		require.NoError(t, s.ReadRows(keys, func(i int, rec []byte) {
			if rec == nil {
				missing++
				_, err := s.Row(keys[i])
				require.ErrorIs(t, err, delay.ErrCorrupt)
				return
			}
			_, err := delay.DecodeRecord(rec)
			require.NoError(t, err)
			found++
		}))
		require.Positive(t, missing)
		require.Less(t, missing, 40)
		require.Equal(t, len(keys), found+missing)
		require.NotZero(t, logs.FilterMessage("row not readable").Len())
		require.Positive(t, s.Metrics().Corruptions)
		err = s.ScanRows(delay.Key{}, delay.MaxKey, func(delay.Key, []byte) bool { return true })
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.NoError(t, s.Close())
	})
}
