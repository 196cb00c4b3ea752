// SPDX-License-Identifier: Apache-2.0

package hands

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A second opinion that agrees with everything is none: a clock that follows a step at once, or
// goes back, must be told, and one that holds it must not.
func TestLook(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	at := func(d time.Duration) delay.Due { return delay.InstantOf(start.Add(d)) }
	begin := func() *Clock {
		c := &Clock{Hold: time.Minute}
		require.Empty(t, c.Look(1, start, 0, 0, at(0)))
		return c
	}
	hour := start.Add(time.Hour)
	require.Contains(t, begin().Look(1, hour, 0, time.Second, at(time.Hour)), "may be at")
	require.Empty(t, begin().Look(1, hour, 0, time.Second, at(time.Second)))
	require.Contains(t, begin().Look(1, start, 0, time.Second, at(-time.Second)), "went back")
	require.Empty(t, begin().Look(2, start, 0, time.Second, at(-time.Second)), "another process")
	c := begin()
	require.Empty(t, c.Look(1, hour, 0, time.Second, at(time.Second)))
	c.Confirmed(hour, time.Second)
	require.Empty(t, c.Look(1, hour, 0, time.Second, at(time.Hour)))
	c = begin()
	require.Empty(t, c.Look(1, hour, 0, time.Second, at(time.Second)))
	require.Empty(t, c.Look(1, hour.Add(time.Hour), 0, time.Hour, at(2*time.Hour)), "held for long")
	require.Equal(t, at(2*time.Hour), c.High)
}
