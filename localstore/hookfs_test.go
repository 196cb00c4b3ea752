// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hookFS tells of every sync of a file or directory before and after it happens, and can make
// writes, syncs, and the making, renaming and removing of files fail.
type hookFS struct {
	vfs.FS
	around atomic.Pointer[func(name string)]           // called before and after each sync
	fail   atomic.Pointer[func(op, name string) error] // asked before each change
}

func (f *hookFS) hook(name string) {
	if h := f.around.Load(); h != nil {
		(*h)(name)
	}
}

func (f *hookFS) verdict(op, name string) error {
	if h := f.fail.Load(); h != nil {
		return (*h)(op, name)
	}
	return nil
}

func (f *hookFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &hookFile{File: file, fs: f, name: name}, nil
}

func (f *hookFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.verdict("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f *hookFS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, opts...)
	return f.wrap(name, file, err)
}

func (f *hookFS) ReuseForWrite(
	oldname, newname string, c vfs.DiskWriteCategory,
) (vfs.File, error) {
	if err := f.verdict("create", newname); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(oldname, newname, c)
	return f.wrap(newname, file, err)
}

func (f *hookFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

func (f *hookFS) Rename(oldname, newname string) error {
	if err := f.verdict("rename", newname); err != nil {
		return err
	}
	return f.FS.Rename(oldname, newname)
}

func (f *hookFS) Remove(name string) error {
	if err := f.verdict("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *hookFS) Unwrap() vfs.FS { return f.FS }

type hookFile struct {
	vfs.File
	fs   *hookFS
	name string
}

func (f *hookFile) Write(p []byte) (int, error) {
	if err := f.fs.verdict("write", f.name); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *hookFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.fs.verdict("write", f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, at)
}

func (f *hookFile) synced(sync func() error) error {
	if err := f.fs.verdict("sync", f.name); err != nil {
		return err
	}
	f.fs.hook(f.name)
	err := sync()
	f.fs.hook(f.name)
	return err
}

func (f *hookFile) Sync() error { return f.synced(f.File.Sync) }

func (f *hookFile) SyncData() error { return f.synced(f.File.SyncData) }
