// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/cache"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/segment"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

// State is the content of a manifest.
type State = manifest.State

// SegmentInfo is what a manifest knows of an object.
type SegmentInfo = manifest.SegmentInfo

// PendingDelete is an object that is no longer listed and will be deleted.
type PendingDelete = manifest.PendingDelete

// Tier is the cold tier of one shard.
type Tier struct {
	opts    Options
	client  *objio.Client
	z       *codec.Zstd
	store   *manifest.Store
	prefix  string
	cluster string
	hash    uint64 // of the cluster id, as segments carry it
	created bool
	dice    dice // names and ids
	jitter  dice // pauses: apart, so that they do not change the names
	meter   meter
	indexes *cache.Cache[string, *segment.Index]
	blocks  *cache.Cache[blockKey, []byte]

	current atomic.Pointer[manifest.Snapshot] // last read or committed; nil: none
	before  atomic.Int64                      // messages accepted when the shard was taken
	owner   atomic.Bool
	mine    atomic.Pointer[[16]byte] // nonce, for Look; nil: not the owner
	seen    atomic.Bool              // the manifest was read, or found missing
	fenced  atomic.Pointer[error]
	closed  atomic.Bool

	// turn holds one token, taken by whoever changes the manifest; it guards the fields below.
	turn    chan struct{}
	met     bool // a known bucket was found to be the cluster's
	nonce   [16]byte
	writers [uploadsAhead]*segment.Writer
	staged  []stagedObject

	learned    *upkeep.Known
	compacting atomic.Bool // one Compact at a time
	collecting atomic.Bool // one Collect or Sweep at a time; it guards suspects
	suspects   map[string]bool
}

// Open opens the tier of a shard in bucket, which stays the caller's to close. It reads the
// cluster's id from the bucket, or makes one when the bucket is empty. A ClusterID of the options
// that differs is a delay.ErrInvalid that names both. Of a Known bucket it asks nothing: the first
// Load does.
func Open(ctx context.Context, bucket objstore.Bucket, opts Options) (*Tier, error) {
	opts.setDefaults()
	if opts.ClusterID != "" || opts.Known {
		if err := checkClusterID(opts.ClusterID); err != nil {
			return nil, err
		}
	}
	t := &Tier{
		opts: opts, z: codec.NewZstd(), prefix: shardPrefix(opts.Shard),
		indexes: cache.New[string, *segment.Index](opts.CacheBytes),
		blocks:  cache.New[blockKey, []byte](opts.CacheBytes),
		turn:    make(chan struct{}, 1),
		learned: upkeep.NewKnown(),
	}
	t.dice.rng = opts.Rand
	t.jitter.rng = rand.New(rand.NewPCG(opts.Rand.Uint64(), opts.Rand.Uint64()))
	for i := range t.writers {
		t.writers[i] = segment.NewWriter(t.z)
	}
	t.client = objio.New(bucket, objio.Policy{
		Base: opts.RetryBase, Max: opts.RetryMax, Attempts: opts.Attempts,
		Jitter: t.jitter.float, Observe: t.observe, Changed: t.changed, Now: opts.Now,
	})
	t.meter.stats.Since = opts.Now()
	t.store = manifest.NewStore(t.client, t.z, t.prefix+manifestKey)
	id := t.dice.id(t.now())
	fresh := idEncoding.EncodeToString(id[:])
	if opts.Known {
		t.cluster, t.hash = opts.ClusterID, codec.Hash64(opts.ClusterID)
		return t, nil
	}
	var err error
	t.cluster, t.created, err = claimBucket(ctx, t.client, opts.ClusterID, fresh, opts.ReadOnly)
	if err != nil {
		return nil, fmt.Errorf("open tier: %w", err)
	}
	t.hash = codec.Hash64(t.cluster)
	return t, nil
}

func (t *Tier) observe(op, code string, d time.Duration, bytes int64) {
	t.meter.request(op, code, bytes)
	if t.opts.Events.Request != nil {
		t.opts.Events.Request(op, code, d, bytes)
	}
}

// changed tells of a class of requests that was paused or goes on. Offload stands for all of them
// in the log: it stops last and is missed first.
func (t *Tier) changed(c objio.Change) {
	switch {
	case c.Class != objio.Write:
		t.opts.Logger.Debug("tier requests paused", zap.Stringer("class", c.Class),
			zap.Bool("paused", c.Paused), zap.NamedError("cause", c.Cause))
	case c.Paused:
		t.opts.Logger.Warn("bucket does not answer, offload paused",
			zap.NamedError("cause", c.Cause))
	default:
		t.opts.Logger.Info("bucket answers again, offload goes on",
			zap.Duration("paused", c.For))
	}
	if t.opts.Events.Paused != nil {
		t.opts.Events.Paused(c.Class.String(), c.Paused)
	}
}

func (t *Tier) now() delay.Due { return delay.InstantOf(t.opts.Now()) }

// ClusterID is the id of the cluster the bucket belongs to.
func (t *Tier) ClusterID() string { return t.cluster }

// Prefix begins the keys of the shard's objects; the names in a State follow it.
func (t *Tier) Prefix() string { return t.prefix }

// Created reports whether the bucket was empty when it was opened.
func (t *Tier) Created() bool { return t.created }

// State is the manifest as last read or committed by this Tier; the zero State when there is none.
// It is shared: do not change it.
func (t *Tier) State() State {
	if snap := t.current.Load(); snap != nil {
		return snap.State
	}
	return State{}
}

// Stats are counts since Open.
func (t *Tier) Stats() Stats {
	s := t.meter.read()
	s.Health = t.client.Health()
	if snap := t.current.Load(); snap != nil {
		s.ManifestBytes = snap.Size
		s.Accepted = snap.State.Books.Accepted - t.before.Load()
	}
	return s
}

// Load reads the manifest; nil when there is none. Until Take succeeds, the reads of this Tier
// serve what was loaded last.
func (t *Tier) Load(ctx context.Context) (*State, error) {
	if err := t.lock(ctx); err != nil {
		return nil, err
	}
	defer t.unlock()
	snap, err := t.load(ctx)
	if err != nil || snap == nil {
		return nil, err
	}
	if !t.owner.Load() {
		t.current.Store(snap)
	}
	state := snap.State.Clone()
	return &state, nil
}

func (t *Tier) load(ctx context.Context) (*manifest.Snapshot, error) {
	if err := t.meet(ctx); err != nil {
		return nil, fmt.Errorf("load manifest: %w", err)
	}
	snap, err := t.store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("load manifest: %w", err)
	}
	if snap == nil {
		t.seen.Store(true)
		return nil, nil
	}
	if s := &snap.State; s.ClusterID != t.cluster || s.Shard != t.opts.Shard {
		return nil, fmt.Errorf("load manifest: %w: it is of cluster %s shard %d, want %s shard %d",
			delay.ErrCorrupt, s.ClusterID, s.Shard, t.cluster, t.opts.Shard)
	}
	t.seen.Store(true)
	return snap, nil
}

// Take makes this Tier the owner of the shard: it commits the next epoch with nonce, which must be
// fresh and, if the caller keeps one on its disk, synced there before (rule R10).
//
// expectNone says that the caller has never seen a manifest of this shard: then one is created,
// and finding one is delay.ErrExists. Otherwise a missing manifest is delay.ErrCorrupt: it is
// never created again silently. delay.ErrFenced: another one took the shard in the meantime.
func (t *Tier) Take(ctx context.Context, nonce [16]byte, expectNone bool) (State, error) {
	if err := t.lock(ctx); err != nil {
		return State{}, err
	}
	defer t.unlock()
	if err := t.usable(); err != nil {
		return State{}, err
	}
	if t.opts.ReadOnly {
		return State{}, fmt.Errorf("take shard %d: %w: read-only", t.opts.Shard, delay.ErrInvalid)
	}
	snap, err := t.take(ctx, nonce, expectNone)
	if err != nil {
		return State{}, fmt.Errorf("take shard %d: %w", t.opts.Shard, err)
	}
	t.nonce, t.staged = nonce, nil
	t.before.Store(snap.State.Books.Accepted)
	t.current.Store(snap)
	t.mine.Store(&nonce)
	t.owner.Store(true)
	t.opts.Logger.Info("tier taken", zap.Uint32("epoch", uint32(snap.State.Epoch)),
		zap.Uint64("version", snap.State.Version), zap.String("cluster", t.cluster))
	return snap.State.Clone(), nil
}

// take tries again when the owner that is being replaced commits once more. It replaces the owner
// that Load found, and no other: what the caller knows of the manifest, and whether its disk is to
// be believed, was decided from that one (rule R10).
func (t *Tier) take(
	ctx context.Context, nonce [16]byte, expectNone bool,
) (*manifest.Snapshot, error) {
	var seen delay.Epoch
	if snap := t.current.Load(); snap != nil && !planted.Is(planted.TakenUnread) {
		seen = snap.State.Epoch
	}
	for n := 1; ; n++ {
		base, err := t.load(ctx)
		switch {
		case err != nil:
			return nil, err
		case base == nil && !expectNone:
			return nil, fmt.Errorf("%w: the manifest %s%s vanished", delay.ErrCorrupt, t.prefix,
				manifestKey)
		case base != nil && expectNone && base.State.Nonce != nonce:
			return nil, fmt.Errorf("%w: a manifest with epoch %d, version %d", delay.ErrExists,
				base.State.Epoch, base.State.Version)
		case base != nil && seen != 0 && base.State.Epoch != seen && base.State.Nonce != nonce:
			return nil, manifest.Fenced(&base.State)
		case base != nil:
			seen = base.State.Epoch
		}
		snap, err := t.store.Commit(ctx, base, nonce, t.nextEpoch)
		if !errors.Is(err, delay.ErrFenced) || n == t.client.Attempts() {
			return snap, err
		}
	}
}

func (t *Tier) nextEpoch(base *State) (State, error) {
	next := State{ClusterID: t.cluster, Shard: t.opts.Shard}
	if base != nil {
		next = base.Clone()
	}
	if next.Epoch == delay.MaxEpoch {
		return State{}, fmt.Errorf("%w: epoch %d is the last", delay.ErrInvalid, next.Epoch)
	}
	next.Epoch++
	next.Released = false
	next.WrittenAt = t.now()
	return next, nil
}

// Check reads the manifest again (rule R11). delay.ErrFenced: another owner's; then nothing will
// succeed any more. Without ownership it is only a read.
func (t *Tier) Check(ctx context.Context) error {
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	_, err := t.check(ctx)
	return err
}

// check reads the manifest and compares it with what was committed. The owner's snapshot changes
// only when a commit thought lost has landed.
func (t *Tier) check(ctx context.Context) (*manifest.Snapshot, error) {
	if err := t.usable(); err != nil {
		return nil, err
	}
	snap, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	if !t.owner.Load() {
		if snap != nil {
			t.current.Store(snap)
		}
		return snap, nil
	}
	mine := &t.current.Load().State
	switch {
	case snap == nil:
		return nil, fmt.Errorf("%w: the manifest vanished after version %d", delay.ErrCorrupt,
			mine.Version)
	case snap.State.Nonce != t.nonce && planted.Is(planted.FencedGoesOn):
	case snap.State.Nonce != t.nonce:
		return nil, t.fence(manifest.Fenced(&snap.State))
	case snap.State.Version < mine.Version:
		return nil, fmt.Errorf("%w: manifest version %d, committed %d: the bucket went back in time",
			delay.ErrCorrupt, snap.State.Version, mine.Version)
	}
	t.current.Store(snap)
	return snap, nil
}

// fence remembers that the shard is lost.
func (t *Tier) fence(err error) error {
	if t.fenced.CompareAndSwap(nil, &err) {
		t.opts.Logger.Error("tier fenced", zap.Error(err))
	}
	return err
}

func (t *Tier) usable() error {
	if t.closed.Load() {
		return fmt.Errorf("tier: %w", delay.ErrClosed)
	}
	if err := t.fenced.Load(); err != nil {
		return *err
	}
	return nil
}

// Release commits the manifest once more as released: the next owner need not wait (rule R11).
func (t *Tier) Release(ctx context.Context) error {
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	if err := t.owning(); err != nil {
		return err
	}
	return t.commit(ctx, func(base *State) (State, error) {
		next := base.Clone()
		next.Released, next.WrittenAt = true, t.now()
		return next, nil
	})
}

// Close ends the use of the Tier: later calls that change something fail with delay.ErrClosed. It
// waits for the one that is under way. The bucket stays open.
func (t *Tier) Close() error {
	t.closed.Store(true)
	t.turn <- struct{}{}
	t.unlock()
	return nil
}

func (t *Tier) lock(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tier: wait for turn: %w", context.Cause(ctx))
	}
}

func (t *Tier) unlock() { <-t.turn }

func (t *Tier) owning() error {
	if err := t.usable(); err != nil {
		return err
	}
	switch {
	case t.owner.Load():
		return nil
	case t.opts.Known:
		return fmt.Errorf("tier: %w: the shard has not been taken yet", delay.ErrUnavailable)
	default:
		return fmt.Errorf("tier: %w: the shard was not taken", delay.ErrInvalid)
	}
}

// commit commits what build makes of the current state.
func (t *Tier) commit(ctx context.Context, build manifest.Build) error {
	snap, err := t.store.Commit(ctx, t.current.Load(), t.nonce, build)
	if errors.Is(err, delay.ErrFenced) {
		return t.fence(err)
	}
	if err != nil {
		return err
	}
	t.current.Store(snap)
	return nil
}
