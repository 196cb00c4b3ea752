// SPDX-License-Identifier: Apache-2.0

package limits

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A watcher that lets one message too many pass, or stops one that may pass, is worth nothing.
func TestLimits(t *testing.T) {
	const target = delay.Target("https://a")
	second := delay.Limit{PerHour: 3600, Burst: 3}
	var b Book
	require.Empty(t, b.Claimed(target, 100, 0), "without a limit")
	done := b.Ask(target, second, 1000)
	require.Empty(t, b.Claimed(target, 100, 1000), "not answered yet")
	done(true, 1000)
	require.Empty(t, b.Claimed(target, 9, 1000), "the core does not know yet")
	b.Stepped()
	require.Empty(t, b.Claimed(target, 1, 1000))
	require.NotEmpty(t, b.Claimed(target, 1, 1999))
	require.Empty(t, b.Claimed(target, 1, 2000))
	require.NotEmpty(t, b.Claimed(target, 4, 60_000), "more than at once")
	require.Empty(t, b.Claimed(target, 3, 60_000))
	require.NotEmpty(t, b.Claimed(target, 1, 60_100))

	b.Opened(61_000)
	require.NotEmpty(t, b.Claimed(target, 2, 61_000), "a restart begins with one")
	require.Empty(t, b.Claimed(target, 1, 61_000))

	first := b.Ask(target, delay.Limit{PerHour: 60, Burst: 1}, 62_000)
	last := b.Ask(target, second, 62_000)
	last(true, 64_000)
	first(true, 64_001)
	b.Stepped()
	require.Empty(t, b.Claimed(target, 3, 64_001), "only the last call counts, from when it was made")
	require.NotEmpty(t, b.Claimed(target, 1, 64_001))

	b.Lost()
	require.Empty(t, b.Claimed(target, 100, 64_002), "nothing is known after a loss")
	done = b.Ask(target, second, 65_000)
	b.Crashed()
	done(true, 66_000)
	b.Stepped()
	require.Empty(t, b.Claimed(target, 100, 66_000), "the answer came too late")
	b.Ask(target, delay.Limit{}, 67_000)(true, 67_000)
	require.Empty(t, b.Claimed(target, 100, 67_000), "removed")
	require.Equal(t, []delay.Target{target}, b.Targets())
	some := 0
	for r := rand.New(rand.NewPCG(1, 1)); some < 10; some++ {
		l := Draw(r)
		require.Equal(t, l.PerHour == 0, l.Burst == 0)
	}
}
