// SPDX-License-Identifier: Apache-2.0

// Package diskfs stands between a store and its file system, and sees to what Pebble leaves open:
// the order of two changes of a directory, what becomes of a log that fails, and a disk that does
// not answer.
//
//	Pebble, witness --> stalls, log errors --> full disk --> order of markers --> file system
//	                          |
//	                          v
//	                    Options.Fatal
//
// # Invariants
//
//	D1  A directory is synced before a marker is made in it or removed from it. Pebble makes a
//	    manifest, then the marker that names it, removes the marker before, and syncs once after
//	    all: where a crash may keep a later change and lose an earlier one, the store would not
//	    open.
//	D2  The first error of a log, of a manifest, or of the sync of a directory is told to Fatal,
//	    and nothing reaches the disk after it, as in a crash: a later sync that succeeds proves
//	    nothing, and what follows may build on what is lost. Pebble hears of success: it would
//	    panic, and the process could not end in order. Whoever acknowledges asks after the sync
//	    whether Fatal was told.
//	D3  Fatal is told when a change does not return within MaxStall. What hangs goes on hanging:
//	    only the end of the process, and another owner, help.
//
// # Concurrency
//
// As a vfs.FS: any number of goroutines, one for each open file. Fatal may be called from any of
// them, and from a timer.
//
// # Failure
//
// A crash leaves what the file system below leaves; D1 says in which order.
package diskfs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrStalled is a disk that did not answer within Options.MaxStall.
var ErrStalled = errors.New("the disk does not answer")

// Options are what the store does about its disk.
type Options struct {
	// MaxStall is how long a write, a sync, or a change of a directory may take (D3); 0 is for ever.
	MaxStall time.Duration
	// Fatal is told of an error by D2, and of a stall. It may be called more than once.
	Fatal func(error)
	// BeforeTable, which may be nil, is called before a table is made.
	BeforeTable func()
	// DiskFull, which may be nil, is called while all writes wait, once for each time that space
	// is found to be gone; then the write is repeated.
	DiskFull func()
}

// New wraps fs.
func New(fs vfs.FS, opts Options) *FS {
	fs = ordered{fs, opts.BeforeTable}
	if opts.DiskFull != nil {
		fs = vfs.OnDiskFull(fs, opts.DiskFull)
	}
	return &FS{FS: fs, opts: opts}
}

// FS is the guarded file system: it keeps D2 and D3.
type FS struct {
	vfs.FS
	opts Options
	dead atomic.Bool // nothing reaches the disk any more
}

// watch begins a change that must end within MaxStall; done must be called on the result, which may
// be nil.
func (g *FS) watch(op, name string) *stall {
	if g.opts.MaxStall <= 0 {
		return nil
	}
	return &stall{time.AfterFunc(g.opts.MaxStall, func() {
		g.opts.Fatal(fmt.Errorf("%w: %s %s, for %s", ErrStalled, op, name, g.opts.MaxStall))
	})}
}

// stall is one change under way.
type stall struct{ timer *time.Timer }

func (s *stall) done() {
	if s != nil {
		s.timer.Stop()
	}
}

func isVital(name string) bool {
	return strings.HasSuffix(name, ".log") || strings.Contains(name, "/MANIFEST-")
}

// die keeps D2.
func (g *FS) die(op, name string, err error) {
	g.dead.Store(true)
	g.opts.Fatal(fmt.Errorf("%s %s: %w", op, name, err))
}

func (g *FS) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil && strings.HasSuffix(name, ".log") {
		g.die("create", name, err)
		return g.stopped(name)
	}
	if err != nil {
		return nil, err
	}
	return &file{File: f, g: g, name: name, vital: isVital(name)}, nil
}

// Stop keeps every change from the disk from now on, whatever the cause (D2).
func (g *FS) Stop() { g.dead.Store(true) }

// stopped stands for a file that is made after the end.
func (g *FS) stopped(name string) (vfs.File, error) {
	return &file{File: vfs.NewMemFile(nil), g: g, name: name}, nil
}

// Create implements vfs.FS.
func (g *FS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if g.dead.Load() {
		return g.stopped(name)
	}
	defer g.watch("create", name).done()
	f, err := g.FS.Create(name, c)
	return g.wrap(name, f, err)
}

// OpenReadWrite implements vfs.FS.
func (g *FS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	defer g.watch("open", name).done()
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	return g.wrap(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (g *FS) ReuseForWrite(
	oldname, newname string, c vfs.DiskWriteCategory,
) (vfs.File, error) {
	if g.dead.Load() {
		return g.stopped(newname)
	}
	defer g.watch("reuse", newname).done()
	f, err := g.FS.ReuseForWrite(oldname, newname, c)
	return g.wrap(newname, f, err)
}

// OpenDir implements vfs.FS.
func (g *FS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &file{File: f, g: g, name: name, vital: true}, nil
}

// Rename implements vfs.FS.
func (g *FS) Rename(oldname, newname string) error {
	if g.dead.Load() {
		return nil
	}
	defer g.watch("rename", newname).done()
	return g.FS.Rename(oldname, newname)
}

// Remove implements vfs.FS.
func (g *FS) Remove(name string) error {
	if g.dead.Load() {
		return nil
	}
	defer g.watch("remove", name).done()
	return g.FS.Remove(name)
}

// Unwrap lets Pebble find what is below.
func (g *FS) Unwrap() vfs.FS { return g.FS }

// file is an open file of a FS.
type file struct {
	vfs.File
	g     *FS
	name  string
	vital bool // D2 begins with an error of this one
}

// change does one change of the file under D2 and D3.
func (f *file) change(op string, do func() error) error {
	if f.g.dead.Load() {
		return nil
	}
	defer f.g.watch(op, f.name).done()
	err := do()
	if err == nil || !f.vital {
		return err
	}
	f.g.die(op, f.name, err)
	return nil
}

// Write implements io.Writer.
func (f *file) Write(p []byte) (int, error) {
	n := len(p)
	err := f.change("write", func() (err error) {
		n, err = f.File.Write(p)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, at int64) (int, error) {
	n := len(p)
	err := f.change("write", func() (err error) {
		n, err = f.File.WriteAt(p, at)
		return err
	})
	if err == nil {
		n = len(p)
	}
	return n, err
}

// Sync implements vfs.File.
func (f *file) Sync() error { return f.change("sync", f.File.Sync) }

// SyncData implements vfs.File.
func (f *file) SyncData() error { return f.change("sync", f.File.SyncData) }

// SyncTo implements vfs.File. After the end it says that all of it is synced.
func (f *file) SyncTo(length int64) (fullSync bool, err error) {
	fullSync = true
	err = f.change("sync", func() (err error) {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, err
}
