// SPDX-License-Identifier: Apache-2.0

package filesystem

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/tiered/objstore"
)

const (
	tmpDir  = ".tmp"
	lockDir = ".lock"
	// staleTemp is the age after which a file in .tmp is nobody's.
	staleTemp = time.Hour

	dirMode  = 0o755
	fileMode = 0o644
)

// Bucket is an objstore.Bucket in a directory.
type Bucket struct {
	dir   string
	locks locks
}

var _ objstore.Bucket = (*Bucket)(nil)

// Open opens the bucket in dir and creates the directory when it is missing. It fails when it
// cannot write there.
func Open(dir string) (*Bucket, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dir, err)
	}
	b := &Bucket{dir: dir}
	for _, sub := range [...]string{tmpDir, lockDir} {
		if err := b.mkdir(filepath.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("open bucket %s: %w", dir, err)
		}
	}
	b.locks.init(filepath.Join(dir, lockDir))
	if err := b.sweepTemp(); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", dir, err)
	}
	return b, nil
}

// sweepTemp removes what crashed writers left. Ages are taken against a file written now, so that
// only the clock of the file system counts; writing it also shows that this process may write.
func (b *Bucket) sweepTemp() error {
	probe, err := b.writeTemp(nil)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(probe) }()
	now, err := os.Stat(probe)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(b.dir, tmpDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && now.ModTime().Sub(info.ModTime()) > staleTemp {
			_ = os.Remove(filepath.Join(b.dir, tmpDir, e.Name())) // the next Open tries again
		}
	}
	return nil
}

// Put implements objstore.Bucket.
func (b *Bucket) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	if err := check(ctx, key); err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	tag, err := b.put(ctx, key, body, cond)
	if err != nil {
		return "", fmt.Errorf("put %s: %w", key, err)
	}
	return tag, nil
}

func (b *Bucket) put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	path := b.path(key)
	if err := b.there(); err != nil {
		return "", refuse(err)
	}
	if err := b.mkdir(filepath.Dir(path)); err != nil {
		return "", refuse(err)
	}
	temp, err := b.writeTemp(body)
	if err != nil {
		return "", refuse(err)
	}
	renamed := false
	defer func() {
		if !renamed {
			_ = os.Remove(temp)
		}
	}()
	unlock, err := b.locks.lock(ctx, key)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := b.holds(path, cond); err != nil {
		return "", err
	}
	if err := os.Rename(temp, path); err != nil {
		return "", refuse(err)
	}
	renamed = true
	if err := syncDir(filepath.Dir(path)); err != nil {
		return "", err
	}
	return tagOf(body), nil
}

// holds is nil when the condition does. The caller has the lock.
func (b *Bucket) holds(path string, cond objstore.Condition) error {
	if !cond.Absent && cond.ETag == "" {
		return nil
	}
	current, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if cond.ETag != "" {
			return fmt.Errorf("%w: there is no object", objstore.ErrPrecondition)
		}
		return nil
	case err != nil:
		return refuse(err)
	case cond.Absent || tagOf(current) != cond.ETag:
		return objstore.ErrPrecondition
	}
	return nil
}

// writeTemp writes and syncs a new file in .tmp.
func (b *Bucket) writeTemp(body []byte) (path string, err error) {
	path = filepath.Join(b.dir, tmpDir, rand.Text())
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return "", err
	}
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
		return "", err
	}
	return path, nil
}

// mkdir creates a directory and those above it, and syncs the parent of each new one. Directories
// are never removed, so what exists stays.
func (b *Bucket) mkdir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := b.mkdir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// there is an error when the directory is not the one that was opened: it was moved, or its disk is
// mounted no longer. What objects there are is not known then (F4).
func (b *Bucket) there() error {
	_, err := os.Stat(filepath.Join(b.dir, tmpDir))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the directory of the bucket is gone: there is no %s in %s", tmpDir, b.dir)
	}
	return err
}

// Get implements objstore.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	body, info, err := b.get(ctx, key)
	if err != nil {
		return nil, objstore.Info{}, fmt.Errorf("get %s: %w", key, err)
	}
	return body, info, nil
}

func (b *Bucket) get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	f, size, err := b.open(ctx, key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	defer func() { _ = f.Close() }()
	stat, err := f.Stat()
	if err != nil {
		return nil, objstore.Info{}, err
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(f, body); err != nil {
		return nil, objstore.Info{}, err
	}
	return body, objstore.Info{
		Key: key, Size: size, ETag: tagOf(body), Modified: stat.ModTime(),
	}, nil
}

// GetRange implements objstore.Bucket.
func (b *Bucket) GetRange(
	ctx context.Context, key string, offset, length int64,
) ([]byte, error) {
	f, size, err := b.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	defer func() { _ = f.Close() }()
	if offset < 0 || length < 0 || offset > size || length > size-offset {
		return nil, fmt.Errorf("get %s: %w: range %d+%d of %d bytes",
			key, objstore.ErrRefused, offset, length, size)
	}
	body := make([]byte, length)
	if n, err := f.ReadAt(body, offset); n < len(body) {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return body, nil
}

// open opens an object for reading. The file is complete (F1) and stays as it is when another one
// takes its name.
func (b *Bucket) open(ctx context.Context, key string) (*os.File, int64, error) {
	if err := check(ctx, key); err != nil {
		return nil, 0, err
	}
	f, err := os.Open(b.path(key))
	if err != nil {
		if gone := b.there(); gone != nil {
			return nil, 0, refuse(gone)
		}
		return nil, 0, refuse(err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = objstore.ErrNotFound
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := check(ctx, key); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	dirs := make(map[string]bool)
	for _, key := range keys {
		if err := b.remove(ctx, key, dirs); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return fmt.Errorf("delete %d keys: %w", len(keys), err)
		}
	}
	return nil
}

func (b *Bucket) remove(ctx context.Context, key string, dirs map[string]bool) error {
	unlock, err := b.locks.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	path := b.path(key)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil // a folder of objects is not an object
	}
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		return b.there()
	case err != nil:
		return refuse(err)
	}
	dirs[filepath.Dir(path)] = true
	return nil
}

// List implements objstore.Bucket. Objects that come and go while it runs may be missed.
func (b *Bucket) List(
	ctx context.Context, prefix string, fn func(objstore.Info) bool,
) error {
	_, err := b.list(ctx, "", prefix, fn)
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	return nil
}

// list walks the folder, "" or ending in a slash, in key order: a directory sorts as its name and
// a slash.
func (b *Bucket) list(
	ctx context.Context, folder, prefix string, fn func(objstore.Info) bool,
) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(filepath.Join(b.dir, filepath.FromSlash(folder)))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = b.there()
	}
	if err != nil {
		return false, refuse(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := folder + e.Name()
		if e.IsDir() {
			name += "/"
		}
		within := strings.HasPrefix(name, prefix) ||
			e.IsDir() && strings.HasPrefix(prefix, name)
		if within && objstore.CheckKey(strings.TrimSuffix(name, "/")) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			more, err = b.list(ctx, name, prefix, fn)
		} else {
			more, err = b.listOne(name, fn)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

func (b *Bucket) listOne(key string, fn func(objstore.Info) bool) (bool, error) {
	info, err := os.Stat(b.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // deleted meanwhile
	}
	if err != nil {
		return false, refuse(err)
	}
	return fn(objstore.Info{Key: key, Size: info.Size(), Modified: info.ModTime()}), nil
}

// Close implements objstore.Bucket. No file stays open between calls.
func (b *Bucket) Close() error { return nil }

// path is below the directory, because every key was checked (F3).
func (b *Bucket) path(key string) string { return filepath.Join(b.dir, filepath.FromSlash(key)) }

func check(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return objstore.CheckKey(key)
}

// refuse adds the sentinel that says what a file error before any change means.
func refuse(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", objstore.ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", objstore.ErrRefused, err)
	default:
		return err
	}
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}
