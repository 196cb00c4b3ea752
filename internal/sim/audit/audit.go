// SPDX-License-Identifier: Apache-2.0

// Package audit watches what the owners of a shard do to its bucket and says what they must not
// do. It stands below the faults, at the truth: it sees what was really stored and deleted.
//
//	owners --> links, faults --> audit.Bucket --> the bucket
//	                                 |
//	                  Put manifest: compare with the one before, read what is new
//	                  Delete:       was it to go, and is it time?
//
// # Invariants
//
//	A1  A manifest follows the one before: version + 1, an epoch that does not fall, one nonce to an
//	    epoch, and never a second beginning.
//	A2  What a manifest lists exists, and a name that has left the lists never comes back (T2, T4).
//	A3  An object that was listed is deleted only when no manifest lists it, the current one says
//	    that it is to go, and the grace period has passed since it left the lists; one that never
//	    was listed only when it is older than an orphan must be (T2).
//	A4  A mark leaves the lists only when no listed object holds its key, or another listed object
//	    holds the mark; the outcome of an id only when its window is over (T7, R6).
//	A5  A kept message leaves the lists only when it has a mark or a listed object holds it (R5).
//	A6  A message above the watermark leaves the lists only when it has a mark or a listed object
//	    holds it; one below, with an id, only when its window is over (R5, R14).
//
// A Bucket checks on the goroutine that puts a manifest or deletes, of which there may be one at a
// time; the other calls may come from several at once.
package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// Options of a Bucket. All are required.
type Options struct {
	Now       func() time.Time // the true time, whatever the clocks of owners and stores say
	Grace     time.Duration    // from leaving the lists to the deletion, at least
	OrphanAge time.Duration    // of an object that no manifest ever listed, at least
	Window    time.Duration    // how long ids are remembered

	IDs delay.IDMaker // of the cluster

	// Fail is told what is wrong.
	Fail func(format string, args ...any)
	// Committed is told of every manifest; prev is nil for the first.
	Committed func(prev, next *manifest.State)
}

// Bucket is an objstore.Bucket that checks what goes through it.
type Bucket struct {
	objstore.Bucket
	opts   Options
	z      *codec.Zstd
	prefix string // of the shard, known from the first manifest on

	state   *manifest.State // of the current manifest
	body    []byte          // of it
	gone    bool            // somebody took the manifest away
	objects map[string]*Object
	left    map[string]time.Time // when a name left the lists

	mu     sync.Mutex
	stored map[string]time.Time // when each object was stored last, by the true time
}

// New watches inner, which must be empty.
func New(inner objstore.Bucket, opts Options) *Bucket {
	return &Bucket{
		Bucket: inner, opts: opts, z: codec.NewZstd(), objects: make(map[string]*Object),
		left: make(map[string]time.Time), stored: make(map[string]time.Time),
	}
}

// manifestName ends the key of a manifest.
const manifestName = "/manifest"

// IsManifest reports whether key is that of a manifest.
func IsManifest(key string) bool { return strings.HasSuffix(key, manifestName) }

// State is the current manifest; nil when there is none. It is shared: do not change it.
func (b *Bucket) State() *manifest.State {
	if b.gone {
		return nil
	}
	return b.state
}

// Put implements objstore.Bucket.
func (b *Bucket) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	etag, err := b.Bucket.Put(ctx, key, body, cond)
	if err != nil {
		return etag, err
	}
	if !IsManifest(key) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.stored[key] = b.opts.Now()
		return etag, nil
	}
	next, err := manifest.Decode(b.z, body)
	if err != nil {
		b.opts.Fail("a manifest was stored that cannot be read: %v", err)
		return etag, nil
	}
	b.prefix = strings.TrimSuffix(key, manifestName[1:])
	prev := b.state
	b.compare(ctx, prev, &next)
	b.state, b.body = &next, append([]byte(nil), body...)
	b.opts.Committed(prev, &next)
	return etag, nil
}

// Vanish takes the manifest away, as a careless operator does. Return brings it back.
func (b *Bucket) Vanish(ctx context.Context) error {
	b.gone = true
	return b.Bucket.Delete(ctx, b.prefix+manifestName[1:])
}

// Return brings the manifest back that Vanish took.
func (b *Bucket) Return(ctx context.Context) error {
	b.gone = false
	_, err := b.Bucket.Put(ctx, b.prefix+manifestName[1:], b.body, objstore.Condition{})
	return err
}

// compare checks the step from one manifest to the next (A1, A2, A4 to A6).
func (b *Bucket) compare(ctx context.Context, prev, next *manifest.State) {
	if b.gone {
		b.opts.Fail("the manifest had vanished, and was created again as version %d", next.Version)
	}
	b.follows(prev, next)
	for name := range next.Names(false) {
		if _, left := b.left[name]; left {
			b.opts.Fail("%s had left the lists, and version %d lists it again", name, next.Version)
		}
		if _, err := b.object(ctx, name); err != nil {
			b.opts.Fail("version %d lists %s: %v", next.Version, name, err)
		}
	}
	if prev == nil {
		return
	}
	listed := next.Names(false)
	for name := range prev.Names(false) {
		if !listed[name] {
			// The grace period begins when the owner decides: how long a commit is on its way, nobody
			// can know before.
			b.left[name] = next.WrittenAt.Time()
		}
	}
	b.checkGone(prev, next)
}

// follows checks A1.
func (b *Bucket) follows(prev, next *manifest.State) {
	switch {
	case prev == nil:
		if next.Version != 1 || next.Epoch != 1 {
			b.opts.Fail("the first manifest has version %d, epoch %d", next.Version, next.Epoch)
		}
	case next.Version != prev.Version+1:
		b.opts.Fail("version %d follows %d", next.Version, prev.Version)
	case next.Epoch < prev.Epoch:
		b.opts.Fail("epoch %d follows %d", next.Epoch, prev.Epoch)
	case (next.Epoch == prev.Epoch) != (next.Nonce == prev.Nonce):
		b.opts.Fail("epoch %d follows %d, with another nonce: %v", next.Epoch, prev.Epoch,
			next.Nonce != prev.Nonce)
	case next.Watermark.Less(prev.Watermark):
		b.opts.Fail("the manifest's watermark went back from %s to %s", prev.Watermark,
			next.Watermark)
	case next.Uploaded < prev.Uploaded:
		b.opts.Fail("uploaded went back from %d to %d", prev.Uploaded, next.Uploaded)
	}
}

// Delete implements objstore.Bucket. It checks A3.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		b.checkDelete(key)
	}
	return b.Bucket.Delete(ctx, keys...)
}

func (b *Bucket) checkDelete(key string) {
	if IsManifest(key) || b.state == nil || !strings.HasPrefix(key, b.prefix) {
		b.opts.Fail("%s is deleted", key)
		return
	}
	name, now := strings.TrimPrefix(key, b.prefix), b.opts.Now()
	left, was := b.left[name]
	switch {
	case b.state.Names(false)[name]:
		b.opts.Fail("%s is deleted, and the manifest (version %d) lists it", name,
			b.state.Version)
	case was && now.Sub(left) < b.opts.Grace:
		b.opts.Fail("%s is deleted %v after it left the lists", name, now.Sub(left))
	case !was:
		b.checkOrphan(key, name, now)
	}
}

// checkOrphan checks the deletion of what was never listed.
func (b *Bucket) checkOrphan(key, name string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.stored[key]; ok && now.Sub(at) <= b.opts.OrphanAge {
		b.opts.Fail("%s is deleted as an orphan %v after it was stored", name, now.Sub(at))
	}
}

// Leftovers gives what the bucket holds of the shard and no manifest lists or is about to delete.
func (b *Bucket) Leftovers(ctx context.Context) (names []string, err error) {
	known := b.state.Names(true)
	err = b.List(ctx, b.prefix, func(i objstore.Info) bool {
		name := strings.TrimPrefix(i.Key, b.prefix)
		if !known[name] && !IsManifest(i.Key) {
			names = append(names, name)
		}
		return true
	})
	return names, err
}

// object reads and remembers an object that a manifest lists.
func (b *Bucket) object(ctx context.Context, name string) (*Object, error) {
	if o := b.objects[name]; o != nil {
		// It was read when it was listed first; here it must only still be there.
		return o, b.exists(ctx, name)
	}
	body, _, err := b.Get(ctx, b.prefix+name)
	if err != nil {
		return nil, err
	}
	o, err := readObject(ctx, b.z, body)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	b.objects[name] = o
	return o, nil
}

func (b *Bucket) exists(ctx context.Context, name string) error {
	_, err := b.GetRange(ctx, b.prefix+name, 0, 1)
	if errors.Is(err, objstore.ErrNotFound) {
		return errors.New("the bucket has no such object")
	}
	return err
}

// list gives the objects of a list that were read.
func (b *Bucket) list(infos []manifest.SegmentInfo) []*Object {
	objects := make([]*Object, 0, len(infos))
	for i := range infos {
		if o := b.objects[infos[i].Name]; o != nil {
			objects = append(objects, o)
		}
	}
	return objects
}

// Pending calls fn for every message that would come back if a new owner began from the current
// manifest: rows above the watermark and kept messages that are not dead, without those that have
// marks or are covered by a bulk cancel.
func (b *Bucket) Pending(fn func(key delay.Key, record []byte)) {
	s := b.state
	if s == nil {
		return
	}
	marks := b.marks(s)
	seen := make(map[delay.Key]bool)
	for _, o := range b.list(s.Kept) {
		for _, k := range o.Kept {
			if _, marked := marks[k.Key]; !marked {
				seen[k.Key] = seen[k.Key] || k.Progress.State.Finished()
			}
		}
	}
	give := func(key delay.Key, record []byte) {
		if _, marked := marks[key]; !marked && !seen[key] {
			seen[key] = true
			fn(key, record)
		}
	}
	for _, o := range b.list(s.Kept) {
		for i := range o.Kept {
			give(o.Kept[i].Key, o.Kept[i].Record)
		}
	}
	for _, o := range b.list(s.Segments) {
		for i := range o.Rows {
			key, record := o.Rows[i].Key, o.Rows[i].Record
			if !key.Less(s.Watermark) && !b.covered(s, key, record) {
				give(key, record)
			}
		}
	}
}
