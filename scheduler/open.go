// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered"
)

// ErrOldDisk says that the data directory does not match the bucket's manifest: another owner has
// written since. It must be set aside, and the shard started as after the loss of the disk (R10).
var ErrOldDisk = errors.New("data directory is older than the bucket's manifest")

// takeoverWait is how many flush intervals a new owner waits for a predecessor that may still live
// (rule R11).
const takeoverWait = 3

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
		parts: parts, opts: opts, log: parts.Logger, lanes: newLaneNames(), drive: drive,
		reads: make(chan action, loadsInFlight), closed: make(chan struct{}),
	}
	s.clock = newGuardedClock(parts.Now, parts.Boot, opts.ClockMaxHold, parts.Events.ClockStep)
	s.upload = newUploadBuffer(parts.Tier == nil, s.clock.now)
	s.events.wake = make(chan struct{}, 1)
	s.tier.flush = make(chan struct{}, 1)
	s.tier.mu.pausedAt = make(map[delay.Target]bool)
	own, err := s.own(ctx)
	if err != nil {
		return nil, fmt.Errorf("open shard: %w", err)
	}
	s.ids = delay.NewIDMaker(own.meta.ClusterID)
	s.build(own, seed)
	if own.restore != nil {
		if err := s.restore(ctx, own.restore); err != nil {
			return nil, fmt.Errorf("restore: %w", err)
		}
	}
	if err := s.recover(own); err != nil {
		return nil, fmt.Errorf("recover: %w", err)
	}
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
	tier, m := s.parts.Tier, &own.meta
	st, err := tier.Load(ctx)
	if err != nil {
		return err
	}
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
	case st == nil && fresh:
		m.IDsComplete, m.Adopted = true, true
	case st != nil && fresh:
		own.restore = st
	}
	if st == nil {
		m.Boundary = delay.Key{}
	}
	// The nonce is on the disk before the manifest names it (rule R10).
	if _, err := rand.Read(m.NextNonce[:]); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	if err := s.writeMeta(*m, own.books); err != nil {
		return err
	}
	taken, err := tier.Take(ctx, m.NextNonce, st == nil)
	if err != nil {
		return fmt.Errorf("take the shard: %w", err)
	}
	m.ClusterID, m.Epoch = taken.ClusterID, taken.Epoch
	m.Nonce, m.ManifestVersion = m.NextNonce, taken.Version
	own.behind = !own.clean && !fresh
	now := s.clock.now()
	pause := takeoverWait * s.opts.FlushInterval
	if own.restore != nil {
		own.horizon = max(st.ClaimHorizon, now.Add(pause)) // rule R12
		m.ClaimHorizon = own.horizon
		if !st.Released {
			own.claimFrom = now.Add(pause)
		}
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
	return s.apply(b)
}

func (s *Shard) apply(b *localstore.Batch) error {
	pending, err := s.parts.Store.Apply(b)
	if err != nil {
		return err
	}
	_, err = pending.Wait()
	return err
}

// build makes the core and the committer.
func (s *Shard) build(own ownership, seed uint64) {
	rng := mathrand.New(mathrand.NewPCG(mathrand.Uint64(), 0))
	syncs := syncsInFlight
	if s.drive != nil {
		rng, syncs = mathrand.New(mathrand.NewPCG(seed, 1)), steppedSyncs
	}
	now := s.clock.now()
	s.core = newCore(s.opts, s.lanes, rng, now)
	s.core.epoch = own.meta.Epoch
	s.commit = &committer{
		store: s.parts.Store, ids: s.ids, opts: s.opts, log: s.log, events: s.parts.Events,
		lanes: s.lanes, tiered: s.parts.Tier != nil, shard: s.shard, now: s.Now, post: s.post,
		ask: s.askCore, upload: s.upload, inbox: newInbox(s.opts.MaxPending),
		synced:  make(chan flushed, syncs),
		batch:   s.parts.Store.NewBatch(),
		touched: make(map[string]struct{}),
		cursors: make(map[delay.Target]delay.Key),
		meta:    own.meta, books: own.books, lowest: delay.MaxKey, horizon: own.horizon,
		broken: func(err error) { s.stop(err) }, wall: s.parts.Now,
	}
	c := s.commit
	c.handed.Store(uint64(max(c.lastSeq(), s.parts.Store.LastSeq())))
	s.find = &finder{store: s.parts.Store, ids: s.ids, shard: s.shard, issued: c.issued}
	c.find = s.find
	if own.claimFrom > 0 {
		s.core.claimFrom = own.claimFrom
	}
}

// askCore asks the core for a key on behalf of the committer (C5).
func (s *Shard) askCore(key delay.Key, parked *uint32) bool {
	ev := evWithdraw{key: key, granted: make(chan bool, 1)}
	if parked != nil {
		ev.parked, ev.lane = true, *parked
	}
	s.post(ev)
	if s.drive != nil { // the committer is inside its own task: answer without others
		s.stepCore()
	}
	granted, _ := wait(s, ev.granted)
	return granted
}

// evWithdraw is the committer's question.
type evWithdraw struct {
	key     delay.Key
	parked  bool
	lane    uint32
	granted chan bool // capacity 1
}

func (e evWithdraw) apply(c *core) {
	var l *lane
	if e.parked {
		l = c.lane(e.lane)
	}
	e.granted <- c.withdraw(e.key, l)
}

// recover makes the first events of the core from what the store holds.
func (s *Shard) recover(own ownership) error {
	store := s.parts.Store
	meta := s.commit.meta
	c := s.core
	c.boundary, c.loadedTo = meta.Boundary, meta.Watermark
	c.watermark, c.horizon = meta.Watermark, meta.ClaimHorizon
	c.lastSeq = max(store.LastSeq(), s.commit.lastSeq())
	s.commit.ranged = meta.Watermark
	part := &s.upload.mu.part
	part.last, part.outbox, part.mark = s.commit.lastSeq(), meta.OutboxNext, meta.Watermark
	part.books = s.commit.books
	if own.behind {
		part.behind = part.last
	}
	if err := s.recoverLanes(own); err != nil {
		return err
	}
	if err := s.recoverFlights(); err != nil {
		return err
	}
	if s.parts.Tier == nil {
		return nil
	}
	return store.ScanRows(meta.Watermark, delay.Key{Due: c.now.Add(s.opts.MinWait)},
		func(_ delay.Key, rec []byte) bool {
			if _, cold, err := delay.RecordTarget(rec); err == nil && !cold {
				s.commit.uncold++
			}
			return true
		})
}

// recoverLanes finds paused lanes, parked rows and, after a crash, what has to be kept again (R5).
func (s *Shard) recoverLanes(own ownership) error {
	store := s.parts.Store
	lanes := make(map[delay.Target]*parkedLane)
	at := func(t delay.Target) *parkedLane {
		if lanes[t] == nil {
			lanes[t] = &parkedLane{lane: s.lanes.number(t)}
		}
		return lanes[t]
	}
	err := store.ScanTargets(func(t delay.Target, st localstore.TargetState) bool {
		l := at(t)
		l.paused, l.claimed = st.Paused, st.ClaimCursor
		s.tier.mu.pausedAt[t] = st.Paused
		if !own.clean && !st.ClaimCursor.IsZero() {
			s.commit.cursors[t] = st.ClaimCursor
		}
		return true
	})
	if err != nil {
		return err
	}
	var hashes []uint64
	err = store.ParkedLanes(func(lane uint64, t delay.Target, count int64) bool {
		hashes = append(hashes, lane)
		at(t).rows += count
		return true
	})
	if err != nil {
		return err
	}
	var ev evParkedLanes
	for _, l := range lanes {
		ev.lanes = append(ev.lanes, *l)
	}
	slices.SortFunc(ev.lanes, func(a, b parkedLane) int { return int(a.lane) - int(b.lane) })
	s.firsts = append(s.firsts, ev)
	if !own.behind {
		return nil
	}
	part := &s.upload.mu.part
	for _, lane := range hashes {
		err := store.ScanParked(lane, delay.Key{}, func(k delay.Key, _ bool, _ []byte) bool {
			part.kept = append(part.kept, keptRef{key: k, lane: lane})
			return true
		})
		if err != nil {
			return err
		}
	}
	return store.ScanDead(delay.Key{}, func(k delay.Key, _ delay.Progress, _ []byte) bool {
		part.kept = append(part.kept, keptRef{key: k, dead: true})
		return true
	})
}

// recoverFlights brings leases and attempts back (S7): rows are the truth, so what has none is
// finished.
func (s *Shard) recoverFlights() error {
	store := s.parts.Store
	ev := evRecovered{
		leases: make(map[uint64]recoveredLease), nextAt: make(map[delay.Key]delay.Due),
	}
	flights := make(map[delay.Key]*flight)
	stale := store.NewBatch()
	err := store.ScanLeases(func(l localstore.Lease) bool {
		rec := recoveredLease{lane: s.lanes.number(l.Target), expires: l.Expires}
		for _, e := range l.Entries {
			flights[e.Key] = &flight{
				ref: ref{key: e.Key, lane: rec.lane}, lease: l.No, attempt: e.Attempt,
				epoch: l.Epoch, state: flightLeased,
			}
			rec.keys = append(rec.keys, e.Key)
		}
		ev.leases[l.No] = rec
		return true
	})
	if err == nil {
		err = store.ScanProgress(func(k delay.Key, p delay.Progress) bool {
			f := flights[k]
			if f == nil {
				f = &flight{ref: ref{key: k}, attempt: p.Attempts, state: flightRetrying}
				flights[k] = f
				ev.nextAt[k] = p.NextAt
			}
			f.noted = true
			f.attempt = max(f.attempt, p.Attempts)
			return true
		})
	}
	if err != nil {
		return err
	}
	if err := s.bindFlights(flights, &ev, stale); err != nil {
		return err
	}
	for no, rec := range ev.leases {
		rec.keys = slices.DeleteFunc(rec.keys, func(k delay.Key) bool {
			f := flights[k]
			return f == nil || f.lease != no
		})
		if len(rec.keys) == 0 {
			delete(ev.leases, no)
			stale.DeleteLease(no)
			continue
		}
		ev.leases[no] = rec
	}
	s.firsts = append(s.firsts, ev)
	if stale.Len() == 0 {
		stale.Discard()
		return nil
	}
	return s.apply(stale)
}

// bindFlights finds the rows of recovered flights and drops those that have none.
func (s *Shard) bindFlights(
	flights map[delay.Key]*flight, ev *evRecovered, stale *localstore.Batch,
) error {
	keys := make([]delay.Key, 0, len(flights))
	for k := range flights {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, delay.Key.Compare)
	var failed error
	bind := func(k delay.Key, rec []byte, parked bool) {
		r, err := s.refOfRecord(k, rec)
		if err != nil {
			failed = err
			return
		}
		f := flights[k]
		f.ref, f.parked = r, parked
		ev.flights = append(ev.flights, *f)
	}
	var missing []delay.Key
	err := s.parts.Store.ReadRows(keys, func(i int, rec []byte) {
		if rec == nil {
			missing = append(missing, keys[i])
			return
		}
		bind(keys[i], rec, false)
	})
	if err != nil {
		return err
	}
	for _, k := range missing {
		lane, parked, err := s.parts.Store.ParkedLane(k)
		if err != nil {
			return err
		}
		if !parked {
			stale.DeleteProgress(k)
			delete(flights, k)
			continue
		}
		rec, _, err := s.parts.Store.Parked(lane, k)
		if err != nil {
			return err
		}
		bind(k, rec, true)
	}
	return failed
}
