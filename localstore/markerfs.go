// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// markerFS syncs a directory before a marker is created in it or removed from it. Pebble creates a
// manifest, then the marker that names it, removes the marker before, and syncs the directory
// once after all: where a crash may keep a later change and lose an earlier one, the store would
// not open.
type markerFS struct{ vfs.FS }

// Create creates a file; see markerFS.
func (f markerFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.order(name); err != nil {
		return nil, err
	}
	return f.FS.Create(name, category)
}

// Remove removes a file; see markerFS.
func (f markerFS) Remove(name string) error {
	if err := f.order(name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f markerFS) order(name string) error {
	if !strings.HasPrefix(f.PathBase(name), "marker.") {
		return nil
	}
	return syncDir(f.FS, f.PathDir(name))
}

// Unwrap lets Pebble find what is below.
func (f markerFS) Unwrap() vfs.FS { return f.FS }
