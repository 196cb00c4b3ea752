// SPDX-License-Identifier: Apache-2.0

package diskfs

import (
	"errors"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// ordered keeps D1, and tells before a table is made.
type ordered struct {
	vfs.FS
	beforeTable func()
}

// Create creates a file; see ordered.
func (f ordered) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.order(name); err != nil {
		return nil, err
	}
	if f.beforeTable != nil && strings.HasSuffix(name, ".sst") {
		f.beforeTable()
	}
	return f.FS.Create(name, category)
}

// Remove removes a file; see ordered.
func (f ordered) Remove(name string) error {
	if err := f.order(name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f ordered) order(name string) error {
	if !strings.HasPrefix(f.PathBase(name), "marker.") {
		return nil
	}
	return SyncDir(f.FS, f.PathDir(name))
}

// Unwrap lets Pebble find what is below.
func (f ordered) Unwrap() vfs.FS { return f.FS }

// SyncDir makes what was made, renamed and removed in a directory durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
