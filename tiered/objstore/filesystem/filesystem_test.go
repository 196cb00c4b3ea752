// SPDX-License-Identifier: Apache-2.0

package filesystem

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/objstoretest"
)

func TestConformance(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return open(t, t.TempDir()) })
}

func open(t *testing.T, dir string) *Bucket {
	t.Helper()
	b, err := Open(dir)
	require.NoError(t, err)
	return b
}

const (
	childDir     = "FILESYSTEM_TEST_DIR"
	childWriters = 4
	increments   = 25
)

// Conditions that hold within one process only would let two daemons own one shard: several
// processes count one object up by replacing it, and no step may be lost.
func TestConditionsAcrossProcesses(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		countUp(t, open(t, dir))
		return
	}
	dir := t.TempDir()
	b := open(t, dir)
	_, err := b.Put(t.Context(), "n", []byte("0"), objstore.Condition{Absent: true})
	require.NoError(t, err)
	var children []*exec.Cmd
	for range childWriters {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConditionsAcrossProcesses$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		go func() {
			for s := bufio.NewScanner(out); s.Scan(); {
				if strings.Contains(s.Text(), "Error") {
					t.Log(s.Text())
				}
			}
		}()
		children = append(children, cmd)
	}
	for _, cmd := range children {
		require.NoError(t, cmd.Wait())
	}
	body, _, err := b.Get(t.Context(), "n")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(childWriters*increments), string(body))
}

func countUp(t *testing.T, b *Bucket) {
	for done := 0; done < increments; {
		body, info, err := b.Get(t.Context(), "n")
		require.NoError(t, err)
		var n int
		_, err = fmt.Sscan(string(body), &n)
		require.NoError(t, err)
		_, err = b.Put(t.Context(), "n", fmt.Append(nil, n+1), objstore.Condition{ETag: info.ETag})
		if err == nil {
			done++
			continue
		}
		require.ErrorIs(t, err, objstore.ErrPrecondition)
	}
}

// What crashed writers left must go, what writers of this moment write must stay, and neither may
// show up as an object.
func TestTempFiles(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	old, fresh := filepath.Join(dir, tmpDir, "old"), filepath.Join(dir, tmpDir, "fresh")
	for _, path := range []string{old, fresh} {
		require.NoError(t, os.WriteFile(path, []byte("x"), fileMode))
	}
	info, err := os.Stat(fresh)
	require.NoError(t, err)
	past := info.ModTime().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(old, past, past))
	b := open(t, dir)
	require.NoFileExists(t, old)
	require.FileExists(t, fresh)
	require.NoError(t, b.List(t.Context(), "", func(i objstore.Info) bool {
		require.Fail(t, "listed", i.Key)
		return true
	}))
	_, err = b.Put(t.Context(), "a/b", []byte("x"), objstore.Condition{})
	require.NoError(t, err)
	left, err := os.ReadDir(filepath.Join(dir, tmpDir))
	require.NoError(t, err)
	require.Len(t, left, 1, "Put left its temporary file")
}

// An operator must be told which path it is that cannot be used.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, fileMode))
	_, err := Open(filepath.Join(file, "bucket"))
	require.ErrorContains(t, err, file)
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	closed := filepath.Join(dir, "closed")
	require.NoError(t, os.Mkdir(closed, 0o500))
	_, err = Open(closed)
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, closed)
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{4 << 10, 8 << 20} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			bucket, err := Open(b.TempDir())
			require.NoError(b, err)
			body := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := bucket.Put(b.Context(), "a/b", body, objstore.Condition{})
				require.NoError(b, err)
			}
		})
	}
}
