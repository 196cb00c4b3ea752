// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// limited sets a limit of so many messages a second, one at once.
func (w *world) limited(target delay.Target, rate float64) {
	w.t.Helper()
	l, err := delay.NewLimit(rate, 1)
	require.NoError(w.t, err)
	require.NoError(w.t, w.SetLimit(w.t.Context(), target, l))
}

// at is a draft for the shard's target under test, due at an instant.
func (w *world) at(id string, due delay.Due) delay.Draft {
	d := w.named(delay.ID(id), "log:", 0)
	d.Due = due
	return d
}

// sendMany accepts drafts in one request.
func (w *world) sendMany(drafts ...delay.Draft) []Receipt {
	w.t.Helper()
	receipts := make([]Receipt, len(drafts))
	require.NoError(w.t, w.Accept(w.t.Context(), drafts, receipts))
	return receipts
}

// The advice must be right to the message: in the order of requests and within one, after cancels
// and moves, and after a crash. A crowded message is accepted all the same, so it must be
// delivered, late; what is refused as asked must leave nothing behind.
func TestCrowded(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.limited("log:", 10)
		second := (w.Now()/1000 + 60) * 1000
		for i := range 10 {
			require.False(t, w.send(w.at(fmt.Sprint("a", i), second+delay.Due(i*100))).Crowded, i)
		}
		r := w.send(w.at("a10", second+999))
		require.True(t, r.Crowded)
		require.Equal(t, second+1000, r.Suggested)
		require.Equal(t, second+999, r.Due, "advice moves nothing")
		require.Equal(t, delay.Scheduled, w.get("a10").State)

		refused := w.at("b", second)
		refused.RefuseCrowded = true
		r = w.trySend(refused)
		var full *delay.CrowdedError
		require.ErrorAs(t, r.Err, &full)
		require.ErrorIs(t, r.Err, delay.ErrCrowded)
		require.Equal(t, second+1000, full.Suggested)
		_, err := w.Get(t.Context(), "b", false)
		require.ErrorIs(t, err, delay.ErrNotFound)
		require.EqualValues(t, 11, w.books().Accepted)

		// What was accepted before is not refused when it is repeated, and not told twice.
		again := w.at("a3", second+300)
		again.RefuseCrowded = true
		r = w.trySend(again)
		require.NoError(t, r.Err)
		require.True(t, r.Duplicate)
		require.False(t, r.Crowded)
		// An id that names another message is the graver fault.
		other := w.at("a3", second+301)
		other.RefuseCrowded = true
		require.ErrorIs(t, w.trySend(other).Err, delay.ErrExists)
		// What takes the place of a message of the same second needs no room of its own: 11 were
		// there, of which the first ten are no more crowded than before.
		require.Equal(t, Cancelled, w.change("a10", Cancel, 0).Verdict)
		other.Replace = true
		r = w.trySend(other)
		require.NoError(t, r.Err)
		require.False(t, r.Crowded)

		require.Equal(t, Cancelled, w.change("a9", Cancel, 0).Verdict)
		require.NoError(t, w.trySend(refused).Err)
		require.Equal(t, Rescheduled, w.change("a8", Reschedule, second+5000).Verdict)
		require.Equal(t, Rescheduled, w.change("a7", Reschedule, second+5000).Verdict)
		require.Equal(t, Rescheduled, w.change("a7", Reschedule, second+1).Verdict)
		require.False(t, w.send(w.at("c0", second)).Crowded)
		require.True(t, w.send(w.at("c1", second)).Crowded)

		w.crash()
		w.open()
		require.True(t, w.send(w.at("c2", second)).Crowded)
		require.False(t, w.send(w.at("c3", second+5000)).Crowded)
		free := w.named("free", "pull:q", 0)
		free.Due = second
		require.False(t, w.send(free).Crowded, "no limit, no advice")

		w.limited("log:", 1000)
		require.False(t, w.send(w.at("c4", second)).Crowded)
		require.NoError(t, w.SetLimit(t.Context(), "log:", delay.Limit{}))
		require.False(t, w.send(w.at("c5", second)).Crowded)
		w.pass(80 * time.Second)
		b := w.books()
		require.EqualValues(t, 16, b.Delivered)
		require.EqualValues(t, 2, b.Cancelled)
	})
}

// A batch is one request: its own messages fill the second too, and each that finds it full is
// sent to another place, or all of them would move to the next second together.
func TestCrowdedBatch(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.limited("log:", 10)
		second := (w.Now()/1000 + 100) * 1000
		drafts := make([]delay.Draft, 25)
		for i := range drafts {
			drafts[i] = w.at("", second)
			drafts[i].RefuseCrowded = i%2 == 0
		}
		stored, refused := 0, 0
		suggested := map[delay.Due]int{}
		for i, r := range w.sendMany(drafts...) {
			var full *delay.CrowdedError
			switch {
			case i < 10:
				require.False(t, r.Crowded, "%d: %v", i, r.Err)
				require.NoError(t, r.Err)
				continue
			case i%2 == 0:
				require.ErrorAs(t, r.Err, &full)
				require.Equal(t, r.Suggested, full.Suggested)
				refused++
			default:
				require.NoError(t, r.Err)
				require.True(t, r.Crowded)
				stored++
			}
			suggested[r.Suggested-second]++
		}
		require.Equal(t, map[delay.Due]int{1000: 10, 2000: 5}, suggested)
		require.Equal(t, 8, refused)
		require.EqualValues(t, 10+stored, w.books().Pending)
	})
}

// A limit of less than one a second must not call every second full.
func TestCrowdedSlowly(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.limited("log:", 0.1)
		begin := (w.Now()/10_000 + 10) * 10_000
		require.False(t, w.send(w.at("a", begin)).Crowded)
		r := w.send(w.at("b", begin+9999))
		require.True(t, r.Crowded)
		require.Equal(t, begin+10_000, r.Suggested)
		require.False(t, w.send(w.at("c", begin+10_000)).Crowded)
	})
}
