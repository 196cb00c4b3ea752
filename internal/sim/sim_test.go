// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	seedsFlag = flag.Int("sim.seeds", 15, "how many seeds to play")
	seedFlag  = flag.Int64("sim.seed", -1, "play this seed alone")
	fromFlag  = flag.Int64("sim.from", 1, "the first seed")
	checkFlag = flag.Bool("sim.check", false, "compare counts after every action")
	watchFlag = flag.Int("sim.watch", 0, "tell where this message is")
	traceFlag = flag.Bool("sim.v", false, "print the trace")
)

// Everything at once: whatever the seed does, the promises hold.
func TestSeeds(t *testing.T) {
	if *seedFlag >= 0 {
		cfg := Draw(uint64(*seedFlag))
		cfg.Verbose, cfg.Check, cfg.Watch = *traceFlag, *checkFlag, *watchFlag
		stats, err := Run(t.Context(), cfg)
		t.Logf("%+v", stats)
		require.NoError(t, err)
		return
	}
	for n := range *seedsFlag {
		seed := uint64(*fromFlag) + uint64(n)
		stats, err := Run(t.Context(), Draw(seed))
		if testing.Verbose() {
			t.Logf("seed %d: %+v", seed, stats)
		}
		require.NoError(t, err)
	}
}

// A history that is played twice is the same: otherwise no failure could be seen again.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		first, err1 := Run(t.Context(), Draw(seed))
		second, err2 := Run(t.Context(), Draw(seed))
		require.Equal(t, first, second, "seed %d", seed)
		require.Equal(t, err1 == nil, err2 == nil)
	}
}
