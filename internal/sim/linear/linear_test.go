// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// book writes a history as it would have happened.
type book struct {
	*Register
	h *History
}

func newBook(push bool) *book {
	h := &History{Margin: time.Second}
	h.Opened(0)
	return &book{Register: h.Add(true, push), h: h}
}

// did is a call that was answered before the next one was made.
func (b *book) did(c Call, a Answer) { b.Begin(c).End(a) }

func (b *book) sent(content int, due delay.Due) {
	b.did(Call{Kind: Submit, Content: content, Due: due}, Answer{Result: Done, Generation: 1})
}

func (b *book) handed(content int, due delay.Due) {
	b.Handed(Call{Kind: Attempt, Content: content, Due: due}, due)
}

func (b *book) crash(lost bool) {
	b.h.Crashed(50, lost)
	b.h.Opened(60)
}

func call(k Kind) Call                     { return Call{Kind: k} }
func done() Answer                         { return Answer{Result: Done} }
func durable() Answer                      { return Answer{Result: Done, Tier: true} }
func late(s delay.State) Answer            { return Answer{Result: TooLate, State: s, At: 1000} }
func is(s delay.State) Answer              { return Answer{Result: InState, State: s, At: 1000} }
func moved(due delay.Due) Answer           { return Answer{Result: Done, Due: due} }
func again(content int, k Kind) Call       { return Call{Kind: k, Content: content, Due: 10} }
func generation(n uint32, r Result) Answer { return Answer{Result: r, Generation: n} }

// A checker that accepts everything proves nothing, and one that accuses a history that an order
// explains hides what is wrong under noise: both kinds, for each answer.
func TestHistories(t *testing.T) {
	for name, c := range map[string]struct {
		write func(b *book)
		ok    bool
	}{
		"delivered": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.Answered(call(Outcome), Done)
			b.did(call(Get), is(delay.Delivered))
		}, true},
		"delivered without an attempt": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Get), is(delay.Delivered))
		}, false},
		"attempt after CANCELLED": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), done())
			b.handed(1, 10)
		}, false},
		"CANCELLED after an attempt": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.did(call(Cancel), done())
		}, false},
		"CANCELLED again": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), done())
			b.did(call(Cancel), done())
			b.did(call(Fire), late(delay.Cancelled))
		}, true},
		"TOO_LATE after CANCELLED": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), done())
			b.did(call(Cancel), late(delay.Claimed))
		}, false},
		"TOO_LATE before anybody has it": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), late(delay.Claimed))
			b.did(call(Cancel), done())
		}, false},
		"TOO_LATE before the attempt arrives": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), late(delay.Claimed))
			b.handed(1, 10)
		}, true},
		"NOT_FOUND of what was accepted": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), Answer{Result: NotFound})
		}, false},
		"cancel without an answer, delivered": {func(b *book) {
			b.sent(1, 10)
			b.Begin(call(Cancel))
			b.handed(1, 10)
		}, true},
		"cancel without an answer, cancelled": {func(b *book) {
			b.sent(1, 10)
			b.Begin(call(Cancel))
			b.did(call(Get), is(delay.Cancelled))
		}, true},
		"cancel without an answer, both": {func(b *book) {
			b.sent(1, 10)
			b.Begin(call(Cancel))
			b.did(call(Get), is(delay.Cancelled))
			b.handed(1, 10)
			b.did(call(Cancel), late(delay.Cancelled))
		}, false},
		"early": {func(b *book) {
			b.sent(1, 10)
			b.Handed(Call{Kind: Attempt, Content: 1, Due: 10}, 9)
		}, false},
		"RESCHEDULED, and the old due": {func(b *book) {
			b.sent(1, 10)
			b.did(Call{Kind: Reschedule, Due: 20}, moved(20))
			b.handed(1, 10)
		}, false},
		"RESCHEDULED": {func(b *book) {
			b.sent(1, 10)
			b.did(Call{Kind: Reschedule, Due: 20}, moved(20))
			b.handed(1, 20)
		}, true},
		"FIRED after an attempt": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.did(call(Fire), moved(30))
		}, false},
		"FIRED": {func(b *book) {
			b.sent(1, 1000)
			b.did(call(Fire), moved(30))
			b.handed(1, 30)
		}, true},
		"duplicate of another content": {func(b *book) {
			b.sent(1, 10)
			b.did(again(2, Submit), Answer{Result: Duplicate})
		}, false},
		"duplicate": {func(b *book) {
			b.sent(1, 10)
			b.did(again(1, Submit), Answer{Result: Duplicate})
		}, true},
		"accepted twice": {func(b *book) {
			b.sent(1, 10)
			b.did(again(1, Submit), generation(1, Done))
		}, false},
		"ALREADY_EXISTS of the same content": {func(b *book) {
			b.sent(1, 10)
			b.did(again(1, Submit), Answer{Result: Exists})
		}, false},
		"replaced": {func(b *book) {
			b.sent(1, 10)
			b.did(again(2, Replace), generation(2, Done))
			b.handed(2, 10)
		}, true},
		"replaced, in the wrong generation": {func(b *book) {
			b.sent(1, 10)
			b.did(again(2, Replace), generation(1, Done))
		}, false},
		"replaced, and the old content": {func(b *book) {
			b.sent(1, 10)
			b.did(again(2, Replace), generation(2, Done))
			b.handed(1, 10)
		}, false},
		"replaced after an attempt": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.did(again(2, Replace), generation(2, Done))
		}, false},
		"STOPPED, and a crash, and an attempt": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.did(call(Stop), Answer{Result: Stopped})
			b.crash(false)
			b.handed(1, 10)
		}, false},
		"ACKED, and a crash, and an attempt": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.did(call(Ack), done())
			b.crash(false)
			b.handed(1, 10)
		}, false},
		"an outcome that a crash took": {func(b *book) {
			b.sent(1, 10)
			b.handed(1, 10)
			b.Answered(call(Outcome), Done)
			b.crash(false)
			b.handed(1, 10)
		}, true},
		"a claim that a crash may have hidden": {func(b *book) {
			b.sent(1, 10)
			b.crash(false)
			b.did(call(Cancel), late(delay.Claimed))
		}, true},
		"a claim far beyond the horizon": {func(b *book) {
			b.sent(1, 10_000)
			b.crash(false)
			b.did(call(Cancel), late(delay.Claimed))
		}, false},
		"CANCELLED, and a crash": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Cancel), done())
			b.crash(false)
			b.handed(1, 10)
		}, false},
		"a local CANCELLED, and the disk lost": {func(b *book) {
			b.did(again(1, Submit), durable())
			b.did(call(Cancel), done())
			b.crash(true)
			b.handed(1, 10)
		}, true},
		"a durable CANCELLED, and the disk lost": {func(b *book) {
			b.did(again(1, Submit), durable())
			b.did(call(Cancel), durable())
			b.crash(true)
			b.handed(1, 10)
		}, false},
		"a durable message, and the disk lost": {func(b *book) {
			b.did(again(1, Submit), durable())
			b.crash(true)
			b.did(call(Get), Answer{Result: NotFound})
		}, false},
		"a local message, and the disk lost": {func(b *book) {
			b.sent(1, 10)
			b.crash(true)
			b.did(call(Get), Answer{Result: NotFound})
			b.did(again(2, Submit), generation(1, Done))
		}, true},
		"a lost message is not two": {func(b *book) {
			b.sent(1, 10)
			b.crash(true)
			b.did(again(2, Submit), generation(1, Done))
			b.handed(1, 10)
		}, false},
		"dead, retried": {func(b *book) {
			b.May(false, true, false)
			b.sent(1, 10)
			b.handed(1, 10)
			b.Answered(call(Outcome), Failed)
			b.did(call(Get), is(delay.Dead))
			b.did(call(Retry), moved(30))
			b.handed(1, 30)
		}, true},
		"retried, and not dead": {func(b *book) {
			b.sent(1, 10)
			b.did(call(Retry), moved(30))
		}, false},
		"expired": {func(b *book) {
			b.May(true, false, false)
			b.sent(1, 10)
			b.did(call(Cancel), late(delay.Expired))
		}, true},
		"expired, attempted": {func(b *book) {
			b.May(true, false, false)
			b.sent(1, 10)
			b.did(call(Cancel), late(delay.Expired))
			b.crash(false)
			b.handed(1, 10)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(true)
			c.write(b)
			v := b.h.Check(time.Minute)
			require.Zero(t, v.Unknown)
			require.Equal(t, c.ok, v.Broken == nil, "%s", b)
		})
	}
}

// Forgetting must be allowed when the window is short, and only then.
func TestForgets(t *testing.T) {
	for _, forgets := range []bool{true, false} {
		b := newBook(true)
		b.h.Forgets = forgets
		b.sent(1, 10)
		b.did(call(Cancel), done())
		b.did(again(2, Submit), generation(1, Done))
		require.Equal(t, forgets, b.h.Check(time.Minute).Broken == nil)
	}
}

// Calls that overlap may have come in either order, those that do not may not (N1); an id counts as
// raced only then.
func TestOverlap(t *testing.T) {
	b := newBook(true)
	b.sent(1, 10)
	require.Zero(t, b.h.Check(time.Minute).Raced)
	cancel, fire := b.Begin(call(Cancel)), b.Begin(call(Fire))
	cancel.End(done())
	fire.End(moved(5))
	v := b.h.Check(time.Minute)
	require.Nil(t, v.Broken)
	require.Equal(t, 1, v.Raced)
	b.did(call(Fire), moved(6))
	require.NotNil(t, b.h.Check(time.Minute).Broken, "it was cancelled")
}

// What cannot be decided in time must be counted, not passed over.
func TestUndecided(t *testing.T) {
	b := newBook(true)
	for i := range 40 {
		b.Begin(Call{Kind: Replace, Content: i, Due: delay.Due(i)})
	}
	b.handed(100, 0)
	v := b.h.Check(time.Millisecond)
	require.Equal(t, 1, v.Unknown)
	require.Nil(t, v.Broken)
}
