// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/clock"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/crowd"
	"github.com/cicadamq/cicada/scheduler/cut"
	"github.com/cicadamq/cicada/scheduler/hydrate"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/parcel"
	"github.com/cicadamq/cicada/scheduler/query"
	"github.com/cicadamq/cicada/scheduler/recovery"
	"github.com/cicadamq/cicada/scheduler/recur"
	"github.com/cicadamq/cicada/scheduler/trouble"
	"github.com/cicadamq/cicada/scheduler/upload"
)

// ErrOldDisk says that the data directory does not match the bucket's manifest: another owner has
// written since. It must be set aside, and the shard started as after the loss of the disk (R10).
var ErrOldDisk = recovery.ErrOldDisk

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
		parts: parts, opts: opts, log: parts.Logger, lanes: lanes.New(), drive: drive,
		loading: trouble.Loop{Log: parts.Logger, What: "load"},
		reads:   make(chan core.Action, loadsInFlight), closed: make(chan struct{}),
		settled: make(chan struct{}),
	}
	s.clock = clock.New(parts.Now, parts.Boot, opts.ClockMaxHold, parts.Events.ClockStep,
		parts.Witness)
	s.events.wake = make(chan struct{}, 1)
	s.tier.flush = make(chan struct{}, 1)
	var err error
	if s.planner, err = recur.New(); err != nil {
		return nil, err
	}
	s.since.Store(int64(s.clock.Now()))
	own, err := s.own(ctx)
	if err != nil {
		return nil, fmt.Errorf("open shard: %w", err)
	}
	s.ids = delay.NewIDMaker(own.Meta.ClusterID)
	s.receipts = pull.NewMaker(own.Meta.ClusterID)
	found, err := s.recover(ctx, &own)
	if err != nil {
		return nil, err
	}
	s.build(own, found, seed)
	return s, nil
}

// own takes the next epoch, in the manifest when there is a tier.
func (s *Shard) own(ctx context.Context) (recovery.Ownership, error) {
	asked := s.parts.Boot()
	own, err := recovery.Taking{
		Store: s.parts.Store, Tier: s.parts.Tier, Log: s.log, Now: s.clock.Now,
		ClusterID: s.opts.ClusterID, Pause: s.patience(), Stop: s.opts.IsolatedStop,
	}.Own(ctx)
	if err == nil && !own.Isolated {
		s.noteAnswer(asked)
	}
	return own, err
}

// recover makes the local store whole and finds what the core and the committer begin with.
func (s *Shard) recover(ctx context.Context, own *recovery.Ownership) (recovery.Found, error) {
	r := recovery.Recoverer{
		Store: s.parts.Store, Tier: s.parts.Tier, Lanes: s.lanes, IDs: s.ids, Shard: s.shard,
		Log: s.log, DedupeWindow: s.opts.DedupeWindow, DeadRetention: s.opts.DeadRetention,
		MaxAttempts: s.opts.MaxAttempts,
	}
	if own.Restore != nil {
		if err := r.Restore(ctx, own.Restore, &own.Meta, &own.Books); err != nil {
			return recovery.Found{}, fmt.Errorf("restore: %w", err)
		}
	}
	f, err := r.Find(own.Meta.Watermark, s.clock.Now().Add(s.opts.MinWait), own.Behind)
	if err != nil {
		return recovery.Found{}, fmt.Errorf("recover: %w", err)
	}
	return f, nil
}

// build makes the core and the committer.
func (s *Shard) build(own recovery.Ownership, f recovery.Found, seed uint64) {
	rng := mathrand.New(mathrand.NewPCG(mathrand.Uint64(), 0))
	syncs := 0
	if s.drive != nil {
		rng, syncs = mathrand.New(mathrand.NewPCG(seed, 1)), steppedSyncs
	}
	meta := own.Meta
	first := own.First
	s.tier.isolated.Store(own.Isolated)
	s.core = core.New(core.Options{
		HotWindow: s.opts.HotWindow, Backoff: s.opts.Backoff, MaxBackoff: s.opts.MaxBackoff,
		Window: s.opts.Window, Wide: func(t delay.Target) bool { // sent and made once (R17, R18, R20)
			return t == delay.Schedules || t.IsGuard() || s.ledgers.Of(t) != nil
		},
	}, s.lanes, rng, s.clock.Now(), core.Start{
		Epoch: meta.Epoch, Watermark: meta.Watermark, Boundary: meta.Boundary,
		Horizon: meta.ClaimHorizon, ClaimFrom: own.ClaimFrom,
		Last: max(s.parts.Store.LastSeq(), first),
	})
	part := recovery.FirstPart(&own, &f, s.clock.Now())
	s.upload = upload.New(s.parts.Tier == nil, s.clock.Now, part)
	s.tier.missed = own.Behind && own.Restore == nil
	s.crowd = crowd.New(crowd.Config{
		Now:      s.Now,
		Last:     func() delay.Seq { return s.commit.HandedOut() },
		Boundary: func() delay.Key { return s.parts.Store.Meta().Boundary },
		Rows:     s.parts.Store.ScanRows, Limits: commit.LimitsOf(f.Targets),
	})
	s.commit = commit.New(commit.Config{
		Store: s.parts.Store, IDs: s.ids, Shard: s.shard, Lanes: s.lanes, Upload: s.upload,
		Crowd: s.crowd, Log: s.log, Tiered: s.parts.Tier != nil, Now: s.Now, Wall: s.parts.Now,
		Post: s.post, Ask: s.askCore, Broken: func(err error) { s.stop(err) },
		OnCommit: s.parts.Events.Commit, OnSync: s.parts.Events.Sync,
		Options: commit.Options{
			MinWait: s.opts.MinWait, DedupeWindow: s.opts.DedupeWindow,
			DeadRetention: s.opts.DeadRetention, MaxPending: s.opts.MaxPending,
			MaxPendingMessages: s.opts.MaxPendingMessages, Syncs: syncs,
		},
		Meta: meta, First: first, Books: own.Books, Bulk: f.Bulk, Uncold: f.Uncold,
		Horizon: own.Horizon, Targets: f.Targets, Read: f.Read, Crashed: !own.Clean,
	})
	s.cuts = cut.New(s.parts.Store, s.Now)
	s.find = s.commit.Finder()
	s.parcels = parcel.Reader{
		Store: s.parts.Store, Tier: s.parts.Tier, Bulk: s.find.Bulk(), IDs: s.ids, Shard: s.shard,
		Lanes: s.lanes, Log: s.log, Fallback: s.parts.Events.Fallback,
	}
	s.query = query.New(query.Config{
		Store: s.parts.Store, Tier: s.parts.Tier, Find: s.find, IDs: s.ids, Shard: s.shard,
		Inspect: s.inspect, Hot: func() int64 { return s.glance().Hot },
	})
	s.openIntake(&own, &f)
	s.guards = s.parts.Guardians
	s.openLedgers(own.Restore != nil)
	s.maintainer = s.newMaintainer()
	s.hydrator = s.newHydrator()
	s.names = hydrate.NewIDs(s.parts.Tier, s.log, func(o *commit.IDsOp) error {
		return s.do(o, 0, o.Done)
	})
	s.bulk = s.newBulk()
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
