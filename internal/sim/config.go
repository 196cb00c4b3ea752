// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cicadamq/cicada/scheduler"
)

// op is a kind of action of the world.
type op uint8

// The actions. Those before opSend drive the shard, the others are clients, time and trouble.
const (
	opResume op = iota
	opCore
	opCommit
	opSync
	opRead
	opDeliver
	opTimers
	opFlush
	opHydrate
	opDrop
	opIDs
	opSend
	opBatch
	opResend
	opReplace
	opCancel
	opStop
	opReschedule
	opFire
	opGet
	opPurge
	opPause
	opUnpause
	opRetryDead
	opDeleteDead
	opReserve
	opPoll
	opSettle
	opCount
	opTick
	opWake
	opJump
	opCrash
	opPowerLoss
	opLoseDisk
	opDrain
	opBucketDown
	opBucketUp
	opTargetDown
	opTargetUp
	opOpen
	ops
)

var opNames = [ops]string{
	"resume", "core", "commit", "sync", "read", "deliver", "timers", "flush", "hydrate", "drop",
	"ids", "send", "batch", "resend", "replace", "cancel", "stop", "reschedule", "fire", "get",
	"purge", "pause", "unpause", "retry-dead", "delete-dead", "reserve", "poll", "settle", "count",
	"tick", "wake", "jump", "crash", "power-loss", "lose-disk", "drain", "bucket-down",
	"bucket-up", "target-down", "target-up", "open",
}

// Config is what one history is made of. Draw fills it from a seed.
type Config struct {
	Seed    uint64
	Steps   int // of the safety phase
	Bucket  bool
	Options scheduler.Options
	Pushes  int // push lanes
	Queues  int // pull lanes

	Weights [ops]int // how often each action is chosen; 0 is never

	NamedShare  float64 // of messages that carry a client's id
	TierShare   float64 // of messages of durability tier
	OnceShare   float64 // of messages of mode at_most_once
	ExpiryShare float64 // of messages with a ttl
	TargetFault float64 // of attempts that the receiver does not simply take
	BucketFault float64 // of calls of the bucket
	FarShare    float64 // of messages due beyond the horizon

	Verbose bool // print the trace while it grows
	Check   bool // compare the store's counts after every action; slow
	Watch   int  // print where this message is whenever that changes; 0 is none
}

// tierOps are the actions that need a bucket.
var tierOps = [...]op{opFlush, opHydrate, opDrop, opIDs, opBucketDown, opBucketUp, opLoseDisk}

// Draw makes the configuration of a seed: each swarm of options and rates is another world, with
// features left out at random so that the others meet more often.
func Draw(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 0xc0f1))
	c := Config{
		Seed: seed, Steps: 1500, Bucket: r.IntN(6) > 0, Pushes: r.IntN(4), Queues: 1 + r.IntN(3),
	}
	c.Options = drawOptions(r)
	share := func(most float64) float64 {
		if r.IntN(3) == 0 {
			return 0
		}
		return most * r.Float64()
	}
	c.NamedShare, c.TierShare, c.OnceShare = share(1), share(0.5), share(0.2)
	c.ExpiryShare, c.TargetFault = share(0.3), share(0.7)
	c.BucketFault, c.FarShare = share(0.1), share(0.8)
	c.Weights = drawWeights(r)
	if !c.Bucket {
		c.TierShare, c.BucketFault = 0, 0
		for _, o := range tierOps {
			c.Weights[o] = 0
		}
	}
	return c
}

func drawOptions(r *rand.Rand) scheduler.Options {
	pick := func(d ...time.Duration) time.Duration { return d[r.IntN(len(d))] }
	o := scheduler.Options{
		FlushInterval: pick(100*time.Millisecond, time.Second, 10*time.Second),
		MinWait:       pick(time.Millisecond, 2*time.Second, time.Minute),
		Horizon:       pick(5*time.Second, 30*time.Second, 10*time.Minute, 24*time.Hour),
		DropLag:       pick(time.Millisecond, time.Second, time.Minute),
		HotWindow:     pick(200*time.Millisecond, 2*time.Second, time.Minute),
		DedupeWindow:  pick(2*time.Second, 1000*time.Hour, 1000*time.Hour, 1000*time.Hour),
		DeadRetention: pick(2000 * time.Hour),
		Backoff:       pick(10*time.Millisecond, time.Second),
		MaxBackoff:    pick(time.Second, time.Minute),
		MaxAttempts:   [...]uint32{0, 1, 3}[r.IntN(3)],
		Window:        [...]int{1, 3, 1000}[r.IntN(3)],
		ClusterID:     "simulated",
	}
	o.HotWindow = min(o.HotWindow, o.Horizon)
	return o
}

// drawWeights gives every action a rate; a quarter of the clients' and trouble's actions is left
// out.
func drawWeights(r *rand.Rand) (w [ops]int) {
	for o := range opSend {
		w[o] = 20 + r.IntN(100)
	}
	for _, o := range [...]op{opFlush, opHydrate, opDrop, opTimers, opIDs} {
		w[o] = 1 + r.IntN(20)
	}
	for o := opSend; o < opTick; o++ {
		if r.IntN(4) > 0 {
			w[o] = 1 + r.IntN(10)
		}
	}
	w[opSend] += 10
	w[opPoll], w[opSettle] = 2+r.IntN(10), 2+r.IntN(20)
	w[opTick], w[opWake], w[opJump] = 5+r.IntN(20), 5+r.IntN(20), r.IntN(4)
	w[opPurge] = min(w[opPurge], 1)
	for o := opCrash; o <= opDrain; o++ {
		if r.IntN(2) == 0 {
			w[o] = 1
		}
	}
	for o := opBucketDown; o <= opTargetUp; o++ {
		if r.IntN(2) == 0 {
			w[o] = 1 + r.IntN(2)
		}
	}
	w[opBucketUp], w[opTargetUp], w[opUnpause] = 3, 3, 5
	w[opOpen] = 100
	return w
}

// String prints what distinguishes this world from others.
func (c Config) String() string {
	o := c.Options
	var b strings.Builder
	fmt.Fprintf(&b, "seed=%d steps=%d bucket=%v pushes=%d queues=%d\n", c.Seed, c.Steps, c.Bucket,
		c.Pushes, c.Queues)
	fmt.Fprintf(&b, "flush=%v min_wait=%v horizon=%v drop_lag=%v hot=%v dedupe=%v backoff=%v..%v "+
		"attempts=%d window=%d\n", o.FlushInterval, o.MinWait, o.Horizon, o.DropLag, o.HotWindow,
		o.DedupeWindow, o.Backoff, o.MaxBackoff, o.MaxAttempts, o.Window)
	fmt.Fprintf(&b, "named=%.2f tier=%.2f once=%.2f expiry=%.2f target_fault=%.2f "+
		"bucket_fault=%.3f far=%.2f\n", c.NamedShare, c.TierShare, c.OnceShare, c.ExpiryShare,
		c.TargetFault, c.BucketFault, c.FarShare)
	for o, n := range c.Weights {
		fmt.Fprintf(&b, "%s=%d ", opNames[o], n)
	}
	return b.String()
}
