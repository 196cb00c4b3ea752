// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// targets is a fixed table of lanes: even ones are pushed to, odd ones pulled from.
type targets int

func (n targets) Target(no uint32) delay.Target {
	if no%2 == 1 {
		return delay.Target(fmt.Sprint("pull:q", no))
	}
	return delay.Target(fmt.Sprint("http://sink/", no))
}

func (targets) Round()              {}
func (targets) Release(uint32) bool { return true }

const (
	lanes = targets(4)
	epoch = delay.Epoch(3)
)

// row is a message in the model of the store.
type row struct {
	ref    Ref
	parked bool
}

// world is everything around a core: the store, the committer, the sinks, the consumers. What the
// core asks for is answered later, in a random order, as far as the order is not promised.
type world struct {
	t    *testing.T
	seed uint64
	rng  *rand.Rand
	core *Core
	now  delay.Due

	seq      uint64
	rows     map[delay.Key]row
	attempts map[delay.Key]uint32
	flying   map[delay.Key]bool // with a sink
	finished map[delay.Key]bool
	removed  map[delay.Key]bool
	horizon  delay.Due
	cursors  map[uint32]delay.Key
	mark     delay.Key

	commits []func() Event // the committer's queue
	synced  []Event
	jobs    []func() Event // loads, reads, deliveries: in any order
	answers []func() Event // of jobs that are done, on their way to the core
	waiters []*Waiter
	held    []SettleKey // leases in the hands of consumers
	lanesOf []uint32
	quiet   bool // nothing new comes
	trace   []string
	kinds   map[string]int // actions seen
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: 1_700_000_000_000,
		rows: map[delay.Key]row{}, attempts: map[delay.Key]uint32{},
		flying: map[delay.Key]bool{}, finished: map[delay.Key]bool{},
		removed: map[delay.Key]bool{}, cursors: map[uint32]delay.Key{},
		kinds: map[string]int{},
	}
	w.core = New(Options{
		HotWindow: 5 * time.Second, Backoff: 100 * time.Millisecond, MaxBackoff: time.Second,
		Window: 8,
	}, lanes, rand.New(rand.NewPCG(seed, 2)), w.now, Start{
		Epoch: epoch, Boundary: delay.MaxKey, Watermark: delay.Key{Due: w.now},
	})
	return w
}

// step gives the core an event and carries out what it asks for.
func (w *world) step(ev Event) {
	for _, a := range w.core.Step(w.now, ev) {
		kind := fmt.Sprintf("%T", a)
		w.trace = append(w.trace, kind)
		w.kinds[kind]++
		switch a := a.(type) {
		case ActDeliver:
			w.delivered(a)
		case ActGrant:
			w.granted(a)
		case ActLoad:
			w.jobs = append(w.jobs, func() Event { return w.load(a) })
		case ActReadParked:
			w.jobs = append(w.jobs, func() Event { return w.readParked(a) })
		case ActFinish:
			w.commits = append(w.commits, func() Event { return w.finish(a) })
		case ActPark:
			w.commits = append(w.commits, func() Event { return w.park(a) })
		case ActHorizon:
			w.commits = append(w.commits, func() Event {
				w.horizon = a.Horizon
				return EvHorizon(a)
			})
		case ActClaimCursor:
			w.commits = append(w.commits, func() Event {
				w.cursors[a.Lane] = a.Key
				return EvClaimCursor(a)
			})
		case ActWatermark:
			w.watermark(a)
		case ActFence:
			w.commits = append(w.commits, func() Event { return EvFenced{} })
		case ActForget:
			w.commits = append(w.commits, func() Event {
				for no := range lanes {
					if lanes.Target(uint32(no)) == a.Target {
						delete(w.cursors, uint32(no))
					}
				}
				return EvNothing{}
			})
		default:
			require.Fail(w.t, "unknown action", "%T", a)
		}
	}
}

// claimed checks one claim: C1, C2, and for push lanes C6.
func (w *world) claimed(cl Claim, push bool) {
	key := cl.Ref.Key
	where := fmt.Sprintf("seed %d key %v", w.seed, key)
	require.LessOrEqual(w.t, key.Due, w.now, where)
	require.False(w.t, w.flying[key], where)
	require.False(w.t, w.finished[key] || w.removed[key], where)
	require.NotZero(w.t, w.rows[key], where)
	w.attempts[key]++
	require.Equal(w.t, w.attempts[key], cl.Attempt, where)
	switch {
	case push && cl.Parked && cl.Attempt == 1: // after a crash only the cursor tells
		require.False(w.t, w.cursors[cl.Ref.Lane].Less(key), where)
	case push:
		cursor := w.cursors[cl.Ref.Lane]
		require.True(w.t, key.Due <= w.horizon || !cursor.Less(key), where)
	}
}

func (w *world) delivered(a ActDeliver) {
	done := EvOutcomes{Lane: a.Lane}
	for _, cl := range a.Claims {
		w.claimed(cl, true)
		w.flying[cl.Ref.Key] = true
		o := Outcome{Key: cl.Ref.Key, Result: broker.Delivered}
		if !w.quiet && w.rng.IntN(4) == 0 {
			o.Result = broker.Retry
		}
		done.Outcomes = append(done.Outcomes, o)
	}
	w.jobs = append(w.jobs, func() Event { return done })
}

func (w *world) granted(a ActGrant) {
	w.waiters = slices.DeleteFunc(w.waiters, func(x *Waiter) bool { return x == a.Waiter })
	for _, cl := range a.Grant.Claims {
		w.claimed(cl, false)
		require.Greater(w.t, a.Grant.Expires, w.now)
		w.held = append(w.held, SettleKey{Key: cl.Ref.Key, Epoch: epoch, Attempt: cl.Attempt})
		w.lanesOf = append(w.lanesOf, cl.Ref.Lane)
	}
}

// sorted is the keys of the store that pass.
func (w *world) sorted(pass func(row) bool) []delay.Key {
	var keys []delay.Key
	for k, r := range w.rows {
		if pass(r) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, delay.Key.Compare)
	return keys
}

func (w *world) load(a ActLoad) Event {
	if w.rng.IntN(8) == 0 {
		return EvLoadFailed{}
	}
	done := EvLoaded{Next: a.Upper}
	for _, k := range w.sorted(func(r row) bool { return !r.parked }) {
		if !k.Less(a.Lower) && k.Less(a.Upper) && k.Seq <= a.Cut {
			if len(done.Refs) == 20 { // less than is allowed, so that ranges are cut
				done.Next = k
				break
			}
			done.Refs = append(done.Refs, w.rows[k].ref)
		}
	}
	return done
}

func (w *world) readParked(a ActReadParked) Event {
	done := EvParkedRead{Lane: a.Lane}
	for _, k := range w.sorted(func(r row) bool { return r.parked && r.ref.Lane == a.Lane }) {
		if k.Less(a.From) {
			continue
		}
		if len(done.Refs) == 10 {
			done.More, done.Next = true, k
			break
		}
		done.Refs, done.Next = append(done.Refs, w.rows[k].ref), k.Next()
	}
	return done
}

func (w *world) finish(a ActFinish) Event {
	for _, it := range a.Items {
		key := it.Ref.Key
		require.NotZero(w.t, w.rows[key], "seed %d: finished twice or after a change", w.seed)
		require.True(w.t, !w.rows[key].parked || it.Parked || it.Parking,
			"seed %d: %v is finished as a row and is parked", w.seed, key)
		w.finished[key] = true
		delete(w.rows, key)
	}
	if a.Settle != nil {
		a.Settle.Done <- nil
	}
	return EvFinished{Items: a.Items}
}

func (w *world) park(a ActPark) Event {
	for _, it := range a.Items {
		if r, ok := w.rows[it.Ref.Key]; ok {
			r.parked = true
			w.rows[it.Ref.Key] = r
		}
	}
	return EvParked(a)
}

// watermark checks C3: what the core has been told of and is neither finished nor parked holds it.
func (w *world) watermark(a ActWatermark) {
	require.True(w.t, w.mark.Less(a.Mark), "seed %d: the watermark goes back", w.seed)
	w.mark = a.Mark
	for k, r := range w.rows {
		if !r.parked && k.Seq <= a.Seen {
			require.False(w.t, k.Less(a.Mark), "seed %d: watermark %v passes %v", w.seed, a.Mark, k)
		}
	}
}

// accept stores a message and tells the core after the commit.
func (w *world) accept() {
	w.commits = append(w.commits, func() Event {
		w.seq++
		due := max(w.now.Add(time.Duration(w.rng.IntN(15_000))*time.Millisecond), w.mark.Due)
		key := delay.Key{Due: due, Seq: delay.MakeSeq(epoch, w.seq)}
		r := Ref{Key: key, Lane: uint32(w.rng.IntN(int(lanes))), Meta: 100}
		w.rows[key] = row{ref: r}
		return EvAccepted{Refs: []Ref{r}, Last: key.Seq}
	})
}

// change takes a random message away, if the core lets go of it.
func (w *world) change() {
	w.commits = append(w.commits, func() Event {
		keys := w.sorted(func(row) bool { return true })
		if len(keys) == 0 {
			return EvNothing{}
		}
		key := keys[w.rng.IntN(len(keys))]
		r := w.rows[key]
		ev := EvWithdraw{
			Key: key, Parked: r.parked, Lane: r.ref.Lane, Granted: make(chan bool, 1),
		}
		w.step(ev)
		if !<-ev.Granted {
			return EvNothing{}
		}
		delete(w.rows, key)
		w.removed[key] = true
		return EvWithdrawn{Keys: []delay.Key{key}}
	})
}

func (w *world) pull() {
	x := &Waiter{
		Lane: uint32(w.rng.IntN(int(lanes)/2)*2 + 1), Max: 1 + w.rng.IntN(5),
		Lease: 300 * time.Millisecond, Grant: make(chan Grant, 1),
	}
	w.waiters = append(w.waiters, x)
	w.step(EvPull{Waiter: x})
}

// settle acks or nacks one lease; some are left to expire.
func (w *world) settle() {
	if len(w.held) == 0 {
		return
	}
	i := w.rng.IntN(len(w.held))
	s := &Settling{
		Lane: w.lanesOf[i], Receipts: []SettleKey{w.held[i]}, Results: make([]SettleResult, 1),
		Done: make(chan error, 1),
	}
	w.held, w.lanesOf = slices.Delete(w.held, i, i+1), slices.Delete(w.lanesOf, i, i+1)
	if !w.quiet && w.rng.IntN(4) == 0 {
		s.Kind = Nack
	}
	if w.quiet || w.rng.IntN(4) > 0 {
		w.step(EvSettle{Settling: s})
	}
}

// commit applies the oldest request; sync tells the core of the oldest applied one.
func (w *world) commit() {
	if len(w.commits) > 0 {
		do := w.commits[0]
		w.commits = w.commits[1:]
		w.synced = append(w.synced, do())
	}
}

func (w *world) sync() {
	if len(w.synced) > 0 {
		ev := w.synced[0]
		w.synced = w.synced[1:]
		w.step(ev)
	}
}

func (w *world) job() {
	if n := len(w.jobs) + len(w.answers); n > 0 {
		i := w.rng.IntN(n)
		if i < len(w.answers) {
			say := w.answers[i]
			w.answers = slices.Delete(w.answers, i, i+1)
			w.step(say())
			return
		}
		i -= len(w.answers)
		ev := w.jobs[i]()
		w.jobs = slices.Delete(w.jobs, i, i+1)
		w.answers = append(w.answers, func() Event {
			if done, ok := ev.(EvOutcomes); ok {
				for _, o := range done.Outcomes {
					delete(w.flying, o.Key)
				}
			}
			return ev
		})
	}
}

// any does one thing.
func (w *world) any() {
	switch n := w.rng.IntN(20); {
	case n < 4:
		w.commit()
	case n < 8:
		w.sync()
	case n < 12:
		w.job()
	case n < 13:
		w.pull()
	case n < 15:
		w.settle()
	case n < 17:
		w.now = w.now.Add(time.Duration(w.rng.IntN(400)) * time.Millisecond)
		w.step(EvNothing{})
	case w.quiet:
	case n < 18:
		w.change()
	case n < 19 && w.rng.IntN(4) == 0:
		w.step(EvPause{Lane: uint32(w.rng.IntN(int(lanes))), Paused: w.rng.IntN(2) == 0})
	default:
		w.accept()
		w.accept()
	}
}

// run drives a core through a history of the seed and back to rest.
func run(t *testing.T, seed uint64) *world {
	w := newWorld(t, seed)
	for range 3000 {
		w.any()
	}
	w.quiet = true
	for no := range lanes {
		w.step(EvPause{Lane: uint32(no)})
	}
	for n := 0; len(w.rows) > 0 || len(w.commits)+len(w.synced)+len(w.jobs)+len(w.answers) > 0; n++ {
		require.Less(t, n, 200_000, "seed %d: %d messages are stuck (C2)", seed, len(w.rows))
		w.any()
	}
	return w
}

// Whatever the order of answers, nothing may be claimed early (C1), twice at a time, after its end
// or never (C2), nor above what is durable (C6), and the watermark holds (C3).
func TestModel(t *testing.T) {
	kinds := map[string]int{}
	removed := 0
	for seed := range uint64(8) {
		w := run(t, seed)
		removed += len(w.removed)
		for kind, n := range w.kinds {
			kinds[kind] += n
		}
	}
	require.Len(t, kinds, 11, "the model saw too little: %v", kinds)
	require.Greater(t, removed, 100)
}

// One history of events must give one history of actions, or no seed could be repeated.
func TestRepeats(t *testing.T) {
	require.Equal(t, run(t, 7).trace, run(t, 7).trace)
}
