// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// actionsOf keeps the actions of one kind.
func actionsOf[A Action](actions []Action) (out []A) {
	for _, a := range actions {
		if a, ok := a.(A); ok {
			out = append(out, a)
		}
	}
	return out
}

// A read of parked rows may see a row whose park the core does not know yet, and one that is
// finished by the time the core hears of the read: neither may be claimed by it (C2).
func TestStaleReads(t *testing.T) {
	w := newWorld(t, 1)
	c, now, due := w.core, w.now, w.now
	ref := func(n uint64) Ref {
		return Ref{Key: delay.Key{Due: due, Seq: delay.MakeSeq(epoch, n)}, Lane: 1, Meta: 10}
	}
	pull := func() []Claim {
		waiter := &Waiter{Lane: 1, Max: 10, Lease: time.Minute, Grant: make(chan Grant, 1)}
		actions := slices.Clone(c.Step(now, EvPull{Waiter: waiter}))
		actions = append(actions, c.Step(now, EvPullGone{Waiter: waiter})...)
		var claims []Claim
		for _, a := range actionsOf[ActGrant](actions) {
			claims = append(claims, a.Grant.Claims...)
		}
		return claims
	}
	for _, l := range actionsOf[ActLoad](c.Step(now, nil)) {
		c.Step(now, EvLoaded{Next: l.Upper})
	}
	c.Step(now, EvAccepted{Refs: []Ref{ref(1)}, Last: ref(1).Key.Seq})
	reads := c.Step(now, EvParkedLanes{Lanes: []ParkedLane{{Lane: 1, Rows: 1}}})
	require.Len(t, actionsOf[ActReadParked](reads), 1)
	now += parkAfter + watermarkIdle
	parks := actionsOf[ActPark](c.Step(now, nil))
	require.Len(t, parks, 1)
	c.Step(now, EvParkedRead{Lane: 1, Refs: []Ref{ref(1)}, Next: ref(1).Key.Next()})
	require.Empty(t, pull(), "it is being parked: nobody may have it before that is known")
	more := c.Step(now, EvParked{Items: parks[0].Items})
	require.Len(t, actionsOf[ActReadParked](more), 1)
	c.Step(now, EvParkedRead{Lane: 1, Refs: []Ref{ref(1)}, Next: ref(1).Key.Next()})
	require.Len(t, pull(), 1)

	// Another row is parked and read; meanwhile the first is finished, and the read still has it.
	more = c.Step(now, EvParkedLanes{Lanes: []ParkedLane{{Lane: 1, Rows: 2}}})
	require.Len(t, actionsOf[ActReadParked](more), 1)
	c.Step(now, EvFinished{Items: []FinishItem{{Ref: ref(1), Parked: true}}})
	c.Step(now, EvParkedRead{Lane: 1, Refs: []Ref{ref(1), ref(2)}, Next: ref(2).Key.Next()})
	claims := pull()
	require.Len(t, claims, 1)
	require.Equal(t, ref(2).Key, claims[0].Ref.Key)
}

// The record of a lease says that a message was claimed. If it were deleted before the outcome that
// ends the claim is committed, a crash in between would leave a message that looks as if nobody
// had had it: it could be cancelled, and delivered once too often (rule R8).
func TestLeaseGoesLast(t *testing.T) {
	w := newWorld(t, 1)
	c, now := w.core, w.now
	for _, l := range actionsOf[ActLoad](c.Step(now, nil)) {
		c.Step(now, EvLoaded{Next: l.Upper})
	}
	ref := Ref{Key: delay.Key{Due: now, Seq: delay.MakeSeq(epoch, 1)}, Lane: 1, Meta: 10}
	c.Step(now, EvAccepted{Refs: []Ref{ref}, Last: ref.Key.Seq})
	waiter := &Waiter{Lane: 1, Max: 1, Lease: time.Minute, Grant: make(chan Grant, 1)}
	require.Len(t, actionsOf[ActGrant](c.Step(now, EvPull{Waiter: waiter})), 1)
	c.Step(now, EvLast{Keys: []delay.Key{ref.Key}})
	over := actionsOf[ActFinish](c.Step(now.Add(2*time.Minute), nil))
	require.Len(t, over, 2)
	require.Len(t, over[0].Items, 1)
	require.Empty(t, over[0].Leases)
	require.Len(t, over[1].Leases, 1)
}

// A claim that nobody took is given back while its row is being parked. The message must stay known
// as one that is parked by then: finished as a plain row, its parked row would come back with the
// next start.
func TestReleaseWhileParking(t *testing.T) {
	w := newWorld(t, 1)
	c, now := w.core, w.now
	for _, l := range actionsOf[ActLoad](c.Step(now, nil)) {
		c.Step(now, EvLoaded{Next: l.Upper})
	}
	ref := Ref{Key: delay.Key{Due: now, Seq: delay.MakeSeq(epoch, 1)}, Lane: 1, Meta: 10}
	c.Step(now, EvAccepted{Refs: []Ref{ref}, Last: ref.Key.Seq})
	now += parkAfter + watermarkIdle
	pull := func() (Grant, []ActPark) {
		waiter := &Waiter{Lane: 1, Max: 1, Lease: time.Minute, Grant: make(chan Grant, 1)}
		actions := c.Step(now, EvPull{Waiter: waiter})
		grants := actionsOf[ActGrant](actions)
		require.Len(t, grants, 1)
		return grants[0].Grant, actionsOf[ActPark](actions)
	}
	grant, parks := pull()
	require.Len(t, parks, 1)
	c.Step(now, EvReleased{Lane: 1, Lease: grant.Lease, Keys: []delay.Key{ref.Key}})
	c.Step(now, EvParked{Items: parks[0].Items})
	again, _ := pull()
	require.Len(t, again.Claims, 1)
	require.True(t, again.Claims[0].Parked)
	require.EqualValues(t, 1, again.Claims[0].Attempt, "nobody had the first")
}

// What was handed out and not tried must not be counted as an attempt, nor leave a note of one: a
// message with a single attempt would die of waiting for others (S7).
func TestUntriedIsNoAttempt(t *testing.T) {
	w := newWorld(t, 1)
	c, now := w.core, w.now
	r := Ref{Key: delay.Key{Due: now, Seq: delay.MakeSeq(epoch, 1)}, Lane: 2, Meta: 10}
	for _, l := range actionsOf[ActLoad](c.Step(now, nil)) {
		c.Step(now, EvLoaded{Next: l.Upper})
	}
	var out []ActDeliver
	step := func(ev Event) {
		actions := slices.Clone(c.Step(now, ev))
		require.Empty(t, actionsOf[ActFinish](actions), "nothing to be written down")
		for _, h := range actionsOf[ActHorizon](actions) {
			actions = append(actions, c.Step(now, EvHorizon(h))...)
		}
		out = append(out, actionsOf[ActDeliver](actions)...)
	}
	step(EvAccepted{Refs: []Ref{r}, Last: r.Key.Seq})
	for n := range 5 {
		require.Len(t, out, n+1)
		require.Equal(t, uint32(1), out[n].Claims[0].Attempt)
		step(EvOutcomes{Lane: 2, Outcomes: []Outcome{
			{Key: r.Key, Untried: true, After: time.Second},
		}})
		now += 999
		step(nil)
		require.Len(t, out, n+1, "not before its pause is over")
		now++
		step(nil)
	}
}
