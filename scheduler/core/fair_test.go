// SPDX-License-Identifier: Apache-2.0

package core

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// table numbers as the real one does: what is given out counts, and what was released is an error.
type table struct {
	t     *testing.T
	round int
	given map[uint32]int
	gone  map[uint32]bool
}

func (n *table) Target(no uint32) delay.Target {
	require.False(n.t, n.gone[no], "lane %d was released", no)
	return targets(0).Target(no)
}

func (n *table) Round() { n.round++ }

func (n *table) Release(no uint32) bool {
	if n.given[no] > n.round-2 {
		return false
	}
	n.gone[no] = true
	return true
}

// give gives a number out.
func (n *table) give(no uint32) { n.given[no] = n.round }

// crowd is a core among many receivers in virtual time. Its store is immediate; what a receiver is
// given comes back after that receiver's latency. It checks C1 and C7 at each step.
type crowd struct {
	t    *testing.T
	core *Core
	now  delay.Due
	seq  uint64

	latency func(lane uint32) time.Duration
	answer  func(r Ref) broker.Outcome

	todo    []Event
	coming  comings
	parked  map[uint32][]Ref
	sent    map[delay.Key]delay.Due // when it became due for the core
	waited  map[uint32][]time.Duration
	batches map[uint32][]int // sizes of what was with a receiver, at each claim
	with    map[uint32]int
	claims  []Ref
	mostOut int
	table   *table
	forgot  int // targets
}

// coming is an event at an instant.
type coming struct {
	at delay.Due
	no int
	ev Event
}

type comings []coming

func (h comings) Len() int { return len(h) }
func (h comings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].no < h[j].no
}
func (h comings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *comings) Push(x any)   { *h = append(*h, x.(coming)) }
func (h *comings) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newCrowd(t *testing.T) *crowd {
	w := &crowd{
		t: t, now: 1_700_000_000_000, parked: map[uint32][]Ref{}, sent: map[delay.Key]delay.Due{},
		waited: map[uint32][]time.Duration{}, batches: map[uint32][]int{}, with: map[uint32]int{},
		latency: func(uint32) time.Duration { return time.Millisecond },
		answer:  func(Ref) broker.Outcome { return broker.Delivered },
		table:   &table{t: t, given: map[uint32]int{}, gone: map[uint32]bool{}},
	}
	w.core = New(Options{
		HotWindow: 10 * time.Minute, Backoff: time.Second, MaxBackoff: 10 * time.Minute,
		Window: 1000,
	}, w.table, rand.New(rand.NewPCG(1, 1)), w.now, Start{
		Epoch: epoch, Boundary: delay.MaxKey, Watermark: delay.Key{Due: w.now},
	})
	w.step(nil)
	return w
}

// accept makes n messages of size bytes for lane, due now.
func (w *crowd) accept(lane uint32, n, size int) { w.acceptAt(w.now, lane, n, size) }

func (w *crowd) acceptAt(due delay.Due, lane uint32, n, size int) {
	w.table.give(lane)
	ev := EvAccepted{}
	for range n {
		w.seq++
		r := Ref{
			Key:  delay.Key{Due: due, Seq: delay.MakeSeq(epoch, w.seq)},
			Lane: lane, Meta: uint32(size),
		}
		w.sent[r.Key] = due
		ev.Refs, ev.Last = append(ev.Refs, r), r.Key.Seq
	}
	w.step(ev)
}

func (w *crowd) later(d time.Duration, ev Event) {
	w.seq++
	heap.Push(&w.coming, coming{at: w.now.Add(d), no: int(w.seq), ev: ev})
}

// step gives the core an event and what follows from it at once.
func (w *crowd) step(ev Event) {
	w.todo = append(w.todo, ev)
	for len(w.todo) > 0 {
		ev, w.todo = w.todo[0], w.todo[1:]
		for _, a := range slices.Clone(w.core.Step(w.now, ev)) {
			if next := w.do(a); next != nil {
				w.todo = append(w.todo, next)
			}
		}
		w.mostOut = max(w.mostOut, w.core.out)
		require.LessOrEqual(w.t, w.core.out, maxOut, "C7")
		require.Less(w.t, w.core.outBytes, maxOutBytes+4<<20, "C7")
		require.GreaterOrEqual(w.t, w.core.out, 0)
	}
}

func (w *crowd) do(a Action) Event {
	switch a := a.(type) {
	case ActDeliver:
		w.claimed(a.Claims)
		done := EvOutcomes{Lane: a.Lane}
		for _, cl := range a.Claims {
			done.Outcomes = append(done.Outcomes, Outcome{Key: cl.Ref.Key, Result: w.answer(cl.Ref)})
		}
		w.with[a.Lane] += len(a.Claims)
		w.batches[a.Lane] = append(w.batches[a.Lane], w.with[a.Lane])
		w.later(w.latency(a.Lane), done)
	case ActGrant:
		w.claimed(a.Grant.Claims)
		a.Waiter.Grant <- a.Grant
	case ActLoad:
		return EvLoaded{Next: a.Upper}
	case ActReadParked:
		rows := w.parked[a.Lane]
		at, _ := slices.BinarySearchFunc(rows, a.From, func(r Ref, k delay.Key) int {
			return r.Key.Compare(k)
		})
		end := min(at+ParkedLoad, len(rows))
		ev := EvParkedRead{Lane: a.Lane, Refs: slices.Clone(rows[at:end]), More: end < len(rows)}
		if ev.Next = a.From; end > at {
			ev.Next = rows[end-1].Key.Next()
		}
		return ev
	case ActPark:
		for _, it := range a.Items {
			w.park(it.Ref)
		}
		return EvParked(a)
	case ActFinish:
		w.finished(a)
		return EvFinished{Items: a.Items}
	case ActHorizon:
		return EvHorizon(a)
	case ActClaimCursor:
		return EvClaimCursor(a)
	case ActFence:
		return EvFenced{}
	case ActForget:
		w.forgot++
	}
	return nil
}

func (w *crowd) claimed(claims []Claim) {
	for _, cl := range claims {
		require.LessOrEqual(w.t, cl.Ref.Key.Due, w.now, "C1")
		if cl.Attempt == 1 {
			w.waited[cl.Ref.Lane] = append(w.waited[cl.Ref.Lane], w.now.Sub(w.sent[cl.Ref.Key]))
		}
		w.claims = append(w.claims, cl.Ref)
	}
}

func (w *crowd) park(r Ref) {
	rows := w.parked[r.Lane]
	at, found := slices.BinarySearchFunc(rows, r.Key, func(r Ref, k delay.Key) int {
		return r.Key.Compare(k)
	})
	if !found {
		w.parked[r.Lane] = slices.Insert(rows, at, r)
	}
}

func (w *crowd) finished(a ActFinish) {
	for _, it := range a.Items {
		rows := w.parked[it.Ref.Lane]
		at, found := slices.BinarySearchFunc(rows, it.Ref.Key, func(r Ref, k delay.Key) int {
			return r.Key.Compare(k)
		})
		if found {
			w.parked[it.Ref.Lane] = slices.Delete(rows, at, at+1)
		}
	}
	if a.Settle != nil {
		a.Settle.Done <- nil
	}
}

// pass lets virtual time pass and calls each, if it is set, every 10 ms.
func (w *crowd) pass(d time.Duration, each func()) {
	end := w.now.Add(d)
	tick := w.now
	for w.now < end {
		next := min(end, max(w.core.NextWake(), w.now+1))
		if w.core.NextWake() == 0 {
			next = end
		}
		if len(w.coming) > 0 {
			next = min(next, w.coming[0].at)
		}
		if each != nil {
			next = min(next, tick)
		}
		w.now = max(next, w.now)
		if each != nil && w.now == tick {
			each()
			tick = tick.Add(10 * time.Millisecond)
		}
		for len(w.coming) > 0 && w.coming[0].at <= w.now {
			ev := heap.Pop(&w.coming).(coming).ev
			if done, ok := ev.(EvOutcomes); ok {
				w.with[done.Lane] -= len(done.Outcomes)
			}
			w.step(ev)
		}
		w.step(nil)
		for w.core.NextWake() != 0 && w.core.NextWake() <= w.now {
			w.step(nil)
		}
	}
}

// longest is the longest wait of a lane's messages for their first attempt.
func (w *crowd) longest(lane uint32) time.Duration {
	if len(w.waited[lane]) == 0 {
		return 0
	}
	return slices.Max(w.waited[lane])
}

// Slow receivers with endless backlogs must not take the room of the good ones (C7): without shares
// nine of them have everything that may be out, for as long as they please.
func TestSlowLanes(t *testing.T) {
	for _, slow := range []int{1, 9, 40} {
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			w := newCrowd(t)
			w.latency = func(lane uint32) time.Duration {
				if lane >= 1000 {
					return 30 * time.Second
				}
				return 5 * time.Millisecond
			}
			for i := range slow {
				w.accept(uint32(1000+2*i), 3000, 300)
			}
			w.pass(20*time.Second, func() {
				for i := range 10 {
					w.accept(uint32(2*i), 1, 300)
				}
			})
			for i := range 10 {
				require.Greater(t, len(w.waited[uint32(2*i)]), 1990)
				require.Less(t, w.longest(uint32(2*i)), 100*time.Millisecond, "lane %d", 2*i)
			}
		})
	}
}

// Bodies are held in memory while they are with a sink: large ones must be bounded by their bytes,
// for a lane and for all, and still all be delivered (C7 is checked at each step).
func TestLargeMessages(t *testing.T) {
	w := newCrowd(t)
	w.latency = func(uint32) time.Duration { return time.Second }
	for i := range 50 {
		w.accept(uint32(2*i), 40, 4<<20)
	}
	w.pass(120*time.Second, nil)
	for i := range 50 {
		require.Len(t, w.waited[uint32(2*i)], 40, "lane %d", 2*i)
	}
}

// Very many targets due at once must neither be as many calls at once nor be forgotten (C7).
func TestManyLanesAtOnce(t *testing.T) {
	w := newCrowd(t)
	w.latency = func(uint32) time.Duration { return 100 * time.Millisecond }
	const n = 30_000
	for i := range n {
		w.accept(uint32(2*i), 1, 300)
	}
	w.pass(2*time.Second, nil)
	require.Equal(t, maxOut, w.mostOut, "as much as may be")
	require.Len(t, w.claims, n)
	require.Zero(t, w.core.out+w.core.outBytes+w.core.busy)
}

// A receiver that comes back after an outage must not be met by everything that piled up: what it
// is given at a time at most doubles from one answer to the next.
func TestSlowStart(t *testing.T) {
	w := newCrowd(t)
	const lane = 0
	down := true
	w.latency = func(uint32) time.Duration { return 100 * time.Millisecond }
	w.answer = func(Ref) broker.Outcome {
		if down {
			return broker.Retry
		}
		return broker.Delivered
	}
	w.accept(lane, 20_000, 100)
	w.pass(30*time.Second, nil)
	require.True(t, w.core.lane(lane).trips > 0, "the breaker is open")
	down, w.batches[lane] = false, nil
	w.pass(2*time.Minute, nil)
	sizes := w.batches[lane]
	require.Equal(t, 1, sizes[0], "a probe")
	answered := 0
	for _, n := range sizes {
		require.LessOrEqual(t, n, answered+1, "%v", sizes[:20])
		answered += n
	}
	require.Equal(t, 1000, slices.Max(sizes), "in the end the whole window")
	require.Empty(t, w.parked[lane])
}

// What waits after hours of downtime must not keep what comes due now waiting, nor the other way
// round (C8), for receivers and for consumers.
func TestBacklogInTurn(t *testing.T) {
	for _, lane := range []uint32{2, 1} {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			w := newCrowd(t)
			w.latency = func(uint32) time.Duration { return time.Second } // 1000 a second
			w.step(EvPause{Lane: lane, Paused: true})
			w.accept(lane, 20_000, 100)
			w.pass(30*time.Second, nil)
			require.Len(t, w.parked[lane], 20_000)
			clear(w.waited)
			begin := w.now
			w.step(EvPause{Lane: lane})
			fresh := 0
			w.pass(30*time.Second, func() {
				if w.accept(lane, 4, 100); lane%2 == 1 {
					w.take(lane, 10)
				}
				fresh += 4
			})
			var waits []time.Duration
			old := 0
			for _, r := range w.claims {
				if r.Key.Due < begin {
					old++
				}
			}
			for _, d := range w.waited[lane] {
				if d < 30*time.Second {
					waits = append(waits, d)
				}
			}
			require.Greater(t, len(waits), fresh-2000, "fresh ones")
			require.Less(t, slices.Max(waits), 3*time.Second, "of a fresh one")
			require.Greater(t, old, 10_000, "of the backlog")
		})
	}
}

// take pulls and acks up to n messages.
func (w *crowd) take(lane uint32, n int) {
	w.table.give(lane)
	x := &Waiter{Lane: lane, Max: n, Lease: time.Minute, Grant: make(chan Grant, 1)}
	w.step(EvPull{Waiter: x})
	w.step(EvPullGone{Waiter: x})
	s := &Settling{Lane: lane, Done: make(chan error, 1)}
	for _, cl := range (<-x.Grant).Claims {
		s.Receipts = append(s.Receipts, SettleKey{Key: cl.Ref.Key, Epoch: epoch, Attempt: cl.Attempt})
	}
	s.Results = make([]SettleResult, len(s.Receipts))
	w.step(EvSettle{Settling: s})
}

// Messages that fail for ever must not stop the others of their lane, nor take memory without
// bound: thousands between attempts leave room, and a lane with too many waits (C7).
func TestPoisonedLane(t *testing.T) {
	w := newCrowd(t)
	poison := func(r Ref) bool { return r.Meta&sizeMask == 666 }
	w.answer = func(r Ref) broker.Outcome {
		if poison(r) {
			return broker.Unknown
		}
		return broker.Delivered
	}
	good := 0
	w.pass(40*time.Second, func() {
		w.accept(0, 1, 666)
		w.accept(0, 1, 100)
		good++
	})
	l := w.core.lane(0)
	require.Greater(t, l.retrying, 1000, "the point of the test")
	seen := 0
	for _, r := range w.claims {
		if !poison(r) {
			seen++
		}
	}
	require.Greater(t, seen, good-100)
	require.Less(t, w.longest(0), time.Second)

	for range 30 {
		w.accept(0, 1000, 666)
		w.accept(0, 1000, 100)
		w.pass(time.Second, nil)
	}
	require.Less(t, l.retrying, maxRetrying+1000)
	require.Equal(t, l.retrying, w.core.retrying)
}

// A lane that has nothing to do must be let go, however many there were (C9), and one that anything
// refers to must not: its number would name nobody.
func TestIdleLanes(t *testing.T) {
	w := newCrowd(t)
	const n = 5000
	busy := map[string]uint32{"due later": n, "between attempts": n + 2, "paused": n + 4,
		"parked": n + 6, "with its receiver": n + 8, "leased": n + 1, "waiting consumer": n + 3}
	w.latency = func(lane uint32) time.Duration {
		if lane == busy["with its receiver"] {
			return 7 * time.Minute
		}
		return time.Millisecond
	}
	w.answer = func(r Ref) broker.Outcome {
		if r.Lane == busy["between attempts"] {
			return broker.Retry
		}
		return broker.Delivered
	}
	for i := range uint32(n / 2) {
		w.accept(2*i, 1, 100)
	}
	w.acceptAt(w.now.Add(8*time.Minute), busy["due later"], 1, 100)
	w.accept(busy["between attempts"], 1, 100)
	w.step(EvPause{Lane: busy["paused"], Paused: true})
	w.accept(busy["with its receiver"], 1, 100)
	w.accept(busy["leased"], 1, 100)
	x := &Waiter{Lane: busy["leased"], Max: 1, Lease: 7 * time.Minute, Grant: make(chan Grant, 1)}
	w.step(EvPull{Waiter: x})
	require.Len(t, (<-x.Grant).Claims, 1)
	x = &Waiter{Lane: busy["waiting consumer"], Max: 1, Grant: make(chan Grant, 1)}
	w.step(EvPull{Waiter: x})
	w.step(EvPause{Lane: busy["parked"], Paused: true})
	w.accept(busy["parked"], 3, 100)
	for range 6 { // a number that is given out again and again stays, even without a message
		w.pass(time.Minute, nil)
		w.table.give(0)
	}
	for name, no := range busy {
		require.NotNil(t, w.core.live.Get(no), name)
	}
	require.NotNil(t, w.core.live.Get(0))
	live := 0
	for range w.core.live.From(0, w.core.live.End()) {
		live++
	}
	require.Equal(t, len(busy)+1, live)
	require.Len(t, w.table.gone, n/2-1)

	w.step(EvPause{Lane: busy["parked"]})
	w.step(EvPause{Lane: busy["paused"]})
	w.step(EvPullGone{Waiter: x})
	w.answer = func(Ref) broker.Outcome { return broker.Delivered }
	w.pass(20*time.Minute, nil)
	w.take(busy["leased"], 1) // its lease is over
	w.pass(5*time.Minute, nil)
	require.Len(t, w.table.gone, n/2+len(busy), "in the end none is left")
	require.Equal(t, 1, w.forgot, "what was durable of the one that was parked")
	require.Empty(t, slices.Collect(func(yield func(int) bool) {
		for at, p := range w.core.live.pages {
			if p != nil && !yield(at) {
				return
			}
		}
	}), "pages")
	require.Zero(t, w.core.busy+w.core.out+w.core.retrying)
}

// The answer to a fence that comes while the shard is drained must not keep the loop awake: it
// would turn without a pause until the drain is over.
func TestFenceInADrain(t *testing.T) {
	w := newCrowd(t)
	w.accept(2*laneChunk, 1, 100)
	w.step(EvDrain{})
	w.step(EvFenced{})
	require.Greater(t, w.core.NextWake(), w.now)
}

// Where nothing can come twice a lane takes more at once, or large transactions would never fill;
// where it can, its window is what bounds the repetitions (S6).
func TestWideLane(t *testing.T) {
	for wide, want := range map[bool]int{true: wideWindow, false: 1000} {
		w := newCrowd(t)
		w.core.opts.Wide = func(delay.Target) bool { return wide }
		w.latency = func(uint32) time.Duration { return time.Second }
		w.accept(0, 10_000, 100)
		w.pass(900*time.Millisecond, nil)
		require.Equal(t, want, w.core.lane(0).inflight)
	}
}
