// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "write testdata")

func goldenEntries() []entry {
	return []entry{
		{
			Topic: remoting.TopicSchedule, Queue: 6, Offset: 41, Physical: 1 << 33,
			Stored: 1_800_000_000_000, Due: 1_800_000_180_000, RealTopic: "orders", RealQueue: 3,
			Unique: "7F000001ABCD18B4AAC20000000001", Born: 1_799_999_999_990, Flag: -2,
		},
		{
			Topic: remoting.TopicTimer, Offset: 7, Physical: 12_345, Stored: 1_800_000_000_000,
			Due: 1_800_086_400_500, Out: 1_800_086_400_000, Rolls: 3, RealTopic: "%RETRY%group",
			RealQueue: 0, Unique: "k=1 &ä", Born: 1_799_999_999_990,
			SysFlag: remoting.SysCompressed, Reconsumed: 4,
		},
	}
}

// Entries are in segments for as long as their messages wait: a later version must read them.
func TestEntryGolden(t *testing.T) {
	const file = "testdata/entries.txt"
	var text strings.Builder
	for _, e := range goldenEntries() {
		text.WriteString(e.String() + "\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(text.String()), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		e, err := parseEntry(line)
		require.NoError(t, err)
		require.Equal(t, goldenEntries()[i], e)
		require.LessOrEqual(t, len(line), delay.MaxGuardBytes)
	}
}

// An entry of a later version is left to who understands it.
func TestEntryOfAnotherVersion(t *testing.T) {
	_, err := parseEntry("v=2 topic=x")
	require.ErrorIs(t, err, delay.ErrUnimplemented)
	good := goldenEntries()[0].String()
	for _, bad := range []string{
		"", "v=1", "x", good + " more=1", strings.Replace(good, "level=7 ", "", 1),
		strings.Replace(good, "level=7", "level=7 timer=1", 1),
		strings.Replace(good, "level=7", "level=8589934593", 1),
		strings.Replace(good, "level=7", "level=-7", 1),
		strings.Replace(good, "orders", "%zz", 1),
	} {
		_, err := parseEntry(bad)
		require.ErrorIs(t, err, delay.ErrCorrupt, bad)
	}
}

// A damaged entry must not be taken for another: what is read is written the same again.
func FuzzParseEntry(f *testing.F) {
	for _, e := range goldenEntries() {
		f.Add(e.String())
	}
	f.Add("v=1 level=99999999999 topic=%zz")
	f.Add("v=1 level=1 timer=1 topic=x unique=y")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEntry(text)
		if err == nil {
			require.Equal(t, text, e.String())
		}
	})
}

// Properties that no header can hold must come back as they were, and those for the way not.
func TestPropertiesRoundTrip(t *testing.T) {
	var p remoting.Properties
	for i := range 2 * delay.MaxHeaders {
		p = append(p, remoting.Property{Name: "p" + strings.Repeat("x", i), Value: "v\x03\nä"})
	}
	p = append(p, remoting.Property{Name: headerPacked, Value: "mine"},
		remoting.Property{Name: remoting.PropertyTimerOut, Value: "1"})
	h := headers(p)
	require.LessOrEqual(t, len(h), delay.MaxHeaders)
	back, err := properties(h)
	require.NoError(t, err)
	require.ElementsMatch(t, p[:len(p)-1], back)
	_, err = properties([]delay.Header{{Name: headerPacked, Value: "%zz"}})
	require.ErrorIs(t, err, delay.ErrCorrupt)
}

// An id must be as short as ids are, and two messages never share one.
func TestIDsAreBounded(t *testing.T) {
	long := strings.Repeat("u", 300)
	a := timerID("rmq", "broker-a", "orders", long+"1")
	b := timerID("rmq", "broker-a", "orders", long+"2")
	require.LessOrEqual(t, len(a), delay.MaxIDBytes)
	require.NotEqual(t, a, b)
	require.Equal(t, delay.ID("rocketmq:rmq/broker-a/timer/orders/K"),
		timerID("rmq", "broker-a", "orders", "K"))
}
