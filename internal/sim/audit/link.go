// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"

	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// ErrCut is the error of a Link that is cut.
var ErrCut = errors.New("audit: cut off from the bucket")

var errPartly = errors.New("audit: the answer to a deletion was lost")

// Link is one process's way to the bucket: it can be cut, and it knows what the process has read.
// It takes the deadlines of changes away: they are real time, and the world may hold a call for
// long.
// Its fields are changed only while no call is under way.
type Link struct {
	objstore.Bucket
	Cut    bool
	Reread bool // the manifest was read since the decision to delete

	Read func(*manifest.State) // is told of every manifest that was read whole
	Saw  func() bool           // reports whether the process knows that it was replaced
	Part func(n int) int       // how many of n deletions happen before the answer is lost
	Fail func(format string, args ...any)
	z    *codec.Zstd
}

// Put implements objstore.Bucket.
func (l *Link) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	if l.Cut {
		return "", ErrCut
	}
	return l.Bucket.Put(context.WithoutCancel(ctx), key, body, cond)
}

// Get implements objstore.Bucket.
func (l *Link) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	if l.Cut {
		return nil, objstore.Info{}, ErrCut
	}
	body, info, err := l.Bucket.Get(ctx, key)
	if err == nil && IsManifest(key) {
		l.note(body)
	}
	return body, info, err
}

// note tells of a manifest, unless it was spoilt on the way.
func (l *Link) note(body []byte) {
	if l.z == nil {
		l.z = codec.NewZstd()
	}
	if s, err := manifest.Decode(l.z, body); err == nil {
		l.Reread = true
		l.Read(&s)
	}
}

// GetRange implements objstore.Bucket.
func (l *Link) GetRange(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if l.Cut {
		return nil, ErrCut
	}
	return l.Bucket.GetRange(ctx, key, offset, length)
}

// List implements objstore.Bucket. A manifest that was read before is older than the list.
func (l *Link) List(
	ctx context.Context, prefix string, fn func(objstore.Info) bool,
) error {
	if l.Cut {
		return ErrCut
	}
	l.Reread = false
	return l.Bucket.List(ctx, prefix, fn)
}

// Delete implements objstore.Bucket. Only an owner deletes that has looked whether it is one (T2,
// T3).
func (l *Link) Delete(ctx context.Context, keys ...string) error {
	ctx = context.WithoutCancel(ctx)
	switch {
	case l.Cut:
		return ErrCut
	case len(keys) == 0:
		return nil
	case l.Saw():
		l.Fail("%s is deleted by an owner that has seen that it was replaced", keys[0])
	case !l.Reread:
		l.Fail("%s is deleted, and the manifest was not read after the decision", keys[0])
	}
	if n := l.Part(len(keys)); n < len(keys) {
		_ = l.Bucket.Delete(ctx, keys[:n]...)
		return errPartly
	}
	return l.Bucket.Delete(ctx, keys...)
}
