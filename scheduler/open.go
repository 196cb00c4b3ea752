// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/clock"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/planted"
	"github.com/cicadamq/cicada/scheduler/query"
	"github.com/cicadamq/cicada/scheduler/recovery"
	"github.com/cicadamq/cicada/tiered"
)

// ErrOldDisk says that the data directory does not match the bucket's manifest: another owner has
// written since. It must be set aside, and the shard started as after the loss of the disk (R10).
var ErrOldDisk = errors.New("data directory is older than the bucket's manifest")

// Open takes the shard: it recovers the local state, or restores from the tier when the local
// store is new, and takes a new epoch. Nothing runs until Run. ErrOldDisk leaves everything as it
// was.
func Open(ctx context.Context, parts Parts, opts Options) (*Shard, error) {
	return open(ctx, parts, opts, nil, 0)
}

func open(
	ctx context.Context, parts Parts, opts Options, drive *driver, seed uint64,
) (*Shard, error) {
	opts = opts.withDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if parts.Boot == nil {
		start := parts.Now()
		parts.Boot = func() time.Duration { return parts.Now().Sub(start) }
	}
	s := &Shard{
		parts: parts, opts: opts, log: parts.Logger, lanes: commit.NewLanes(), drive: drive,
		reads: make(chan core.Action, loadsInFlight), closed: make(chan struct{}),
	}
	s.clock = clock.New(parts.Now, parts.Boot, opts.ClockMaxHold, parts.Events.ClockStep)
	s.events.wake = make(chan struct{}, 1)
	s.tier.flush = make(chan struct{}, 1)
	own, err := s.own(ctx)
	if err != nil {
		return nil, fmt.Errorf("open shard: %w", err)
	}
	s.ids = delay.NewIDMaker(own.meta.ClusterID)
	found, err := s.recover(ctx, &own)
	if err != nil {
		return nil, err
	}
	s.build(own, found, seed)
	return s, nil
}

// ownership is what taking the shard brought.
type ownership struct {
	meta      localstore.Meta
	books     delay.Books
	clean     bool
	horizon   delay.Due // push messages up to it may have been claimed before
	claimFrom delay.Due
	restore   *tiered.State // set when the local store is new and the bucket is not
	behind    bool          // rows may have to be uploaded that the buffer does not hold
	isolated  bool          // the bucket gave no answer: the last epoch goes on (rule R11)
	first     delay.Seq     // seqs above it are handed out
}

// own takes the next epoch, in the manifest when there is a tier (rule R4).
func (s *Shard) own(ctx context.Context) (ownership, error) {
	store := s.parts.Store
	own := ownership{meta: store.Meta(), books: store.Books()}
	own.clean = own.meta.Clean
	if !own.clean {
		own.horizon = own.meta.ClaimHorizon
	}
	own.meta.Clean = false
	var err error
	if s.parts.Tier == nil {
		err = s.ownAlone(&own)
	} else {
		err = s.ownTier(ctx, &own)
	}
	if err == nil {
		own.first, err = firstSeq(own.meta.Epoch, own.isolated, store.LastSeq())
	}
	if err != nil {
		return own, err
	}
	return own, s.writeMeta(own.meta, own.books)
}

func (s *Shard) ownAlone(own *ownership) error {
	if n := s.parts.Store.Counts().Cold.Messages; n > 0 {
		return fmt.Errorf("%w: %d messages of this data directory are only in its bucket; "+
			"start with that bucket", delay.ErrInvalid, n)
	}
	m := &own.meta
	m.Adopted = true
	if m.Epoch == 0 {
		m.ClusterID, m.IDsComplete = s.opts.ClusterID, true
		if m.ClusterID == "" {
			m.ClusterID = randomID()
		}
	}
	m.Epoch++
	m.Boundary = delay.MaxKey
	return nil
}

func (s *Shard) ownTier(ctx context.Context, own *ownership) error {
	m := &own.meta
	asked := s.parts.Boot()
	st, err := s.firstLook(ctx, m)
	if errors.Is(err, errIsolated) {
		own.isolated, own.behind = true, !own.clean
		s.log.Warn("bucket does not answer, starting on the last epoch",
			zap.Uint32("epoch", uint32(m.Epoch)), zap.Error(err))
		return nil
	}
	if err != nil {
		return err
	}
	s.noteAnswer(asked)
	fresh := m.Epoch == 0
	if err := believable(m, st); err != nil {
		return err
	}
	switch {
	case st == nil && fresh:
		m.IDsComplete, m.Adopted = true, true
	case st != nil && fresh:
		own.restore = st
	}
	if st == nil {
		m.Boundary = delay.Key{}
	}
	if err := follow(m, st); err != nil {
		return err
	}
	// The nonce is on the disk before the manifest names it (rule R10).
	if err := s.writeMeta(*m, own.books); err != nil {
		return err
	}
	taken, err := s.parts.Tier.Take(ctx, m.NextNonce, st == nil)
	if err != nil {
		return fmt.Errorf("take the shard: %w", err)
	}
	m.ClusterID, m.Epoch = taken.ClusterID, taken.Epoch
	m.Nonce, m.ManifestVersion = m.NextNonce, taken.Version
	own.behind = !own.clean && !fresh && !planted.Is(planted.BuffersTrusted)
	now := s.clock.Now()
	pause := s.patience()
	if own.restore != nil {
		own.restore = &taken // the owner before may have committed since it was read
		own.horizon = max(taken.ClaimHorizon, now.Add(pause)) // rule R12
		m.ClaimHorizon = own.horizon
		if !st.Released {
			own.claimFrom = now.Add(pause)
		}
	}
	return nil
}

// believable refuses a data directory that is not the latest of what st, nil for none, says
// (rule R10), and a manifest that has vanished.
func believable(m *localstore.Meta, st *tiered.State) error {
	fresh := m.Epoch == 0
	switch {
	case st == nil && m.ManifestVersion > 0:
		return fmt.Errorf("%w: the manifest has vanished from the bucket; version %d was "+
			"committed from this data directory", delay.ErrCorrupt, m.ManifestVersion)
	case st != nil && !fresh && !ours(m, st):
		return fmt.Errorf("%w: local epoch %d version %d, manifest epoch %d version %d",
			ErrOldDisk, m.Epoch, m.ManifestVersion, st.Epoch, st.Version)
	case !fresh && !m.Adopted:
		return fmt.Errorf("%w: a restore from the bucket was interrupted", ErrOldDisk)
	}
	return nil
}

// follow prepares m for taking the shard from st, nil for none: what is ours is known as such
// before another nonce is written. An attempt to take the shard may end here, or after the manifest
// was written, any number of times.
func follow(m *localstore.Meta, st *tiered.State) error {
	if st != nil && m.Epoch != 0 && !planted.Is(planted.NonceForgotten) {
		m.Nonce, m.ManifestVersion = st.Nonce, st.Version
	}
	if _, err := rand.Read(m.NextNonce[:]); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	return nil
}

// ours reports whether the manifest is the one this data directory wrote last, or the one it was
// just writing (rule R10).
func ours(m *localstore.Meta, st *tiered.State) bool {
	if st.ClusterID != m.ClusterID {
		return false
	}
	switch st.Nonce {
	case m.Nonce:
		return st.Version == m.ManifestVersion || st.Version == m.ManifestVersion+1
	case m.NextNonce:
		return st.Version == m.ManifestVersion+1
	default:
		return false
	}
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// writeMeta stores meta and books and waits for the sync.
func (s *Shard) writeMeta(m localstore.Meta, books delay.Books) error {
	b := s.parts.Store.NewBatch()
	b.SetMeta(m)
	b.SetBooks(books)
	pending, err := s.parts.Store.Apply(b)
	if err != nil {
		return err
	}
	_, err = pending.Wait()
	return err
}

// recover makes the local store whole and finds what the core and the committer begin with.
func (s *Shard) recover(ctx context.Context, own *ownership) (recovery.Found, error) {
	r := recovery.Recoverer{
		Store: s.parts.Store, Tier: s.parts.Tier, Lanes: s.lanes, IDs: s.ids, Shard: s.shard,
		Log: s.log, DedupeWindow: s.opts.DedupeWindow, DeadRetention: s.opts.DeadRetention,
	}
	if own.restore != nil {
		if err := r.Restore(ctx, own.restore, &own.meta, &own.books); err != nil {
			return recovery.Found{}, fmt.Errorf("restore: %w", err)
		}
	}
	f, err := r.Find(own.meta.Watermark, s.clock.Now().Add(s.opts.MinWait), own.behind)
	if err != nil {
		return recovery.Found{}, fmt.Errorf("recover: %w", err)
	}
	return f, nil
}

// build makes the core and the committer.
func (s *Shard) build(own ownership, f recovery.Found, seed uint64) {
	rng := mathrand.New(mathrand.NewPCG(mathrand.Uint64(), 0))
	syncs := 0
	if s.drive != nil {
		rng, syncs = mathrand.New(mathrand.NewPCG(seed, 1)), steppedSyncs
	}
	meta := own.meta
	first := own.first
	s.tier.isolated.Store(own.isolated)
	s.core = core.New(core.Options{
		HotWindow: s.opts.HotWindow, Backoff: s.opts.Backoff, MaxBackoff: s.opts.MaxBackoff,
		Window: s.opts.Window,
	}, s.lanes, rng, s.clock.Now(), core.Start{
		Epoch: meta.Epoch, Watermark: meta.Watermark, Boundary: meta.Boundary,
		Horizon: meta.ClaimHorizon, ClaimFrom: own.claimFrom,
		Last: max(s.parts.Store.LastSeq(), first),
	})
	part := commit.Part{
		Last: first, Outbox: meta.OutboxNext, Mark: meta.Watermark, Books: own.books,
		Kept: f.Kept,
	}
	if own.behind {
		part.Behind, part.Since = first, s.clock.Now()
	}
	s.upload = commit.NewBuffer(s.parts.Tier == nil, s.clock.Now, part)
	s.commit = commit.New(commit.Config{
		Store: s.parts.Store, IDs: s.ids, Shard: s.shard, Lanes: s.lanes, Upload: s.upload,
		Log: s.log, Tiered: s.parts.Tier != nil, Now: s.Now, Wall: s.parts.Now, Post: s.post,
		Ask: s.askCore, Broken: func(err error) { s.stop(err) },
		OnCommit: s.parts.Events.Commit, OnSync: s.parts.Events.Sync,
		Options: commit.Options{
			MinWait: s.opts.MinWait, DedupeWindow: s.opts.DedupeWindow,
			DeadRetention: s.opts.DeadRetention, MaxPending: s.opts.MaxPending, Syncs: syncs,
		},
		Meta: meta, First: first, Books: own.books, Uncold: f.Uncold, Horizon: own.horizon,
		Targets: f.Targets, Crashed: !own.clean,
	})
	s.find = s.commit.Finder()
	s.query = query.New(query.Config{
		Store: s.parts.Store, Tier: s.parts.Tier, Find: s.find, IDs: s.ids, Shard: s.shard,
		Inspect: s.inspect, Hot: func() int64 { return s.glance().Hot },
	})
	s.maintainer = s.newMaintainer()
	s.firsts = []core.Event{f.Lanes, f.Flights}
}

// askCore asks the core for a key on behalf of the committer (C5).
func (s *Shard) askCore(key delay.Key, parked *uint32) bool {
	ev := core.EvWithdraw{Key: key, Granted: make(chan bool, 1)}
	if parked != nil {
		ev.Parked, ev.Lane = true, *parked
	}
	s.post(ev)
	if s.drive != nil { // the committer is inside its own task: answer without others
		s.stepCore()
	}
	granted, _ := wait(s, ev.Granted)
	return granted
}
