// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each form of an instant must be read exactly, and everything near to one refused (S8).
func TestParseInstant(t *testing.T) {
	for in, want := range map[string]int64{
		"2030-01-02T03:04:05Z":           1893553445000,
		"2030-01-02T03:04:05.123Z":       1893553445123,
		"2030-01-02T03:04:05.1230001Z":   1893553445124, // sub-millisecond rounds up
		"2030-01-02T05:34:05+02:30":      1893553445000,
		"2030-01-01T23:04:05-04:00":      1893553445000,
		"9999-12-31T23:59:59.999Z":       int64(MaxDue),
		"1970-01-01T00:00:00Z":           0,
		"1893553445000":                  1893553445000,
		"100000000000":                   100000000000,
		"0100000000000":                  100000000000,
		"2024-02-29T00:00:00-00:00":      1709164800000,
		"2030-01-02T03:04:05.000000000Z": 1893553445000,
	} {
		got, err := ParseInstant(in)
		require.NoError(t, err, in)
		require.Equal(t, want, int64(got), in)
	}
	for _, in := range []string{"", "now", "2030-01-02", "2030-01-02T03:04:05", "2030-01-02 03:04:05Z",
		"2030-01-02T03:04:05,5Z", "2030-01-02T3:04:05Z", "2030-1-2T03:04:05Z", "2030-01-02t03:04:05z",
		"2030-01-02T03:04:05.Z", "2030-01-02T03:04:05+2:00", "2030-01-02T03:04:05+24:00",
		"2030-01-02T03:04:05+0200", "2030-02-30T00:00:00Z", "2030-01-02T24:00:00Z",
		"2030-01-02T03:04:60Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59.9995Z",
		"9999-12-31T23:59:59-01:00", "1969-12-31T23:59:59Z", "1893553445", "99999999999", "0",
		"-1893553445000", "1893553445000.5", "253402300800000", "99999999999999999999", "１２３"} {
		_, err := ParseInstant(in)
		require.Error(t, err, in)
	}
}

// Each form of a duration must be read exactly and rounded up, and everything near to one refused.
func TestParseMillis(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "0s": 0, "1ms": 1, "1s": 1000, "1h30m": 5400000, "1.5h": 5400000, ".5s": 500,
		"1.s": 1000, "2d": 172800000, "1w": 604800000, "1w2d3h": 788400000, "1.5d": 129600000,
		"1ns": 1, "1us": 1, "1µs": 1, "1000001ns": 2, "1000000ns": 1, "0.0001ms": 1, "0.1us": 1,
		"0.00000000000000000000001s": 1, "1.0000000000000000000000000s": 1000, "0.3ms0.7ms": 1,
		"PT90S": 90000, "P1D": 86400000, "P1W": 604800000, "P1DT1H1M1.5S": 90061500, "PT0S": 0,
		"PT0.0005S": 1, "P0D": 0, "2900000d": 250560000000000, "PT1M": 60000, "P1.5D": 129600000,
	} {
		got, err := ParseMillis(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "1", "5000", "s", ".s", "1x", "1 s", " 1s", "1s ", "-1s", "+1s",
		"1y", "1M", "1.2.3s", "1..s", "P", "PT", "P1", "P1Y", "P1M", "P1DT", "PT1D", "P1H", "PT1.5H1M",
		"P-1D", "-P1D", "P1D1W", "PT1S1M", "P1D1D", "p1d", "P1S", "3000000d", "99999999999999999999s",
		"18446744073709551615w", "99999999w99999999w", "1e3s", "1_000s", "１s", "PTT1S", "P1WT"} {
		_, err := ParseMillis(in)
		require.Error(t, err, in)
	}
}

// Go's own durations must mean the same here.
func TestParseMillisAgainstGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		d := time.Duration(rng.Int64N(1 << rng.IntN(62)))
		got, err := ParseMillis(d.String())
		require.NoError(t, err, d)
		want := (int64(d) + 999_999) / 1_000_000
		require.Equal(t, want, got, d)
	}
}

// No text may crash the parsers or give what is out of range (J2).
func FuzzTimes(f *testing.F) {
	for _, s := range []string{"2030-01-02T03:04:05.5+01:00", "1893553445000", "1w2d3h4.5m", "P1DT1H", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if due, err := ParseInstant(in); err == nil {
			require.True(t, due >= 0 && due <= MaxDue)
		}
		if ms, err := ParseMillis(in); err == nil {
			require.True(t, ms >= 0 && ms <= int64(MaxDue))
			if d, err := time.ParseDuration(in); err == nil {
				require.Equal(t, (int64(d)+999_999)/1_000_000, ms)
			}
		}
	})
}
