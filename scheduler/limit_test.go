// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A limit is a promise to a receiver: neither a crash nor the loss of the disk may forget it, a lane
// that was idle for long keeps it, and one that was removed stays removed.
func TestLimitSurvives(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		set := func(target delay.Target, rate float64) {
			l, err := delay.NewLimit(rate, 1)
			if rate == 0 {
				l, err = delay.Limit{}, nil
			}
			require.NoError(t, err)
			require.NoError(t, w.SetLimit(w.t.Context(), target, l))
		}
		of := func(target delay.Target) delay.Limit {
			all, err := w.Targets(w.t.Context())
			require.NoError(t, err)
			for _, s := range all {
				if s.Target == target {
					return s.Limit
				}
			}
			return delay.Limit{}
		}
		set("log:", 10)
		set("pull:q", 2)
		set("http://a/", 1)
		require.NoError(t, w.SetPaused(w.t.Context(), "pull:q", true))
		w.pass(2 * time.Second) // a flush
		set("http://a/", 0)
		w.pass(2 * time.Second)
		for i, end := range []func(){w.crash, func() { w.crash(); w.loseDisk() }, w.crash} {
			end()
			w.open()
			require.Equal(t, delay.Limit{PerHour: 36_000, Burst: 1}, of("log:"), "start %d", i)
			require.Equal(t, delay.Limit{PerHour: 7200, Burst: 1}, of("pull:q"), "start %d", i)
			require.True(t, of("http://a/").IsZero(), "start %d", i)
			w.pass(5 * time.Minute) // idle lanes go
		}
		require.NoError(t, w.SetPaused(w.t.Context(), "pull:q", false))
		require.Equal(t, delay.Limit{PerHour: 7200, Burst: 1}, of("pull:q"))
		w.sendAll(100, "log:", 0)
		w.pass(3 * time.Second)
		got := len(w.sink.Taken())
		require.InDelta(t, 31, got, 3, "10 a second, one at once")
		set("log:", 0)
		w.pass(time.Second)
		require.Len(t, w.sink.Taken(), 100)
	})
}
