// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// named is a draft with an id.
func (w *world) named(id delay.ID, target delay.Target, d time.Duration) delay.Draft {
	m := w.draft(target, d, "x")
	m.ID = id
	return m
}

// What makes two requests the same, field by field: target, key, headers, body and options, and
// either the resolved due or the given delay (S4). A field that is left out of the comparison would
// lose the second message; one that is compared too closely would refuse a repeated request.
func TestSameContentFieldByField(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		base := w.named("order-1", "pull:q", time.Hour)
		base.RoutingKey, base.TTL, base.Spread = "k", time.Hour, time.Minute
		base.Given, base.Due = base.Due, base.Due.Add(7*time.Second)
		headers := func(text ...string) (list []delay.Header) {
			for i := 0; i < len(text); i += 2 {
				list = append(list, delay.Header{Name: text[i], Value: text[i+1]})
			}
			return list
		}
		base.Headers = headers("a", "1", "b", "2")
		base.MaxWait, base.MaxAttempts, base.Backoff = time.Hour, 3, time.Second
		first := w.send(base)
		again := w.trySend(base)
		require.True(t, again.Duplicate)
		require.Equal(t, first.Due, again.Due, "the spread of the first")
		for name, change := range map[string]func(d *delay.Draft){
			"target":         func(d *delay.Draft) { d.Target = "pull:r" },
			"key":            func(d *delay.Draft) { d.RoutingKey = "l" },
			"no key":         func(d *delay.Draft) { d.RoutingKey = "" },
			"header value":   func(d *delay.Draft) { d.Headers = headers("a", "1", "b", "3") },
			"header name":    func(d *delay.Draft) { d.Headers = headers("a", "1", "c", "2") },
			"header moved":   func(d *delay.Draft) { d.Headers = headers("a", "1b", "", "2") },
			"header less":    func(d *delay.Draft) { d.Headers = d.Headers[:1] },
			"body":           func(d *delay.Draft) { d.Body = []byte("y") },
			"no body":        func(d *delay.Draft) { d.Body = nil },
			"longer body":    func(d *delay.Draft) { d.Body = append([]byte("x"), 0) },
			"ttl":            func(d *delay.Draft) { d.TTL++ },
			"not after":      func(d *delay.Draft) { d.NotAfter = d.Due.Add(time.Hour) },
			"spread":         func(d *delay.Draft) { d.Spread += time.Second },
			"max wait":       func(d *delay.Draft) { d.MaxWait = 0 },
			"max attempts":   func(d *delay.Draft) { d.MaxAttempts = 4 },
			"backoff":        func(d *delay.Draft) { d.Backoff = 0 },
			"durability":     func(d *delay.Draft) { d.Durability = delay.Tier },
			"mode":           func(d *delay.Draft) { d.Mode = delay.AtMostOnce },
			"due a ms later": func(d *delay.Draft) { d.Given, d.Due = d.Given+1, d.Due+1 },
		} {
			d := base
			change(&d)
			require.ErrorIs(t, w.trySend(d).Err, delay.ErrExists, name)
		}
		require.True(t, w.trySend(base).Duplicate)

		// A delay counts from receipt: the same delay later is the same request, another is not, nor
		// is an instant that happens to be another.
		byDelay := func(d time.Duration) delay.Draft {
			m := w.named("order-2", "pull:q", d)
			m.ByDelay, m.AcceptedAt = true, w.Now()
			return m
		}
		first = w.send(byDelay(time.Hour))
		w.pass(1234 * time.Millisecond)
		again = w.trySend(byDelay(time.Hour))
		require.True(t, again.Duplicate)
		require.Equal(t, first.Due, again.Due)
		require.ErrorIs(t, w.trySend(byDelay(time.Hour+time.Millisecond)).Err, delay.ErrExists)
		require.ErrorIs(t, w.trySend(w.named("order-2", "pull:q", time.Hour)).Err, delay.ErrExists)
		instant := w.named("order-2", "pull:q", 0)
		instant.Due = first.Due
		require.True(t, w.trySend(instant).Duplicate, "the same resolved due")
		require.Equal(t, delay.Books{Accepted: 2, Pending: 2}, w.books())
	})
}

// An id is remembered until the window after its end is over: one millisecond before it a repeated
// request stores nothing, at it the id is free. However the message ended, and whatever happened
// meanwhile: a crash, a restart, the loss of the disk, a step of the wall clock.
func TestDedupeWindowToTheMillisecond(t *testing.T) {
	const window = 30 * time.Second
	ends := map[delay.State]func(w *world){
		delay.Delivered: func(w *world) { w.ack(w.pull(1, time.Minute)...) },
		delay.Cancelled: func(w *world) { w.change("order-1", Cancel, 0) },
		delay.Dead: func(w *world) {
			w.settle(SettleRequest{Settlement: Nack}, w.pull(1, time.Minute)...)
		},
		delay.Expired: func(w *world) { w.pass(10 * time.Second) },
	}
	reopen := func(w *world) { w.open(); w.pass(time.Second) }
	for name, meanwhile := range map[string]func(w *world){
		"nothing": func(*world) {},
		"crash":   func(w *world) { w.crash(); reopen(w) },
		"restart": func(w *world) { w.drain(); reopen(w) },
		"disk":    func(w *world) { w.pass(2 * time.Second); w.crash(); w.loseDisk(); reopen(w) },
		"forward": func(w *world) { w.skew.Add(int64(time.Hour)) },
		"back": func(w *world) {
			w.skew.Add(-int64(time.Hour)) // time stands still
			w.pass(2 * time.Second)
			w.skew.Add(int64(time.Hour))
		},
	} {
		for state, end := range ends {
			t.Run(fmt.Sprint(name, " ", state), func(t *testing.T) {
				opts := quick()
				opts.DedupeWindow, opts.ClockMaxHold = window, 2*window
				inWorld(t, opts, func(w *world) {
					d := w.named("order-1", "pull:q", 3*time.Second)
					d.TTL, d.MaxAttempts = 5*time.Second, 1
					w.send(d)
					end(w)
					w.pass(100 * time.Millisecond)
					rec, known, err := w.store.LookupID("order-1")
					require.NoError(t, err)
					require.True(t, known)
					require.Equal(t, state, rec.State)
					meanwhile(w)
					over := rec.FinishedAt.Add(window)
					w.pass(over.Sub(w.Now()) - time.Millisecond)
					require.Equal(t, over-1, w.Now())
					r := w.trySend(d)
					require.NoError(t, r.Err)
					require.True(t, r.Duplicate, "a millisecond before the end")
					require.Equal(t, state, r.State)
					other := d
					other.Body = []byte("y")
					require.ErrorIs(t, w.trySend(other).Err, delay.ErrExists)
					w.pass(over.Sub(w.Now()))
					r = w.send(other)
					require.False(t, r.Duplicate, "at the end")
					require.EqualValues(t, 1, r.Generation)
					w.pass(time.Second) // the timer of the first comes
					require.True(t, w.trySend(other).Duplicate)
				})
			})
		}
	}
}

// One id several times in a batch, and in batches that race: it is stored once. Without Replace the
// first content wins; with it the last, and every generation is counted.
func TestOneIDManyTimes(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		draft := func(body string, replace bool) delay.Draft {
			d := w.named("order-1", "pull:q", time.Hour)
			d.Body, d.Replace, d.AcceptedAt = []byte(body), replace, w.Now()
			return d
		}
		drafts := []delay.Draft{
			draft("a", false), draft("a", false), draft("b", false), draft("b", true),
			draft("b", false), draft("a", true), draft("a", true),
		}
		receipts := make([]Receipt, len(drafts))
		require.NoError(t, w.Accept(w.t.Context(), drafts, receipts))
		for i, want := range []struct {
			generation uint32
			duplicate  bool
		}{{1, false}, {1, true}, {}, {2, false}, {2, true}, {3, false}, {3, true}} {
			if want.generation == 0 {
				require.ErrorIs(t, receipts[i].Err, delay.ErrExists)
				continue
			}
			require.NoError(t, receipts[i].Err, i)
			require.Equal(t, want.generation, receipts[i].Generation, i)
			require.Equal(t, want.duplicate, receipts[i].Duplicate, i)
		}
		require.Equal(t, "a", string(w.get("order-1").Body))
		require.Equal(t, delay.Books{Accepted: 1, Pending: 1}, w.books())

		const clients, ids = 8, 300
		fresh := make([]int, clients)
		var g sync.WaitGroup
		for c := range clients {
			drafts, receipts := make([]delay.Draft, ids), make([]Receipt, ids)
			for i, n := range rand.New(rand.NewPCG(uint64(c), 1)).Perm(ids) {
				drafts[i] = w.named(delay.ID(fmt.Sprint("raced-", n)), "pull:q", time.Hour)
				drafts[i].AcceptedAt = w.Now()
			}
			g.Go(func() {
				if err := w.Accept(w.t.Context(), drafts, receipts); err != nil {
					return
				}
				for i := range receipts {
					if receipts[i].Err == nil && !receipts[i].Duplicate {
						fresh[c]++
					}
				}
			})
		}
		g.Wait()
		sum := 0
		for _, n := range fresh {
			sum += n
		}
		require.Equal(t, ids, sum)
		require.Equal(t, delay.Books{Accepted: ids + 1, Pending: ids + 1}, w.books())
	})
}

// crashed is what a stepped shard panics with when its process dies.
type crashed struct{}

// The id is checked and stored in the commit of its message. The power fails after each step of an
// accept, with any part of what was not synced: the same request again finds the message, or stores
// it; there is never an id without its message, nor a message twice.
func TestAcceptCrashesAtEachStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for kept := range 4 {
			for at := 0; ; at++ {
				fs, done := acceptAndCrash(t, at, kept)
				repeatAccept(t, fs, fmt.Sprintf("crash at step %d, %d %% kept", at, kept*33))
				if done {
					require.GreaterOrEqual(t, at, 2)
					break
				}
			}
		}
	})
}

// stepped opens a shard that does its tasks when it waits, and dies at the given one.
func stepped(t *testing.T, fs *vfs.MemFS, dies int) (*Stepped, *localstore.Store) {
	store, err := localstore.Open(fs, "store", localstore.Options{
		Simulated: true, Logger: zap.NewNop(),
	})
	require.NoError(t, err)
	var s *Stepped
	steps := 0
	s, err = OpenStepped(t.Context(), Parts{
		Store: store, Logger: zap.NewNop(), Now: time.Now, Boot: boot,
	}, Options{}, 1, func() {
		if steps++; steps > dies {
			panic(crashed{})
		}
		for _, task := range s.Tasks(nil) {
			if task.Kind <= TaskSync {
				require.NoError(t, s.Do(t.Context(), task))
				return
			}
		}
		require.Fail(t, "nothing to do")
	})
	require.NoError(t, err)
	return s, store
}

// acceptBoth sends a message with an id and one with a reserved id.
func acceptBoth(t *testing.T, s *Stepped, reserved delay.ID) []Receipt {
	drafts, receipts := make([]delay.Draft, 2), make([]Receipt, 2)
	for i, id := range []delay.ID{"order-1", reserved} {
		drafts[i] = delay.Draft{Message: delay.Message{
			ID: id, Target: "pull:q", Due: 4_000_000_000_000, AcceptedAt: s.Now(),
		}}
	}
	require.NoError(t, s.Accept(t.Context(), drafts, receipts))
	return receipts
}

// reservedOf is an id that the first epoch of the cluster has reserved.
func reservedOf(s *Stepped) delay.ID {
	return s.ids.Reserve(0, delay.Key{Due: 1, Seq: delay.MakeSeq(1, 1)})
}

// acceptAndCrash lets the process die at a step of an accept and returns what its disk holds; done
// says that it was answered before.
func acceptAndCrash(t *testing.T, at, kept int) (fs *vfs.MemFS, done bool) {
	fs = vfs.NewCrashableMem()
	s, store := stepped(t, fs, 1<<20)
	_, err := s.Reserve(t.Context(), 1)
	require.NoError(t, err)
	steps := 0
	yield := s.drive.yield
	s.drive.yield = func() {
		if steps++; steps > at {
			panic(crashed{})
		}
		yield()
	}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(crashed{}) {
				panic(r)
			}
		}()
		acceptBoth(t, s, reservedOf(s))
		done = true
	}()
	image := fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: kept * 33, RNG: rand.New(rand.NewPCG(uint64(at), uint64(kept))),
	})
	require.NoError(t, store.Close())
	return image, done
}

// repeatAccept sends again to what the disk holds.
func repeatAccept(t *testing.T, fs *vfs.MemFS, where string) {
	s, store := stepped(t, fs, 1<<20)
	first := acceptBoth(t, s, reservedOf(s))
	for i, r := range acceptBoth(t, s, reservedOf(s)) {
		require.NoError(t, first[i].Err, where)
		require.True(t, r.Duplicate, where)
		require.Equal(t, first[i].Duplicate, first[0].Duplicate, "one commit: %s", where)
		loc, err := s.find.Locate(r.ID)
		require.NoError(t, err)
		require.NotEmpty(t, loc.Record, where)
	}
	rows := 0
	require.NoError(t, store.ScanRows(delay.Key{}, delay.MaxKey, func(delay.Key, []byte) bool {
		rows++
		return true
	}))
	require.Equal(t, 2, rows, where)
	require.EqualValues(t, 2, store.Books().Pending, where)
	require.NoError(t, store.Close())
}

// Replacing is atomic in every state of the message that it replaces, in memory, parked, cold or
// finished, and over a crash and the loss of the disk right after it: exactly one content is
// delivered, the last that was answered. What is claimed is never replaced.
func TestReplaceInEveryState(t *testing.T) {
	pulled := func(w *world) []Lease {
		got := w.pull(1, time.Minute)
		require.Len(w.t, got, 1)
		return got
	}
	for _, c := range []struct {
		name  string
		due   time.Duration
		bring func(w *world)
		late  bool // TOO_LATE
		fresh bool // counts as accepted anew
	}{
		{name: "scheduled", due: 3 * time.Second},
		{name: "uploaded", due: 20 * time.Second, bring: func(w *world) { w.pass(2 * time.Second) }},
		{name: "cold", due: time.Minute, bring: func(w *world) { w.pass(6 * time.Second) }},
		{name: "due", due: 0, bring: func(w *world) { w.pass(time.Second) }},
		{name: "parked", due: 0, bring: func(w *world) { w.pass(12 * time.Second) }},
		{name: "leased", bring: func(w *world) { pulled(w) }, late: true},
		{name: "between attempts", bring: func(w *world) {
			w.settle(SettleRequest{Settlement: Nack, Delay: time.Hour, HasDelay: true}, pulled(w)...)
		}, late: true},
		{name: "leased and parked", bring: func(w *world) {
			pulled(w)
			w.pass(12 * time.Second)
		}, late: true},
		{name: "delivered", bring: func(w *world) { w.ack(pulled(w)...) }, fresh: true},
		{name: "cancelled", due: time.Minute, bring: func(w *world) { w.change("order-1", Cancel, 0) },
			fresh: true},
		{name: "cold and cancelled", due: time.Minute, bring: func(w *world) {
			w.pass(6 * time.Second)
			w.change("order-1", Cancel, 0)
		}, fresh: true},
		{name: "expired", bring: func(w *world) { w.pass(25 * time.Second) }, fresh: true},
		{name: "dead", bring: func(w *world) {
			w.change("order-1", StopRetrying, 0)
			pulled := w.pull(1, time.Second)
			w.settle(SettleRequest{Settlement: Nack}, pulled...)
		}, fresh: true},
	} {
		for _, after := range []string{"nothing", "crash", "disk"} {
			t.Run(c.name+" then "+after, func(t *testing.T) {
				inWorld(t, quick(), func(w *world) {
					d := w.named("order-1", "pull:q", c.due)
					d.TTL = 20 * time.Second
					w.send(d)
					if c.bring != nil {
						c.bring(w)
					}
					if c.name == "cold" {
						require.Equal(t, delay.Cold, w.get("order-1").Level)
					}
					d.Body, d.Replace, d.Due = []byte("new"), true, w.Now().Add(4*time.Second)
					d.TTL, d.AcceptedAt = 0, w.Now()
					r := w.trySend(d)
					if c.late {
						require.ErrorIs(t, r.Err, delay.ErrTooLate)
						return
					}
					require.NoError(t, r.Err)
					require.False(t, r.Duplicate)
					require.EqualValues(t, 2, r.Generation)
					again := w.trySend(d)
					require.True(t, again.Duplicate)
					require.EqualValues(t, 2, again.Generation)
					accepted := int64(1)
					if c.fresh {
						accepted = 2
					}
					require.Equal(t, accepted, w.books().Accepted)
					require.EqualValues(t, 1, w.books().Pending)
					switch after {
					case "crash":
						w.crash()
						w.open()
					case "disk":
						w.pass(2 * time.Second)
						w.crash()
						w.loseDisk()
						w.open()
					}
					got := w.pull(2, 30*time.Second)
					require.Len(t, got, 1)
					require.Equal(t, "new", string(got[0].Body))
					w.ack(got...)
					require.Empty(t, w.drainQueue(12*time.Second))
					require.Zero(t, w.books().Pending)
				})
			})
		}
	}
}

// Ids that look like the server's are taken from a client only when this cluster has reserved them;
// a reserved id is like any other client id, also beyond its window.
func TestReservedIDsAreReal(t *testing.T) {
	opts := quick()
	opts.DedupeWindow = 5 * time.Second
	inWorld(t, opts, func(w *world) {
		ids, err := w.Reserve(w.t.Context(), 2)
		require.NoError(t, err)
		try := func(id delay.ID) Receipt {
			d := w.named(id, "pull:q", 0)
			d.Given = 1
			return w.trySend(d)
		}
		made := w.send(w.draft("pull:q", time.Hour, "x")).ID
		key := delay.Key{Due: w.Now(), Seq: w.commit.HandedOut()}
		other := delay.NewIDMaker("another cluster")
		for name, id := range map[string]delay.ID{
			"made":            made,
			"not handed out":  w.ids.Reserve(w.shard, delay.Key{Due: key.Due, Seq: key.Seq + 1}),
			"of a later life": w.ids.Reserve(w.shard, delay.Key{Due: key.Due, Seq: key.Seq + 1<<40}),
			"another cluster": other.Reserve(w.shard, key),
			"made elsewhere":  other.Make(w.shard, key),
			"one letter off":  ids[0][:25] + "0",
		} {
			if id != ids[0] {
				require.ErrorIs(t, try(id).Err, delay.ErrInvalid, name)
			}
		}
		require.False(t, try(ids[0]).Duplicate)
		w.crash()
		w.open()
		require.True(t, try(ids[0]).Duplicate)
		w.ack(w.pull(1, time.Second)...)
		require.True(t, try(ids[0]).Duplicate)
		w.pass(6 * time.Second)
		require.False(t, try(ids[0]).Duplicate, "beyond its window")
		w.pass(14 * time.Second) // it is parked, and then in the bucket
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(2 * time.Second)
		require.True(t, try(ids[0]).Duplicate, "restored")
		require.NoError(t, try(ids[1]).Err, "reserved by an owner whose disk is gone")
		require.True(t, try(ids[1]).Duplicate)
	})
}

// Ids and outcomes go through uploads, compactions and the drop of their rows, and come back from
// the bucket alone: each id still names the message it named.
func TestIDsThroughTheTier(t *testing.T) {
	opts := upkeepOften()
	opts.DedupeWindow = 5 * time.Minute
	inWorld(t, opts, func(w *world) {
		var drafts []delay.Draft
		for i := range 120 {
			d := w.named(delay.ID(fmt.Sprint("order-", i)), "pull:q",
				time.Duration(10+i*10)*time.Second)
			w.send(d)
			drafts = append(drafts, d)
			if i%10 == 9 {
				w.pass(1200 * time.Millisecond) // a flush
			}
		}
		for i := 5; i < 120; i += 10 {
			require.Equal(t, Cancelled, w.change(drafts[i].ID, Cancel, 0).Verdict)
		}
		w.pass(30 * time.Second)
		delivered := w.drainQueue(time.Second)
		require.NotEmpty(t, delivered)
		w.pass(20 * time.Second)
		_, merged := levels(w.tier.State())
		require.NotZero(t, merged, "nothing was compacted")
		check := func() {
			for i, d := range drafts {
				r := w.trySend(d)
				require.NoError(t, r.Err, i)
				require.True(t, r.Duplicate, i)
				switch {
				case i%10 == 5:
					require.Equal(t, delay.Cancelled, r.State, i)
				case delivered[d.ID] > 0:
					require.Equal(t, delay.Delivered, r.State, i)
				default:
					require.Equal(t, delay.Scheduled, r.State, i)
				}
			}
		}
		check()
		w.crash()
		w.loseDisk()
		w.open()
		check()
		require.EqualValues(t, 120, w.books().Accepted)
	})
}

// What was moved, fired or brought back from the dead letters still answers to the request that
// made it, also when the bucket is all that is left of it (S4, rule R14).
func TestMovedKeepsItsFirstDue(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		first := map[delay.ID]delay.Draft{}
		for _, id := range []delay.ID{"moved", "twice", "by-delay", "moved-then-lost"} {
			d := w.named(id, "pull:q", 10*time.Hour)
			d.AcceptedAt, d.Durability = w.Now(), delay.Tier
			d.ByDelay, d.MaxWait = id == "by-delay", 48*time.Hour
			first[id] = d
			w.send(d)
			w.pass(time.Second)
		}
		for i, id := range []delay.ID{"moved", "twice", "twice", "by-delay", "moved-then-lost"} {
			due := w.Now().Add(20*time.Hour + time.Duration(i)*time.Minute)
			require.Equal(t, Rescheduled, w.change(id, Reschedule, due).Verdict)
		}
		w.pass(time.Minute)
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(time.Minute)
		for id, d := range first {
			again := d
			if d.ByDelay {
				again.AcceptedAt = w.Now()
				again.Due = again.AcceptedAt.Add(d.Due.Sub(d.AcceptedAt))
			}
			r := w.trySend(again)
			require.NoError(t, r.Err, id)
			require.True(t, r.Duplicate, id)
		}
	})
}
