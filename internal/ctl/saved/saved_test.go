// SPDX-License-Identifier: Apache-2.0

package saved

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What was remembered must come back, and its tokens must be nobody else's to read.
func TestSaved(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"XDG_CONFIG_HOME": dir}
	look := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	name, err := File(look)
	require.NoError(t, err)
	empty, err := Read(name)
	require.NoError(t, err)
	require.Empty(t, empty.Contexts)
	want := Contexts{Current: "a", Contexts: map[string]Context{"a": {Server: "s", Token: "t", Key: "k"}}}
	require.NoError(t, Write(name, want))
	got, err := Read(name)
	require.NoError(t, err)
	require.Equal(t, want, got)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(filepath.Dir(name))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	require.NoError(t, os.WriteFile(name, []byte("{"), 0o600))
	_, err = Read(name)
	require.ErrorContains(t, err, name)
	env["XDG_CONFIG_HOME"] = "relative"
	_, err = File(look)
	require.ErrorIs(t, err, ErrRelative)
	delete(env, "XDG_CONFIG_HOME")
	name, err = File(look)
	require.NoError(t, err)
	require.Error(t, Write(name, want))
}
