// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// After a crash nobody knows whether a push message below the claim horizon was handed over (R8).
// One that was accepted since then was not: its cancel must be exact at once, not TOO_LATE for as
// long as the horizon runs ahead.
func TestCancelOfWhatCameAfterTheCrash(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		before := w.send(w.draft("log:", 5*time.Second, "x")).ID
		w.send(w.draft("log:", 0, "now"))
		w.pass(time.Second) // the horizon runs ahead of both
		w.crash()
		w.open()
		after := w.send(w.draft("log:", 4*time.Second, "y")).ID
		require.Equal(t, TooLate, w.change(before, Cancel, 0).Verdict)
		require.Equal(t, Cancelled, w.change(after, Cancel, 0).Verdict)
		w.pass(30 * time.Second)
		require.Equal(t, 2, w.sink.Reached())
	})
}
