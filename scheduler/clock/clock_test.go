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
	wall    time.Time
	boot    time.Duration
	witness Witness
}

func (h *hands) pass(d time.Duration) { h.wall, h.boot = h.wall.Add(d), h.boot+d }

func (h *hands) clock(hold time.Duration, ev func(time.Duration)) *Guarded {
	h.wall = time.UnixMilli(1_700_000_000_000)
	return New(func() time.Time { return h.wall }, func() time.Duration { return h.boot }, hold, ev, h.witness)
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

// hear has the witness tell that it was ahead by d when it was heard, now.
func (h *hands) hear(d time.Duration) {
	remote, local := h.wall.Add(d), h.wall
	h.witness = func() (time.Time, time.Time, bool) { return remote, local, true }
}

// An answer of the bucket that was heard after the step and agrees with it ends the hold: a machine
// that slept for an hour must not wait for an operator. One that was heard before, or disagrees,
// does not, however near it is (C11).
func TestWitnessConfirms(t *testing.T) {
	for name, c := range map[string]struct {
		ahead time.Duration // of the witness, when it is heard
		late  bool          // it is heard after the step
		held  bool
	}{
		"agrees":           {ahead: 900 * time.Millisecond, late: true},
		"a second behind":  {ahead: -time.Second, late: true},
		"heard before":     {held: true},
		"disagrees":        {ahead: -time.Hour, late: true, held: true},
		"not quite agrees": {ahead: -3500 * time.Millisecond, late: true, held: true},
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			said := new(Witness)
			h.witness = func() (time.Time, time.Time, bool) { return (*said)() }
			*said = func() (time.Time, time.Time, bool) { return time.Time{}, time.Time{}, false }
			g := h.clock(5*time.Minute, nil)
			hear := func() {
				remote, local := h.wall.Add(c.ahead), h.wall
				*said = func() (time.Time, time.Time, bool) { return remote, local, true }
			}
			if !c.late {
				hear()
			}
			before := g.Now()
			h.wall = h.wall.Add(time.Hour)
			require.Equal(t, before, g.Now())
			h.pass(time.Second)
			if c.late {
				hear()
			}
			require.Equal(t, c.held, g.Status().Held)
			if !c.held {
				require.Equal(t, h.wall.UnixMilli(), int64(g.Now()))
			}
		})
	}
}

// A machine that boots with its clock ahead must not deliver early: before the first claim the
// clock is compared with the bucket's, and held at that (C19). One that is behind is only late.
func TestStartWithWitness(t *testing.T) {
	for name, c := range map[string]struct {
		ahead time.Duration // of the witness
		held  bool
	}{
		"ahead by an hour": {ahead: -time.Hour, held: true},
		"behind":           {ahead: time.Hour},
		"agrees":           {ahead: -2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var h hands
			h.wall = time.UnixMilli(1_700_000_000_000)
			h.hear(c.ahead)
			g := h.clock(5*time.Minute, nil)
			want := h.wall
			if c.held {
				want = want.Add(c.ahead)
			}
			require.Equal(t, want.UnixMilli(), int64(g.Now()))
			require.Equal(t, c.held, g.Status().Held)
			h.pass(time.Minute)
			require.Equal(t, want.Add(time.Minute).UnixMilli(), int64(g.Now()))
			if c.held {
				require.Contains(t, g.Status().Reason, "ahead of the bucket's")
				h.wall = h.wall.Add(c.ahead) // set right
				require.False(t, g.Status().Held)
				require.Equal(t, h.wall.UnixMilli(), int64(g.Now()))
			}
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
