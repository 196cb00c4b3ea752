// SPDX-License-Identifier: Apache-2.0

// Package swarm draws what a simulated history is made of: the seed decides options, rates and
// which features are left out. It holds plain values and is safe for concurrent use.
package swarm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
)

// Op is a kind of action of the world.
type Op uint8

// The actions. Those before Send drive the shard, the others are clients, time and trouble.
const (
	Resume Op = iota
	Core
	Commit
	Sync
	Read
	Deliver
	Timers
	Flush
	Hydrate
	Drop
	IDs
	Compact
	Collect
	Sweep
	Bulk // bulk cancels
	Send
	Batch
	Resend
	Replace
	Cancel
	Stop
	Reschedule
	Fire
	Get
	Purge
	Pause
	Unpause
	RetryDead
	DeleteDead
	Reserve
	Poll
	Settle
	Count
	Race
	Recur // something about recurring schedules
	Limit // the limit of a target
	Tick
	Wake
	Jump
	Age
	Crash
	PowerLoss
	LoseDisk
	Drain
	BucketDown
	BucketUp
	TargetDown
	TargetUp
	Open
	Join
	Freeze
	Thaw
	Cut
	Mend
	KillOld
	OldDisk
	Stray
	Vanish
	Return
	Step    // the wall clock steps
	Confirm // somebody confirms the clock
	Ops
)

var opNames = [Ops]string{
	"resume", "core", "commit", "sync", "read", "deliver", "timers", "flush", "hydrate", "drop",
	"ids", "compact", "collect", "sweep", "bulk", "send", "batch", "resend", "replace", "cancel",
	"stop", "reschedule", "fire", "get", "purge", "pause", "unpause", "retry-dead", "delete-dead",
	"reserve", "poll", "settle", "count", "race",
	"recur", "limit", "tick", "wake", "jump", "age", "crash", "power-loss",
	"lose-disk", "drain", "bucket-down", "bucket-up", "target-down", "target-up", "open", "join",
	"freeze", "thaw", "cut", "mend", "kill-old", "old-disk", "stray", "vanish", "return",
	"step", "confirm",
}

// Config is what one history is made of. Draw fills it from a seed.
type Config struct {
	Seed    uint64
	Profile Profile
	Steps   int // of the safety phase
	Bucket  bool
	Options scheduler.Options
	Pushes  int // push lanes
	Queues  int // pull lanes

	Weights [Ops]int // how often each action is chosen; 0 is never

	NamedShare  float64 // of messages that carry a client's id
	TierShare   float64 // of messages of durability tier
	OnceShare   float64 // of messages of mode at_most_once
	ExpiryShare float64 // of messages with a ttl
	TargetFault float64 // of attempts that the receiver does not simply take
	BucketFault float64 // of calls of the bucket
	FarShare    float64 // of messages due beyond the horizon

	Schedules int // recurring ones at a time; 0 is none

	Racers   int  // calls about raced ids that may be under way at once
	Poisoned bool // the first push target refuses everything until the end
	Hot      int  // ids that are raced for at once

	LongStep     time.Duration // the largest step of the wall clock
	Grace        time.Duration // from "no longer listed" to deleted
	StoreSkew    time.Duration // what the store's clock is ahead of the true time
	SegmentBytes int

	Without []string // what Shrink left out

	Verbose bool // print the trace while it grows
	Check   bool // compare the store's counts after every action; slow
	Watch   int  // print where this message is whenever that changes; 0 is none
}

// Profile is the part of the product that a history likes.
type Profile string

// The profiles.
const (
	Everything Profile = ""          // a little of all
	Owners     Profile = "owners"    // several owners of one shard (R10 to R12)
	GC         Profile = "gc"        // compaction and garbage collection
	Purges     Profile = "purges"    // bulk cancels of cold messages (R6)
	Clocks     Profile = "clocks"    // a wall clock that steps (R21)
	Races      Profile = "races"     // clients that race for ids around their due (S5)
	Schedules  Profile = "schedules" // recurring schedules and limits of targets (R20, S9)
)

// Profiles are all of them.
func Profiles() []Profile {
	return []Profile{Everything, Owners, GC, Purges, Races, Clocks, Schedules}
}

// profile adds what the profile likes; one in four of the ordinary histories has it too.
func (c *Config) profile(r *rand.Rand) {
	if owners := r.IntN(4) == 0; owners || c.Profile == Owners {
		c.drawOwners(r)
	}
	if gc := r.IntN(4) == 0; gc || c.Profile == GC {
		c.drawGC(r)
	}
	if c.Profile == Purges {
		c.drawPurges(r)
	}
	if c.Profile != Everything {
		c.Bucket = true
	}
}

// drawPurges makes much of what is accepted cold soon, and has it purged now and then.
func (c *Config) drawPurges(r *rand.Rand) {
	pick := func(d ...time.Duration) time.Duration { return d[r.IntN(len(d))] }
	o, w := &c.Options, &c.Weights
	o.FlushInterval = pick(100*time.Millisecond, time.Second)
	o.MinWait, o.DropLag = time.Millisecond, pick(time.Millisecond, time.Second)
	o.Horizon = pick(30*time.Second, 10*time.Minute, 10*time.Minute)
	o.HotWindow = min(o.HotWindow, o.Horizon)
	c.FarShare, c.BucketFault = 0.6+0.4*r.Float64(), c.BucketFault*float64(r.IntN(2))
	w[Purge], w[Bulk], w[Send] = 1+r.IntN(3), 1+r.IntN(40), 20
	w[Flush], w[Hydrate], w[Drop] = 20+r.IntN(40), 20+r.IntN(40), 20+r.IntN(40)
	w[Jump], w[BucketDown] = min(w[Jump], 1), min(w[BucketDown], 1)
}

// drawGC makes objects small, windows short and days long, so that much of what was uploaded comes
// to its end within the history. The clocks of store and shard differ.
func (c *Config) drawGC(r *rand.Rand) {
	pick := func(d ...time.Duration) time.Duration { return d[r.IntN(len(d))] }
	o, w := &c.Options, &c.Weights
	o.DedupeWindow = pick(2*time.Second, time.Minute, time.Hour)
	o.DeadRetention = pick(time.Minute, 100*time.Hour)
	c.Grace = pick(time.Second, time.Minute, time.Hour)
	c.StoreSkew = pick(0, 0, -100*time.Hour, -time.Minute, time.Hour, 100*time.Hour)
	c.SegmentBytes = [...]int{200, 1 << 10, 4 << 10}[r.IntN(3)]
	o.Compact = tiered.CompactLimits{
		Objects: 1 + r.IntN(4), Overlap: 1 + r.IntN(3), TargetBytes: 200 << r.IntN(6),
		LeastBytes: 100 << r.IntN(6),
	}
	w[Flush], w[Age] = w[Flush]+10, 1
	w[Compact], w[Collect], w[Sweep] = 5+r.IntN(20), 5+r.IntN(20), 5+r.IntN(10)
	w[Cancel], w[Reschedule] = 3+r.IntN(10), 3+r.IntN(10)
	for _, o := range [...]Op{Crash, PowerLoss, LoseDisk} {
		w[o] = r.IntN(3)
	}
}

// drawOwners gives the actions about owners their rates.
func (c *Config) drawOwners(r *rand.Rand) {
	w := &c.Weights
	w[Join], w[KillOld] = 1+r.IntN(2), 1
	for o := Freeze; o <= Return; o++ {
		if r.IntN(2) == 0 {
			w[o] = 1
		}
	}
	w[Thaw], w[Mend], w[Return] = 2, 2, 4
}

// tierOps are the actions that need a bucket.
var tierOps = [...]Op{
	Flush, Hydrate, Drop, IDs, BucketDown, BucketUp, LoseDisk, Join, Freeze, Thaw,
	Cut, Mend, KillOld, OldDisk, Stray, Vanish, Return, Compact, Collect, Sweep,
	Bulk,
}

// Draw makes the configuration of a seed: each swarm of options and rates is another world, with
// features left out at random so that the others meet more often.
func Draw(seed uint64) Config { return DrawProfile(seed, Everything) }

// DrawProfile is Draw with a liking for one part of the product.
func DrawProfile(seed uint64, p Profile) Config {
	r := rand.New(rand.NewPCG(seed, 0xc0f1))
	c := Config{
		Seed: seed, Profile: p, Steps: 1500, Bucket: r.IntN(6) > 0, Pushes: r.IntN(4),
		Queues: 1 + r.IntN(3),
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
	c.Grace, c.SegmentBytes = 24*time.Hour, 4<<10
	c.profile(r)
	c.likes()
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
func drawWeights(r *rand.Rand) (w [Ops]int) {
	for o := range Send {
		w[o] = 20 + r.IntN(100)
	}
	for _, o := range [...]Op{Flush, Hydrate, Drop, Timers, IDs, Compact, Collect,
		Sweep, Bulk} {
		w[o] = 1 + r.IntN(20)
	}
	for o := Send; o < Race; o++ {
		if r.IntN(4) > 0 {
			w[o] = 1 + r.IntN(10)
		}
	}
	w[Send] += 10
	w[Poll], w[Settle] = 2+r.IntN(10), 2+r.IntN(20)
	w[Tick], w[Wake], w[Jump] = 5+r.IntN(20), 5+r.IntN(20), r.IntN(4)
	w[Purge] = min(w[Purge], 1)
	for o := Crash; o <= Drain; o++ {
		if r.IntN(2) == 0 {
			w[o] = 1
		}
	}
	for o := BucketDown; o <= TargetUp; o++ {
		if r.IntN(2) == 0 {
			w[o] = 1 + r.IntN(2)
		}
	}
	w[BucketUp], w[TargetUp], w[Unpause] = 3, 3, 5
	w[Open] = 100
	return w
}

// String prints what distinguishes this world from others.
func (c Config) String() string {
	o := c.Options
	var b strings.Builder
	fmt.Fprintf(&b, "seed=%d profile=%q steps=%d bucket=%v pushes=%d queues=%d\n", c.Seed,
		c.Profile, c.Steps, c.Bucket, c.Pushes, c.Queues)
	fmt.Fprintf(&b, "flush=%v min_wait=%v horizon=%v drop_lag=%v hot=%v dedupe=%v backoff=%v..%v "+
		"attempts=%d window=%d\n", o.FlushInterval, o.MinWait, o.Horizon, o.DropLag, o.HotWindow,
		o.DedupeWindow, o.Backoff, o.MaxBackoff, o.MaxAttempts, o.Window)
	l := o.Compact
	fmt.Fprintf(&b, "grace=%v store_skew=%v segment=%d dead=%v compact=%d/%d/%d/%d\n", c.Grace,
		c.StoreSkew, c.SegmentBytes, o.DeadRetention, l.Objects, l.Overlap, l.TargetBytes,
		l.LeastBytes)
	fmt.Fprintf(&b, "named=%.2f tier=%.2f once=%.2f expiry=%.2f target_fault=%.2f "+
		"bucket_fault=%.3f far=%.2f\n", c.NamedShare, c.TierShare, c.OnceShare, c.ExpiryShare,
		c.TargetFault, c.BucketFault, c.FarShare)
	for o, n := range c.Weights {
		fmt.Fprintf(&b, "%s=%d ", opNames[o], n)
	}
	return b.String()
}

// rates names the chances of a configuration.
func (c *Config) rates() map[string]*float64 {
	return map[string]*float64{
		"named": &c.NamedShare, "tier": &c.TierShare, "once": &c.OnceShare,
		"expiry": &c.ExpiryShare, "target-faults": &c.TargetFault,
		"bucket-faults": &c.BucketFault, "far": &c.FarShare,
	}
}

// Leavable names what can be left out of a configuration.
func Leavable() []string {
	var names []string
	for o := Send; o < Ops; o++ {
		switch o {
		case Tick, Wake, Open, BucketUp, TargetUp, Thaw, Mend, Return, Confirm:
		default:
			names = append(names, opNames[o])
		}
	}
	return append(names, "named", "tier", "once", "expiry", "target-faults", "bucket-faults", "far")
}

// LeaveOut takes an action or a chance out. It reports whether it was there.
func (c *Config) LeaveOut(name string) bool {
	if rate, ok := c.rates()[name]; ok {
		was := *rate > 0
		*rate = 0
		return was
	}
	i := slices.Index(opNames[:], name)
	if i < 0 || c.Weights[i] == 0 {
		return false
	}
	c.Weights[i] = 0
	return true
}

// Reduce makes of c what Shrink printed: steps (0: as they are), and a list of what is left out.
func (c *Config) Reduce(steps int, without string) {
	if steps > 0 {
		c.Steps = steps
	}
	for _, name := range strings.FieldsFunc(without, func(r rune) bool { return r == ',' }) {
		c.Without = append(c.Without, name)
		c.LeaveOut(name)
	}
}

// String is the word of the trace.
func (o Op) String() string { return opNames[o] }
