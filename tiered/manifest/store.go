// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// Snapshot is a manifest as it was read or written.
type Snapshot struct {
	State    State
	Size     int64
	Modified time.Time // by the store's clock; zero when it was written and not read

	etag string
}

// Store reads and commits the manifest of one shard.
type Store struct {
	client *objio.Client
	z      *codec.Zstd
	key    string
}

// NewStore is the manifest stored under key.
func NewStore(client *objio.Client, z *codec.Zstd, key string) *Store {
	return &Store{client: client, z: z, key: key}
}

// Load reads the manifest. Nil without an error: there is none.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) {
	snap, _, err := s.load(ctx)
	return snap, err
}

// sizeGuess is the size for which the time limit of a read is made.
const sizeGuess = 4 << 20

// load reads once more when the bytes are wrong, in case they were spoilt on the way.
func (s *Store) load(ctx context.Context) (*Snapshot, []byte, error) {
	snap, body, err := s.loadOnce(ctx)
	if errors.Is(err, delay.ErrCorrupt) {
		snap, body, err = s.loadOnce(ctx)
	}
	return snap, body, err
}

func (s *Store) loadOnce(ctx context.Context) (*Snapshot, []byte, error) {
	body, info, err := s.client.Get(ctx, s.key, sizeGuess)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	state, err := Decode(s.z, body)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", s.key, err)
	}
	snap := &Snapshot{
		State: state, Size: info.Size, Modified: info.Modified, etag: info.ETag,
	}
	return snap, body, nil
}

// Build makes the next state from the one it follows, nil for the first. It may be called again
// with another base when an earlier commit of the same owner turns out to have landed. It does not
// set Version or Nonce.
type Build func(base *State) (State, error)

// Commit replaces base, nil to create, by what build makes of it, as the owner with the nonce.
//
// Errors: delay.ErrFenced when another owner's manifest is found, delay.ErrUnavailable when the
// store gave no answer: then the outcome is unknown, and the next Commit from the same base
// resolves it.
func (s *Store) Commit(
	ctx context.Context, base *Snapshot, nonce [16]byte, build Build,
) (*Snapshot, error) {
	c := commit{store: s, base: base, nonce: nonce, build: build}
	for n := 1; ; n++ {
		snap, err := c.try(ctx)
		if snap != nil || err != nil {
			return snap, err
		}
		if n >= s.client.Attempts() {
			return nil, fmt.Errorf("commit %s: %w after %d attempts: %w",
				s.key, delay.ErrUnavailable, n, c.cause)
		}
		if err := s.client.Pause(ctx, n); err != nil {
			return nil, fmt.Errorf("commit %s: %w after %d attempts: %w", s.key, err, n, c.cause)
		}
	}
}

// commit is one Commit on its way.
type commit struct {
	store *Store
	base  *Snapshot
	nonce [16]byte
	build Build

	next  State
	body  []byte // of next; nil when it must be built
	cause error  // why the last attempt gave nothing
}

// try makes one attempt. Nil and nil: it did not land, and may be repeated.
func (c *commit) try(ctx context.Context) (*Snapshot, error) {
	if c.body == nil {
		if err := c.prepare(); err != nil {
			return nil, err
		}
	}
	cond := objstore.Condition{Absent: true}
	if c.base != nil {
		cond = objstore.Condition{ETag: c.base.etag}
	}
	etag, err := c.store.client.PutIf(ctx, c.store.key, c.body, cond)
	switch {
	case err == nil:
		return &Snapshot{State: c.next, Size: int64(len(c.body)), etag: etag}, nil
	case errors.Is(err, objstore.ErrRefused):
		return nil, fmt.Errorf("commit %s: %w", c.store.key, err)
	case errors.Is(err, objio.ErrPaused): // not sent; whether an earlier one landed is still open
		return nil, fmt.Errorf("commit %s: %w", c.store.key, errors.Join(err, c.cause))
	}
	c.cause = err
	return c.resolve(objio.As(ctx, objio.Read)) // the outcome is wanted, whoever asked
}

func (c *commit) prepare() error {
	var prev *State
	version := uint64(1)
	if c.base != nil {
		prev = &c.base.State
		version = prev.Version + 1
	}
	next, err := c.build(prev)
	if err != nil {
		return fmt.Errorf("commit %s: %w", c.store.key, err)
	}
	next.Version, next.Nonce = version, c.nonce
	c.next, c.body = next, Encode(c.store.z, &next)
	return nil
}

// resolve reads back after an attempt that was refused or whose outcome is unknown.
func (c *commit) resolve(ctx context.Context) (*Snapshot, error) {
	snap, body, err := c.store.load(ctx)
	switch {
	case err != nil:
		return nil, err
	case snap == nil && c.base == nil:
		return nil, nil // not created
	case snap == nil:
		return nil, fmt.Errorf("commit %s: %w: the manifest vanished after version %d",
			c.store.key, delay.ErrCorrupt, c.base.State.Version)
	case bytes.Equal(body, c.body) && !planted.Is(planted.OwnWriteFenced):
		return snap, nil // M3: it was our write
	case c.base != nil && snap.etag == c.base.etag:
		return nil, nil // not replaced
	case snap.State.Nonce == c.nonce && !planted.Is(planted.OwnWriteFenced):
		// An earlier attempt of our own, thought lost, has landed: go on from there.
		c.base, c.body = snap, nil
		return nil, nil
	default:
		return nil, Fenced(&snap.State)
	}
}

// Fenced is the error for an owner that found s.
func Fenced(s *State) error {
	return fmt.Errorf("%w: shard %d has epoch %d, version %d", delay.ErrFenced, s.Shard, s.Epoch,
		s.Version)
}
