// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// coreAt is a core that begins as s says, with a hot window of 5 s.
func coreAt(now delay.Due, s Start) *Core {
	opts := Options{
		HotWindow: 5 * time.Second, Backoff: time.Second, MaxBackoff: time.Minute, Window: 8,
	}
	s.Epoch = epoch
	return New(opts, lanes, rand.New(rand.NewPCG(1, 1)), now, s)
}

// refAt is a message for a lane; even ones are pushed to.
func refAt(due delay.Due, n uint64, lane uint32) Ref {
	return Ref{Key: delay.Key{Due: due, Seq: delay.MakeSeq(epoch, n)}, Lane: lane, Meta: 10}
}

// What is parked looks as if nobody had had it, until the durable cursor of its lane has passed it:
// attempted before that, it could be cancelled after a crash (rule R8).
func TestCursorFirst(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{Boundary: delay.MaxKey, Watermark: delay.Key{Due: now}, Horizon: now + 60_000})
	c.Step(now, EvParkedLanes{Lanes: []ParkedLane{{Lane: 0, Rows: 1}}})
	r := refAt(now, 1, 0)
	actions := c.Step(now, EvParkedRead{Lane: 0, Refs: []Ref{r}, Next: r.Key.Next()})
	cursors := actionsOf[ActClaimCursor](actions)
	require.Len(t, cursors, 1)
	require.Empty(t, actionsOf[ActDeliver](actions))
	require.Empty(t, actionsOf[ActDeliver](c.Step(now, EvPause{Lane: 0})), "the cursor is on its way")
	require.Len(t, actionsOf[ActDeliver](c.Step(now, EvClaimCursor(cursors[0]))), 1)
}

// Above the boundary rows are only a part of what is there: what is brought back later would never
// be loaded (rules R1, R7).
func TestLoadsStopAtTheBoundary(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	boundary := delay.Key{Due: now + 1000, Seq: 7}
	c := coreAt(now, Start{Boundary: boundary, Watermark: delay.Key{Due: now}})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	require.Len(t, loads, 1)
	require.Equal(t, boundary, loads[0].Upper)
	require.Empty(t, actionsOf[ActLoad](c.Step(now, EvLoaded{Next: boundary})))
	more := actionsOf[ActLoad](c.Step(now, EvBoundary{Boundary: delay.Key{Due: now + 9000}}))
	require.Len(t, more, 1)
	require.Equal(t, boundary, more[0].Lower, "nothing in between is passed over")
}

// A message that was claimed before the start is finished while the load that holds its row is under
// way: it must not come back as one that nobody has had (rule R7).
func TestLoadLeavesOutTheFinished(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{
		Boundary: delay.MaxKey, Watermark: delay.Key{Due: now - 1000}, Horizon: now + 60_000,
	})
	r := refAt(now-500, 1, 0)
	loads := actionsOf[ActLoad](c.Step(now, EvRecovered{
		Flights: []RecoveredFlight{{Ref: r, Attempt: 1, NextAt: now + 1000, Noted: true}},
	}))
	require.Len(t, loads, 1)
	stop := EvStop{Key: r.Key, Done: make(chan bool, 1)}
	ends := actionsOf[ActFinish](c.Step(now, stop))
	require.Len(t, ends, 1)
	c.Step(now, EvFinished{Items: ends[0].Items})
	require.Empty(t, actionsOf[ActDeliver](c.Step(now, EvLoaded{Refs: []Ref{r}, Next: loads[0].Upper})))
}

// What is accepted into a range that is being loaded is in the load or is remembered, never both: S,
// the cut, decides (rule R7).
func TestLoadHasACut(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{
		Boundary: delay.MaxKey, Watermark: delay.Key{Due: now}, Horizon: now + 60_000,
		Last: delay.MakeSeq(epoch, 3),
	})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	require.Len(t, loads, 1)
	require.Equal(t, delay.MakeSeq(epoch, 3), loads[0].Cut)
	fresh := refAt(now, 4, 0)
	c.Step(now, EvAccepted{Refs: []Ref{fresh}, Last: fresh.Key.Seq})
	claims := actionsOf[ActDeliver](c.Step(now, EvLoaded{Next: loads[0].Upper}))
	require.Len(t, claims, 1)
	require.Len(t, claims[0].Claims, 1)
	require.Equal(t, fresh.Key, claims[0].Claims[0].Ref.Key)
}

// A receipt names the owner that granted the lease: the attempts of another owner have the same
// numbers (rule R9).
func TestReceiptNamesTheEpoch(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{Boundary: delay.MaxKey, Watermark: delay.Key{Due: now}})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	r := refAt(now, 1, 1)
	c.Step(now, EvLoaded{Refs: []Ref{r}, Next: loads[0].Upper})
	waiter := &Waiter{Lane: 1, Max: 1, Lease: time.Minute, Grant: make(chan Grant, 1)}
	require.Len(t, actionsOf[ActGrant](c.Step(now, EvPull{Waiter: waiter})), 1)
	s := &Settling{Lane: 1, Results: make([]SettleResult, 2), Receipts: []SettleKey{
		{Key: r.Key, Epoch: epoch - 1, Attempt: 1}, {Key: r.Key, Epoch: epoch, Attempt: 1},
	}}
	c.Step(now, EvSettle{Settling: s})
	require.Equal(t, []SettleResult{Superseded, Acked}, s.Results)
}

// The ttl of a message ends while a consumer works on it: it is the consumer's until the lease ends
// (S6).
func TestExpiryWaitsForTheLease(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{Boundary: delay.MaxKey, Watermark: delay.Key{Due: now}})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	r := refAt(now, 1, 1)
	c.Step(now, EvLoaded{Refs: []Ref{r}, Next: loads[0].Upper})
	waiter := &Waiter{Lane: 1, Max: 1, Lease: time.Minute, Grant: make(chan Grant, 1)}
	require.Len(t, actionsOf[ActGrant](c.Step(now, EvPull{Waiter: waiter})), 1)
	c.Step(now, EvExpire{Refs: []Expiring{{Ref: r}}})
	s := &Settling{Lane: 1, Results: make([]SettleResult, 1), Receipts: []SettleKey{
		{Key: r.Key, Epoch: epoch, Attempt: 1},
	}}
	c.Step(now, EvSettle{Settling: s})
	require.Equal(t, []SettleResult{Acked}, s.Results)
}

// The watermark is the lowest key that is open: a start that reads from above it on passes over a
// message (rule R1).
func TestStartReadsFromTheWatermark(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	mark := delay.Key{Due: now - 1000, Seq: 9}
	c := coreAt(now, Start{Boundary: delay.MaxKey, Watermark: mark})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	require.Len(t, loads, 1)
	require.Equal(t, mark, loads[0].Lower)
}

// An attempt that failed is written down: after a restart the next one must not have its number, and
// a cancel must know of it (S5, S7).
func TestAttemptsAreWrittenDown(t *testing.T) {
	now := delay.Due(1_700_000_000_000)
	c := coreAt(now, Start{
		Boundary: delay.MaxKey, Watermark: delay.Key{Due: now}, Horizon: now + 60_000,
	})
	loads := actionsOf[ActLoad](c.Step(now, nil))
	r := refAt(now, 1, 0)
	require.Len(t, actionsOf[ActDeliver](c.Step(now, EvLoaded{Refs: []Ref{r}, Next: loads[0].Upper})), 1)
	ends := actionsOf[ActFinish](c.Step(now, EvOutcomes{Lane: 0, Outcomes: []Outcome{{
		Key: r.Key, Result: broker.Retry, Reason: "busy",
	}}}))
	require.Len(t, ends, 1)
	require.Len(t, ends[0].Notes, 1)
	require.EqualValues(t, 1, ends[0].Notes[0].Attempts)
	require.Greater(t, ends[0].Notes[0].NextAt, now)
}
