// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
)

// Whatever crashes and gets lost, and whatever becomes of the answers of a sink with a ledger: what a
// source brought is visible once, and what it was told to cancel at most once (rule R17).
func TestExactlyOnceModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inWorld(t, quick(), func(w *world) { exactlyOnce(t, w, seed) })
		})
	}
}

// After the loss of the disk a source brings again what was delivered, and its cancel: the ledger
// alone knows that the cancel comes too late (rule R17, S5).
func TestCancelOfWhatALedgerLists(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		log := sink.NewLog()
		w.exact = func() *sink.Exact { return sink.NewExact(log, sink.ExactOptions{}) }
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(5 * time.Second)
		p := &topic{world: w, tier: true}
		id := p.send(100 * time.Millisecond)
		p.records[0].Draft.Target = "kafka:main/t"
		require.NoError(t, p.read(1))
		for len(log.Visible()) == 0 {
			w.pass(10 * time.Millisecond)
		}
		w.crash()
		w.loseDisk()
		w.open()
		p.add(broker.Item{Cancel: id})
		for p.read(10) != nil {
			w.pass(100 * time.Millisecond)
		}
		for range 10 { // what the bucket brought back is answered from the ledger by its attempt
			w.pass(time.Second)
		}
		require.Equal(t, delay.Delivered, w.get(id).State)
		require.Len(t, log.Visible(), 1)
		require.Zero(t, w.books().Pending)
	})
}

// While the ledger cannot be read nothing is tried: a message of one attempt must not die of it, and
// one that is sent at most once must not be taken for sent.
func TestNothingIsTriedBeforeTheLedgerIsRead(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		log := sink.NewLog()
		var answers atomic.Bool
		w.exact = func() *sink.Exact { return sink.NewExact(log, sink.ExactOptions{}) }
		w.unread = func() bool { return !answers.Load() }
		w.crash()
		w.open()
		once := w.draft("kafka:main/t", time.Second, "x")
		once.Mode = delay.AtMostOnce
		last := w.draft("kafka:main/t", time.Second, "x")
		last.MaxAttempts = 1
		w.send(once)
		w.send(last)
		w.pass(10 * time.Second)
		require.EqualValues(t, 2, w.books().Pending)
		answers.Store(true)
		w.pass(30 * time.Second)
		require.Len(t, log.Visible(), 2)
		require.Equal(t, delay.Books{Accepted: 2, Delivered: 2}, w.books())
	})
}

// unreadable is a ledger that cannot be read for a while.
type unreadable struct {
	*sink.Exact
	unread func() bool
}

func (u unreadable) Recover(
	ctx context.Context, after uint64, apply func(uint64, []broker.Done) error,
) error {
	if u.unread != nil && u.unread() {
		return fmt.Errorf("%w: no broker answers", delay.ErrUnavailable)
	}
	return u.Exact.Recover(ctx, after, apply)
}

func exactlyOnce(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 17))
	log := sink.NewLog()
	var friendly atomic.Bool
	w.exact = func() *sink.Exact {
		return sink.NewExact(log, sink.ExactOptions{
			Script: func(n int, _ []broker.Delivery) sink.Commit {
				if friendly.Load() || n%3 != int(seed%3) {
					return sink.Commit{Applied: true, Told: true}
				}
				return sink.Commit{Applied: n%2 == 0, Told: n%5 == 0}
			},
		})
	}
	w.crash()
	w.loseDisk()
	w.open()
	p := &topic{world: w, tier: seed%2 == 0}
	want, cancelled := make(map[delay.ID]bool), make(map[delay.ID]bool)
	for range 60 {
		switch rng.IntN(6) {
		case 0, 1:
			for range 1 + rng.IntN(20) {
				id := p.send(time.Duration(rng.IntN(8000)) * time.Millisecond)
				p.records[len(p.records)-1].Draft.Target = "kafka:main/t"
				want[id] = true
			}
		case 2:
			if len(p.records) > 0 {
				id := delay.ID(fmt.Sprintf("m%d", rng.IntN(len(p.records))))
				p.add(broker.Item{Cancel: id})
				cancelled[id] = true
			}
		case 3:
			w.pass(time.Duration(rng.IntN(3000)) * time.Millisecond)
		case 4:
			p.acknowledge()
		case 5:
			w.crash()
			if rng.IntN(2) == 0 {
				w.loseDisk()
			}
			w.open()
		}
		if err := p.read(1 + rng.IntN(9)); err != nil {
			require.True(t, errors.Is(err, delay.ErrUnavailable), err)
			p.restored()
		}
	}
	for p.read(5) != nil {
		w.pass(100 * time.Millisecond)
	}
	friendly.Store(true)
	for w.books().Pending > 0 {
		w.pass(time.Second)
	}
	seen := make(map[delay.ID]int)
	for _, d := range log.Visible() {
		seen[d.ID]++
	}
	for id := range want {
		require.LessOrEqual(t, seen[id], 1, "seed %d: %s", seed, id)
		require.True(t, cancelled[id] || seen[id] == 1, "seed %d: %s is lost", seed, id)
	}
	w.pass(10 * time.Second)
	next, _ := w.Intake().Covered("ledger:kafka:main")
	err := w.exact().Recover(t.Context(), uint64(next), func(uint64, []broker.Done) error {
		return errors.New("the bucket stands for less than everything")
	})
	require.NoError(t, err)
}
