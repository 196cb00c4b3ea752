// SPDX-License-Identifier: Apache-2.0

package schedules

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// A firing that is shown in one clock only, or without what the clocks do, is planned for wrongly
// by whoever reads it (K1); what was not set must not show as zero.
func TestLines(t *testing.T) {
	firings, err := Preview("30 2 * * *", "Europe/Berlin", 1774700000000, 1)
	require.NoError(t, err)
	s := client.Schedule{Expression: "30 2 * * *", TimeZone: "Europe/Berlin", Misfire: "skip",
		Fired: 20, Next: firings}
	lines := Lines(&s)
	require.Equal(t, [2]string{"next", "Sun 2026-03-29 03:00:00 +02:00  2026-03-29T01:00:00.000Z  " +
		"02:30 on 2026-03-29 does not exist; this is the first instant after it"},
		lines[len(lines)-1])
	named := make(map[string]string)
	for _, l := range lines {
		named[l[0]] = l[1]
	}
	require.Equal(t, "20", named["fired"])
	require.Equal(t, "0", named["missed"])
	require.Empty(t, named["count"])
	require.Equal(t, "skip", named["misfire"])
	s.Count = 10
	require.Equal(t, [2]string{"count", "10"}, Lines(&s)[4])
	require.Len(t, Cells(&client.Message{}), len(Columns))
}

// A schedule that ends shows what is left, an expression that is wrong what is wrong with it.
func TestPreview(t *testing.T) {
	firings, err := Preview("0 0 29 2 *", "UTC", 253_402_300_000_000-86_400_000*1000, 9)
	require.NoError(t, err)
	require.Empty(t, firings, "9996 was the last leap year")
	_, err = Preview("0 0 * * 9", "", 0, 1)
	require.ErrorContains(t, err, "Sunday is 0 or 7")
}
