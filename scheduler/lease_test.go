// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// leaseRecords reads the durable leases. A record goes in a commit of its own after the outcomes it
// waited for, which an ack does not wait for.
func (w *world) leaseRecords() (leases []localstore.Lease) {
	w.t.Helper()
	synctest.Wait()
	require.NoError(w.t, w.store.ScanLeases(func(l localstore.Lease) bool {
		leases = append(leases, l)
		return true
	}))
	return leases
}

// A message that was given back waits for its own delay, not for the lease of its neighbours: also
// when the process dies meanwhile, and the record of that lease still names it.
func TestNackedDoesNotWaitForItsLease(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(3, "pull:q", 0)
		got := w.pullFor(3, time.Hour)
		require.Len(t, got, 3)
		nack := SettleRequest{Settlement: Nack, Delay: 5 * time.Second, HasDelay: true}
		require.Equal(t, []SettleResult{Nacked}, w.settle(nack, got[0]))
		w.crash()
		w.open()
		require.Empty(t, w.pull(3, 4*time.Second))
		again := w.pull(3, 2*time.Second)
		require.Equal(t, idsOf(got[:1]), idsOf(again))
		require.EqualValues(t, 2, again[0].Attempt)
		w.crash()
		w.open()
		require.Equal(t, []SettleResult{Superseded}, w.ack(got[0]))
		require.Equal(t, each(Acked, 3), w.ack(again[0], got[1], got[2]))
		require.Empty(t, w.drainQueue(time.Minute))
		require.Empty(t, w.leaseRecords())
	})
}

// The last attempt stays the last one over a crash: when its lease ends, or it is given back, the
// message is dead, with the attempts it had and the reason.
func TestLastAttemptSurvivesCrash(t *testing.T) {
	inWorld(t, Options{MaxAttempts: 2}, func(w *world) {
		ids := w.sendAll(3, "pull:q", 0)
		d := w.draft("pull:q", 0, "its own limit")
		d.MaxAttempts = 3
		own := w.send(d).ID
		nack := SettleRequest{
			Settlement: Nack, Delay: time.Millisecond, HasDelay: true, Reason: "no stock",
		}
		first := w.pullFor(10, time.Minute)
		require.Len(t, first, 4)
		require.Equal(t, each(Nacked, 4), w.settle(nack, first...))
		second := w.pullFor(10, time.Minute)
		require.Len(t, second, 4)
		w.crash()
		w.open()
		w.settle(nack, leaseOf(second, ids[0]))
		require.Equal(t, []SettleResult{Acked}, w.ack(leaseOf(second, ids[1])))
		w.pass(2 * time.Minute)
		for id, want := range map[delay.ID]Info{
			ids[0]: {LastError: "no stock"}, ids[2]: {LastError: "lease expired"},
		} {
			info := w.get(id)
			require.Equal(t, delay.Dead, info.State)
			require.Equal(t, "max_attempts", info.Reason)
			require.Equal(t, want.LastError, info.LastError)
			require.EqualValues(t, 2, info.Attempts)
		}
		third := w.pullFor(10, time.Minute)
		require.Equal(t, []delay.ID{own}, idsOf(third), "its own limit counts")
		require.EqualValues(t, 3, third[0].Attempt)
		w.pass(2 * time.Minute)
		require.Equal(t, delay.Dead, w.get(own).State)
		require.Equal(t, delay.Books{Accepted: 4, Delivered: 1, Dead: 3}, w.books())
	})
}

// leaseOf is the lease of id.
func leaseOf(leases []Lease, id delay.ID) Lease {
	for _, l := range leases {
		if l.ID == id {
			return l
		}
	}
	return Lease{}
}

// One pull is one record, however many messages it brought; extending part of a lease makes one
// more, and each goes with the last of its messages.
func TestLeaseRecords(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(1000, "pull:q", 0)
		a, b := w.pullFor(700, time.Minute), w.pullFor(700, time.Minute)
		require.Len(t, a, 700)
		require.Len(t, b, 300)
		records := w.leaseRecords()
		require.Len(t, records, 2)
		require.Len(t, records[0].Entries, 700)
		extend := SettleRequest{Settlement: Extend, Lease: time.Hour}
		require.Equal(t, each(Extended, 100), w.settle(extend, a[:100]...))
		require.Len(t, w.leaseRecords(), 3)
		w.ack(a[100:]...)
		require.Len(t, w.leaseRecords(), 2, "what is left of the first is in the third")
		w.ack(b[1:]...)
		require.Len(t, w.leaseRecords(), 2)
		w.crash()
		w.open()
		require.Len(t, w.leaseRecords(), 2)
		w.pass(2 * time.Minute)
		require.Len(t, w.leaseRecords(), 1, "a lease that is over goes too")
		back := w.pull(10, time.Second)
		require.Equal(t, idsOf(b[:1]), idsOf(back))
		w.ack(back...)
		require.Equal(t, each(Acked, 100), w.ack(a[:100]...))
		require.Empty(t, w.leaseRecords())
		require.Equal(t, delay.Books{Accepted: 1000, Delivered: 1000}, w.books())
	})
}

// Two clusters that begin alike hand out equal keys. A receipt brought to the wrong one is not
// found: it ends no lease there, and is never taken for that of a message that was delivered.
func TestReceiptOfAnotherCluster(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		o := w.beside()
		w.pass(time.Millisecond) // or chance would give both the same id
		o.bucket = memory.New(memory.Options{Now: time.Now})
		o.open()
		defer o.drain()
		at := w.Now().Add(time.Second)
		for _, x := range []*world{w, o} {
			for range 2 {
				d := x.draft("pull:q", 0, "x")
				d.Due = at
				x.send(d)
			}
		}
		w.pass(time.Second)
		ours, theirs := w.pull(2, time.Second), o.pull(2, time.Second)
		require.Equal(t, each(Acked, 1), o.ack(theirs[0]))
		for _, kind := range []Settlement{Ack, Nack, Extend} {
			require.Equal(t, each(SettleNotFound, 2),
				o.settle(SettleRequest{Settlement: kind, Lease: time.Hour}, ours...))
		}
		require.Equal(t, delay.Claimed, o.get(theirs[1].ID).State)
		require.Equal(t, each(Acked, 2), o.ack(theirs...))
		require.Equal(t, each(Acked, 2), w.ack(ours...))
	})
}
