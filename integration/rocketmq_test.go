// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/brokers"
	"github.com/cicadamq/cicada/integration/rocketmq"
)

const (
	// rocketEach is how many delay levels, and timers, each part of a plan has.
	rocketEach = 12
	// rocketGrace is the default. A shorter one is a shorter time in which a broker that does not get
	// to run may be behind its own checkpoint.
	rocketGrace = 5 * time.Second
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

// rocketRun is one plan on a RocketMQ of its own, with Cicada beside it or without.
type rocketRun struct {
	opts   rocketmq.Options
	cicada bool
	user   string // and password: who the daemon says it is
	// started is called before the daemon starts, expired when the log has expired; meanwhile runs
	// from the first message on and returns when ctx is done.
	started   func(ctx context.Context, r *rocketRun) error
	expired   func(r *rocketRun) error
	meanwhile func(ctx context.Context, r *rocketRun, rnd *rand.Rand) error

	dir     string
	seed    uint64
	plan    *rocketmq.Plan
	cluster *rocketmq.Cluster
	daemon  *rocketmq.Daemon
	verdict *rocketmq.Verdict
	err     error
}

// do runs it. It may be called in a goroutine of its own.
func (r *rocketRun) do(ctx context.Context) error {
	r.plan = rocketmq.NewPlan(r.seed, rocketEach)
	if r.opts.Proxy {
		r.plan = rocketmq.NewGRPCPlan(r.seed, rocketEach)
	}
	var err error
	if r.cluster, err = rocketmq.Start(ctx, r.dir, r.opts); err != nil {
		return err
	}
	if err := r.cluster.Prepare(ctx, r.plan); err != nil {
		return err
	}
	if r.started != nil {
		if err := r.started(ctx, r); err != nil {
			return err
		}
	}
	// A broker alone is not late by what it keeps, but by what else this machine does.
	enough, arrive := 8*time.Second, []rocketmq.Part{rocketmq.Early, rocketmq.Late}
	if r.cicada || r.opts.Keep {
		arrive = append(arrive, rocketmq.Doomed)
	}
	if r.cicada {
		enough = 4 * rocketGrace
		r.daemon, err = rocketmq.NewDaemon(rocketmq.DaemonOptions{
			Program: program, Dir: filepath.Join(r.dir, "cicada"), NameAddr: r.cluster.NameAddr,
			Guardian: true, Grace: rocketGrace, User: r.user, Password: rocketPassword,
		})
		if err == nil {
			err = r.daemon.Start()
		}
		if err != nil {
			return err
		}
	}
	beside, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var troubled error
	if r.meanwhile != nil {
		wg.Go(func() { troubled = r.meanwhile(beside, r, rand.New(rand.NewPCG(r.seed, 9))) })
	}
	err = r.cluster.Run(ctx, r.plan)
	if err == nil && r.expired != nil {
		err = r.expired(r)
	}
	if err == nil {
		r.verdict, err = r.cluster.Await(ctx, r.plan, enough, time.Minute, arrive...)
	}
	stop()
	wg.Wait()
	return errors.Join(err, troubled)
}

func (r *rocketRun) close() {
	if r.daemon != nil {
		r.daemon.Kill()
	}
	if r.cluster != nil {
		r.cluster.Close()
	}
}

// rocketRuns does all runs at the same time.
func rocketRuns(t *testing.T, runs ...*rocketRun) {
	t.Helper()
	seed := rocketSeed(t)
	for _, r := range runs { // before the cleanup, which ends who writes there
		r.seed, r.dir = seed, t.TempDir()
	}
	t.Cleanup(func() {
		for _, r := range runs {
			if t.Failed() && r.daemon != nil {
				t.Log(r.daemon.Log())
			}
			r.close()
		}
	})
	var wg sync.WaitGroup
	for _, r := range runs {
		wg.Go(func() { r.err = r.do(t.Context()) })
	}
	wg.Wait()
	for _, r := range runs {
		if errors.Is(r.err, brokers.ErrMissing) && os.Getenv("CI") != "true" {
			t.Skip(r.err)
		}
		require.NoError(t, r.err)
		t.Logf("%+v, lateness %v", r.verdict.Counts, r.verdict.Lateness)
	}
}

// loses judges a run without Cicada: RocketMQ must lose what it is said to lose, and nothing else,
// or nothing that the run beside it finds means anything.
func (r *rocketRun) loses(t *testing.T) {
	t.Helper()
	v := r.verdict
	require.Empty(t, v.Wrong)
	require.Empty(t, v.Twice)
	stays, doomed := v.Sum(rocketmq.Early, rocketmq.Late), v.Sum(rocketmq.Doomed)
	require.Equal(t, rocketmq.Count{Sent: 4 * rocketEach, Delivered: 4 * rocketEach}, stays)
	want := rocketmq.Count{Sent: 2 * rocketEach}
	if r.opts.Keep {
		want.Delivered = want.Sent
	}
	require.Equal(t, want, doomed, "the loss was not reproduced")
}

// saves judges a run with Cicada in which nothing crashed: every message arrived exactly once, as
// it was sent and not before it was due, those of the expired log through Cicada and all others
// through the broker.
func (r *rocketRun) saves(t *testing.T) {
	t.Helper()
	v := r.verdict
	require.Empty(t, v.Lost)
	require.Empty(t, v.Twice)
	require.Empty(t, v.Wrong)
	stays, doomed := v.Sum(rocketmq.Early, rocketmq.Late), v.Sum(rocketmq.Doomed)
	require.Equal(t, rocketmq.Count{Sent: 4 * rocketEach, Delivered: 4 * rocketEach}, stays)
	want := rocketmq.Count{Sent: 2 * rocketEach, Delivered: 2 * rocketEach}
	if !r.opts.Keep {
		want.ByCicada = want.Sent
	}
	require.Equal(t, want, doomed, "the loss was not reproduced")
	if r.opts.Proxy { // what the proxy does not tell, as the broker has it
		v = r.plan.Judge(r.cluster.Client.Received())
		require.Empty(t, v.Lost)
		require.Empty(t, v.Twice)
		require.Empty(t, v.Wrong)
	}
	var b rocketmq.Books
	require.Eventually(t, func() bool {
		var err error
		b, err = r.daemon.Books(t.Context())
		return err == nil && b.Pending == 0
	}, time.Minute, 200*time.Millisecond, "%+v", &b)
	require.EqualValues(t, want.ByCicada, b.Delivered, "%+v", b)
	require.Zero(t, b.Dead, "%+v", b)
	unguarded, err := r.daemon.Metric(t.Context(), "cicada_rocketmq_unguarded_total", "")
	require.NoError(t, err)
	require.Zero(t, unguarded, "%s", r.daemon.Log())
	require.Equal(t, b.Accepted, b.Delivered+b.Suppressed+b.Cancelled, "%+v", b)
}

// What the project is for: the same messages to two real RocketMQs whose logs expire; one loses
// them, the one with Cicada beside it must not.
func TestRocketMQ(t *testing.T) {
	t.Parallel()
	alone, beside := &rocketRun{}, &rocketRun{cicada: true}
	rocketRuns(t, alone, beside)
	alone.loses(t)
	beside.saves(t)
}

// Users of 5.x know a proxy and no broker: what they send through it must be guarded as all else,
// what Cicada releases must reach them through it as it was sent, and the entries that a broker
// writes for what they have to acknowledge are not guarded.
func TestRocketMQProxy(t *testing.T) {
	rocketFull(t)
	opts := rocketmq.Options{Proxy: true}
	alone, beside := &rocketRun{opts: opts}, &rocketRun{opts: opts, cicada: true}
	rocketRuns(t, alone, beside)
	alone.loses(t)
	beside.saves(t)
}

// The same must hold with RocketMQ's own tiered store, which neither loses less nor confuses the
// guardian, with two brokers, and where nothing expires.
func TestRocketMQWithOthers(t *testing.T) {
	rocketFull(t)
	for name, opts := range map[string]rocketmq.Options{
		"tiered": {Tiered: true}, "kept": {Keep: true}, "two": {Two: true},
	} {
		t.Run(name, func(t *testing.T) {
			alone, beside := &rocketRun{opts: opts}, &rocketRun{opts: opts, cicada: true}
			rocketRuns(t, alone, beside)
			alone.loses(t)
			beside.saves(t)
		})
	}
}

// A broker that was away for a while must not be taken for one that lost its log, nor a message be
// given up because its broker could not be asked.
func TestRocketMQBrokerRestarts(t *testing.T) {
	rocketFull(t)
	stopped := &rocketRun{cicada: true, expired: func(r *rocketRun) error {
		return errors.Join(r.cluster.Broker.Stop(), r.cluster.RocketMQ.Start())
	}}
	rocketRuns(t, stopped)
	stopped.saves(t)
}

// Killed at any step, neither side may lose a message, and Cicada, which asks before it repeats a
// release, not add copies of its own but for what the index did not show yet.
func TestRocketMQKilled(t *testing.T) {
	rocketFull(t)
	broker := &rocketRun{cicada: true, expired: func(r *rocketRun) error {
		return errors.Join(r.cluster.Broker.Kill(), r.cluster.RocketMQ.Start())
	}}
	daemon := &rocketRun{cicada: true, meanwhile: killCicada}
	rocketRuns(t, broker, daemon)
	for _, r := range []*rocketRun{broker, daemon} {
		v := r.verdict
		require.Empty(t, v.Lost)
		require.Empty(t, v.Wrong)
		t.Logf("%d twice, %d of them by Cicada", len(v.Twice), len(v.Doubled))
		require.LessOrEqual(t, len(v.Doubled), 2)
	}
	require.Equal(t, len(daemon.verdict.Twice), len(daemon.verdict.Doubled),
		"the broker did not crash")
}

// killCicada kills the daemon again and again.
func killCicada(ctx context.Context, r *rocketRun, rnd *rand.Rand) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second + time.Duration(rnd.IntN(7_000))*time.Millisecond):
		}
		r.daemon.Kill()
		if err := r.daemon.Start(); err != nil {
			return err
		}
	}
}

// rocketFull skips what takes minutes.
func rocketFull(t *testing.T) {
	t.Helper()
	if os.Getenv("CICADA_ROCKETMQ") != "full" {
		t.Skip("CICADA_ROCKETMQ=full runs it")
	}
}
