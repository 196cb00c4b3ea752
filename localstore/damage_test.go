// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
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

// endBytes is how near a place is to an end of its file: footers, indexes and last records.
const endBytes = 32 << 10

// flipWithin changes a bit of [from, to), of data that may be shorter.
func flipWithin(rng *rand.Rand, data []byte, from, to int) []byte {
	from, to = max(from, 0), min(to, len(data))
	if from < to {
		data[from+rng.IntN(to-from)] ^= 1 << rng.IntN(8)
	}
	return data
}

var damages = []damage{
	{"flip first", func(rng *rand.Rand, data []byte) []byte {
		return flipWithin(rng, data, 0, endBytes)
	}},
	{"flip middle", func(rng *rand.Rand, data []byte) []byte {
		if len(data) < 3*endBytes {
			return flipWithin(rng, data, len(data)/4, len(data)*3/4)
		}
		return flipWithin(rng, data, endBytes, len(data)-endBytes)
	}},
	{"flip last", func(rng *rand.Rand, data []byte) []byte {
		return flipWithin(rng, data, len(data)-endBytes, len(data))
	}},
	{"flip footer", func(rng *rand.Rand, data []byte) []byte {
		return flipWithin(rng, data, len(data)-1000, len(data))
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

// hurtStore is a store that lost its process or was closed, with files of every kind.
type hurtStore struct {
	fs    *vfs.MemFS
	files map[string][]string // by kind
	want  *model
}

// The kinds of files whose names do not tell them.
const (
	upperTables = "table of level 0"
	lowerTables = "table below"
)

// namedKinds of files are known by the beginning or the end of their name.
var namedKinds = []string{
	".log", "MANIFEST-", "OPTIONS-", "marker.manifest", "marker.format", "witness", "ids",
}

// hurtStores builds a life with tables on two levels, a log, a filter and all kinds of values; the
// one store was killed a second after its last acknowledgement, the other closed.
func hurtStores(t *testing.T) []hurtStore {
	mem := vfs.NewCrashableMem()
	large := func(o *Options) { o.MemTableBytes = 8 << 20 }
	w := newWorld(21)
	s := open(t, mem, large)
	fill := func(batches int) {
		for range batches {
			commit(t, s, func(b *Batch) {
				w.step(b)
				for range 8 {
					w.putRow(b)
				}
			})
		}
	}
	fill(90)
	require.NoError(t, s.db.Flush())
	require.NoError(t, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
	fill(60)
	require.NoError(t, s.db.Flush())
	require.NoError(t, s.Close())
	s = open(t, mem, large)
	fill(60)
	time.Sleep(time.Second) // of the bubble: the witness follows
	tables := map[string][]string{}
	levels, err := s.db.SSTables()
	require.NoError(t, err)
	for level, infos := range levels {
		kind := upperTables
		if level > 0 {
			kind = lowerTables
		}
		for _, info := range infos {
			tables[kind] = append(tables[kind],
				fmt.Sprintf("%s/db/%s.sst", testDir, info.BackingSSTNum))
		}
	}
	killed := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	var out []hurtStore
	for _, fs := range []*vfs.MemFS{killed, mem.CrashClone(vfs.CrashCloneCfg{})} {
		h := hurtStore{fs: fs, want: w.m.clone(), files: maps.Clone(tables)}
		files := filesOf(t, fs)
		for _, kind := range namedKinds {
			h.files[kind] = slices.DeleteFunc(slices.Clone(files), func(f string) bool {
				name := fs.PathBase(f) // markers hold the names of manifests
				return !strings.HasPrefix(name, kind) && !strings.HasSuffix(name, kind)
			})
		}
		for kind, files := range h.files {
			require.NotEmpty(t, files, kind)
			slices.Sort(files)
		}
		out = append(out, h)
	}
	return out
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

// victim is the newest file of a kind, which is in use.
func victim(files []string, kind string) string {
	return slices.Max(slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		return !strings.Contains(f, kind)
	}))
}

// verdict of one damaged store.
const (
	refused  = "refused"
	detected = "detected on read"
	harmless = "harmless"
	silent   = "SILENT LOSS"
)

// examine opens a damaged store and reads all of it. What is read must be what was written; what is
// missing must have an error, of the opening or of a read.
func examine(fs vfs.FS, want *model) (verdict string, detail error) {
	s, err := Open(fs, testDir, Options{Simulated: true, Fatal: func(error) {}})
	if err != nil {
		return refused, err
	}
	got, err := readModel(s)
	for id := range want.IDs {
		_, ok, idErr := s.LookupID(id)
		if err = errors.Join(err, idErr); !ok && idErr == nil {
			return silent, fmt.Errorf("%s: %w", id, s.Close())
		}
	}
	closeErr := s.Close()
	if err != nil {
		return wrongPart(got, want), errors.Join(err, closeErr)
	}
	got.Cold = want.Cold // of these the store holds only the counts
	counts, _ := want.counts()
	if !reflect.DeepEqual(got, want) || counts != s.Counts() {
		return silent, errors.New("other contents without an error")
	}
	return harmless, closeErr
}

// wrongPart says whether anything that was read in spite of errors is not what was written.
func wrongPart(got, want *model) string {
	ok := part(got.Rows, want.Rows) && part(got.IDs, want.IDs) && part(got.Dead, want.Dead) &&
		part(got.Progress, want.Progress) && part(got.Leases, want.Leases) &&
		part(got.Marks, want.Marks) && part(got.Outbox, want.Outbox) &&
		part(got.Timers, want.Timers) && part(got.Cursors, want.Cursors) &&
		part(got.Targets, want.Targets) && got.Meta == want.Meta && got.Books == want.Books &&
		got.Batch == want.Batch && got.LastSeq == want.LastSeq
	for lane, rows := range got.Parked {
		ok = ok && part(rows, want.Parked[lane])
	}
	if !ok {
		return silent
	}
	return detected
}

// part reports whether got holds nothing but what want holds.
func part[K comparable, V any](got, want map[K]V) bool {
	for k, v := range got {
		if w, ok := want[k]; !ok || !reflect.DeepEqual(v, w) {
			return false
		}
	}
	return true
}

// One damaged file must never lose acknowledged messages without a word (L2, L6): the store
// refuses to open, or a read fails, or nothing is missing.
func TestDamage(t *testing.T) {
	trials := 2
	if damageEverything() {
		trials = 20
	}
	seed := damageSeed(t)
	results := map[string]map[string]int{}
	total := map[string]int{}
	kinds := append([]string{upperTables, lowerTables}, namedKinds...)
	synctest.Test(t, func(t *testing.T) {
		stores := hurtStores(t)
		for _, h := range stores {
			verdict, err := examine(copyMem(h.fs), h.want)
			require.NoError(t, err)
			require.Equal(t, harmless, verdict)
		}
		rng := rand.New(rand.NewPCG(seed, 3))
		for _, kind := range kinds {
			for _, d := range damages {
				name := kind + ", " + d.name
				results[name] = map[string]int{}
				for trial := range trials {
					h := stores[trial%len(stores)]
					files := h.files[kind]
					path := files[len(files)-1]
					if rng.IntN(3) == 0 {
						path = files[rng.IntN(len(files))]
					}
					fs := copyMem(h.fs)
					rewrite(t, fs, path, func(b []byte) []byte { return d.do(rng, b) })
					verdict, err := examine(fs, h.want)
					results[name][verdict]++
					total[verdict]++
					require.NotEqual(t, silent, verdict, "%s, %s: %v", path, d.name, err)
				}
			}
		}
	})
	for _, kind := range kinds {
		for _, d := range damages {
			t.Logf("%-16s %-12s %v", kind, d.name, results[kind+", "+d.name])
		}
	}
	t.Logf("in all: %v", total)
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
		path := victim(filesOf(t, clone), ".log")
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
		require.Equal(t, 1, logs.FilterMessage("damaged file").Len(), "told for each read")
		err = s.ScanRows(delay.Key{}, delay.MaxKey, func(delay.Key, []byte) bool { return true })
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.NoError(t, s.Close())
	})
}
