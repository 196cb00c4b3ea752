// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/scheduler/upload"
	"github.com/cicadamq/cicada/tiered"
)

// Recoverer makes a local store whole and finds what a shard begins with. All fields must be set,
// but tier, which is nil without a bucket. It is used once, before anything else runs.
type Recoverer struct {
	Store *localstore.Store
	Tier  *tiered.Tier
	Lanes *lanes.Table
	IDs   delay.IDMaker
	Shard delay.Shard
	Log   *zap.Logger

	MaxAttempts   uint32        // of messages that do not say; 0 is no limit
	DedupeWindow  time.Duration // how long ids are remembered after the end
	DeadRetention time.Duration // how long dead letters are kept
}

// Found is what the local store says at the start. lanes and flights are the core's first events,
// in this order.
type Found struct {
	Lanes   core.EvParkedLanes
	Flights core.EvRecovered
	Targets map[delay.Target]localstore.TargetState
	Kept    []upload.Kept // after a crash: what is kept behind the watermark, to be uploaded again
	Bulk    []delay.Predicate
	Uncold  int64            // pending rows that no segment holds (rule R15)
	Short   delay.Key        // the highest of them; the zero key is none
	Read    map[string]int64 // how far sources were read
}

// Find reads the store. Rows below watermark are not looked at; plain rows, which are not for the
// tier, lie below plain. behind says that rows may have to be uploaded that are in no buffer.
func (r *Recoverer) Find(watermark delay.Key, plain delay.Due, behind bool) (Found, error) {
	f := Found{Targets: make(map[delay.Target]localstore.TargetState)}
	if err := r.recoverLanes(&f, behind); err != nil {
		return f, err
	}
	if err := r.recoverFlights(&f.Flights); err != nil {
		return f, err
	}
	var err error
	if f.Read, err = r.positions(); err != nil || r.Tier == nil {
		return f, err
	}
	if f.Bulk, err = r.Store.Predicates(); err != nil {
		return f, err
	}
	err = r.Store.ScanRows(watermark, delay.Key{Due: plain}, func(k delay.Key, rec []byte) bool {
		if _, cold, err := delay.RecordTarget(rec); err == nil && !cold {
			f.Uncold++
			f.Short = k
		}
		return true
	})
	return f, err
}

// FirstPart is what waits for the first flush.
func FirstPart(own *Ownership, f *Found, now delay.Due) upload.Part {
	part := upload.Part{
		Last: own.First, Outbox: own.Meta.OutboxNext, Mark: own.Meta.Watermark, Books: own.Books,
		Kept: f.Kept, Bulk: f.Bulk, Paused: commit.PausedOf(f.Targets),
		Limits: commit.LimitsOf(f.Targets),
	}
	for name, next := range f.Read {
		part.Read.Add(name, position.Note{
			Next: next, Since: now, Seq: own.First, Outbox: own.Meta.OutboxNext, Short: f.Short,
		})
	}
	if own.Behind {
		part.Behind, part.Since = own.First, now
	}
	return part
}

// positions is how far sources were read, with all that was taken from them (rule R16).
func (r *Recoverer) positions() (map[string]int64, error) {
	read := make(map[string]int64)
	var failed error
	err := r.Store.ScanCursors(func(name string, cursor []byte) bool {
		read[name], failed = position.Parse(cursor)
		if failed != nil {
			failed = fmt.Errorf("cursor of %s: %w", name, failed)
		}
		return failed == nil
	})
	return read, errors.Join(err, failed)
}

// apply stores b and waits for the sync.
func (r *Recoverer) apply(b *localstore.Batch) error {
	pending, err := r.Store.Apply(b)
	if err != nil {
		return err
	}
	_, err = pending.Wait()
	return err
}

// recoverLanes finds paused lanes, parked rows and, after a crash, what has to be kept again (R5).
func (r *Recoverer) recoverLanes(f *Found, behind bool) error {
	store := r.Store
	lanes := make(map[delay.Target]*core.ParkedLane)
	at := func(t delay.Target) *core.ParkedLane {
		if lanes[t] == nil {
			lanes[t] = &core.ParkedLane{Lane: r.Lanes.Number(t)}
		}
		return lanes[t]
	}
	err := store.ScanTargets(func(t delay.Target, st localstore.TargetState) bool {
		l := at(t)
		l.Paused, l.Limit, l.Claimed = st.Paused, st.Limit, st.ClaimCursor
		f.Targets[t] = st
		return true
	})
	if err != nil {
		return err
	}
	var hashes []uint64
	err = store.ParkedLanes(func(lane uint64, t delay.Target, count int64) bool {
		hashes = append(hashes, lane)
		at(t).Rows += count
		return true
	})
	if err != nil {
		return err
	}
	for _, l := range lanes {
		f.Lanes.Lanes = append(f.Lanes.Lanes, *l)
	}
	slices.SortFunc(f.Lanes.Lanes, func(a, b core.ParkedLane) int { return int(a.Lane) - int(b.Lane) })
	if !behind {
		return nil
	}
	for _, lane := range hashes {
		err := store.ScanParked(lane, delay.Key{}, func(k delay.Key, _ bool, _ []byte) bool {
			f.Kept = append(f.Kept, upload.Kept{Key: k, Lane: lane})
			return true
		})
		if err != nil {
			return err
		}
	}
	return store.ScanDead(delay.Key{}, func(k delay.Key, _ delay.Progress, _ []byte) bool {
		f.Kept = append(f.Kept, upload.Kept{Key: k, Dead: true})
		return true
	})
}

// recoverFlights brings leases and attempts back (S7): rows are the truth, so what has none is
// finished (C12).
func (r *Recoverer) recoverFlights(ev *core.EvRecovered) error {
	store := r.Store
	ev.Leases = make(map[uint64]core.RecoveredLease)
	flights := make(map[delay.Key]*core.RecoveredFlight)
	stale := store.NewBatch()
	err := store.ScanLeases(func(l localstore.Lease) bool {
		if planted.Is(planted.LeasesForgotten) {
			return true
		}
		rec := core.RecoveredLease{Lane: r.Lanes.Number(l.Target), Expires: l.Expires}
		for _, e := range l.Entries {
			flights[e.Key] = &core.RecoveredFlight{
				Ref: core.Ref{Key: e.Key, Lane: rec.Lane}, Lease: l.No, Attempt: e.Attempt,
				Epoch: l.Epoch,
			}
			rec.Keys = append(rec.Keys, e.Key)
		}
		ev.Leases[l.No] = rec
		return true
	})
	if err == nil {
		err = store.ScanProgress(func(k delay.Key, p delay.Progress) bool {
			f := flights[k]
			if f == nil {
				f = &core.RecoveredFlight{Ref: core.Ref{Key: k}, Attempt: p.Attempts, NextAt: p.NextAt}
				flights[k] = f
			}
			f.Noted, f.Stopped = true, p.Reason == commit.StoppedReason
			over := p.Attempts > f.Attempt || p.Attempts == f.Attempt && !f.Stopped
			if over && !planted.Is(planted.GivenBackLeased) {
				// Given back: the record of its lease still names it, for the sake of others. Only a
				// stop is noted while the attempt goes on.
				f.Lease, f.NextAt, f.Attempt = 0, p.NextAt, p.Attempts
			}
			return true
		})
	}
	if err != nil {
		return err
	}
	if err := r.bindFlights(flights, ev, stale); err != nil {
		return err
	}
	for no, rec := range ev.Leases {
		rec.Keys = slices.DeleteFunc(rec.Keys, func(k delay.Key) bool {
			f := flights[k]
			return f == nil || f.Lease != no
		})
		if len(rec.Keys) == 0 {
			delete(ev.Leases, no)
			stale.DeleteLease(no)
			continue
		}
		ev.Leases[no] = rec
	}
	if stale.Len() == 0 {
		stale.Discard()
		return nil
	}
	return r.apply(stale)
}

// bindFlights finds the rows of recovered flights and drops those that have none.
func (r *Recoverer) bindFlights(
	flights map[delay.Key]*core.RecoveredFlight, ev *core.EvRecovered, stale *localstore.Batch,
) error {
	keys := make([]delay.Key, 0, len(flights))
	for k := range flights {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, delay.Key.Compare)
	var failed error
	bind := func(k delay.Key, rec []byte, parked bool) {
		m, err := delay.DecodeRecord(rec)
		if err != nil {
			failed = fmt.Errorf("claimed message %s: %w", k, err)
			return
		}
		f := flights[k]
		f.Ref, f.Parked = r.Lanes.RefOf(k, &m, len(rec)), parked
		most := cmp.Or(m.MaxAttempts, r.MaxAttempts)
		f.Last = most > 0 && f.Attempt >= most && !planted.Is(planted.LastForgotten)
		ev.Flights = append(ev.Flights, *f)
	}
	var missing []delay.Key
	err := r.Store.ReadRows(keys, func(i int, rec []byte) {
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
		lane, parked, err := r.Store.ParkedLane(k)
		if err != nil {
			return err
		}
		if !parked {
			if flights[k].Noted {
				stale.DeleteProgress(k)
			}
			delete(flights, k)
			continue
		}
		rec, _, err := r.Store.Parked(lane, k)
		if err != nil {
			return err
		}
		bind(k, rec, true)
	}
	return failed
}
