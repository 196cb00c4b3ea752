// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// guardian knows what the broker does with its copies.
type guardian struct {
	now   func() delay.Due
	mu    sync.Mutex               // what follows belongs to the test while it holds it
	rng   *rand.Rand               // of answers that are lost; nil: none is
	fates map[delay.ID]broker.Fate // of those that the broker is through with
	sent  map[delay.ID]int         // what readers of the broker see of the releases
	lost  map[string]bool          // entries
	early []delay.ID
	asked map[delay.ID]int
	calls int // of Recall
	while func()
}

// newGuardian is asked from a restart of the shard on, which it begins with.
func newGuardian(w *world) *guardian {
	g := &guardian{
		now: w.wallDue, fates: map[delay.ID]broker.Fate{}, sent: map[delay.ID]int{},
		lost: map[string]bool{}, asked: map[delay.ID]int{},
	}
	w.guards = map[string]broker.Guardian{"guard:rmq": g}
	w.crash()
	w.open()
	return g
}

func (w *world) wallDue() delay.Due { return delay.InstantOf(w.wall()) }

func (g *guardian) Judge(_ context.Context, batch []broker.Delivery, out []broker.Judgment) {
	g.mu.Lock()
	while := g.while
	g.while = nil
	g.mu.Unlock()
	if while != nil {
		while()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range batch {
		d := &batch[i]
		id := delay.ID([]byte(d.ID))
		if g.now() < d.Due {
			g.early = append(g.early, id)
		}
		g.asked[id]++
		out[i] = broker.Judgment{Fate: g.fates[id], Reason: "no such topic"}
		if out[i].Fate != broker.Released || g.sent[id] > 0 {
			continue // or found by its key
		}
		g.sent[id]++
		if g.rng != nil && g.rng.IntN(3) == 0 {
			out[i].Fate = broker.Held // the answer was lost
		}
	}
}

func (g *guardian) Lost(_ context.Context, guards []*delay.Guard) []bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]bool, len(guards))
	for i, gd := range guards {
		out[i] = g.lost[gd.Entry]
	}
	return out
}

func (g *guardian) Recall(_ context.Context, d *broker.Delivery) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls++; d.Headers == nil {
		return fmt.Errorf("%w: a delay level", delay.ErrUnimplemented)
	}
	return nil
}

func (*guardian) Close() error { return nil }

// with does something while nobody else looks at g.
func (g *guardian) with(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

// end says what becomes of messages.
func (g *guardian) end(fate broker.Fate, ids ...delay.ID) {
	g.with(func() {
		for _, id := range ids {
			g.fates[id] = fate
		}
	})
}

// through reports whether the broker is through with a message.
func (g *guardian) through(id delay.ID) (is bool) {
	g.with(func() { _, is = g.fates[id] })
	return is
}

// seen is what was judged and released, and what was judged too early.
func (g *guardian) seen() (asked, sent map[delay.ID]int, early []delay.ID) {
	g.with(func() { asked, sent, early = maps.Clone(g.asked), maps.Clone(g.sent), slices.Clone(g.early) })
	return asked, sent, early
}

// entry appends what a mirror brings: a copy of the message id at this place of the broker.
func (p *topic) entry(id delay.ID, place string, wait time.Duration) {
	d := p.draft("rocketmq:rmq/orders", wait, "x")
	d.ID, d.AcceptedAt, d.Replace = id, p.Now(), true
	d.Guard = &delay.Guard{Lane: "guard:rmq/broker-a", Entry: place}
	p.add(broker.Item{Draft: d})
}

// A guarded message ends as it is judged, at its due and not before, and is asked about until then.
func TestGuardedIsJudged(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		g := newGuardian(w)
		p := &topic{world: w}
		for i, id := range []delay.ID{"a", "b", "c", "d"} {
			p.entry(id, fmt.Sprint("offset=", i), 2*time.Second)
		}
		require.NoError(t, p.read(10))
		require.Equal(t, delay.Scheduled, w.get("a").State)
		g.end(broker.Suppressed, "a")
		g.end(broker.Released, "b")
		g.end(broker.Refused, "c")
		w.pass(10 * time.Second)
		require.Equal(t, delay.Suppressed, w.get("a").State)
		require.Equal(t, delay.Delivered, w.get("b").State)
		require.Equal(t, delay.Dead, w.get("c").State)
		require.Equal(t, "no such topic", w.get("c").LastError)
		asked, _, early := g.seen()
		require.Empty(t, early)
		require.Greater(t, asked["d"], 5)
		require.Equal(t, delay.Books{
			Accepted: 4, Pending: 1, Delivered: 1, Dead: 1, Suppressed: 1,
		}, w.books())
		require.Empty(t, w.sink.Attempts(), "nothing of it goes the common way")
		w.crash()
		w.open()
		require.Equal(t, delay.Suppressed, w.get("a").State)
		w.pass(time.Minute)
		before := w.books()
		w.crash()
		w.loseDisk()
		w.open()
		p.restored()
		require.Equal(t, before, w.books())
		require.Equal(t, delay.Suppressed, w.get("a").State, "told by its mark")
		g.end(broker.Suppressed, "d")
		for w.books().Pending > 0 {
			w.pass(time.Second)
		}
		require.EqualValues(t, 2, w.books().Suppressed)
	})
}

// A shard has ended when nobody delivers for it any more (C16): what its owner closes next is not
// in use.
func TestEndAwaitsDeliveries(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		g := newGuardian(w)
		p := &topic{world: w}
		p.entry("a", "offset=0", time.Second)
		require.NoError(t, p.read(1))
		began, ended := make(chan bool), false
		g.with(func() {
			g.while = func() {
				close(began)
				<-time.After(time.Second)
				ended = true
			}
		})
		<-began
		w.end()
		require.NoError(t, <-w.ran)
		require.True(t, ended)
		w.close()
	})
}

// A recall, or a roll, that its source reads while a message is judged wins: the judgment finds the
// row gone and ends nothing.
func TestRecalledWhileJudged(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		g := newGuardian(w)
		p := &topic{world: w}
		p.entry("a", "offset=0", time.Second)
		p.entry("b", "offset=1", time.Second)
		require.NoError(t, p.read(10))
		g.end(broker.Suppressed, "a", "b")
		while := func() {
			p.add(broker.Item{Cancel: "a"})
			p.entry("b", "offset=2", 5*time.Second)
			require.NoError(t, p.read(10))
		}
		g.with(func() { g.while = while })
		w.pass(3 * time.Second)
		require.Equal(t, delay.Books{Accepted: 2, Cancelled: 1, Pending: 1}, w.books())
		w.pass(5 * time.Second)
		require.Equal(t, delay.Books{Accepted: 2, Cancelled: 1, Suppressed: 1}, w.books())
		require.Equal(t, delay.Cancelled, w.get("a").State)
		asked, _, _ := g.seen()
		require.Equal(t, map[delay.ID]int{"a": 1, "b": 2}, asked)
	})
}

// What a broker holds is that broker's: users neither cancel nor move it, and can only ask for its
// recall. Once the broker has lost it, it is ours (rule R19).
func TestGuardedBelongsToItsBroker(t *testing.T) {
	for _, wait := range []time.Duration{time.Minute, 10 * time.Hour} { // local and cold
		inWorld(t, quick(), func(w *world) {
			g := newGuardian(w)
			p := &topic{world: w}
			for i, id := range []delay.ID{"a", "b", "c", "timer"} {
				p.entry(id, fmt.Sprint("offset=", i), wait)
			}
			p.records[3].Draft.Headers = []delay.Header{{Name: "UNIQ_KEY", Value: "k"}}
			require.NoError(t, p.read(10))
			w.pass(20 * time.Second)
			try := func(q ChangeRequest) ChangeResult {
				var r [1]ChangeResult
				require.NoError(t, w.Change(w.t.Context(), []ChangeRequest{q}, r[:]))
				return r[0]
			}
			for _, c := range []Change{Cancel, StopRetrying, Fire, Reschedule} {
				r := try(ChangeRequest{ID: "a", Change: c, Due: w.Now()})
				require.ErrorIs(t, r.Err, delay.ErrPrecondition, "%d", c)
			}
			for _, dry := range []bool{true, false} {
				purged, err := w.Purge(w.t.Context(), Filter{Target: "rocketmq:rmq/orders"}, dry)
				require.NoError(t, err)
				require.Zero(t, purged.Count, "dry run: %v", dry)
			}
			w.pass(time.Minute / 2)
			require.EqualValues(t, 4, w.books().Pending)
			require.Equal(t, Requested, try(ChangeRequest{ID: "timer", Recall: true}).Verdict)
			require.ErrorIs(t, try(ChangeRequest{ID: "b", Recall: true}).Err, delay.ErrUnimplemented)
			require.Equal(t, 2, g.calls)
			require.EqualValues(t, 4, w.books().Pending)
			g.with(func() { g.lost["offset=0"], g.lost["offset=1"], g.lost["offset=2"] = true, true, true })
			require.Equal(t, Cancelled, try(ChangeRequest{ID: "a", Recall: true}).Verdict)
			g.end(broker.Released, "b", "c")
			require.Equal(t, Fired, try(ChangeRequest{ID: "b", Change: Fire}).Verdict)
			require.Equal(t, Rescheduled, try(ChangeRequest{
				ID: "c", Change: Reschedule, Due: w.Now().Add(4 * time.Second),
			}).Verdict)
			w.pass(2 * time.Second)
			_, sent, _ := g.seen()
			require.Equal(t, map[delay.ID]int{"b": 1}, sent)
			w.pass(8 * time.Second)
			_, sent, early := g.seen()
			require.Equal(t, map[delay.ID]int{"b": 1, "c": 1}, sent)
			require.Empty(t, early)
			require.Equal(t, delay.Books{Accepted: 4, Pending: 1, Delivered: 2, Cancelled: 1}, w.books())
		})
	}
}

// Whatever crashes and gets lost: what a mirror brought ends once, by the broker or by its guardian,
// never before its due; what was recalled ends as cancelled, also while it is being judged; and a
// rolled timer is one message.
func TestGuardedModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inWorld(t, quick(), func(w *world) { guardedModel(t, w, seed) })
		})
	}
}

func guardedModel(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 18))
	g := newGuardian(w)
	g.rng = rand.New(rand.NewPCG(seed, 19))
	p := &topic{world: w, tier: seed%2 == 0}
	want := map[delay.ID]broker.Fate{}
	recalled := map[delay.ID]bool{}
	var ids []delay.ID
	for range 60 {
		switch rng.IntN(7) {
		case 0, 1:
			for range 1 + rng.IntN(10) {
				id := delay.ID(fmt.Sprintf("m%d", len(ids)))
				ids = append(ids, id)
				p.entry(id, fmt.Sprint("offset=", len(p.records)),
					time.Duration(rng.IntN(20_000))*time.Millisecond)
				want[id] = broker.Suppressed + broker.Fate(rng.IntN(2))
			}
		case 2:
			if len(ids) > 0 { // rolled: the same message elsewhere
				id := ids[rng.IntN(len(ids))]
				if !g.through(id) && !recalled[id] {
					p.entry(id, fmt.Sprint("offset=", len(p.records)), 5*time.Second)
				}
			}
		case 3:
			if len(ids) > 0 {
				id := ids[rng.IntN(len(ids))]
				if !g.through(id) {
					p.add(broker.Item{Cancel: id})
					recalled[id] = true
				}
			}
		case 4:
			w.pass(time.Duration(rng.IntN(3000)) * time.Millisecond)
			for _, id := range ids { // the broker is through with some
				if rng.IntN(8) == 0 && !recalled[id] {
					g.end(want[id], id)
				}
			}
		case 5:
			p.acknowledge()
		case 6:
			w.crash()
			if rng.IntN(2) == 0 {
				w.loseDisk()
			}
			w.open()
		}
		if p.read(1+rng.IntN(9)) != nil {
			p.restored()
		}
	}
	for p.read(5) != nil {
		w.pass(100 * time.Millisecond)
	}
	for _, id := range ids {
		if !recalled[id] {
			g.end(want[id], id)
		}
	}
	for n := 0; w.books().Pending > 0; n++ {
		require.Less(t, n, 300, "seed %d: %+v", seed, w.books())
		w.pass(time.Second)
	}
	_, sent, early := g.seen()
	require.Empty(t, early, "seed %d", seed)
	for _, id := range ids {
		released := want[id] == broker.Released && !recalled[id]
		require.Equal(t, released, sent[id] == 1, "seed %d: %s was released %d times", seed, id,
			sent[id])
		if state := w.get(id).State; recalled[id] {
			require.Equal(t, delay.Cancelled, state, "seed %d: %s", seed, id)
		}
	}
}
