// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A dead letter is kept longer than ids are remembered. It must stay reachable by its id all that
// time, and a receipt of its first life must not be answered ACKED once it was retried: the message
// would come back after that (S6).
func TestDeadLetterOutlivesItsWindow(t *testing.T) {
	for name, id := range map[string]delay.ID{"named": "order-1", "server-made": ""} {
		t.Run(name, func(t *testing.T) {
			opts := Options{DedupeWindow: 2 * time.Second, MaxAttempts: 1}
			inWorld(t, opts, func(w *world) {
				d := w.draft("pull:q", 0, "x")
				d.ID = id
				id := w.send(d).ID
				die := func() []Lease {
					got := w.pull(1, time.Second)
					require.Len(t, got, 1)
					nack := SettleRequest{Settlement: Nack}
					require.Equal(t, []SettleResult{Nacked}, w.settle(nack, got...))
					w.pass(10 * time.Second)
					return got
				}
				retry := func() {
					_, err := w.RetryDead(w.t.Context(), id)
					require.NoError(t, err)
				}
				first := die()
				require.Equal(t, delay.Dead, w.get(id).State)
				require.Equal(t, []SettleResult{Superseded}, w.ack(first...))
				retry()
				w.pass(10 * time.Second)
				require.Equal(t, []SettleResult{Superseded}, w.ack(first...))
				second := die()
				require.Equal(t, []SettleResult{Superseded}, w.ack(first...))
				retry()
				w.pass(10 * time.Second)
				require.Equal(t, []SettleResult{Superseded, Superseded}, w.ack(first[0], second[0]))
				last := w.pull(1, time.Second)
				require.Len(t, last, 1)
				require.Equal(t, []SettleResult{Acked}, w.ack(last...))
				require.Equal(t, []SettleResult{Superseded, Superseded}, w.ack(first[0], second[0]))
			})
		})
	}
}

// The id of a dead letter is remembered for its sake, and not against a new message: that may have
// the id when the dedupe window is over (S4).
func TestIDOfDeadLetterIsFree(t *testing.T) {
	inWorld(t, Options{DedupeWindow: 2 * time.Second, MaxAttempts: 1}, func(w *world) {
		d := w.draft("pull:q", 0, "x")
		d.ID = "order-1"
		w.send(d)
		got := w.pull(1, time.Second)
		require.Len(t, got, 1)
		w.settle(SettleRequest{Settlement: Nack}, got...)
		w.pass(time.Second)
		other := w.draft("pull:q", 0, "y")
		other.ID = "order-1"
		require.ErrorIs(t, w.trySend(other).Err, delay.ErrExists)
		w.pass(5 * time.Second)
		require.False(t, w.send(other).Duplicate)
		require.Equal(t, []byte("y"), w.pull(1, time.Second)[0].Body)
	})
}

// A retry of a dead letter is a change of its message: of durability tier it must not be undone by
// the loss of the disk once it was answered (rule R13).
func TestRetriedDeadLetterIsInTheBucket(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		d := w.named("a", "pull:q", 0)
		d.Durability, d.MaxAttempts = delay.Tier, 1
		w.send(d)
		got := w.pull(1, time.Minute)
		require.Equal(t, []SettleResult{Nacked}, w.settle(SettleRequest{Settlement: Nack}, got...))
		w.pass(30 * time.Second)
		_, err := w.RetryDead(w.t.Context(), "a")
		require.NoError(t, err)
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(10 * time.Second)
		require.Equal(t, delay.Scheduled, w.get("a").State)
	})
}
