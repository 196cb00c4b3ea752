// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/brokers"
	"github.com/cicadamq/cicada/integration/rocketmq"
)

// rocketSeed is the seed of a run: CICADA_SEED, or another each time.
func rocketSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64N(1e6)
	if s := os.Getenv("CICADA_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("CICADA_SEED=%d", seed)
	return seed
}

// rocketCluster is a RocketMQ of its own, which the test may make lose its commit log.
func rocketCluster(t *testing.T, opts rocketmq.Options) *rocketmq.Cluster {
	t.Helper()
	c, err := rocketmq.Start(t.Context(), t.TempDir(), opts)
	if errors.Is(err, brokers.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// Without Cicada, RocketMQ must lose what it is said to lose, and nothing else: otherwise nothing
// that the tests with Cicada find means anything.
func TestRocketMQLoses(t *testing.T) {
	for name, opts := range map[string]rocketmq.Options{
		"plain":  {},
		"tiered": {Tiered: true},
		"kept":   {Keep: true},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "plain" && os.Getenv("CICADA_ROCKETMQ") != "full" {
				t.Skip("CICADA_ROCKETMQ=full runs it")
			}
			t.Parallel()
			plan := rocketmq.NewPlan(rocketSeed(t), 12)
			c := rocketCluster(t, opts)
			require.NoError(t, c.Prepare(t.Context(), plan))
			require.NoError(t, c.Run(t.Context(), plan))
			v, err := c.Await(t.Context(), plan, 8*time.Second, 8*time.Second)
			require.NoError(t, err)
			t.Logf("%+v", v.Counts)
			require.Empty(t, v.Wrong)
			require.Empty(t, v.Twice)
			stays := v.Sum(rocketmq.Early, rocketmq.Late)
			require.Equal(t, stays.Sent, stays.Delivered, "lost: %v", v.Lost)
			doomed := v.Sum(rocketmq.Doomed)
			require.Equal(t, 24, doomed.Sent)
			if opts.Keep {
				require.Equal(t, 24, doomed.Delivered)
			} else {
				require.Zero(t, doomed.Delivered, "the loss was not reproduced")
			}
		})
	}
}
