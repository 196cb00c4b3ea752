// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// patience is how long a request waits.
const patience = 5 * time.Second

// Who sees a shard ready after a takeover may send, ask and cancel by id at once: the request waits
// until the ids are there, and is refused only when the bucket does not tell them for long (rule
// R14). What needs no id does not wait.
func TestRequestsAwaitTheIDs(t *testing.T) {
	asks := map[string]func(w *world, order delay.Draft) error{
		"send": func(w *world, order delay.Draft) error {
			r := w.trySend(order)
			require.Equal(w.t, r.Err == nil, r.Duplicate)
			return r.Err
		},
		"get": func(w *world, _ delay.Draft) error {
			_, err := w.Get(w.t.Context(), "order-1", false)
			return err
		},
		"cancel": func(w *world, _ delay.Draft) error {
			var r [1]ChangeResult
			err := w.Change(w.t.Context(), []ChangeRequest{{ID: "order-1", Change: Cancel}}, r[:])
			require.NoError(w.t, err)
			return r[0].Err
		},
	}
	for name, ask := range asks {
		t.Run(name, func(t *testing.T) {
			withOutages(t, quick(), func(w *world, down func(bool)) {
				order := w.named("order-1", "pull:q", time.Hour)
				w.send(order)
				w.pass(5 * time.Second)
				w.crash()
				w.loseDisk()
				w.opened = func() { down(true) }
				w.open()
				require.True(t, w.Status().Restoring)
				start := time.Now()
				require.NoError(t, w.trySend(w.draft("pull:q", time.Hour, "x")).Err)
				require.Zero(t, time.Since(start))
				require.ErrorIs(t, ask(w, order), delay.ErrUnavailable)
				require.Equal(t, patience, time.Since(start))
				time.AfterFunc(patience/2, func() { down(false) })
				require.NoError(t, ask(w, order))
				require.Less(t, time.Since(start), 2*patience)
			})
		})
	}
}
