// SPDX-License-Identifier: Apache-2.0

package recur

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cicadamq/cicada/delay"
)

const noon delay.Due = 1_800_014_400_000

// stored is a schedule as Begin leaves it at noon.
func stored(t require.TestingT, c delay.Recurrence) (*Planner, *delay.Message) {
	p, err := New()
	require.NoError(t, err)
	m := &delay.Message{ID: "s", Recurrence: &c}
	require.NoError(t, p.Begin(m, noon))
	return p, m
}

// A loss, a repetition or a drift of instants over any number of plans, made at any instants and
// with any gaps, would go unnoticed for months: every instant is in exactly one plan (Y1), firings
// ascend and are instants of the calendar (Y2), what is told as missed is what was missed, and the bounds hold (Y3).
func TestEveryInstantOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		every := time.Duration(rapid.IntRange(1, 5).Draw(t, "every")) * time.Second
		c := delay.Recurrence{
			Expr: "@every " + delay.FormatDuration(every), Jitter: time.Duration(
				rapid.IntRange(0, 3000).Draw(t, "jitter")) * time.Millisecond,
			Misfire: delay.Misfire(rapid.IntRange(0, 2).Draw(t, "policy")),
		}
		if c.Misfire == delay.FireAll {
			c.MisfireLimit = rapid.Uint32Range(0, 20).Draw(t, "limit")
		}
		if rapid.Bool().Draw(t, "ends") {
			c.Count = rapid.Uint64Range(1, 40).Draw(t, "count")
		}
		p, m := stored(t, c)
		first, now, last, told, fired := m.Due, noon, delay.Due(0), uint64(0), uint64(0)
		for range rapid.IntRange(1, 30).Draw(t, "plans") {
			now = now.Add(time.Duration(rapid.IntRange(1, 200_000).Draw(t, "gap")) * time.Millisecond)
			since := now.Add(-time.Duration(rapid.IntRange(0, 50_000).Draw(t, "ran")) * time.Millisecond)
			if m.Due > now {
				continue // it is not due
			}
			plan, err := p.Plan(m, now, since)
			require.NoError(t, err)
			require.LessOrEqual(t, len(plan.Firings), maxFirings)
			for _, f := range plan.Firings {
				require.Greater(t, f.Due, last)
				require.LessOrEqual(t, f.Due, now)
				require.Zero(t, f.Due.Sub(first)%every, "between two instants")
				if f.Due < since && c.Misfire == delay.SkipMissed {
					require.Fail(t, "skip made up for a firing")
				}
				last, told = f.Due, told+f.Missed
			}
			fired += uint64(len(plan.Firings))
			require.Equal(t, fired, plan.Next.Fired)
			require.Equal(t, plan.Next.Missed, told+plan.Next.Untold)
			if plan.End {
				require.Equal(t, c.Count, fired)
				return
			}
			passed := uint64(plan.Due.Sub(first) / every)
			require.Equal(t, passed, fired+plan.Next.Missed, "instants before the next")
			require.Greater(t, plan.Due, now)
			m.Due, m.Recurrence = plan.Due, &plan.Next
		}
	})
}

// A year of seconds that nobody looked at must not hold the loop up: it is planned in pieces, of
// which only the last one fires, and says how many there were.
func TestManyMissedInPieces(t *testing.T) {
	for policy, want := range map[delay.Misfire]int{delay.FireOnce: 1, delay.FireAll: 100} {
		p, m := stored(t, delay.Recurrence{Expr: "* * * * * *", Misfire: policy})
		now := noon.Add(26 * time.Hour)
		made, missed, plans := 0, uint64(0), 0
		for ; m.Due <= now; plans++ {
			plan, err := p.Plan(m, now, now+1)
			require.NoError(t, err)
			require.LessOrEqual(t, plan.Missed, uint64(maxInstants))
			for _, f := range plan.Firings {
				made, missed = made+1, missed+f.Missed
			}
			m.Due, m.Recurrence = plan.Due, &plan.Next
		}
		require.Equal(t, want, made)
		require.Equal(t, uint64(26*3600-want), missed)
		require.Equal(t, now.Add(time.Second), m.Due)
		require.Equal(t, 10, plans)
	}
}

// The jitter of a schedule is one stable part of what was asked for: otherwise its firings would
// drift, or all schedules would fire at once all the same.
func TestJitter(t *testing.T) {
	seen := map[delay.Due]bool{}
	for _, id := range []delay.ID{"a", "b", "c", "d", "e"} {
		p, err := New()
		require.NoError(t, err)
		m := &delay.Message{ID: id, Recurrence: &delay.Recurrence{Expr: "@hourly", Jitter: time.Hour}}
		require.NoError(t, p.Begin(m, noon))
		first := m.Due
		seen[first] = true
		require.Equal(t, noon.Add(time.Hour), m.Recurrence.Next)
		plan, err := p.Plan(m, first, noon)
		require.NoError(t, err)
		require.Equal(t, []Firing{{Due: first}}, plan.Firings)
		require.Equal(t, first.Add(time.Hour), plan.Due)
	}
	require.Greater(t, len(seen), 3)
}

// The definition and the progress are apart: what a request brings of the latter is not believed.
func TestBeginForgetsProgress(t *testing.T) {
	_, m := stored(t, delay.Recurrence{
		Expr: "@daily", Fired: 7, Missed: 7, Untold: 7, Last: 7, Next: 7, Since: 7, Paused: true,
	})
	require.Equal(t, &delay.Recurrence{
		Expr: "@daily", Start: noon, Next: m.Due,
	}, m.Recurrence)
}

// What a plan costs is paid by each of a million schedules that fire at midnight.
func BenchmarkPlan(b *testing.B) {
	p, m := stored(b, delay.Recurrence{Expr: "0 9 * * MON", Zone: "Europe/Berlin"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Plan(m, m.Due, noon); err != nil {
			b.Fatal(err)
		}
	}
}
