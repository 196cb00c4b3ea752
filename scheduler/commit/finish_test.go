// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
)

// delivered finishes the message that an id names.
func (b *bench) delivered(id delay.ID) (before localstore.IDRecord) {
	b.t.Helper()
	before, known, err := b.store.LookupID(string(id))
	require.NoError(b.t, err)
	require.True(b.t, known)
	rec, err := b.store.Row(before.Key)
	require.NoError(b.t, err)
	ref, err := b.lanes.RefOfRecord(before.Key, rec)
	require.NoError(b.t, err)
	b.Enqueue(&FinishOp{ActFinish: core.ActFinish{Items: []core.FinishItem{{
		Ref: ref, State: delay.Delivered, Attempts: 1,
	}}}})
	b.commit()
	return before
}

// messageWith has options drawn from rng.
func messageWith(rng *rand.Rand, id delay.ID, now delay.Due) delay.Message {
	m := delay.Message{
		ID: id, Target: "pull:q", AcceptedAt: now, Due: now.Add(time.Duration(rng.IntN(1e9)) * 1000),
		Body: fmt.Appendf(nil, "%d", rng.Uint64()), ByDelay: rng.IntN(2) == 0,
	}
	some := func(do func()) {
		if rng.IntN(2) == 0 {
			do()
		}
	}
	ms := func() time.Duration { return time.Duration(1+rng.IntN(1e6)) * time.Millisecond }
	some(func() { m.RoutingKey = "k" })
	some(func() { m.Headers = []delay.Header{{Name: "a", Value: "b"}, {Name: "c"}} })
	some(func() { m.TTL = ms() })
	some(func() { m.NotAfter = m.Due.Add(ms()) })
	some(func() { m.Spread, m.Given = ms(), m.Due-delay.Due(rng.IntN(1000)) })
	some(func() { m.MaxWait = ms() })
	some(func() { m.MaxAttempts = rng.Uint32N(9) })
	some(func() { m.Backoff = ms() })
	some(func() { m.Durability = delay.Tier })
	some(func() { m.Mode = delay.ExactlyOnce })
	return m
}

// The end of a message must remember what its id was given for, or a request that is sent again is
// told that the id names other content (S4). Nobody asks the index for it: a lookup for each
// delivered message costs more than everything else.
func TestFinishRemembersWithoutLookup(t *testing.T) {
	b := newBench(t)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 200 {
		m := messageWith(rng, delay.ID(fmt.Sprintf("m%d", i)), b.now)
		o := &AcceptOp{
			Drafts: []delay.Draft{{Message: m}}, Receipts: make([]Receipt, 1), Done: make(chan error, 1),
		}
		require.NoError(t, b.Put(o, 1))
		b.commit()
		require.NoError(t, <-o.Done)
		require.NoError(t, o.Receipts[0].Err)
		reads := b.store.Metrics().IDReads
		before := b.delivered(m.ID)
		require.Equal(t, reads+1, b.store.Metrics().IDReads, "the test's own")
		after, _, err := b.store.LookupID(string(m.ID))
		require.NoError(t, err)
		require.Equal(t, delay.Delivered, after.State)
		require.Equal(t, before.Identity, after.Identity, "seed %d, message %d: %+v", seed, i, m)
	}
}

// What was moved says something else in its record than was asked for first.
func TestFinishOfMoved(t *testing.T) {
	for _, due := range []delay.Due{0, 1_700_000_100_000} {
		b := newBench(t)
		o := &AcceptOp{
			Drafts: []delay.Draft{{Message: delay.Message{
				ID: "a", Target: "pull:q", Due: due, AcceptedAt: b.now, ByDelay: due > 0,
			}}}, Receipts: make([]Receipt, 1), Done: make(chan error, 1),
		}
		require.NoError(t, b.Put(o, 1))
		b.commit()
		first, _, err := b.store.LookupID("a")
		require.NoError(t, err)
		for n := range 2 {
			c := &ChangeOp{
				Requests: []ChangeRequest{{ID: "a", Change: Reschedule, Due: b.now.Add(time.Hour)}},
				Results:  make([]ChangeResult, 1), Done: make(chan error, 1),
			}
			require.NoError(t, b.Put(c, 1))
			b.commit()
			require.Equal(t, Rescheduled, c.Results[0].Verdict, "%d: %v", n, c.Results[0].Err)
		}
		moved := b.delivered("a")
		after, _, err := b.store.LookupID("a")
		require.NoError(t, err)
		require.NotEqual(t, first.Key, after.Key)
		require.Equal(t, moved.Identity, after.Identity)
		first.Key = after.Key
		require.Equal(t, first.Identity, after.Identity, "due %d", due)
	}
}
