// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

const began = delay.Due(1_700_000_000_000)

// world is a store in memory and a bucket, at a standing instant.
type world struct {
	t      *testing.T
	bucket *memory.Bucket
	store  *localstore.Store
	tier   *tiered.Tier
}

func newWorld(t *testing.T) *world {
	now := func() time.Time { return time.UnixMilli(int64(began)) }
	w := &world{t: t, bucket: memory.New(memory.Options{Now: now})}
	tier, err := tiered.Open(t.Context(), w.bucket, tiered.Options{
		Now: now, RetryBase: -1, Rand: rand.New(rand.NewPCG(1, 1)),
	})
	require.NoError(t, err)
	w.tier = tier
	w.loseDisk()
	t.Cleanup(func() {
		require.NoError(t, w.store.Close())
		require.NoError(t, w.tier.Close())
	})
	return w
}

// loseDisk begins with an empty store.
func (w *world) loseDisk() {
	w.t.Helper()
	if w.store != nil {
		require.NoError(w.t, w.store.Close())
	}
	store, err := localstore.Open(vfs.NewMem(), "store", localstore.Options{Simulated: true})
	require.NoError(w.t, err)
	w.store = store
}

// own takes the shard, with the bucket or without.
func (w *world) own(tier *tiered.Tier) Ownership {
	w.t.Helper()
	own, err := Taking{
		Store: w.store, Tier: tier, Log: zap.NewNop(), Now: func() delay.Due { return began },
		Pause: 30 * time.Second,
	}.Own(w.t.Context())
	require.NoError(w.t, err)
	return own
}

// restore takes the shard with an empty store and fills that.
func (w *world) restore() (localstore.Meta, delay.Books) {
	w.t.Helper()
	w.loseDisk()
	own := w.own(w.tier)
	require.NotNil(w.t, own.Restore)
	r := Recoverer{
		Store: w.store, Tier: w.tier, Lanes: lanes.New(),
		IDs: delay.NewIDMaker(own.Meta.ClusterID), Log: zap.NewNop(),
		DedupeWindow: time.Hour, DeadRetention: time.Hour,
	}
	require.NoError(w.t, r.Restore(w.t.Context(), own.Restore, &own.Meta, &own.Books))
	return own.Meta, own.Books
}

func record(m delay.Message) []byte {
	m.Cold, m.AcceptedAt, m.Body = true, began, []byte("x")
	return delay.AppendRecord(nil, &m)
}

func key(due delay.Due, n uint64) delay.Key {
	return delay.Key{Due: due, Seq: delay.MakeSeq(1, n)}
}

// The disk may be one version behind the manifest, because it died between a commit and its note, and
// no more: then the manifest is another owner's or the disk is a copy (rule R10).
func TestWhichDiskIsBelieved(t *testing.T) {
	mine, next, foreign := [16]byte{1}, [16]byte{2}, [16]byte{3}
	m := localstore.Meta{
		Epoch: 3, Adopted: true, ManifestVersion: 7, Nonce: mine, NextNonce: next, ClusterID: "c",
	}
	for _, c := range []struct {
		nonce    [16]byte
		version  uint64
		believed bool
	}{
		{mine, 6, false}, {mine, 7, true}, {mine, 8, true}, {mine, 9, false},
		{next, 7, false}, {next, 8, true}, {next, 9, false},
		{foreign, 7, false}, {foreign, 8, false},
	} {
		st := &tiered.State{ClusterID: "c", Nonce: c.nonce, Version: c.version}
		if err := Believable(&m, st); c.believed {
			require.NoError(t, err, "%v", c)
		} else {
			require.ErrorIs(t, err, ErrOldDisk, "%v", c)
		}
	}
	require.ErrorIs(t, Believable(&m, nil), tiered.ErrVanished)
	m.Adopted = false // the restore did not come to its end
	require.ErrorIs(t, Believable(&m, &tiered.State{
		ClusterID: "c", Nonce: mine, Version: 7,
	}), ErrOldDisk)
}

// A start on the last epoch hands out seqs above all that were ever handed out (rules R3, R4).
func TestFirstSeq(t *testing.T) {
	last := delay.MakeSeq(3, 1000)
	first, err := firstSeq(3, true, last)
	require.NoError(t, err)
	require.Greater(t, first, last)
	require.Equal(t, delay.Epoch(3), first.Epoch())
	first, err = firstSeq(4, false, last)
	require.NoError(t, err)
	require.Equal(t, delay.MakeSeq(4, 0), first)
	_, err = firstSeq(3, true, delay.MakeSeq(3, delay.MaxCounter))
	require.ErrorIs(t, err, delay.ErrUnavailable)
}

// Every start takes a new epoch, with a bucket or without: the seqs of the one before may be in keys
// that nobody here knows of (rule R4).
func TestEveryStartTakesAnEpoch(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, delay.Epoch(1), w.own(nil).Meta.Epoch)
	require.Equal(t, delay.Epoch(2), w.own(nil).Meta.Epoch)
	w = newWorld(t)
	require.Equal(t, delay.Epoch(1), w.own(w.tier).Meta.Epoch)
	require.Equal(t, delay.Epoch(2), w.own(w.tier).Meta.Epoch)
}

// A takeover that is not released waits, also after a crash of the new owner, and counts everything
// up to the end of its wait as claimed (rules R11, R12).
func TestTakeoverInDoubt(t *testing.T) {
	w := newWorld(t)
	w.own(w.tier)
	_, err := w.tier.Commit(t.Context(), tiered.Cut{
		Rows:      []tiered.Row{{Key: key(began+500, 1), Record: record(delay.Message{Target: "pull:q"})}},
		Watermark: delay.Key{Due: began}, ClaimHorizon: began + 10_000, Uploaded: delay.MakeSeq(1, 1),
	})
	require.NoError(t, err)
	w.loseDisk()
	own := w.own(w.tier)
	require.Equal(t, began.Add(30*time.Second), own.ClaimFrom)
	require.Equal(t, began.Add(30*time.Second), own.Horizon)
	require.Equal(t, own.Meta.Epoch, own.Meta.LostBefore)
	require.Equal(t, own.Horizon, own.Meta.LostUpTo)
	w.restore()
	again := w.own(w.tier)
	require.Nil(t, again.Restore)
	require.Equal(t, began.Add(30*time.Second), again.ClaimFrom, "the old owner may still live")
}

// A restore begins with what the manifest says: books less what only the disk had, marks, kept
// messages that have none, and everything from the watermark on still to be hydrated (rules R1, R5,
// R12, R15).
func TestRestoreIsWhole(t *testing.T) {
	w := newWorld(t)
	w.own(w.tier)
	mark := delay.Key{Due: began + 1000, Seq: delay.MakeSeq(1, 9)}
	rec := record(delay.Message{Target: "pull:q", Due: began})
	parked, ended, dead := key(began-3000, 1), key(began-2000, 2), key(began-1000, 3)
	kept := func(k delay.Key, state delay.State) delay.Kept {
		return delay.Kept{
			Key: k, Record: rec, Progress: delay.Progress{State: state, Attempts: 2, DiedAt: began},
		}
	}
	_, err := w.tier.Commit(t.Context(), tiered.Cut{
		Rows: []tiered.Row{{Key: mark, Record: rec}},
		Kept: []delay.Kept{
			kept(parked, delay.Claimed), kept(ended, delay.Claimed), kept(dead, delay.Dead),
		},
		Marks:     []delay.Mark{{Key: ended, State: delay.Delivered, At: began}},
		Watermark: mark, Uploaded: delay.MakeSeq(1, 9), NotUploaded: 2,
		Books:   delay.Books{Accepted: 10, Pending: 4, Delivered: 5, Dead: 1},
		Cursors: map[string][]byte{"kafka:main/t/0": position.Append(nil, 77)},
	})
	require.NoError(t, err)
	meta, books := w.restore()
	require.Equal(t, delay.Books{
		Accepted: 10, Pending: 2, Delivered: 5, Dead: 1, LostWithDisk: 2,
	}, books)
	require.Equal(t, mark, meta.Boundary, "the row at the watermark is to be hydrated")
	_, marked, err := w.store.Mark(ended)
	require.NoError(t, err)
	require.True(t, marked)
	r := Recoverer{Store: w.store, Lanes: lanes.New()}
	found, err := r.Find(mark, began, false)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"kafka:main/t/0": 77}, found.Read)
	lane := delay.Target("pull:q").Hash()
	_, claimed, err := w.store.Parked(lane, parked)
	require.NoError(t, err)
	require.True(t, claimed)
	_, _, err = w.store.Parked(lane, ended)
	require.ErrorIs(t, err, delay.ErrNotFound)
	_, _, err = w.store.Dead(dead)
	require.NoError(t, err)
}
