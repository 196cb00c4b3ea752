// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// A rate is given in seconds and kept in hours: slow ones must not be rounded to none, fast ones not
// be cut, and what is no rate must be refused by name.
func TestNewLimit(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		burst int64
		want  Limit
	}{
		{0, 0, Limit{}},
		{100, 0, Limit{PerHour: 360_000, Burst: 100}},
		{100, 250, Limit{PerHour: 360_000, Burst: 250}},
		{0.5, 0, Limit{PerHour: 1800, Burst: 1}},
		{2.5, 0, Limit{PerHour: 9000, Burst: 3}},
		{10.0 / 60, 0, Limit{PerHour: 600, Burst: 1}},
		{1.0 / 3600, 0, Limit{PerHour: 1, Burst: 1}},
		{1e6, 1_000_000, Limit{PerHour: MaxLimitPerHour, Burst: MaxLimitBurst}},
	} {
		got, err := NewLimit(c.rate, c.burst)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
		require.Equal(t, c.want == Limit{}, got.IsZero())
		require.InDelta(t, c.rate, got.PerSecond(), 1.0/3600)
	}
	for _, c := range []struct {
		rate  float64
		burst int64
		field string
	}{
		{-1, 0, "rate"}, {1e-9, 0, "rate"}, {1e6 + 1, 0, "rate"}, {math.NaN(), 0, "rate"},
		{math.Inf(1), 0, "rate"}, {math.Inf(-1), 0, "rate"}, {1, -1, "burst"},
		{1, MaxLimitBurst + 1, "burst"}, {0, 5, "burst"},
	} {
		_, err := NewLimit(c.rate, c.burst)
		var field *FieldError
		require.ErrorAs(t, err, &field, "%v", c)
		require.Equal(t, c.field, field.Field, "%v", c)
	}
}
