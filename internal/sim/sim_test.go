// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/scheduler"
)

var (
	seedsFlag = flag.Int("sim.seeds", 9, "how many seeds to play")
	seedFlag  = flag.Int64("sim.seed", -1, "play this seed alone")
	fromFlag  = flag.Int64("sim.from", 1, "the first seed")
	checkFlag = flag.Bool("sim.check", false, "compare counts after every action")
	watchFlag = flag.Int("sim.watch", 0, "tell where this message is")
	traceFlag = flag.Bool("sim.v", false, "print the trace")

	profileFlag = flag.String("sim.profile", "", "what the histories like: owners, gc, purges, ...")
	stepsFlag   = flag.Int("sim.steps", 0, "actions of the phase with faults")
	withoutFlag = flag.String("sim.without", "", "what to leave out")
)

// Everything at once: whatever the seed does, the promises hold.
func TestSeeds(t *testing.T) {
	if *seedFlag >= 0 {
		cfg := swarm.DrawProfile(uint64(*seedFlag), swarm.Profile(*profileFlag))
		cfg.Reduce(*stepsFlag, *withoutFlag)
		cfg.Verbose, cfg.Check, cfg.Watch = *traceFlag, *checkFlag, *watchFlag
		stats, err := Run(t.Context(), cfg)
		t.Logf("%+v", stats)
		require.NoError(t, err)
		return
	}
	for n := range *seedsFlag {
		seed := uint64(*fromFlag) + uint64(n)
		profile := swarm.Profiles()[n%len(swarm.Profiles())]
		stats, err := Run(t.Context(), swarm.DrawProfile(seed, profile))
		if testing.Verbose() {
			t.Logf("seed %d: %+v", seed, stats)
		}
		require.NoError(t, err)
	}
}

// A history that is played twice is the same: otherwise no failure could be seen again.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 3; seed++ {
		profile := swarm.Profiles()[int(seed)%len(swarm.Profiles())]
		first, err1 := Run(t.Context(), swarm.DrawProfile(seed, profile))
		second, err2 := Run(t.Context(), swarm.DrawProfile(seed, profile))
		// How much of a history is understood within orderLimit is a matter of the machine.
		first.Undecided, second.Undecided = 0, 0
		require.Equal(t, first, second, "seed %d", seed)
		require.Equal(t, err1 == nil, err2 == nil)
	}
}

// A failure that shrinks to another one, or that cannot be played from what is printed, would lead
// astray.
func TestShrink(t *testing.T) {
	cfg := swarm.Draw(3)
	cfg.Weights[swarm.Open] = 0 // the process never starts
	cfg.Steps = 60
	f := &Failure{Config: cfg, Text: "not finished", Step: 50}
	again := swarm.Draw(3)
	again.Reduce(20, "send,far,cancel")
	require.Equal(t, 20, again.Steps)
	require.Zero(t, again.Weights[swarm.Send])
	require.Zero(t, again.FarShare)
	require.Equal(t, []string{"send", "far", "cancel"}, again.Without)
	require.Same(t, f, f.Smaller(0, nil), "without runs there is nothing smaller")
	require.Equal(t, swarm.KindOf(`message 7 (id "a"): lost 3 times`), swarm.KindOf(`message 12 (id ""): lost 9 times`))
	require.NotEqual(t, swarm.KindOf("lost"), swarm.KindOf("early"))
}

// A task without an action of its own would be taken for another one.
func TestTasksHaveActions(t *testing.T) {
	require.Equal(t, swarm.Send-1, opOfTask(scheduler.TaskCount), "and it is the last")
	for k := range scheduler.TaskCompact {
		require.Equal(t, k.String(), opOfTask(k).String())
	}
}
