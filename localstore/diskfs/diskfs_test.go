// SPDX-License-Identifier: Apache-2.0

package diskfs

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// slowFS sleeps before each change, and fails it when told to.
type slowFS struct {
	vfs.FS
	sleep time.Duration
	fail  error
}

func (f *slowFS) change() error {
	time.Sleep(f.sleep)
	return f.fail
}

func (f *slowFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &slowFile{file, f}, nil
}

func (f *slowFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.change(); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.Create(name, c))
}

func (f *slowFS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	if err := f.change(); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.OpenReadWrite(name, c, opts...))
}

func (f *slowFS) ReuseForWrite(a, b string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.change(); err != nil {
		return nil, err
	}
	return f.wrap(f.FS.ReuseForWrite(a, b, c))
}

func (f *slowFS) OpenDir(name string) (vfs.File, error) { return f.wrap(f.FS.OpenDir(name)) }

func (f *slowFS) Rename(a, b string) error {
	if err := f.change(); err != nil {
		return err
	}
	return f.FS.Rename(a, b)
}

func (f *slowFS) Remove(name string) error {
	if err := f.change(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

type slowFile struct {
	vfs.File
	fs *slowFS
}

func (f *slowFile) Write(p []byte) (int, error) {
	if err := f.fs.change(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *slowFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.fs.change(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

func (f *slowFile) Sync() error {
	if err := f.fs.change(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *slowFile) SyncData() error { return f.Sync() }

func (f *slowFile) SyncTo(int64) (bool, error) { return true, f.Sync() }

// world is a guarded disk that can be slow, with what Fatal was told.
type world struct {
	fs   *FS
	slow *slowFS
	told []error
}

func newWorld(maxStall time.Duration) *world {
	w := &world{slow: &slowFS{FS: vfs.NewMem()}}
	w.fs = New(w.slow, Options{
		MaxStall: maxStall, Fatal: func(err error) { w.told = append(w.told, err) },
	})
	return w
}

func (w *world) create(t *testing.T, name string) vfs.File {
	t.Helper()
	f, err := w.fs.Create(name, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	return f
}

// Each change of a disk that answers after a second is only late; one that does not answer within
// the limit must be told of while it still hangs (D3), or the process would hang with it, owning
// its shard.
func TestStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 20 * time.Second
		w := newWorld(most)
		f := w.create(t, "a.log")
		dir, err := w.fs.OpenDir("")
		require.NoError(t, err)
		w.create(t, "b")
		changes := map[string]func() error{
			"create c": func() error {
				_, err := w.fs.Create("c", vfs.WriteCategoryUnspecified)
				return err
			},
			"open b": func() error {
				_, err := w.fs.OpenReadWrite("b", vfs.WriteCategoryUnspecified)
				return err
			},
			"reuse e": func() error {
				_, err := w.fs.ReuseForWrite("c", "e", vfs.WriteCategoryUnspecified)
				return err
			},
			"rename d": func() error { return w.fs.Rename("e", "d") },
			"remove d": func() error { return w.fs.Remove("d") },
			"write a.log": func() error {
				_, err := f.Write([]byte("x"))
				return err
			},
			"sync a.log": f.Sync,
			"sync":       dir.Sync,
		}
		order := []string{"create c", "open b", "reuse e", "rename d", "remove d", "write a.log",
			"sync a.log", "sync"}
		require.Len(t, changes, len(order))
		for _, sleep := range []time.Duration{time.Second, 30 * time.Second} {
			for _, name := range order {
				w.slow.sleep, w.told = sleep, nil
				begun := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- changes[name]() }()
				time.Sleep(most + time.Millisecond)
				synctest.Wait()
				if sleep < most {
					require.Empty(t, w.told, name)
				} else {
					require.NotEmpty(t, w.told, name)
					require.ErrorIs(t, w.told[0], ErrStalled)
					require.ErrorContains(t, w.told[0], name)
					require.Less(t, time.Since(begun), sleep)
				}
				require.NoError(t, <-ended, name)
				told := len(w.told)
				time.Sleep(time.Minute)
				require.Len(t, w.told, told, "told of what has ended")
			}
		}
		w.told = nil
		w.slow.sleep = time.Hour
		none := newWorld(0)
		none.slow.sleep = time.Hour
		require.NoError(t, none.create(t, "x").Sync())
		require.Empty(t, none.told)
	})
}

// After the first error of a log nothing may reach the disk, even when it is well again: the record
// after a hole would be replayed, or a manifest name a table whose directory was never synced (D2).
// Before it the errors of other files are their callers'.
func TestNothingAfterTheEnd(t *testing.T) {
	for _, op := range []string{
		"write", "writeat", "sync", "syncdata", "syncto", "create", "dir", "manifest", "stop",
	} {
		t.Run(op, func(t *testing.T) {
			w := newWorld(0)
			log := w.create(t, "7.log")
			_, err := log.Write([]byte("one"))
			require.NoError(t, err)
			table := w.create(t, "8.sst")
			dir, err := w.fs.OpenDir("")
			require.NoError(t, err)
			require.NoError(t, w.fs.MkdirAll("db", 0o755))
			manifest := w.create(t, "db/MANIFEST-000001")

			w.slow.fail = syscall.EIO
			_, err = table.Write([]byte("x"))
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorIs(t, table.Sync(), syscall.EIO)
			_, err = w.fs.Create("9.sst", vfs.WriteCategoryUnspecified)
			require.ErrorIs(t, err, syscall.EIO)
			require.Empty(t, w.told)

			n, err := 3, error(nil)
			switch op {
			case "write":
				n, err = log.Write([]byte("two"))
			case "writeat":
				n, err = log.WriteAt([]byte("two"), 3)
			case "sync":
				err = log.Sync()
			case "syncdata":
				err = log.SyncData()
			case "syncto":
				var full bool
				full, err = log.SyncTo(3)
				require.True(t, full)
			case "create":
				_, err = w.fs.Create("9.log", vfs.WriteCategoryUnspecified)
			case "dir":
				err = dir.Sync()
			case "manifest":
				err = manifest.Sync()
			case "stop":
				w.fs.Stop()
				w.told = []error{syscall.EIO}
			}
			require.NoError(t, err, "Pebble would panic")
			require.Equal(t, 3, n)
			require.Len(t, w.told, 1)
			require.ErrorIs(t, w.told[0], syscall.EIO)

			w.slow.fail = nil
			_, err = log.Write([]byte("three"))
			require.NoError(t, err)
			require.NoError(t, log.Sync())
			next, err := w.fs.ReuseForWrite("7.log", "10.log", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = next.Write([]byte("four"))
			require.NoError(t, err)
			_, err = table.Write([]byte("x"))
			require.NoError(t, err)
			made := w.create(t, "11.sst")
			_, err = made.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, made.Sync())
			require.NoError(t, dir.Sync())
			require.NoError(t, w.fs.Rename("7.log", "12.log"))
			require.NoError(t, w.fs.Remove("7.log"))
			names, err := w.fs.List("")
			require.NoError(t, err)
			slices.Sort(names)
			require.Equal(t, []string{"7.log", "8.sst", "db"}, names)
			for name, size := range map[string]int{"7.log": 3, "8.sst": 0} {
				info, err := w.fs.Stat(name)
				require.NoError(t, err)
				require.EqualValues(t, size, info.Size(), name)
			}
			require.Len(t, w.told, 1)
		})
	}
}

// Before a table is made its maker may wait, and only then.
func TestBeforeTable(t *testing.T) {
	var made []string
	mem := vfs.NewMem()
	fs := New(mem, Options{BeforeTable: func() {
		names, err := mem.List("")
		require.NoError(t, err)
		made = append(made, strings.Join(names, " "))
	}})
	for _, name := range []string{"1.log", "2.sst", "3.log", "4.sst"} {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	require.Len(t, made, 2)
	require.NotContains(t, made[0], "2.sst")
	require.NotContains(t, made[1], "4.sst")
}
