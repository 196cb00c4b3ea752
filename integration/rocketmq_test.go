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

// besideGrace is short, so that a release can be waited for.
const besideGrace = 2 * time.Second

// beside starts a daemon that guards c.
func beside(t *testing.T, c *rocketmq.Cluster) *rocketmq.Daemon {
	t.Helper()
	d, err := rocketmq.NewDaemon(rocketmq.DaemonOptions{
		Program: program, Dir: t.TempDir(), NameAddr: c.NameAddr, Guardian: true,
		Grace: besideGrace,
	})
	require.NoError(t, err)
	require.NoError(t, d.Start())
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.Log())
		}
		d.Kill()
	})
	return d
}

// trouble is what a run with Cicada beside it is disturbed by.
type trouble struct {
	opts rocketmq.Options
	// expired is called when the log has expired; meanwhile runs from the first message on and
	// returns when stop is closed.
	expired   func(t *testing.T, c *rocketmq.Cluster, d *rocketmq.Daemon)
	meanwhile func(t *testing.T, d *rocketmq.Daemon, seed uint64, stop <-chan struct{})
	crashes   bool // copies may be repeated by who crashed
}

// With Cicada beside it every message must arrive, exactly once where nothing crashed, as it was
// sent and not before it is due: those of the expired log through Cicada and all others through the
// broker, without a second copy of either.
func TestRocketMQBesideCicada(t *testing.T) {
	for name, tr := range map[string]trouble{
		"plain":  {},
		"tiered": {opts: rocketmq.Options{Tiered: true}},
		"kept":   {opts: rocketmq.Options{Keep: true}},
		"two":    {opts: rocketmq.Options{Two: true}},
		"broker stopped": {expired: func(t *testing.T, c *rocketmq.Cluster, _ *rocketmq.Daemon) {
			require.NoError(t, c.Broker.Stop())
			require.NoError(t, c.RocketMQ.Start())
		}},
		"broker killed": {crashes: true,
			expired: func(t *testing.T, c *rocketmq.Cluster, _ *rocketmq.Daemon) {
				require.NoError(t, c.Broker.Kill())
				require.NoError(t, c.RocketMQ.Start())
			}},
		"cicada killed": {crashes: true, meanwhile: killCicada},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "plain" && os.Getenv("CICADA_ROCKETMQ") != "full" {
				t.Skip("CICADA_ROCKETMQ=full runs it")
			}
			t.Parallel()
			besideCicada(t, tr)
		})
	}
}

func besideCicada(t *testing.T, tr trouble) {
	seed := rocketSeed(t)
	plan := rocketmq.NewPlan(seed, 12)
	c := rocketCluster(t, tr.opts)
	require.NoError(t, c.Prepare(t.Context(), plan))
	d := beside(t, c)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if tr.meanwhile != nil {
			tr.meanwhile(t, d, seed, stop)
		}
	}()
	require.NoError(t, c.Run(t.Context(), plan))
	if tr.expired != nil {
		tr.expired(t, c, d)
	}
	v, err := c.Await(t.Context(), plan, 10*besideGrace, 45*time.Second)
	close(stop)
	<-stopped
	require.NoError(t, err)
	t.Logf("%+v, lateness %v", v.Counts, v.Lateness)
	require.Empty(t, v.Lost)
	require.Empty(t, v.Wrong)
	doomed, stays := v.Sum(rocketmq.Doomed), v.Sum(rocketmq.Early, rocketmq.Late)
	require.Equal(t, 24, doomed.Sent)
	if tr.crashes {
		t.Logf("%d twice, %d of them by Cicada", len(v.Twice), len(v.Doubled))
		require.LessOrEqual(t, len(v.Doubled), 2, "Cicada asks before it repeats a release")
		return
	}
	require.Empty(t, v.Twice)
	require.Zero(t, stays.ByCicada, "the broker had these")
	rescued := 24
	if tr.opts.Keep {
		rescued = 0
	}
	require.Equal(t, rescued, doomed.ByCicada, "the loss was not reproduced")
	b, err := d.Books(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, rescued, b.Delivered, "%+v", b)
	require.Zero(t, b.Dead, "%+v", b)
	require.Zero(t, b.Pending, "%+v", b)
	require.Equal(t, b.Accepted, b.Delivered+b.Suppressed+b.Cancelled, "%+v", b)
}

// killCicada kills the daemon again and again, at any step of a guarded message's life.
func killCicada(t *testing.T, d *rocketmq.Daemon, seed uint64, stop <-chan struct{}) {
	r := rand.New(rand.NewPCG(seed, 9))
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Second + time.Duration(r.IntN(7_000))*time.Millisecond):
		}
		d.Kill()
		if err := d.Start(); err != nil {
			t.Error(err)
			return
		}
	}
}
