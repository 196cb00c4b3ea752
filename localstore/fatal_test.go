// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// After the first failed write or sync of the log nothing may be acknowledged, whatever later
// writes say: the kernel may claim that the lost pages are clean. Fatal is told once, and what was
// acknowledged before is there after a restart.
func TestLogFailure(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		for _, nth := range []int64{1, 2, 7, 30} {
			mem := vfs.NewCrashableMem()
			fs := &hookFS{FS: mem}
			var fatal atomic.Int64
			s := open(t, fs, func(o *Options) { o.Fatal = func(error) { fatal.Add(1) } })
			commit(t, s, func(b *Batch) { b.PutRow(key(1, 1), record("log:", 1, "first")) })
			var n atomic.Int64
			fail := func(what, name string) error {
				// The nth fails, and later ones work again: as fsync does.
				if what == op && strings.HasSuffix(name, ".log") && n.Add(1) == nth {
					return syscall.EIO
				}
				return nil
			}
			fs.fail.Store(&fail)
			told := func() bool { return fatal.Load() == 1 } // by who failed, perhaps a moment later
			acked := 1
			for i := range uint64(60) {
				b := s.NewBatch()
				b.PutRow(key(1, i+2), record("log:", 1, "x"))
				p, err := s.Apply(b)
				if err != nil {
					require.ErrorIs(t, err, delay.ErrClosed)
					break
				}
				synced, err := p.Wait()
				if err != nil {
					require.False(t, synced.Valid())
					require.Eventually(t, told, 20*time.Second, time.Millisecond, "%s %d", op, nth)
					continue
				}
				require.Zero(t, fatal.Load(), "acknowledged after a failure: %s %d", op, nth)
				acked++
			}
			require.Eventually(t, told, 20*time.Second, time.Millisecond, "%s %d", op, nth)
			clone := mem.CrashClone(vfs.CrashCloneCfg{})
			_ = s.Close()
			s = open(t, clone)
			require.GreaterOrEqual(t, s.Counts().Warm.Messages, int64(acked))
			check(t, s)
			require.NoError(t, s.Close())
		}
	}
}

// A witness that cannot be written would let acknowledged messages be lost without a word.
func TestWitnessFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &hookFS{FS: vfs.NewMem()}
		var fatal atomic.Int64
		s := open(t, fs, func(o *Options) { o.Fatal = func(error) { fatal.Add(1) } })
		fail := func(what, name string) error {
			if what == "sync" && strings.HasSuffix(name, witnessName) {
				return syscall.EIO
			}
			return nil
		}
		fs.fail.Store(&fail)
		commit(t, s, func(b *Batch) { b.PutCursor("a", nil) })
		time.Sleep(time.Second)
		require.Equal(t, int64(1), fatal.Load())
		_, err := s.Apply(s.NewBatch())
		require.ErrorIs(t, err, delay.ErrClosed)
		require.ErrorIs(t, err, syscall.EIO)
		_ = s.Close()
	})
}

// By default a fatal error must end the process even if nobody thought of it.
func TestFatalPanics(t *testing.T) {
	o := Options{}.withDefaults()
	require.PanicsWithValue(t, "FATAL: disk gone", func() { o.Fatal(errors.New("disk gone")) })
}

// The witness follows within a second, never runs ahead of the sync, and an idle store does not
// write it.
func TestWitnessFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &hookFS{FS: vfs.NewMem()}
		s := open(t, fs)
		var writes atomic.Int64
		around := func(name string) {
			if strings.HasSuffix(name, witnessName) {
				writes.Add(1)
			}
		}
		fs.around.Store(&around)
		b := s.NewBatch()
		b.PutCursor("a", nil)
		p, err := s.Apply(b)
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		require.Zero(t, s.witness.Written(), "the witness names a batch that nobody saw synced")
		_, err = p.Wait()
		require.NoError(t, err)
		for range 100 {
			commit(t, s, func(b *Batch) { b.PutCursor("a", nil) })
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Second)
		require.Equal(t, uint64(101), s.witness.Written())
		require.Zero(t, s.Metrics().WitnessBehindBatch)
		require.LessOrEqual(t, writes.Load(), int64(2*7), "one write each half second")
		before := writes.Load()
		time.Sleep(24 * time.Hour)
		require.Equal(t, before, writes.Load())
		fs.around.Store(nil)
		require.NoError(t, s.Close())
	})
}

// A disk that fills up must refuse intake early, say so within about a second, and take intake again
// when there is room.
func TestDiskSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10 << 30})
		s := open(t, mem)
		require.False(t, s.Refusing())
		require.Equal(t, int64(10<<30), s.DiskFree())
		require.True(t, s.disk.held.Load())
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 100 << 20})
		time.Sleep(2 * sampleEvery)
		require.True(t, s.Refusing())
		require.Equal(t, int64(100<<20), s.DiskFree())
		commit(t, s, func(b *Batch) { b.DeleteRow(key(1, 1), 5) }) // what was accepted may finish
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 2 << 30})
		time.Sleep(2 * sampleEvery)
		require.False(t, s.Refusing())
		require.NoError(t, s.Close())
	})
	s := open(t, vfs.NewMem())
	require.False(t, s.Refusing())
	require.Equal(t, int64(math.MaxInt64), s.DiskFree())
	require.NoError(t, s.Close())
}

// When the disk is full in spite of all, the ballast makes room and the log goes on.
func TestBallast(t *testing.T) {
	mem := vfs.NewMem()
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 10 << 30})
	fs := &hookFS{FS: mem}
	s := open(t, fs)
	_, err := mem.Stat(testDir + "/" + ballastName)
	require.NoError(t, err)
	var once sync.Once
	fail := func(what, name string) (err error) {
		if what == "write" && strings.HasSuffix(name, ".log") {
			once.Do(func() { err = syscall.ENOSPC })
		}
		return err
	}
	fs.fail.Store(&fail)
	commit(t, s, func(b *Batch) { b.PutRow(key(1, 1), record("log:", 1, "x")) })
	_, err = mem.Stat(testDir + "/" + ballastName)
	require.Error(t, err)
	require.True(t, s.Refusing())
	require.NoError(t, s.Close())
	s = open(t, mem)
	require.Equal(t, int64(1), s.Counts().Warm.Messages)
	require.NoError(t, s.Close())
}
