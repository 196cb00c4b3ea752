// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hands are two clocks to be set by a test.
type hands struct {
	wall time.Time
	boot time.Duration
}

func (h *hands) pass(d time.Duration) { h.wall, h.boot = h.wall.Add(d), h.boot+d }

func (h *hands) clock(hold time.Duration, ev func(time.Duration)) *Guarded {
	h.wall = time.UnixMilli(1_700_000_000_000)
	return New(func() time.Time { return h.wall }, func() time.Duration { return h.boot }, hold, ev)
}

// A forward step must not fire everything at once: time goes on by the boot clock until somebody
// confirms, the wall clock comes back or the hold is over (C11).
func TestForwardStep(t *testing.T) {
	for name, end := range map[string]func(h *hands, g *Guarded) time.Duration{
		"confirmed": func(h *hands, g *Guarded) time.Duration { g.Confirm(); return 0 },
		"went back": func(h *hands, g *Guarded) time.Duration {
			h.wall = h.wall.Add(-time.Hour)
			return -time.Hour
		},
		"held long": func(h *hands, g *Guarded) time.Duration { h.pass(6 * time.Minute); return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			var steps []time.Duration
			g := h.clock(5*time.Minute, func(d time.Duration) { steps = append(steps, d) })
			before := g.Now()
			h.wall = h.wall.Add(time.Hour)
			h.pass(time.Second)
			require.Equal(t, before.Add(time.Second), g.Now())
			require.True(t, g.Status().Held)
			require.NotEmpty(t, g.Status().Reason)
			require.Equal(t, []time.Duration{time.Hour}, steps)
			end(&h, g)
			require.Equal(t, h.wall.UnixMilli(), int64(g.Now()))
			require.False(t, g.Status().Held)
		})
	}
}

// After a backward step time stands still: it must not run twice through the same instants (C10).
func TestBackwardStep(t *testing.T) {
	var h hands
	g := h.clock(5*time.Minute, nil)
	before := g.Now()
	h.wall = h.wall.Add(-time.Minute)
	h.pass(10 * time.Second)
	require.Equal(t, before, g.Now())
	require.True(t, g.Status().Held)
	require.Equal(t, int64(1), g.Status().Steps)
	h.pass(55 * time.Second)
	require.Equal(t, before.Add(5*time.Second), g.Now())
	require.False(t, g.Status().Held)
}

// A clock that goes back and then too far ahead must be held like any other that goes ahead: what
// it showed before it went back is remembered (C11). Setting it right needs no confirmation.
func TestForwardAfterBackward(t *testing.T) {
	for name, tc := range map[string]struct {
		step time.Duration
		held bool
	}{
		"set right": {time.Hour, false}, "too far": {30 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			g := h.clock(5*time.Minute, nil)
			before := g.Now()
			h.wall = h.wall.Add(-time.Hour)
			h.pass(time.Second)
			require.Equal(t, before, g.Now())
			h.wall = h.wall.Add(tc.step)
			h.pass(time.Second)
			g.Now()
			h.pass(time.Second)
			require.Equal(t, tc.held, g.Status().Held)
			require.LessOrEqual(t, g.Now(), before.Add(3*time.Second))
			h.pass(6 * time.Minute)
			require.Equal(t, h.wall.UnixMilli(), int64(g.Now()))
		})
	}
}

// Whatever the two clocks do, the guarded one never goes back (C10) and never runs ahead of both
// the wall clock and the boot clock (C11).
func TestAnySteps(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var h hands
		g := h.clock(time.Minute, nil)
		last := g.Now()
		for range 100 {
			elapsed := time.Duration(rng.Int64N(int64(10 * time.Second)))
			h.pass(elapsed)
			switch rng.IntN(8) {
			case 0:
				h.wall = h.wall.Add(time.Duration(rng.Int64N(int64(time.Hour))))
			case 1:
				h.wall = h.wall.Add(-time.Duration(rng.Int64N(int64(time.Hour))))
			case 2:
				g.Confirm()
			}
			now := g.Now()
			require.GreaterOrEqual(t, now, last, "seed %d", seed)
			ahead := max(int64(last.Add(elapsed+time.Millisecond)), h.wall.UnixMilli())
			require.LessOrEqual(t, int64(now), ahead, "seed %d", seed)
			last = now
		}
	}
}
