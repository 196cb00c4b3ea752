// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
)

// shard is what a Keeper knows of a shard.
type shard struct {
	fates    map[delay.ID]Fate
	position int64
	covered  int64
	synced   int
	unheard  []broker.Done
}

func (s *shard) keeper(sink Sink) *Keeper {
	return New(Config{
		Name: "ledger:kafka:main", Sink: sink, Log: zap.NewNop(),
		Read:    func(string) (int64, bool) { return s.position, s.position > 0 },
		Covered: func(string) (int64, bool) { return s.covered, s.covered > 0 },
		Fate:    func(d broker.Done) Fate { return s.fates[d.ID] },
		Sync: func(context.Context) error {
			s.synced++
			return nil
		},
		Note: func(next int64, unheard []broker.Done, known []bool) error {
			if next > 0 {
				s.position = next
			}
			s.unheard = append(s.unheard, unheard...)
			return nil
		},
	})
}

func batch(ids ...delay.ID) (out []broker.Delivery) {
	for _, id := range ids {
		out = append(out, broker.Delivery{ID: id, Generation: 1, Target: "kafka:main/t"})
	}
	return out
}

// try makes one attempt and tells the outcomes.
func try(t *testing.T, k *Keeper, ids ...delay.ID) (outcomes []broker.Outcome) {
	t.Helper()
	b := batch(ids...)
	results := make([]broker.Result, len(b))
	k.Deliver(t.Context(), b, results)()
	for _, r := range results {
		outcomes = append(outcomes, r.Outcome)
	}
	return outcomes
}

func opened(t *testing.T, s *shard, sink Sink) *Keeper {
	t.Helper()
	k := s.keeper(sink)
	require.NoError(t, k.recover(t.Context()))
	return k
}

// told makes a sink that answers as the outcomes say, one for each transaction.
func told(log *memory.Log, commits ...memory.Commit) *memory.Exact {
	return memory.NewExact(log, memory.ExactOptions{
		Script: func(n int, _ []broker.Delivery) memory.Commit {
			if n < len(commits) {
				return commits[n]
			}
			return memory.Commit{Applied: true, Told: true}
		},
	})
}

// What an earlier process sent is in the ledger alone: before it was read a delivery may be the
// second (G1).
func TestNothingBeforeTheLedgerIsRead(t *testing.T) {
	log := memory.NewLog()
	s := &shard{}
	k := s.keeper(told(log))
	sink := memory.NewExact(log, memory.ExactOptions{})
	require.NoError(t, sink.Recover(t.Context(), 0, nil))
	k.c.Sink = sink // it would deliver
	require.Equal(t, []broker.Outcome{broker.Retry}, try(t, k, "a"))
	require.Empty(t, log.Visible())
}

// A message that the ledger lists was delivered, whatever this disk says of it (rule R17).
func TestFoundIsNotSentAgain(t *testing.T) {
	log := memory.NewLog()
	s := &shard{fates: map[delay.ID]Fate{"a": Pending}}
	first := opened(t, s, told(log))
	require.Equal(t, []broker.Outcome{broker.Delivered}, try(t, first, "a"))
	k := opened(t, s, told(log)) // as after a crash
	require.Equal(t, []broker.Outcome{broker.Delivered, broker.Delivered}, try(t, k, "a", "b"))
	require.Len(t, log.Visible(), 2)
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 2, s.position)
	require.Equal(t, 1, s.synced, "outcomes first")
	s.covered = 2
	require.NoError(t, k.Settle(t.Context()))
	require.Error(t, told(log).Recover(t.Context(), 0, nil), "entries were removed")
	require.NoError(t, told(log).Recover(t.Context(), 2, nil))
}

// The position must not pass what is still open: after a crash nobody would find it (G2).
func TestPositionWaits(t *testing.T) {
	log := memory.NewLog()
	s := &shard{fates: map[delay.ID]Fate{"lost": Pending, "found": Pending}}
	k := opened(t, s, told(log, memory.Commit{Applied: true, Told: true},
		memory.Commit{Applied: true}))
	require.Equal(t, []broker.Outcome{broker.Delivered}, try(t, k, "a"))
	require.Equal(t, []broker.Outcome{broker.Unknown}, try(t, k, "lost"))
	require.Equal(t, []broker.Outcome{broker.Delivered}, try(t, k, "b"))
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 1, s.position, "the answer of the second got lost")
	require.Equal(t, []broker.Outcome{broker.Delivered}, try(t, k, "lost"))
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 3, s.position)
	require.Len(t, log.Visible(), 3)
	end := k.Deliver(t.Context(), batch("c"), make([]broker.Result, 1))
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 3, s.position, "the core was not told yet")
	end()
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 4, s.position)
	try(t, k, "found")
	k = opened(t, s, told(log))
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 4, s.position, "it waits to be answered from the ledger")
	s.fates["found"] = Settled // or ended otherwise
	require.NoError(t, k.Settle(t.Context()))
	require.EqualValues(t, 5, s.position)
}

// A message may be listed that was lost with the disk: read again from its topic it must be found
// delivered, also when the ledger has forgotten it (G3). While ids are restored nobody can say.
func TestUnheardIsRemembered(t *testing.T) {
	log := memory.NewLog()
	s := &shard{fates: map[delay.ID]Fate{"a": Pending}}
	try(t, opened(t, s, told(log)), "a")
	s.fates["a"] = Doubtful
	k := opened(t, s, told(log))
	require.NoError(t, k.Settle(t.Context()))
	require.Empty(t, s.unheard)
	require.Zero(t, s.position)
	s.fates["a"] = Unheard
	require.NoError(t, k.Settle(t.Context()))
	require.Equal(t, []broker.Done{{ID: "a", Generation: 1}}, s.unheard)
	require.EqualValues(t, 1, s.position)
}

// What a missing entry listed may have been sent: going on would send it again (G4).
func TestGapEndsTheShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := memory.NewLog()
		s := &shard{}
		k := opened(t, s, told(log))
		try(t, k, "a")
		try(t, k, "b")
		log.Drop(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, s.keeper(told(log)).Run(ctx), delay.ErrCorrupt)
	})
}
