// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A rate of another unit is another promise to a receiver: what is shown must read as what was given,
// and what is no rate must not become one.
func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{
		"100/s": 100, "0.5/s": 0.5, "10/m": 10.0 / 60, "1/h": 1.0 / 3600, "none": 0, "1e3/s": 1000,
	} {
		got, err := ParseRate(text)
		require.NoError(t, err, text)
		require.InDelta(t, want, got, 1e-12, text)
	}
	for _, text := range []string{"", "100", "100/d", "/s", "-1/s", "0/s", "NaN/s", "x/s", "1/s/s", "100 /s"} {
		_, err := ParseRate(text)
		require.Error(t, err, text)
	}
	for want, l := range map[string]*Limit{
		"none": nil, "100/s burst 200": {100, 200}, "2.5/s burst 3": {2.5, 3},
		"10/m burst 1": {600.0 / 3600, 1}, "1/h burst 1": {1.0 / 3600, 1},
	} {
		require.Equal(t, want, l.String())
	}
}
