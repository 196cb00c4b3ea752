// SPDX-License-Identifier: Apache-2.0

// Package memory is a bucket in memory, for tests, the simulator and demonstrations. Like the tag
// of most stores its ETag is a hash of the content: equal bytes have equal tags.
//
// It is safe for concurrent use. Nothing survives the process.
package memory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/tiered/objstore"
)

// Bucket is an objstore.Bucket in memory.
type Bucket struct {
	now func() time.Time

	mu      sync.Mutex
	objects map[string]object
}

type object struct {
	body     []byte
	etag     string
	modified time.Time
}

var _ objstore.Bucket = (*Bucket)(nil)

// Options of a Bucket.
type Options struct {
	Now func() time.Time // stamps objects; the default is the system clock
}

// New is an empty bucket.
func New(opts Options) *Bucket {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Bucket{now: opts.Now, objects: make(map[string]object)}
}

// Put implements objstore.Bucket. The body is copied.
func (b *Bucket) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	if err := check(ctx, "put", key); err != nil {
		return "", err
	}
	o := object{body: bytes.Clone(body), etag: tagOf(body), modified: b.now()}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, ok := b.objects[key]
	if cond.Absent && ok || cond.ETag != "" && (!ok || old.etag != cond.ETag) {
		return "", fmt.Errorf("put %s: %w", key, objstore.ErrPrecondition)
	}
	b.objects[key] = o
	return o.etag, nil
}

// Get implements objstore.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, objstore.Info{}, err
	}
	return bytes.Clone(o.body), infoOf(key, o), nil
}

// GetRange implements objstore.Bucket.
func (b *Bucket) GetRange(
	ctx context.Context, key string, offset, length int64,
) ([]byte, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, err
	}
	size := int64(len(o.body))
	if offset < 0 || length < 0 || offset > size || length > size-offset {
		return nil, fmt.Errorf("get %s: %w: range %d+%d of %d bytes",
			key, objstore.ErrRefused, offset, length, size)
	}
	return bytes.Clone(o.body[offset : offset+length]), nil
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := check(ctx, "delete", key); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		delete(b.objects, key)
	}
	return nil
}

// List implements objstore.Bucket. It sees the objects of the moment of the call.
func (b *Bucket) List(
	ctx context.Context, prefix string, fn func(objstore.Info) bool,
) error {
	for _, info := range b.snapshot(prefix) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		if !fn(info) {
			return nil
		}
	}
	return nil
}

// Close implements objstore.Bucket. It does nothing.
func (b *Bucket) Close() error { return nil }

func (b *Bucket) snapshot(prefix string) []objstore.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	var infos []objstore.Info
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if strings.HasPrefix(key, prefix) {
			infos = append(infos, infoOf(key, b.objects[key]))
		}
	}
	return infos
}

func (b *Bucket) find(ctx context.Context, key string) (object, error) {
	if err := check(ctx, "get", key); err != nil {
		return object{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[key]
	if !ok {
		return object{}, fmt.Errorf("get %s: %w", key, objstore.ErrNotFound)
	}
	return o, nil
}

func check(ctx context.Context, op, key string) error {
	err := ctx.Err()
	if err == nil {
		err = objstore.CheckKey(key)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", op, key, err)
	}
	return nil
}

func infoOf(key string, o object) objstore.Info {
	return objstore.Info{
		Key: key, Size: int64(len(o.body)), ETag: o.etag, Modified: o.modified,
	}
}

func tagOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}
