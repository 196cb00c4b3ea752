// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// Memory file systems forgive much: locks, preallocation, syncs of directories and the default
// options are only real on a disk. A second process must be told so, not harm the first.
func TestRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, err := Open(vfs.Default, dir, Options{ReserveBytes: 1 << 20})
	require.NoError(t, err)
	_, err = Open(vfs.Default, dir, Options{})
	require.ErrorIs(t, err, ErrLocked)
	commit(t, s, func(b *Batch) { b.PutRow(key(5, 1), record("log:", 5, "x")) })
	require.True(t, s.disk.held.Load())
	require.False(t, s.Refusing())
	require.Positive(t, s.DiskFree())
	require.NoError(t, s.Close())
	s, err = Open(vfs.Default, dir, Options{})
	require.NoError(t, err)
	rec, err := s.Row(key(5, 1))
	require.NoError(t, err)
	require.NotEmpty(t, rec)
	_, err = s.Row(key(5, 2))
	require.ErrorIs(t, err, delay.ErrNotFound)
	require.NoError(t, s.Close())
}
