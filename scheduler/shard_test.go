// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/ledger"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// world is a shard on a memory disk and a memory bucket, in virtual time. It can be crashed and
// opened again, with its disk or without.
type world struct {
	t      *testing.T
	fs     *vfs.MemFS
	bucket objstore.Bucket // nil is --bucket none
	sink   *sink.Sink
	opts   Options
	log    *zap.Logger
	grace  time.Duration // of deletes in the bucket
	skew   *atomic.Int64 // of the wall clock
	check  func(*delay.Draft) error
	unread func() bool        // the ledger of kafka:main cannot be read
	exact  func() *sink.Exact // makes the sink of kafka:main; nil is none
	guards map[string]broker.Guardian
	opened func() // the shard is open and does not run yet; may be nil

	*Shard
	store *localstore.Store
	tier  *tiered.Tier
	ran   chan error
	end   context.CancelFunc
}

// inWorld runs f in a bubble with an open shard.
func inWorld(t *testing.T, opts Options, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, fs: vfs.NewCrashableMem(), bucket: memory.New(memory.Options{Now: time.Now}), opts: opts,
			sink: sink.New(sink.Options{Now: time.Now}),
			skew: new(atomic.Int64),
			log:  zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		}
		w.open()
		defer func() {
			if w.Shard != nil {
				w.drain()
			}
		}()
		f(w)
	})
}

// open opens the shard on what the disk and the bucket hold.
func (w *world) open() {
	w.t.Helper()
	require.NoError(w.t, w.tryOpen())
}

func (w *world) tryOpen() error {
	ctx := w.t.Context()
	store, err := localstore.Open(w.fs, "store", localstore.Options{
		Simulated: true, Logger: w.log,
	})
	if err != nil {
		return err
	}
	var tier *tiered.Tier
	if w.bucket != nil {
		m := store.Meta()
		tier, err = tiered.Open(ctx, w.bucket, tiered.Options{
			Known: m.ManifestVersion > 0, ClusterID: m.ClusterID, DeleteGrace: w.grace,
			Logger: w.log, Now: time.Now, Rand: rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano()))),
		})
		if err != nil {
			return errors.Join(err, store.Close())
		}
	}
	parts := Parts{
		Store: store, Tier: tier, Logger: w.log, Now: w.wall, Boot: boot,
		Sinks: func(delay.Target) broker.Sink { return w.sink }, Check: w.check,
		Guardians: w.guards,
	}
	if w.exact != nil {
		exact := unreadable{w.exact(), w.unread}
		parts.Ledgers = map[string]ledger.Sink{"kafka:main": exact}
		parts.Sinks = func(t delay.Target) broker.Sink {
			if t.Kind() == "kafka" {
				return exact
			}
			return w.sink
		}
	}
	s, err := Open(ctx, parts, w.opts)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	w.Shard, w.store, w.tier = s, store, tier
	if w.opened != nil {
		w.opened()
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.end, w.ran = cancel, make(chan error, 1)
	go func() { w.ran <- s.Run(run) }()
	return nil
}

// wall is the wall clock of the shard, which a test may step; boot is the other one.
func (w *world) wall() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }

func boot() time.Duration { return time.Duration(time.Now().UnixNano()) }

// drain ends the shard in order.
func (w *world) drain() {
	w.t.Helper()
	require.NoError(w.t, w.Shard.Drain(w.t.Context()))
	require.NoError(w.t, <-w.ran)
	w.close()
}

func (w *world) close() {
	w.end()
	require.NoError(w.t, w.store.Close())
	if w.tier != nil {
		require.NoError(w.t, w.tier.Close())
	}
	w.Shard = nil
}

// crash stops the shard as a power failure would: what was not synced is lost.
func (w *world) crash() {
	w.t.Helper()
	image := w.fs.CrashClone(vfs.CrashCloneCfg{})
	w.end()
	<-w.ran
	w.close()
	w.fs = image
}

// loseDisk removes the local store of a crashed shard.
func (w *world) loseDisk() { w.fs = vfs.NewCrashableMem() }

// send accepts one message and returns its receipt.
func (w *world) send(d delay.Draft) Receipt {
	w.t.Helper()
	r := w.trySend(d)
	require.NoError(w.t, r.Err)
	return r
}

func (w *world) trySend(d delay.Draft) Receipt {
	w.t.Helper()
	d.AcceptedAt = w.Now()
	var r [1]Receipt
	require.NoError(w.t, w.Accept(w.t.Context(), []delay.Draft{d}, r[:]))
	return r[0]
}

// draft is a message for target, due after d.
func (w *world) draft(target delay.Target, d time.Duration, body string) delay.Draft {
	return delay.Draft{Message: delay.Message{
		Target: target, Due: w.Now().Add(d), Body: []byte(body),
	}}
}

func (w *world) pull(most int, wait time.Duration) []Lease {
	w.t.Helper()
	out, err := w.Pull(w.t.Context(), "q", most, wait, 30*time.Second)
	require.NoError(w.t, err)
	return out
}

func (w *world) ack(leases ...Lease) []SettleResult {
	w.t.Helper()
	return w.settle(SettleRequest{Settlement: Ack}, leases...)
}

func (w *world) settle(q SettleRequest, leases ...Lease) []SettleResult {
	w.t.Helper()
	q.Queue = "q"
	for _, l := range leases {
		q.Receipts = append(q.Receipts, l.Receipt)
	}
	results := make([]SettleResult, len(leases))
	require.NoError(w.t, w.Settle(w.t.Context(), q, results))
	return results
}

func (w *world) change(id delay.ID, c Change, due delay.Due) ChangeResult {
	w.t.Helper()
	var r [1]ChangeResult
	err := w.Change(w.t.Context(), []ChangeRequest{{ID: id, Change: c, Due: due}}, r[:])
	require.NoError(w.t, err)
	require.NoError(w.t, r[0].Err)
	return r[0]
}

func (w *world) get(id delay.ID) Info {
	w.t.Helper()
	info, err := w.Get(w.t.Context(), id, true)
	require.NoError(w.t, err)
	return info
}

// pass lets virtual time pass, and what falls on its last instant happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Status is what the shard says when it has nothing left to do now: a reply promises what it says,
// and not that everything which follows from it is counted (S10).
func (w *world) Status() Status {
	synctest.Wait()
	return w.Shard.Status()
}

func (w *world) books() delay.Books {
	b := w.Status().Books
	require.True(w.t, b.Balanced(), "%+v", b)
	return b
}

// A pulled message comes at its due, not before, and never again after its ack.
func TestPullAtDue(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		r := w.send(w.draft("pull:q", 3*time.Second, "hello"))
		require.Empty(t, w.pull(10, 2999*time.Millisecond))
		got := w.pull(10, time.Second)
		require.Len(t, got, 1)
		require.Equal(t, r.ID, got[0].ID)
		require.Equal(t, "hello", string(got[0].Body))
		require.Equal(t, r.Due, w.Now())
		require.Equal(t, delay.Claimed, w.get(r.ID).State)
		require.Equal(t, []SettleResult{Acked}, w.ack(got...))
		require.Equal(t, []SettleResult{Acked}, w.ack(got...), "a repeated ack")
		require.Equal(t, delay.Delivered, w.get(r.ID).State)
		require.Empty(t, w.pull(10, time.Minute))
		require.Equal(t, delay.Books{Accepted: 1, Delivered: 1}, w.books())
	})
}

// A message that waits long is uploaded, dropped, hydrated and delivered on time.
func TestThroughTheTier(t *testing.T) {
	opts := Options{
		FlushInterval: 10 * time.Second, MinWait: 20 * time.Second, Horizon: time.Minute,
		DropLag: 5 * time.Second, HotWindow: 10 * time.Second,
	}
	inWorld(t, opts, func(w *world) {
		var ids []delay.ID
		for i := range 50 {
			r := w.send(w.draft("pull:q", time.Hour+time.Duration(i)*time.Second,
				fmt.Sprint("m", i)))
			ids = append(ids, r.ID)
		}
		w.pass(time.Minute)
		require.Equal(t, delay.Cold, w.get(ids[0]).Level)
		require.EqualValues(t, 50, w.Status().Cold.Messages)
		require.Equal(t, Cancelled, w.change(ids[7], Cancel, 0).Verdict)
		require.Equal(t, Rescheduled, w.change(ids[8], Reschedule, w.Now().Add(2*time.Hour)).Verdict)
		w.pass(58 * time.Minute)
		seen := make(map[delay.ID]bool)
		for len(seen) < 48 {
			got := w.pull(100, 2*time.Minute)
			require.NotEmpty(t, got, "after %d", len(seen))
			for _, l := range got {
				require.False(t, seen[l.ID])
				require.Less(t, w.Now().Sub(l.Due), time.Second)
				seen[l.ID] = true
			}
			w.ack(got...)
		}
		require.False(t, seen[ids[7]])
		got := w.pull(1, 2*time.Hour)
		require.Len(t, got, 1)
		require.Equal(t, ids[8], got[0].ID)
		w.ack(got...)
		require.Equal(t, delay.Books{Accepted: 50, Delivered: 49, Cancelled: 1}, w.books())
	})
}
