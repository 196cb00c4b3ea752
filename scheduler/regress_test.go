// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
)

// STOPPED is a promise: a crash right after it must not let another attempt through (S5).
func TestStopSurvivesCrash(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		refuse := func(int, broker.Delivery) sink.Answer {
			return sink.Answer{
				Result: broker.Result{Outcome: broker.Retry, RetryAfter: time.Minute},
			}
		}
		w.sink = sink.New(sink.Options{Now: time.Now, Script: refuse})
		pushed := w.send(w.draft("log:", time.Second, "x")).ID
		pulled := w.send(w.draft("pull:q", time.Second, "y")).ID
		w.pass(2 * time.Second)
		require.Len(t, w.pull(1, time.Second), 1)
		for _, id := range []delay.ID{pushed, pulled} {
			require.Equal(t, Stopped, w.change(id, StopRetrying, 0).Verdict)
		}
		w.crash()
		w.open()
		w.pass(2 * time.Minute)
		require.Equal(t, 1, w.sink.Reached())
		require.Empty(t, w.pull(1, time.Second))
		for _, id := range []delay.ID{pushed, pulled} {
			require.Equal(t, delay.Dead, w.get(id).State)
		}
	})
}

// After a crash the first flushes upload what the buffer does not hold. A message that is moved
// meanwhile must not be marked in the bucket before its new row is there (rule R3).
func TestMoveDuringBacklog(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		d := w.draft("pull:q", 20*time.Second, "x")
		d.Durability = delay.Tier
		id := w.send(d).ID
		w.crash()
		w.open()
		moved := make(chan error, 1)
		go func() {
			var r [1]ChangeResult
			moved <- w.Change(context.WithoutCancel(t.Context()), []ChangeRequest{
				{ID: id, Change: Reschedule, Due: w.Now().Add(10 * time.Second)},
			}, r[:])
		}()
		w.pass(500 * time.Millisecond) // one flush, which it asked for
		w.crash()
		<-moved
		w.loseDisk()
		w.open()
		w.pass(30 * time.Second)
		require.Equal(t, map[delay.ID]int{id: 1}, w.drainQueue(time.Minute))
	})
}

// A lease that is extended after a restart must keep its receipts over the next one.
func TestExtendedLeaseSurvivesCrashes(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.send(w.draft("pull:q", 0, "x"))
		got := w.pull(1, time.Second)
		require.Len(t, got, 1)
		w.crash()
		w.open()
		extend := SettleRequest{Settlement: Extend, Lease: time.Hour}
		require.Equal(t, []SettleResult{Extended}, w.settle(extend, got...))
		w.crash()
		w.open()
		require.Equal(t, []SettleResult{Acked}, w.ack(got...))
	})
}

// An ack that comes while its message dies of its last attempt must not be answered ACKED.
func TestAckOfTheDying(t *testing.T) {
	inWorld(t, Options{MaxAttempts: 1}, func(w *world) {
		id := w.send(w.draft("pull:q", 0, "x")).ID
		got := w.pull(1, time.Second)
		require.Len(t, got, 1)
		w.pass(30*time.Second + 5*time.Millisecond) // the outcome waits for company
		require.Equal(t, []SettleResult{Superseded}, w.ack(got...))
		w.pass(time.Second)
		require.Equal(t, delay.Dead, w.get(id).State)
		require.Equal(t, []SettleResult{Superseded}, w.ack(got...))
	})
}

// After the loss of the disk an old receipt must not ack what waits in the bucket.
func TestAckAfterRestore(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		d := w.draft("pull:q", 3*time.Second, "x")
		d.Durability = delay.Tier
		id := w.send(d).ID
		got := w.pull(1, 10*time.Second)
		require.Len(t, got, 1)
		w.crash()
		w.loseDisk()
		w.open()
		require.NotEqual(t, []SettleResult{Acked}, w.ack(got...))
		require.Equal(t, map[delay.ID]int{id: 1}, w.drainQueue(time.Minute))
	})
}

// A take that fails after the manifest was written, and again, must leave the disk believed (R10).
func TestInterruptedTakes(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		id := w.send(w.draft("pull:q", time.Minute, "x")).ID
		w.pass(5 * time.Second)
		w.crash()
		good := w.bucket
		for _, p := range []faulty.Options{{FailAfter: 1}, {FailBefore: 1}, {FailAfter: 1}} {
			bad := faulty.New(good, rand.New(rand.NewPCG(1, 1)), p)
			w.bucket = &mute{Bucket: good, bad: bad, deaf: true}
			require.Error(t, w.tryOpen())
		}
		w.bucket = good
		w.open()
		require.Equal(t, map[delay.ID]int{id: 1}, w.drainQueue(2*time.Minute))
	})
}

// A commit that gets no answer and lands must be noted before the next one: otherwise a crash after
// that leaves a disk that is not believed (R10).
func TestUnansweredCommit(t *testing.T) {
	inWorld(t, Options{FlushInterval: time.Hour}, func(w *world) {
		good := w.bucket
		w.drain()
		bad := faulty.New(good, rand.New(rand.NewPCG(1, 1)), faulty.Options{FailAfter: 1})
		m := &mute{Bucket: good, bad: good}
		w.bucket = m
		w.open()
		flush := func() error {
			w.send(w.draft("pull:q", 2*time.Hour, "x"))
			_, err := w.flushOnce(w.t.Context(), false)
			return err
		}
		noted := w.store.Meta().ManifestVersion
		m.bad, m.deaf = bad, true
		require.Error(t, flush())
		require.Equal(t, noted, w.store.Meta().ManifestVersion)
		m.bad, m.deaf, m.put = good, false, false
		m.before = func() { require.Equal(t, noted+1, w.store.Meta().ManifestVersion) }
		require.NoError(t, flush())
		require.Equal(t, noted+2, w.store.Meta().ManifestVersion)
		m.before = nil
	})
}

// A drain whose last flush fails is not clean: what it left must be uploaded after the restart.
func TestDrainWithoutBucket(t *testing.T) {
	inWorld(t, Options{FlushInterval: time.Hour}, func(w *world) {
		id := w.send(w.draft("pull:q", 3*time.Hour, "x")).ID
		good := w.bucket
		bad := faulty.New(good, rand.New(rand.NewPCG(1, 1)), faulty.Options{})
		// The tier keeps the bucket it was opened with: open it again on one that can fail.
		w.drain()
		w.bucket = bad
		w.open()
		parked := w.send(w.draft("pull:q", time.Second, "y")).ID
		w.pass(time.Minute)
		bad.SetDown(true)
		require.Error(t, w.Shard.Drain(w.t.Context()))
		require.NoError(t, <-w.ran)
		w.close()
		bad.SetDown(false)
		w.opts.FlushInterval = time.Second
		w.open()
		w.pass(10 * time.Second)
		w.crash()
		w.loseDisk()
		w.opts.FlushInterval = 10 * time.Second // three hours of them
		w.open()
		require.Equal(t, map[delay.ID]int{parked: 1}, w.drainQueue(time.Minute))
		w.pass(3 * time.Hour)
		require.Equal(t, map[delay.ID]int{id: 1}, w.drainQueue(time.Minute))
	})
}

// An at-most-once message that was leased, and finished by nobody because the process died, ends
// with its lease: it must not stay pending forever.
func TestOnceAfterCrash(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", 0, "x")
		d.Mode = delay.AtMostOnce
		w.send(d)
		require.Len(t, w.pull(1, time.Second), 1)
		w.pass(time.Minute)
		require.Empty(t, w.pull(1, time.Second))
		require.Equal(t, delay.Books{Accepted: 1, Delivered: 1}, w.books())
	})
}

// A purge must leave alone what replaced its messages after it began.
func TestPurgeCut(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		d := w.draft("pull:q", time.Hour, "x")
		d.ID = "order"
		w.send(d)
		cut := w.commit.HandedOut()
		d.Body, d.Replace = []byte("y"), true
		w.send(d)
		var r [1]ChangeResult
		q := ChangeRequest{ID: "order", Change: Cancel, Cut: cut}
		require.NoError(t, w.Change(w.t.Context(), []ChangeRequest{q}, r[:]))
		require.Equal(t, NotFound, r[0].Verdict)
		require.Equal(t, delay.Scheduled, w.get("order").State)
	})
}

// mute spoils the conditional puts of a bucket and does not answer after one.
type mute struct {
	objstore.Bucket
	bad objstore.Bucket
	put bool

	deaf   bool   // no answers after a put
	before func() // a conditional put
}

func (b *mute) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	if cond == (objstore.Condition{}) {
		return b.Bucket.Put(ctx, key, body, cond)
	}
	b.put = b.deaf
	if b.before != nil {
		b.before()
	}
	return b.bad.Put(ctx, key, body, cond)
}

func (b *mute) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	if b.put {
		return nil, objstore.Info{}, faulty.ErrInjected
	}
	return b.Bucket.Get(ctx, key)
}

// A message that was lost with its disk is nowhere: a cancel of it must not say CANCELLED, and must
// not take from the books what they do not hold (rule R14).
func TestChangeOfLostMessage(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		lost := w.send(w.draft("pull:q", 48*time.Hour, "x")).ID
		w.crash()
		w.loseDisk()
		w.open()
		for _, change := range []Change{Cancel, StopRetrying, Fire} {
			require.Equal(t, NotFound, w.change(lost, change, 0).Verdict)
		}
		require.Equal(t, NotFound,
			w.change(lost, Reschedule, w.Now().Add(time.Hour)).Verdict)
		require.Zero(t, w.books().Pending)
		require.Zero(t, w.books().Cancelled)
	})
}

// With the disk go the leases, and the acks since the last commit. A message that was due when its
// disk was lost may have been pulled, so its cancel must not promise that nobody gets it; one that
// was accepted afterwards must not suffer for it (S5, rule R12).
func TestCancelAfterAckAndDiskLoss(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		d := w.draft("pull:q", 2*time.Second, "x")
		d.Durability = delay.Tier
		acked := w.send(d).ID
		d.Due = w.Now().Add(time.Hour)
		far := w.send(d).ID
		leases := w.pull(1, 5*time.Second)
		require.Len(t, leases, 1)
		require.Equal(t, []SettleResult{Acked}, w.ack(leases...))
		w.crash()
		w.loseDisk()
		w.open()
		check := func() {
			w.pass(5 * time.Second) // the ids come back
			require.Equal(t, TooLate, w.change(acked, Cancel, 0).Verdict)
		}
		check()
		w.crash()
		w.open()
		check()
		require.Equal(t, Cancelled, w.change(w.send(w.draft("pull:q", time.Second, "y")).ID, Cancel,
			0).Verdict)
		require.Equal(t, Cancelled, w.change(far, Cancel, 0).Verdict)
	})
}

// After a crash the next cut uploads what was not uploaded before. What had come and gone by then
// is in its books as delivered, and must not be counted as lost with the disk as well (rule R15).
func TestBooksOfFirstCutAfterCrash(t *testing.T) {
	opts := quick()
	opts.MinWait = 10 * time.Millisecond
	inWorld(t, opts, func(w *world) {
		w.send(w.draft("pull:q", time.Hour, "kept"))
		w.pass(2 * time.Second)
		w.crash()
		w.open()
		for range 5 {
			w.send(w.draft("pull:q", 100*time.Millisecond, "gone"))
		}
		w.pass(200 * time.Millisecond)
		w.ack(w.pull(5, time.Second)...)
		require.EqualValues(t, 5, w.books().Delivered)
		w.pass(1500 * time.Millisecond) // a flush
		w.crash()
		w.loseDisk()
		w.open()
		books := w.books()
		require.EqualValues(t, 1, books.Pending)
		require.EqualValues(t, 5, books.Delivered)
		require.Zero(t, books.LostWithDisk)
	})
}

// After a restore the counts of cold slots are rough: marks of messages that no segment holds any
// more are counted out. Nobody must be shown less than nothing.
func TestColdIsNeverNegative(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		due := w.Now().Add(100 * time.Hour)
		w.send(w.draft("pull:q", 100*time.Hour, "x"))
		b := w.store.NewBatch()
		for range 5 {
			b.ForgetCold(due, 100)
		}
		p, err := w.store.Apply(b)
		require.NoError(t, err)
		_, err = p.Wait()
		require.NoError(t, err)
		bars, err := w.Histogram(t.Context(), 24*time.Hour, Filter{})
		require.NoError(t, err)
		require.NotEmpty(t, bars)
		for _, bar := range bars {
			require.GreaterOrEqual(t, bar.Cold, int64(0))
			require.Equal(t, bar.Hot+bar.Warm+bar.Cold, bar.Count)
			require.GreaterOrEqual(t, bar.Bytes, int64(0))
		}
		st := w.Status()
		require.GreaterOrEqual(t, st.Cold.Messages, int64(0))
		require.GreaterOrEqual(t, st.Cold.Bytes, int64(0))
	})
}

// Messages that are parked while they are counted are counted once: a scan of the parked ones before
// that of the rows sees neither.
func TestCountBesideParking(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		const n = 600
		for i := range n {
			w.send(w.draft("pull:q", time.Duration(i)*50*time.Millisecond, "x"))
		}
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			require.EqualValues(t, n, w.count(Filter{Target: "pull:q"}))
		}
		synctest.Wait()
		require.NotZero(t, w.store.Counts().Parked)
	})
}
