// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cicadamq/cicada/integration/brokers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kafkabench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	messages int // of an intake and of a release
	burst    int
	steady   int // seconds
	repeat   int
	parts    []string
	program  string
	asJSON   bool
}

// parts are the names that -only knows, in their order.
var parts = []string{"intake", "release", "burst", "steady"}

func parse(args []string) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("kafkabench", flag.ContinueOnError)
	flags.IntVar(&o.messages, "messages", 300_000, "of an intake and of a release")
	flags.IntVar(&o.burst, "burst", 100_000, "messages due in one second")
	flags.IntVar(&o.steady, "steady", 20, "seconds of 1,000 messages each")
	flags.IntVar(&o.repeat, "repeat", 3, "how often each rate is measured")
	flags.StringVar(&only, "only", strings.Join(parts, ","), "what to measure")
	flags.StringVar(&o.program, "binary", "", "the program; empty: build it")
	flags.BoolVar(&o.asJSON, "json", false, "print a line of JSON for each row instead of a table")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.parts = strings.Split(only, ",")
	for _, p := range o.parts {
		if !slices.Contains(parts, p) {
			return o, fmt.Errorf("-only: %q is none of %s", p, strings.Join(parts, ", "))
		}
	}
	if o.messages < 1000 || o.burst < 1000 || o.steady < 1 || o.repeat < 1 {
		return o, fmt.Errorf("too few to measure anything")
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "cicada-kafkabench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bar := newBar(os.Stderr, o.steps())
	if o.program == "" {
		bar.step("build the program")
		o.program = filepath.Join(dir, "cicada")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", o.program, "./cmd/cicada")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w: %s", err, text)
		}
	}
	bar.step("start Kafka")
	park := brokers.NewPark(filepath.Join(dir, "brokers"))
	defer park.Close()
	k, err := park.Kafka()
	if err != nil {
		return err
	}
	l := &lab{options: o, dir: dir, seed: k.Addr, bar: bar}
	rows, err := l.measure(ctx)
	bar.end()
	if err != nil {
		return err
	}
	if o.asJSON {
		for _, r := range rows {
			if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	fmt.Print(table(rows))
	return nil
}

// steps is how many steps the run has, for the bar.
func (o options) steps() int {
	n := 2 // Kafka, warm up
	if o.program == "" {
		n++
	}
	for _, p := range o.parts {
		switch p {
		case "intake":
			n += 1 + 4*o.repeat
		case "release":
			n += 3 * o.repeat
		case "burst":
			n += 2
		case "steady":
			n++
		}
	}
	return n
}
