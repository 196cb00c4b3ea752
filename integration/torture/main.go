// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/torture/client"
	"github.com/cicadamq/cicada/integration/torture/history"
	"github.com/cicadamq/cicada/integration/torture/supervisor"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := dispatch(ctx, args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return max(code, 1)
	}
	return code
}

// part runs a part of a torture that is a process of its own, and reports whether args name one.
func part(ctx context.Context, args []string) (bool, error) {
	switch {
	case len(args) > 0 && args[0] == "client":
		return true, work(ctx, args[1:])
	case len(args) == 3 && args[0] == "gateway":
		return true, supervisor.Gateway(ctx, args[1], args[2])
	}
	return false, nil
}

func dispatch(ctx context.Context, args []string) (int, error) {
	if is, err := part(ctx, args); is {
		return 0, err
	}
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	length := flags.Duration("for", time.Minute, "how long faults happen")
	round := flags.Duration("round", time.Minute, "length of a round: each has its own seed")
	seed := flags.Uint64("seed", 1, "of the first round; the next ones count up")
	store := flags.String("store", "versity", "file, versity or minio")
	faults := flags.String("faults", "", "some of "+strings.Join(supervisor.Faults(), ",")+
		`; empty: each round has its own`)
	clients := flags.Int("clients", 4, "processes")
	pause := flags.Duration("pause", 2*time.Millisecond, "between two calls of a client, on average")
	program := flags.String("binary", "", "the program, built with the tag torture; empty: build it")
	keep := flags.Bool("keep", false, "keep the directories of good rounds, too")
	if err := flags.Parse(args); err != nil {
		return 2, err
	}
	if flags.NArg() > 0 {
		return 2, fmt.Errorf("what is %q?", flags.Args())
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "cicada-torture-")
	if err != nil {
		return 1, err
	}
	if *program == "" {
		if *program, err = supervisor.Build(dir, "torture"); err != nil {
			return 1, err
		}
	}
	code := 0
	for left, n := *length, uint64(0); left > 0 && ctx.Err() == nil; n++ {
		opts := supervisor.Options{
			For: min(left, *round), Seed: *seed + n, Store: *store, Clients: *clients, Pause: *pause,
			Program: *program, Self: []string{self}, Dir: filepath.Join(dir, fmt.Sprint(*seed+n)),
			Faults: faultsOf(*faults, *seed+n),
			Progress: func(s string) {
				fmt.Fprintf(os.Stderr, "%s seed %d: %s\n", time.Now().Format("15:04:05"), *seed+n, s)
			},
		}
		left -= opts.For
		result, err := supervisor.Run(ctx, opts)
		if err != nil {
			return 1, fmt.Errorf("seed %d, see %s: %w", opts.Seed, opts.Dir, err)
		}
		line, err := json.Marshal(result)
		if err != nil {
			return 1, err
		}
		fmt.Println(string(line))
		if len(result.Violations) > 0 {
			code = 1
			for _, v := range result.Violations[:min(len(result.Violations), 5)] {
				fmt.Fprintln(os.Stderr, v)
			}
			fmt.Fprintf(os.Stderr, "seed %d: %d violations; everything is in %s\n", opts.Seed,
				len(result.Violations), opts.Dir)
		} else if !*keep {
			if err := os.RemoveAll(opts.Dir); err != nil {
				return 1, err
			}
		}
	}
	if code == 0 && !*keep {
		return 0, os.RemoveAll(dir)
	}
	return code, nil
}

// faultsOf is what a round draws from: what was asked for, or one of several mixtures, because some
// faults forgive others: after the loss of a disk less is promised.
func faultsOf(asked string, seed uint64) []string {
	if asked != "" {
		return strings.Split(asked, ",")
	}
	mixtures := [][]string{
		{"kill", "bucket", "client"}, {"kill", "stop", "term"}, {"kill", "restore", "bucket"},
		{"kill", "clock"}, {"kill", "disk", "term"}, {"term"}, {"kill"},
		{"kill", "stop", "bucket", "restore", "term", "client"},
	}
	return mixtures[seed%uint64(len(mixtures))]
}

// work is the process of one client. It ends when its stdin does.
func work(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	opts := client.Options{}
	flags.StringVar(&opts.Name, "name", "", "")
	flags.Uint64Var(&opts.Seed, "seed", 0, "")
	flags.IntVar(&opts.Tier, "tier", 0, "")
	flags.DurationVar(&opts.Pause, "pause", 0, "")
	logs, daemon := flags.String("logs", "", ""), flags.String("daemon", "", "")
	hooks := flags.String("hooks", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	opts.Hooks = strings.Split(*hooks, ",")
	log, err := history.Create(*logs, opts.Name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return client.Run(ctx, client.NewAPI(log, *daemon), opts)
}
