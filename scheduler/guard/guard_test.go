// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/parcel"
)

// scripted answers as it is told.
type scripted struct {
	judgments map[delay.ID]broker.Judgment
	lost      map[string]bool
	err       error // of a recall
	asked     []delay.ID
}

func (s *scripted) Judge(_ context.Context, batch []broker.Delivery, out []broker.Judgment) {
	for i := range batch {
		s.asked = append(s.asked, batch[i].ID)
		out[i] = s.judgments[batch[i].ID]
	}
}

func (s *scripted) Lost(_ context.Context, guards []*delay.Guard) []bool {
	out := make([]bool, len(guards))
	for i := range guards {
		out[i] = s.lost[guards[i].Entry]
	}
	return out
}

func (s *scripted) Recall(context.Context, *broker.Delivery) error { return s.err }

func (*scripted) Close() error { return nil }

func due(id delay.ID, seq delay.Seq, found bool) parcel.Parcel {
	p := parcel.Parcel{ID: id, Found: found}
	p.Claim = core.Claim{Ref: core.Ref{Key: delay.Key{Due: 10, Seq: seq}}}
	if found {
		p.Msg = delay.Message{ID: id, Guard: &delay.Guard{Lane: "guard:rmq/a", Entry: string(id)}}
	}
	return p
}

// Only what was judged to have ended goes to the committer, which looks whether its row stands; so
// does what cannot be read, for it may have been recalled (U1). All else stays and is asked about
// again, also when nobody is there to judge (U2).
func TestJudge(t *testing.T) {
	s := &scripted{judgments: map[delay.ID]broker.Judgment{
		"gone": {Fate: broker.Suppressed}, "sent": {Fate: broker.Released},
		"held": {After: time.Minute}, "bad": {Fate: broker.Refused, Reason: "why"},
	}}
	k := Keepers{"guard:rmq": s}
	all := []parcel.Parcel{
		due("gone", 1, true), due("held", 2, true), due("unread", 3, false), due("sent", 4, true),
		due("quiet", 5, true), due("bad", 6, true),
	}
	items, at, outcomes := k.Judge(t.Context(), "guard:rmq/a", all, 20)
	require.Equal(t, []delay.ID{"gone", "held", "sent", "quiet", "bad"}, s.asked)
	byKey := map[delay.Seq]commit.GuardItem{}
	for i, it := range items {
		require.Equal(t, all[at[i]].Ref.Key, it.Key)
		byKey[it.Key.Seq] = it
	}
	require.Len(t, byKey, 4)
	require.Equal(t, broker.Suppressed, byKey[1].Fate)
	require.Nil(t, byKey[3].Message)
	require.Equal(t, broker.Released, byKey[4].Fate)
	require.Equal(t, "why", byKey[6].Reason)
	for i, o := range outcomes {
		require.True(t, o.Untried)
		require.Equal(t, all[i].Ref.Key, o.Key)
	}
	require.Equal(t, time.Minute, outcomes[1].After)
	require.Equal(t, askAgain, outcomes[4].After)

	items, _, outcomes = k.Judge(t.Context(), "guard:other/a", all[:1], 20)
	require.Empty(t, items)
	require.True(t, outcomes[0].Untried)
}

// A recall that was sent is REQUESTED and never CANCELLED; one that was not says why; and one whose
// message is ours meanwhile answers as the committer did (U3).
func TestAnswer(t *testing.T) {
	held := errors.New("held")
	c := Change{recalled: []int{0, 1, 2}, failed: []error{nil, delay.ErrUnimplemented, nil}}
	results := []commit.ChangeResult{{Err: held}, {Err: held}, {Verdict: commit.Cancelled}, {Err: held}}
	c.Answer(results)
	require.Equal(t, commit.ChangeResult{Verdict: commit.Requested}, results[0])
	require.ErrorIs(t, results[1].Err, delay.ErrUnimplemented)
	require.Equal(t, commit.Cancelled, results[2].Verdict)
	require.ErrorIs(t, results[3].Err, held)
}

// Only the row whose copy was found lost may be changed; a recall is asked for only where the
// broker holds it, and only by a cancel (U3).
func TestMark(t *testing.T) {
	s := &scripted{lost: map[string]bool{"a": true}, err: errors.New("no")}
	c := Change{Requests: []commit.ChangeRequest{
		{ID: "a", Recall: true}, {ID: "b", Recall: true}, {ID: "c"},
		{ID: "d", Recall: true, Change: commit.Fire},
	}}
	var some []guarded
	for i, q := range c.Requests {
		p := due(q.ID, delay.Seq(i+1), true)
		some = append(some, guarded{at: i, key: p.Ref.Key, msg: p.Msg})
	}
	c.mark(t.Context(), s, some)
	require.Equal(t, some[0].key, c.Requests[0].Lost)
	for _, q := range c.Requests[1:] {
		require.True(t, q.Lost.IsZero(), q.ID)
	}
	require.Equal(t, []int{1}, c.recalled)
	require.ErrorIs(t, c.failed[0], s.err)
}
