// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

func zones(t testing.TB) *Zones {
	t.Helper()
	z, err := NewZones()
	require.NoError(t, err)
	return z
}

func parse(t testing.TB, z *Zones, expression, zone string) *Rule {
	t.Helper()
	r, err := z.Parse(expression, zone)
	require.NoError(t, err, "%s in %s", expression, zone)
	return r
}

func instant(t testing.TB, s string) delay.Due {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	require.NoError(t, err)
	return delay.InstantOf(at)
}

// What the clocks do to a schedule goes wrong in every library: times that do not exist, that come
// twice, days that are skipped, zones with half hours. Each row is worked out by hand.
func TestFirings(t *testing.T) {
	z := zones(t)
	for _, c := range []struct {
		name, expression, zone, after string
		want                          []string // instants, in UTC
	}{
		{"gap", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{
			"2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"}},
		{"gap, on the hour", "0 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", []string{
			"2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"}},
		{"gap, many times in it fire once", "*/10 2 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"gap, and the hour after it", "0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"}},
		{"gap, looked at from its end", "30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z",
			[]string{"2026-03-30T00:30:00Z"}},
		{"doubled", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", []string{
			"2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"}},
		{"doubled, looked at from between", "30 1 * * *", "America/New_York",
			"2026-11-01T05:30:00Z", []string{"2026-11-02T06:30:00Z"}},
		{"the end of the doubled hour", "0 2 * * *", "America/New_York", "2026-11-01T05:30:00Z",
			[]string{"2026-11-01T07:00:00Z"}},
		{"every half hour, autumn", "*/30 * * * *", "America/New_York", "2026-11-01T04:30:00Z",
			[]string{"2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z",
				"2026-11-01T06:30:00Z", "2026-11-01T07:00:00Z"}},
		{"a quarter past every hour, spring", "15 * * * *", "Europe/Berlin",
			"2026-03-29T00:00:00Z", []string{"2026-03-29T00:15:00Z", "2026-03-29T01:15:00Z"}},
		{"every second", "* * * * * *", "Europe/Berlin", "2026-03-29T00:59:58Z", []string{
			"2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", "2026-03-29T01:00:01Z"}},
		{"midnight gap, Cairo", "0 0 * * *", "Africa/Cairo", "2026-04-23T12:00:00Z", []string{
			"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		{"midnight gap, São Paulo", "0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z",
			[]string{"2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"noon on the day of the midnight gap", "0 12 * * 5", "Africa/Cairo",
			"2026-04-20T12:00:00Z", []string{"2026-04-24T09:00:00Z", "2026-05-01T09:00:00Z"}},
		{"half an hour, Lord Howe", "0 3 * * *", "Australia/Lord_Howe", "2026-04-03T12:00:00Z",
			[]string{"2026-04-03T16:00:00Z", "2026-04-04T16:30:00Z"}},
		{"half an hour, in the gap", "15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"half an hour, doubled", "45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z",
			[]string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"Nepal", "0 9 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", []string{
			"2026-01-01T03:15:00Z"}},
		{"a day that never was, Samoa", "0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z",
			[]string{"2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"}},
		{"29 February beyond 2096", "0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", []string{
			"2104-02-29T00:00:00Z", "2108-02-29T00:00:00Z"}},
		{"29 February on a Monday", "0 0 29 2 *", "Europe/Berlin", "2199-01-01T00:00:00Z", []string{
			"2204-02-28T23:00:00Z"}},
		{"Sunday as 7", "0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"}},
		{"Friday to Sunday", "0 0 * * 5-7", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z",
			"2026-01-09T00:00:00Z"}},
		{"SAT-SUN", "0 0 * * sat-SUN", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-10T00:00:00Z"}},
		{"every second day of the week", "0 0 * * 1-7/2", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-05T00:00:00Z"}},
		{"day of month or of week", "0 0 1,15 * 5", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-15T00:00:00Z",
			"2026-01-16T00:00:00Z"}},
		{"last days of months", "0 0 31 * *", "UTC", "2026-01-31T00:00:00Z", []string{
			"2026-03-31T00:00:00Z", "2026-05-31T00:00:00Z"}},
		{"new year", "@yearly", "Asia/Tokyo", "2026-06-01T00:00:00Z", []string{
			"2026-12-31T15:00:00Z"}},
		{"@weekly", "@weekly", "UTC", "2026-01-01T00:00:00Z", []string{"2026-01-04T00:00:00Z"}},
		{"@daily over a change", "@daily", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{
			"2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"}},
		{"@hourly over a change", "@hourly", "Europe/Berlin", "2026-10-25T00:00:00Z", []string{
			"2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"exactly at a firing", "0 9 * * *", "UTC", "2026-01-01T09:00:00Z", []string{
			"2026-01-02T09:00:00Z"}},
		{"a millisecond before one", "0 9 * * *", "UTC", "2026-01-01T08:59:59.999Z", []string{
			"2026-01-01T09:00:00Z"}},
		{"before 1970", "0 9 * * *", "UTC", "1969-12-31T08:59:59.5Z", []string{
			"1969-12-31T09:00:00Z", "1970-01-01T09:00:00Z"}},
		{"names", "30 6 * JAN,jul Mon", "UTC", "2026-01-30T00:00:00Z", []string{
			"2026-07-06T06:30:00Z"}},
		{"steps", "0 0 */8 * * *", "UTC", "2026-01-01T00:00:00Z", []string{
			"2026-01-01T08:00:00Z", "2026-01-01T16:00:00Z", "2026-01-02T00:00:00Z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := parse(t, z, c.expression, c.zone)
			at := instant(t, c.after)
			for _, want := range c.want {
				f, ok := r.Next(at, 0)
				require.True(t, ok)
				require.Equal(t, want, f.At.Time().Format(time.RFC3339))
				at = f.At
			}
		})
	}
}

// The kind of a firing is what people are told about it; a wrong note is worse than none.
func TestKinds(t *testing.T) {
	z := zones(t)
	for _, c := range []struct {
		expression, zone, after string
		kind                    Kind
		wanted                  string
	}{
		{"30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", AfterGap, "02:30"},
		{"0 3 * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", Plain, "03:00"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T23:00:00Z", First, "02:30"},
		{"0 3 * * *", "Europe/Berlin", "2026-10-25T00:59:00Z", Plain, "03:00"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", First, "02:30"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T01:00:00Z", Second, "02:30"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T02:00:00Z", Plain, "03:30"},
		{"30 * * * *", "UTC", "2026-10-25T02:00:00Z", Plain, "02:30"},
	} {
		f, ok := parse(t, z, c.expression, c.zone).Next(instant(t, c.after), 0)
		require.True(t, ok)
		require.Equal(t, c.kind, f.Kind, "%+v", c)
		require.Equal(t, c.wanted, f.Wanted.Format("15:04"), "%+v", c)
	}
}

// An interval counts from its start and never from the last look, or it would drift.
func TestEvery(t *testing.T) {
	z := zones(t)
	r := parse(t, z, "@every 1m30s", "Europe/Berlin")
	require.Equal(t, 90*time.Second, r.Every())
	for _, c := range []struct{ after, start, want delay.Due }{
		{0, 0, 90_000}, {89_999, 0, 90_000}, {90_000, 0, 180_000}, {5, 100, 90_100},
		{100, 100, 90_100}, {90_100, 100, 180_100},
	} {
		f, ok := r.Next(c.after, c.start)
		require.True(t, ok)
		require.Equal(t, Firing{At: c.want}, f, "%+v", c)
	}
	_, ok := r.Next(delay.MaxDue-10, 0)
	require.False(t, ok)
	for _, text := range []string{"@every 1s", "@every 36h", "@every 1d", "@every 2w"} {
		parse(t, z, text, "")
	}
}

// What cannot be understood is refused and says what is wrong; nothing is guessed.
func TestRefused(t *testing.T) {
	z := zones(t)
	for _, c := range []struct{ expression, zone, field, says string }{
		{"", "", "schedule", "five or six fields"},
		{"* * * *", "", "schedule", "five or six fields"},
		{"* * * * * * *", "", "schedule", "five or six fields"},
		{"60 * * * *", "", "schedule", "minute"},
		{"* 24 * * *", "", "schedule", "hour"},
		{"* * 0 * *", "", "schedule", "day of month"},
		{"* * 32 * *", "", "schedule", "day of month"},
		{"* * * 13 *", "", "schedule", "month"},
		{"* * * * 8", "", "schedule", "weekday"},
		{"* * * * 5-8", "", "schedule", "weekday"},
		{"* * * * 7-5", "", "schedule", "weekday"},
		{"60 * * * * *", "", "schedule", "second"},
		{"5-2 * * * *", "", "schedule", "minute"},
		{"*/0 * * * *", "", "schedule", "minute"},
		{"* * * * 1-7/0", "", "schedule", "weekday"},
		{", * * * *", "", "schedule", "empty item"},
		{"1,,2 * * * *", "", "schedule", "empty item"},
		{"1, * * * *", "", "schedule", "empty item"},
		{"x * * * *", "", "schedule", "minute"},
		{"* * * * MON#2", "", "schedule", "weekday"},
		{"* * L * *", "", "schedule", "day of month"},
		{"0 0 30 2 *", "", "schedule", "never fires"},
		{"0 0 31 4,6,9,11 *", "", "schedule", "never fires"},
		{"TZ=UTC", "", "schedule", "time_zone"},
		{"TZ=UTC 0 9 * * *", "", "schedule", "time_zone"},
		{"CRON_TZ=Europe/Berlin 0 9 * * *", "", "schedule", "time_zone"},
		{"@every", "", "schedule", "duration"},
		{"@every5m", "", "schedule", "duration"},
		{"@every -5s", "", "schedule", ""},
		{"@every 0s", "", "schedule", "less than"},
		{"@every 999ms", "", "schedule", "less than"},
		{"@every x", "", "schedule", "duration"},
		{"@fortnightly", "", "schedule", "@daily"},
		{"@reboot", "", "schedule", "@daily"},
		{strings.Repeat("1,", 200) + "1 * * * *", "", "schedule", "longer"},
		{"0 9 * * *", "Europe/Berln", "time_zone", "IANA"},
		{"0 9 * * *", "europe/berlin", "time_zone", "Europe/Berlin"},
		{"0 9 * * *", "Local", "time_zone", "IANA"},
		{"0 9 * * *", "../../etc/passwd", "time_zone", "IANA"},
		{"0 9 * * *", "CET-1", "time_zone", "IANA"},
	} {
		_, err := z.Parse(c.expression, c.zone)
		var field *delay.FieldError
		require.True(t, errors.As(err, &field), "%q: %v", c.expression, err)
		require.Equal(t, c.field, field.Field, "%q", c.expression)
		require.Contains(t, field.Reason, c.says, "%q", c.expression)
	}
}

// A schedule ends with the year 9999, and does not wrap around.
func TestEnd(t *testing.T) {
	z := zones(t)
	for _, zone := range []string{"UTC", "America/New_York", "Pacific/Kiritimati"} {
		r := parse(t, z, "0 0 1 1 *", zone)
		at, last := delay.MaxDue-1000*86400*366*2, delay.Due(0)
		for {
			f, ok := r.Next(at, 0)
			if !ok {
				break
			}
			require.Greater(t, f.At, last)
			require.LessOrEqual(t, f.At, delay.MaxDue)
			at, last = f.At, f.At
		}
		require.Equal(t, 9999, last.Time().Add(14*time.Hour).Year(), zone)
	}
	_, ok := parse(t, z, "* * * * * *", "Asia/Tokyo").Next(delay.MaxDue, 0)
	require.False(t, ok)
}

// The embedded database must be the toolchain's, and say truthfully which release it is.
func TestDatabase(t *testing.T) {
	require.Regexp(t, `^20\d\d[a-z]$`, Version())
	names := zones(t).Names()
	require.Greater(t, len(names), 500)
	for _, name := range names {
		_, err := zones(t).Location(name)
		require.NoError(t, err)
		break
	}
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no go command")
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "lib", "time")
	script, err := os.ReadFile(filepath.Join(dir, "update.bash"))
	if err != nil {
		t.Skip("the toolchain has no sources of its tz database")
	}
	found := regexp.MustCompile(`(?m)^DATA=(\w+)$`).FindSubmatch(script)
	require.NotNil(t, found)
	if have := string(found[1]); have != Version() {
		t.Skipf("%s has %s, embedded is %s: go generate ./scheduler/calendar",
			runtime.Version(), have, Version())
	}
	data, err := os.ReadFile(filepath.Join(dir, "zoneinfo.zip"))
	require.NoError(t, err)
	require.True(t, slices.Equal(data, database), "go generate ./scheduler/calendar")
}

// A machine with zone files of its own must not change what a stored schedule means (Z4).
func TestOwnDatabase(t *testing.T) {
	dir := t.TempDir()
	utc, err := os.ReadFile("tzdata/zoneinfo.zip")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "Europe"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Europe", "Berlin"), utc[:10], 0o644))
	t.Setenv("ZONEINFO", dir)
	f, ok := parse(t, zones(t), "0 12 * * *", "Europe/Berlin").Next(0, 0)
	require.True(t, ok)
	require.Equal(t, 11, f.At.Time().Hour())
}

// FuzzParse: whatever is parsed must be refused, or fire at increasing instants (Z3).
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"* * * * *", "0 9 * * MON", "*/5 0 1,15 * 5", "@every 5m", "@daily", "0 0 29 2 *", "TZ=UTC",
		"0 0 * * 5-7", "1-7/9999999999 * * * *", "? ? ? ? ?", "0 0 31 2 7",
	} {
		f.Add(s, "Europe/Berlin", int64(1_800_000_000_000))
	}
	z := zones(f)
	f.Fuzz(func(t *testing.T, expression, zone string, after int64) {
		r, err := z.Parse(expression, zone)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		at := delay.Due(after)
		if at < 0 || at > delay.MaxDue {
			return
		}
		for range 3 {
			next, ok := r.Next(at, 0)
			if !ok {
				return
			}
			require.Greater(t, next.At, at)
			at = next.At
		}
	})
}

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct{ name, expression, zone string }{
		{"daily", "30 2 * * *", "Europe/Berlin"}, {"leap", "0 0 29 2 *", "Europe/Berlin"},
		{"seconds", "* * * * * *", "UTC"}, {"every", "@every 5m", ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := parse(b, zones(b), c.expression, c.zone)
			at := instant(b, "2026-01-01T00:00:00Z")
			b.ReportAllocs()
			for b.Loop() {
				r.Next(at, 0)
			}
		})
	}
}
