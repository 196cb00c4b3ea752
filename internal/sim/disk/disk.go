// SPDX-License-Identifier: Apache-2.0

// Package disk is a disk in memory for the simulation, that decides what a power failure leaves.
// It is safe for concurrent use.
package disk

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is a crashable disk that can hold back the syncs of Pebble's log. Pebble writes and syncs
// its log in the background as soon as a batch is applied; what of it has reached the disk when the
// power fails would be a matter of luck. While the disk holds, a sync of the log is answered and
// not done, so the world alone decides what is durable (W3). Nobody may wait for a sync meanwhile.
type Disk struct {
	vfs.FS
	Mem *vfs.MemFS

	mu      sync.Mutex
	holding bool
	owed    map[*logFile]struct{}
}

// New is a disk on mem.
func New(mem *vfs.MemFS) *Disk {
	return &Disk{FS: mem, Mem: mem, owed: make(map[*logFile]struct{})}
}

// Hold holds syncs back from now on.
func (d *Disk) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holding = true
}

// Held reports whether syncs are held back.
func (d *Disk) Held() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.holding
}

// Release does the syncs that are owed and holds back no more. What Pebble has not written yet is
// not covered.
func (d *Disk) Release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holding = false
	for f := range d.owed {
		delete(d.owed, f)
		if err := f.File.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// Image is the disk after a power failure: what was synced.
func (d *Disk) Image() *vfs.MemFS { return d.Mem.CrashClone(vfs.CrashCloneCfg{}) }

// Create implements vfs.FS.
func (d *Disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, c)
	return d.wrap(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (d *Disk) ReuseForWrite(
	old, name string, c vfs.DiskWriteCategory,
) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.wrap(name, f, err)
}

func (d *Disk) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &logFile{File: f, disk: d}, nil
}

// logFile is a log of Pebble's.
type logFile struct {
	vfs.File
	disk *Disk
}

// Sync implements vfs.File.
func (f *logFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.holding {
		f.disk.owed[f] = struct{}{}
		return nil
	}
	return f.File.Sync()
}

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.Sync() }

// SyncTo implements vfs.File. Its promise is none, so nothing is done.
func (f *logFile) SyncTo(int64) (bool, error) { return false, nil }

// Close implements vfs.File. A file that is owed a sync stays open until it got it.
func (f *logFile) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if _, owed := f.disk.owed[f]; owed {
		return nil
	}
	return f.File.Close()
}
