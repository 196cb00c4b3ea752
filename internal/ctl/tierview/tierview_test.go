// SPDX-License-Identifier: Apache-2.0

package tierview

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// Numbers that a person reads must not change their meaning at a unit's border.
func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB",
		1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1024.0 PiB"} {
		require.Equal(t, want, Size(n))
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567",
		-12: "-12", 10_000_000: "10,000,000"} {
		require.Equal(t, want, count(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "2ms", 1234 * time.Millisecond: "1.2s",
		61 * time.Second: "1m01s", 3*time.Hour + 25*time.Minute: "3h25m", 49 * time.Hour: "2d01h",
		-time.Minute: "-1m00s",
	} {
		require.Equal(t, want, Span(d))
	}
	require.Equal(t, "1 object", plural(1, "object"))
	require.Equal(t, "2m00s behind", Ahead(-2*time.Minute))
}

// A bill must follow from what was measured: the rates of the literature give its sums.
func TestBill(t *testing.T) {
	p := Prices{DefaultStoragePrice, DefaultPutPrice, DefaultGetPrice}
	// A commit every minute from 64 shards, for an hour: 13.8 dollars a month.
	b := BillOf(Usage{Stored: 1000 << 30, Puts: 64 * 60, Gets: 64, Over: time.Hour}, p)
	require.InDelta(t, 13.8, b.Puts, 0.05)
	require.InDelta(t, 23, b.Storage, 0.001)
	require.InDelta(t, 0.0184, b.Gets, 0.001)
	require.InDelta(t, b.Puts+b.Storage+b.Gets, b.Total, 0.001)
	require.Zero(t, BillOf(Usage{Puts: 5}, p).Total, "no time, no rate")
}

// A reply of another version, with more fields or fewer, must not hide what is known.
func TestStatusOfOthers(t *testing.T) {
	for _, raw := range []string{`{}`, `{"bucket":"b","new":{"x":1}}`, ` {"levels":null} `} {
		table, whole, err := Status(json.RawMessage(raw), Prices{}, time.UnixMilli(5))
		require.NoError(t, err)
		require.NotEmpty(t, table.Rows)
		require.True(t, json.Valid(whole), string(whole))
		require.Contains(t, string(whole), `"figures"`)
	}
	_, _, err := Status(json.RawMessage(`[]`), Prices{}, time.UnixMilli(5))
	require.Error(t, err)
}

// FuzzKey reads what a person may type. What is taken must be what a key prints, or a dump would
// show another message.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"1800000000000/3.17", "", "/", "1/1", "1/1.1", "-1/1.1", "01/1.1",
		"1/99999999999.1", "1/1.18446744073709551615", "1/+1.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := parseKey(s)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		require.Equal(t, s, k.String())
	})
}
