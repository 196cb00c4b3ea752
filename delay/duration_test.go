// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A wrong unit or a silent overflow would deliver at another time than asked.
func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "1d12h": 36 * time.Hour, "2w": 14 * Day,
		"1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond, "1h1m1s": 3661 * time.Second,
		"5us": 5 * time.Microsecond, "106751d": 106751 * Day,
	} {
		got, err := ParseDuration(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "5", "-5s", "+5s", "5 s", "5y", "5M", "s", "1..5s", ".s",
		"106752d", "9223372036854775808ns", "1e3s", "1h1", "9223372036.9s1s"} {
		_, err := ParseDuration(in)
		require.ErrorIs(t, err, ErrInvalid, in)
	}
}

// What is printed must be read back as the same value.
func FuzzDurationRoundTrip(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(90 * time.Second))
	f.Add(int64(1<<63 - 1))
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(max(n, 0))
		got, err := ParseDuration(FormatDuration(d))
		require.NoError(t, err)
		require.Equal(t, d, got)
	})
}
