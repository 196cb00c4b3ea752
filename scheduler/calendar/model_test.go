// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// reach is a second way to find the first instant at which a zone's clock shows a local time or a
// later one: it walks through real time in quarters of an hour and looks at the clock. It knows
// nothing of zone bounds, and nothing of how rules are searched.
func reach(loc *time.Location, want time.Time) time.Time {
	shows := func(t time.Time) bool {
		local := t.In(loc)
		y, mo, d := local.Date()
		h, m, s := local.Clock()
		return !time.Date(y, mo, d, h, m, s, 0, time.UTC).Before(want)
	}
	// No zone is further from UTC than 15 hours, and clocks are set back by less than 26 hours.
	const step = 15 * time.Minute
	t := want.Add(-26 * time.Hour)
	for !shows(t) {
		t = t.Add(step)
	}
	// Between t-step and t the clock reached it, for the first time.
	low, high := t.Add(-step), t
	for high.Sub(low) > time.Second {
		mid := low.Add(high.Sub(low) / 2).Truncate(time.Second)
		if shows(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// changes are the days around which the offset of a zone changes, found by looking at noon of each.
func changes(loc *time.Location, from, to int) []time.Time {
	var days []time.Time
	last := 0
	for d := time.Date(from, 1, 1, 12, 0, 0, 0, time.UTC); d.Year() < to; d = d.AddDate(0, 0, 1) {
		_, offset := d.In(loc).Zone()
		if offset != last && d.YearDay() > 1 {
			days = append(days, d)
		}
		last = offset
	}
	return days
}

// Every zone of the database, at all of its changes from 1970 to 2150: a daily schedule at several
// times of the day must fire where the second implementation says, and nowhere else.
func TestEveryZone(t *testing.T) {
	z := zones(t)
	names := z.Names()
	slices.Sort(names)
	from, to, part := 1970, 2150, 1
	if testing.Short() {
		part = 20
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	checked := 0
	for i, name := range names {
		if part > 1 && i%part != 0 {
			continue
		}
		loc, err := z.Location(name)
		require.NoError(t, err)
		days := changes(loc, from, to)
		// The far future repeats a rule: a few of its years stand for all.
		near := slices.IndexFunc(days, func(d time.Time) bool { return d.Year() > 2040 })
		if near >= 0 {
			far := days[near:]
			rng.Shuffle(len(far), func(i, j int) { far[i], far[j] = far[j], far[i] })
			days = append(days[:near:near], far[:min(len(far), 6)]...)
		}
		for _, day := range days {
			checkDays(t, z, name, loc, day.AddDate(0, 0, -2), rng)
			checked++
		}
	}
	require.Greater(t, checked, 100)
	t.Logf("%d changes", checked)
}

// checkDays follows a schedule with a random fixed time through the four days from first on.
func checkDays(
	t *testing.T, z *Zones, name string, loc *time.Location, first time.Time, rng *rand.Rand,
) {
	t.Helper()
	hour, minute := rng.IntN(5), rng.IntN(60)
	if rng.IntN(4) == 0 {
		hour = rng.IntN(24)
	}
	if rng.IntN(3) == 0 {
		minute = 0
	}
	expression := itoa(minute) + " " + itoa(hour) + " * * *"
	r, err := z.Parse(expression, name)
	require.NoError(t, err)
	midnight := time.Date(first.Year(), first.Month(), first.Day(), hour, minute, 0, 0, time.UTC)
	at := delay.InstantOf(reach(loc, midnight))
	for day := 1; day <= 4; day++ {
		want := delay.InstantOf(reach(loc, midnight.AddDate(0, 0, day)))
		if want == at {
			continue // a day that was skipped, and the next began with the same instant
		}
		f, ok := r.Next(at, 0)
		require.True(t, ok)
		require.Equal(t, want, f.At, "%s in %s after %v", expression, name, at)
		at = f.At
	}
}

func itoa(n int) string { return string([]byte{'0' + byte(n/10), '0' + byte(n%10)}) }

// Every field against the simplest reading of it: look at second after second, day after day.
func TestFieldsModel(t *testing.T) {
	z := zones(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	item := func(low, high int) string {
		switch rng.IntN(4) {
		case 0:
			return "*"
		case 1:
			return "*/" + itoa(1+rng.IntN(high))
		case 2:
			a := low + rng.IntN(high-low+1)
			return itoa(a) + "-" + itoa(a+rng.IntN(high-a+1))
		default:
			return itoa(low+rng.IntN(high-low+1)) + "," + itoa(low+rng.IntN(high-low+1))
		}
	}
	for range 300 {
		expression := item(0, 59) + " " + item(0, 23) + " " + item(1, 28) + " " + item(1, 12) +
			" " + item(0, 6)
		r, err := z.Parse(expression, "")
		require.NoError(t, err, expression)
		at := time.Date(2020+rng.IntN(20), time.Month(1+rng.IntN(12)), 1+rng.IntN(28),
			rng.IntN(24), rng.IntN(60), rng.IntN(60), 0, time.UTC)
		f, ok := r.Next(delay.InstantOf(at), 0)
		require.True(t, ok, expression)
		require.Equal(t, walk(r, at), f.At.Time(), "%s after %v", expression, at)
	}
}

// walk is the next time after t that matches, in UTC, minute by minute where the day matches.
func walk(r *Rule, t time.Time) time.Time {
	t = t.Truncate(time.Minute)
	for {
		t = t.Add(time.Minute)
		dom, dow := r.has(fieldDay, t.Day()), r.has(fieldWeekday, int(t.Weekday()))
		both := (r.sets[fieldDay]|r.sets[fieldWeekday])&star != 0
		if !r.has(fieldMonth, int(t.Month())) || both && !(dom && dow) || !dom && !dow {
			t = time.Date(t.Year(), t.Month(), t.Day(), 23, 59, 0, 0, time.UTC)
			continue
		}
		if r.has(fieldHour, t.Hour()) && r.has(fieldMinute, t.Minute()) {
			return t
		}
	}
}
