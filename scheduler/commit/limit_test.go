// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/core"
)

// An idle lane is forgotten while an operator limits or pauses it: what was said last must stay.
func TestForgetKeepsWhatOperatorsSaid(t *testing.T) {
	b := newBench(t)
	done := make(chan error, 3)
	b.Enqueue(LimitTarget("log:", b.lanes.Number("log:"), delay.Limit{PerHour: 60, Burst: 1}, done))
	b.Enqueue(PauseTarget("pull:p", b.lanes.Number("pull:p"), true, done))
	for _, target := range []delay.Target{"log:", "pull:p"} {
		b.Enqueue(ForgetTarget(core.ActForget{Target: target}))
	}
	b.commit()
	require.Equal(t, []delay.TargetLimit{
		{Target: "log:", Limit: delay.Limit{PerHour: 60, Burst: 1}},
	}, LimitsOf(b.targets))
	require.Equal(t, []delay.Target{"pull:p"}, PausedOf(b.targets))

	b.Enqueue(LimitTarget("log:", b.lanes.Number("log:"), delay.Limit{}, done))
	b.Enqueue(ForgetTarget(core.ActForget{Target: "log:"}))
	b.commit()
	require.NotContains(t, b.targets, delay.Target("log:"))
}
