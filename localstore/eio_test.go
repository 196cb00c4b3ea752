// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// diskErrors are the kinds of operations that fail, each by what is done and to which files.
var diskErrors = []struct{ op, suffix string }{
	{"write", ".log"}, {"sync", ".log"}, {"write", ".sst"}, {"sync", ".sst"},
	{"write", "witness"}, {"sync", "witness"}, {"write", ""}, {"sync", ""},
	{"create", ""}, {"rename", ""}, {"remove", ""},
}

const (
	mostErrors = 500 // the highest operation of a kind that fails
	errorLives = 4   // openings of a store in which it is met
)

// The nth operation of every kind on the disk fails, once or from then on, in whatever the store is
// doing: creating, replaying, committing, flushing, closing. Nothing is acknowledged after an error
// of the log or of a sync, Fatal is told once, and what was acknowledged is there afterwards.
func TestDiskErrors(t *testing.T) {
	met, fatal := map[string]int{}, map[string]int{}
	for _, kind := range diskErrors {
		name := strings.TrimSpace(kind.op + " " + kind.suffix)
		for n := int64(1); n <= mostErrors; n++ {
			if !damageEverything() && n > 6 && n%61 != 0 {
				continue
			}
			hit, ended := errorRun(t, kind.op, kind.suffix, n, n%2 == 0)
			if !hit {
				break // a run has no more of them
			}
			met[name]++
			if ended {
				fatal[name]++
			}
		}
		t.Logf("%-14s %3d errors, %3d of them fatal", name, met[name], fatal[name])
		require.Positive(t, met[name], name)
	}
	for _, name := range []string{"write .log", "sync .log"} {
		require.Positive(t, fatal[name], name)
	}
}

const (
	rowsOfNth = 3
	bodyBytes = 100
)

// nthRow is one row of the nth batch.
func nthRow(n uint64, i int) (delay.Key, []byte) {
	k := key(delay.Due(1_800_000_000_000+int64(n*7919%1000)*60_000), rowsOfNth*n+uint64(i))
	return k, record("log:", k.Due, strings.Repeat(string(rune('a'+n%26)), bodyBytes))
}

// fillNth is the nth batch: it puts rows, and takes one of the batch before.
func fillNth(b *Batch, n uint64) {
	for i := range rowsOfNth {
		k, rec := nthRow(n, i)
		b.PutRow(k, rec)
	}
	if n > 1 {
		k, rec := nthRow(n-1, 0)
		b.DeleteRow(k, len(rec))
	}
	b.PutID(fmt.Sprint("id-", n), IDRecord{})
	b.SetMeta(Meta{LeaseNext: n})
}

// holds checks that a store holds the first n batches and no part of another.
func holds(t *testing.T, s *Store, n uint64) {
	t.Helper()
	want := map[delay.Key]string{}
	for batch := uint64(1); batch <= n; batch++ {
		for i := range rowsOfNth {
			if k, rec := nthRow(batch, i); i > 0 || batch == n {
				want[k] = string(rec)
			}
		}
		_, ok, err := s.LookupID(fmt.Sprint("id-", batch))
		require.NoError(t, err)
		require.True(t, ok)
	}
	got := map[delay.Key]string{}
	require.NoError(t, s.ScanRows(delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		got[k] = string(rec)
		return true
	}))
	require.Equal(t, want, got)
	require.Equal(t, n, s.Meta().LeaseNext)
	require.Equal(t, int64(len(want)), s.Counts().Warm.Messages)
}

// errorLife is a store on a disk that fails.
type errorLife struct {
	fs      *hookFS
	left    atomic.Pointer[vfs.MemFS] // what the end of the process leaves
	fatal   atomic.Int64
	acked   uint64
	applied uint64
}

// errorRun lets the nth operation fail, or all from it on, then looks at what a crash leaves.
func errorRun(t *testing.T, op, suffix string, nth int64, forever bool) (hit, ended bool) {
	what := fmt.Sprintf("%s %s %d forever %v", op, suffix, nth, forever)
	mem := vfs.NewCrashableMem()
	l := &errorLife{fs: &hookFS{FS: mem}}
	var n atomic.Int64
	fail := func(did, name string) error {
		if did != op || !strings.HasSuffix(name, suffix) {
			return nil
		}
		if k := n.Add(1); k == nth || forever && k > nth {
			return syscall.EIO
		}
		return nil
	}
	l.fs.fail.Store(&fail)
	for range errorLives {
		if l.live(t, mem, what) {
			break
		}
	}
	clone := l.left.Load()
	if ended = clone != nil; !ended {
		clone = mem.CrashClone(vfs.CrashCloneCfg{})
	}
	s, err := Open(clone, testDir, Options{Simulated: true})
	require.NoError(t, err, what)
	found := s.ledger.Base().Batch
	require.GreaterOrEqual(t, found, l.acked, what)
	require.LessOrEqual(t, found, l.applied, what)
	holds(t, s, found)
	require.NoError(t, s.Close())
	return n.Load() >= nth, ended
}

// end is where the process would end. What still runs here must find a disk, to be able to end.
func (l *errorLife) end(mem *vfs.MemFS) {
	if l.fatal.Add(1) == 1 {
		l.left.Store(mem.CrashClone(vfs.CrashCloneCfg{}))
		l.fs.fail.Store(nil)
	}
}

// live is one opening; done says that the process would have ended.
func (l *errorLife) live(t *testing.T, mem *vfs.MemFS, what string) (done bool) {
	s, err := Open(l.fs, testDir, Options{
		Simulated: true, MemTableBytes: 16 << 10, Fatal: func(error) { l.end(mem) },
	})
	if err != nil {
		return true // refused: the process ends, and the next start sees the disk
	}
	l.applied = s.ledger.Base().Batch // a process that failed left fewer
	require.GreaterOrEqual(t, l.applied, l.acked, what)
	batches := 16
	if damageEverything() {
		batches = mostErrors/errorLives + 5
	}
	for i := range batches {
		b := s.NewBatch()
		l.applied++
		fillNth(b, l.applied)
		p, err := s.Apply(b)
		if err != nil {
			break
		}
		before := l.fatal.Load()
		synced, err := p.Wait()
		if err != nil {
			break
		}
		require.True(t, synced.Valid())
		require.Zero(t, before, "acknowledged after an error: %s", what)
		l.acked = synced.Batch()
		if i == batches/2 {
			// An error of a flush is tried again, or ends the store: it is not the caller's.
			_ = s.flushAll()
		}
	}
	_ = s.Close()
	require.LessOrEqual(t, l.fatal.Load(), int64(1), what)
	return l.fatal.Load() > 0
}
