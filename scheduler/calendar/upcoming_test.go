// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// What is shown of a schedule must be what it will do: from its next firing on, which is not looked
// for again, and no further than its definition lets it go.
func TestUpcoming(t *testing.T) {
	database := zones(t)
	start := instant(t, "2026-03-01T00:00:00Z")
	next := instant(t, "2026-03-28T01:30:00Z")
	daily := delay.Recurrence{Expr: "30 2 * * *", Zone: "Europe/Berlin", Start: start, Next: next}
	for _, c := range []struct {
		name string
		edit func(*delay.Recurrence)
		from string
		want []string
	}{
		{"from the next one", nil, "", []string{
			"2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"}},
		{"from later on", nil, "2026-03-29T01:00:00Z", []string{
			"2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z", "2026-03-31T00:30:00.000Z"}},
		{"until", func(r *delay.Recurrence) { r.Until = instant(t, "2026-03-29T01:00:00Z") }, "",
			[]string{"2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"}},
		{"count", func(r *delay.Recurrence) { r.Count, r.Fired = 7, 6 }, "",
			[]string{"2026-03-28T01:30:00.000Z"}},
		{"jitter counts for until", func(r *delay.Recurrence) {
			r.Jitter, r.Until = time.Second, instant(t, "2026-03-30T00:30:00Z")
		}, "2026-03-28T01:30:01Z", []string{"2026-03-29T01:00:00.250Z"}},
		{"jitter, from an instant between", func(r *delay.Recurrence) { r.Jitter = time.Second },
			"2026-03-29T01:00:00.250Z", []string{"2026-03-29T01:00:00.250Z",
				"2026-03-30T00:30:00.250Z", "2026-03-31T00:30:00.250Z"}},
		{"count is reached", func(r *delay.Recurrence) { r.Count, r.Fired = 7, 8 }, "", nil},
		{"an interval counts from the start", func(r *delay.Recurrence) {
			r.Expr, r.Next = "@every 7h", start+delay.Due((14*time.Hour).Milliseconds())
		}, "", []string{"2026-03-01T14:00:00.000Z", "2026-03-01T21:00:00.000Z",
			"2026-03-02T04:00:00.000Z"}},
	} {
		r := daily
		if c.edit != nil {
			c.edit(&r)
		}
		from, late := delay.Due(0), delay.Due(0)
		if r.Jitter > 0 {
			late = 250
		}
		if c.from != "" {
			from = instant(t, c.from)
		}
		firings, err := database.Upcoming(&r, r.Next+late, from)
		require.NoError(t, err)
		var got []string
		for f := range firings {
			if got = append(got, f.At.String()); len(got) == 3 {
				break
			}
		}
		require.Equal(t, c.want, got, c.name)
	}
	daily.Zone = "Europe/Berln"
	_, err := database.Upcoming(&daily, next, 0)
	require.ErrorIs(t, err, delay.ErrInvalid)
	daily.Zone = "UTC"
	firings, err := database.Upcoming(&daily, next, delay.MaxDue)
	require.NoError(t, err)
	require.Empty(t, slices.Collect(firings))
}
