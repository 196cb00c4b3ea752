// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/localstore/diskfs"
)

// A sync of a second makes replies late and nothing else. One that does not return must end the
// process, of the log as well as of the witness: it would own the shard and serve nobody, or
// acknowledge what no witness knows. A batch that hung is not acknowledged when the disk wakes up.
func TestStalledDisk(t *testing.T) {
	for _, name := range []string{".log", witnessName} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stallRun(t, name) })
		})
	}
}

func stallRun(t *testing.T, name string) {
	fs := &hookFS{FS: vfs.NewMem()}
	var told atomic.Pointer[error]
	s := open(t, fs, func(o *Options) {
		o.MaxStall = defaultMaxStall
		o.Fatal = func(err error) { told.CompareAndSwap(nil, &err) }
	})
	var sleep atomic.Int64
	fail := func(op, file string) error {
		if op == "sync" && strings.HasSuffix(file, name) {
			time.Sleep(time.Duration(sleep.Load()))
		}
		return nil
	}
	fs.fail.Store(&fail)
	sleep.Store(int64(time.Second))
	begun := time.Now()
	for range 5 {
		commit(t, s, func(b *Batch) { b.PutCursor("a", nil) })
	}
	require.Less(t, time.Since(begun), 10*time.Second)
	time.Sleep(time.Minute)
	require.Nil(t, told.Load())

	sleep.Store(int64(30 * time.Second))
	b := s.NewBatch()
	b.PutCursor("b", nil)
	p, err := s.Apply(b)
	require.NoError(t, err)
	begun = time.Now()
	synced, err := p.Wait()
	if name == ".log" {
		require.ErrorIs(t, err, diskfs.ErrStalled)
		require.False(t, synced.Valid())
	} else {
		require.NoError(t, err)
		time.Sleep(25 * time.Second)
	}
	require.NotNil(t, told.Load())
	require.ErrorIs(t, *told.Load(), diskfs.ErrStalled)
	require.ErrorContains(t, *told.Load(), "sync")
	require.LessOrEqual(t, time.Since(begun), 30*time.Second)
	sleep.Store(0)
	time.Sleep(time.Minute)
	_ = s.Close()
}

// A store that cannot write its tables must end, not try for ever with full memory, and neither
// closing nor opening may wait for it. Want of space is worth waiting for.
func TestFlushFails(t *testing.T) {
	for _, why := range []error{syscall.EIO, syscall.ENOSPC} {
		t.Run(why.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flushRun(t, why) })
		})
	}
}

func flushRun(t *testing.T, why error) {
	fs := &hookFS{FS: vfs.NewMem()}
	var tries, fatal atomic.Int64
	s := open(t, fs, func(o *Options) {
		o.Simulated = false
		o.MemTableBytes = 1 << 20
		o.Fatal = func(error) { fatal.Add(1) }
	})
	fail := func(op, file string) error {
		if op == "create" && strings.HasSuffix(file, ".sst") {
			tries.Add(1)
			return why
		}
		return nil
	}
	fs.fail.Store(&fail)
	commit(t, s, func(b *Batch) { b.PutRow(key(1, 1), record("log:", 1, "x")) })
	flushed, err := s.db.AsyncFlush()
	require.NoError(t, err)
	time.Sleep(time.Minute)
	if errors.Is(why, syscall.EIO) {
		require.EqualValues(t, 1, fatal.Load())
		require.ErrorIs(t, s.flushAll(), syscall.EIO)
	} else {
		require.Zero(t, fatal.Load())
		commit(t, s, func(b *Batch) { b.PutRow(key(1, 2), record("log:", 1, "x")) })
	}
	require.Less(t, tries.Load(), int64(100), "tried without a pause")
	fs.fail.Store(nil)
	<-flushed
	time.Sleep(time.Second) // a flush of nothing has followed, and is no failure
	require.Zero(t, s.flushes.failed.Load())
	_ = s.Close()
}

// replayed is the disk of a store that crashed before its row was in a table: the next start writes
// one, and table is what becomes of its sync.
func replayed(t *testing.T, table func() error) *hookFS {
	mem := vfs.NewCrashableMem()
	s := open(t, mem)
	commit(t, s, func(b *Batch) { b.PutRow(key(1, 1), record("log:", 1, "x")) })
	fs := &hookFS{FS: mem.CrashClone(vfs.CrashCloneCfg{})}
	require.NoError(t, s.Close())
	fail := func(op, file string) error {
		if op == "sync" && strings.HasSuffix(file, ".sst") {
			return table()
		}
		return nil
	}
	fs.fail.Store(&fail)
	return fs
}

// A start whose replay cannot be written must give up as well.
func TestFlushFailsAtOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := replayed(t, func() error { return syscall.EIO })
		var fatal atomic.Int64
		_, err := Open(fs, testDir, Options{Fatal: func(error) { fatal.Add(1) }})
		require.ErrorIs(t, err, syscall.EIO)
		synctest.Wait() // who told it may not have returned
		require.EqualValues(t, 1, fatal.Load())
		fs.fail.Store(nil) // or Pebble would try in the background until the process ends
		time.Sleep(time.Minute)
	})
}

// A start on a disk that hangs must end as well: nobody listens to Fatal before the store is open.
func TestStalledDiskAtOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := replayed(t, func() error { time.Sleep(time.Hour); return nil })
		begun := time.Now()
		_, err := Open(fs, testDir, Options{Fatal: func(error) {}})
		require.ErrorIs(t, err, diskfs.ErrStalled)
		require.Equal(t, defaultMaxStall, time.Since(begun))
		time.Sleep(2 * time.Hour)
	})
}
