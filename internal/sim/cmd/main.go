// SPDX-License-Identifier: Apache-2.0

// Command cmd plays simulated histories with faults: go run ./internal/sim/cmd -seeds 1000
//
//	-seeds n   how many (50)
//	-from n    the first seed (1)
//	-profile p owners, gc or purges: histories that like a part of the product
//	-steps n   actions of the phase with faults (as the seed draws)
//	-v         print a line for every seed
//
// It prints the first broken promise and exits 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cicadamq/cicada/internal/sim"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

func main() {
	seeds := flag.Uint64("seeds", 50, "how many seeds to play")
	from := flag.Uint64("from", 1, "the first seed")
	profile := flag.String("profile", "", "what the histories like: owners, gc, purges, or everything")
	steps := flag.Int("steps", 0, "actions of the phase with faults; 0: as drawn")
	verbose := flag.Bool("v", false, "print a line for every seed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := play(ctx, *from, *seeds, *steps, swarm.Profile(*profile), *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// twiceEvery is which part of the seeds is played twice, to see the same history (W2).
const twiceEvery = 20

// shrinkRuns bounds the search for a smaller history.
const shrinkRuns = 100

func play(
	ctx context.Context, from, seeds uint64, steps int, profile swarm.Profile, verbose bool,
) error {
	start := time.Now()
	var sum swarm.Stats
	for seed := from; seed < from+seeds; seed++ {
		cfg := swarm.DrawProfile(seed, profile)
		if steps > 0 {
			cfg.Steps = steps
		}
		stats, err := sim.Run(ctx, cfg)
		if f := new(sim.Failure); errors.As(err, &f) {
			fmt.Fprintf(os.Stderr, "%v\n\nlooking for a smaller history\n", f)
			return f.Smaller(shrinkRuns, func(c swarm.Config) error {
				_, err := sim.Run(ctx, c)
				return err
			})
		}
		if err != nil {
			return err
		}
		if seed%twiceEvery == 0 {
			again, _ := sim.Run(ctx, cfg)
			if ctx.Err() == nil && again.Hash != stats.Hash {
				return fmt.Errorf("seed %d: played twice, the histories differ: %x and %x", seed,
					stats.Hash, again.Hash)
			}
		}
		sum.Add(stats)
		if verbose {
			fmt.Printf("seed %d: hash %x %+v\n", seed, stats.Hash, stats)
		}
	}
	took := time.Since(start)
	fmt.Printf("%d seeds, %d steps (%.0f/s), %d messages, %d attempts (%d repeated), %d starts, "+
		"%d disks lost, %d ids (%d raced, %d undecided), %v of virtual time: all promises kept\n",
		seeds, sum.Steps,
		float64(sum.Steps)/took.Seconds(), sum.Messages, sum.Attempts, sum.Duplicates, sum.Boots,
		sum.Disks, sum.Registers, sum.Raced, sum.Undecided, sum.Virtual.Round(time.Hour))
	return nil
}
