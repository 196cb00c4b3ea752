// SPDX-License-Identifier: Apache-2.0

// Command demo shows what RocketMQ loses, and that Cicada beside it loses nothing: two brokers of
// their own get the same delayed messages, and the log of both expires before these are due. It
// needs Java 17 and, the first time, Maven; it takes about three minutes and leaves nothing behind.
//
//	go run ./rocketmq/demo -program ../bin/cicada
//
// Progress goes to stderr, the result to stdout. It exits with 1 when the result is another one.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/rocketmq"
)

// grace is how long Cicada leaves a due message to the broker, and then watches a lost one.
const grace = 2 * time.Second

// settle is how long after the last due everything has arrived.
const settle = 45 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo-rocketmq:", err)
		os.Exit(1)
	}
}

func run() error {
	program := flag.String("program", "", "the cicada binary; without it RocketMQ runs alone")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "what the messages look like")
	n := flag.Int("n", 20, "delay-level messages and timers of each kind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{began: time.Now(), out: os.Stdout, seed: *seed, n: *n, program: *program}
	return d.run(ctx)
}

type demo struct {
	began   time.Time
	out     io.Writer
	program string
	seed    uint64
	n       int
}

// side is one of the two brokers.
type side struct {
	name    string
	dir     string
	plan    *rocketmq.Plan
	cluster *rocketmq.Cluster
	cicada  *rocketmq.Daemon // nil without
	verdict *rocketmq.Verdict
}

func (d *demo) say(format string, args ...any) {
	since := time.Since(d.began)
	fmt.Fprintf(os.Stderr, "  %d:%02d  %s\n", int(since.Minutes()), int(since.Seconds())%60,
		fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "cicada-demo-rocketmq-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sides := []*side{{name: "alone", dir: filepath.Join(dir, "alone")}}
	if d.program != "" {
		sides = append(sides, &side{name: "with Cicada", dir: filepath.Join(dir, "beside")})
	}
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	d.say("starting %d brokers of RocketMQ 5.3.3 (seed %d)", len(sides), d.seed)
	if err := each(sides, func(s *side) error { return d.start(ctx, s) }); err != nil {
		return err
	}
	plan := sides[0].plan
	d.say("sending %d delayed messages to each, early and late, and enough others to fill its log",
		len(plan.Orders))
	d.say("the broker expires old files of its log a minute after its start, at the earliest")
	if err := each(sides, func(s *side) error { return s.cluster.Run(ctx, s.plan) }); err != nil {
		return err
	}
	last := time.UnixMilli(rocketmq.LastDue(plan.Orders))
	d.say("the log has expired; the last message is due in %d s", int(time.Until(last).Seconds()))
	err = each(sides, func(s *side) (err error) {
		longest := settle
		if s.cicada == nil {
			longest = 8 * time.Second
		}
		s.verdict, err = s.cluster.Await(ctx, s.plan, 8*time.Second, longest,
			rocketmq.Early, rocketmq.Doomed, rocketmq.Late)
		return err
	})
	if err != nil {
		return err
	}
	d.say("all have been due\n")
	return d.tell(ctx, sides)
}

// each calls fn for all sides at once.
func each(sides []*side, fn func(s *side) error) error {
	errs := make([]error, len(sides))
	var wg sync.WaitGroup
	for i, s := range sides {
		wg.Go(func() { errs[i] = fn(s) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *demo) start(ctx context.Context, s *side) (err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	s.plan = rocketmq.NewPlan(d.seed, d.n)
	if s.cluster, err = rocketmq.Start(ctx, s.dir, rocketmq.Options{}); err != nil {
		return err
	}
	if err := s.cluster.Prepare(ctx, s.plan); err != nil || s.name == "alone" {
		return err
	}
	s.cicada, err = rocketmq.NewDaemon(rocketmq.DaemonOptions{
		Program: d.program, Dir: filepath.Join(s.dir, "cicada"), NameAddr: s.cluster.NameAddr,
		Guardian: true, Grace: grace,
	})
	if err != nil {
		return err
	}
	d.say("starting Cicada beside the second")
	return s.cicada.Start()
}

func (s *side) close() {
	if s.cicada != nil {
		s.cicada.Stop()
	}
	if s.cluster != nil {
		s.cluster.Close()
	}
}

// tell prints what became of the messages, and is an error when it is not what should have.
func (d *demo) tell(ctx context.Context, sides []*side) error {
	fmt.Fprint(d.out, `Delay-level messages and timers, one half each. Those of the second row were due after the file
of the commit log that they lie in had expired.

`)
	fmt.Fprintf(d.out, "%-27s", "")
	for _, s := range sides {
		fmt.Fprintf(d.out, "   %-31s", "RocketMQ "+s.name)
	}
	fmt.Fprintf(d.out, "\n%-20s %6s", "", "sent")
	for range sides {
		fmt.Fprintf(d.out, "   %7s %5s %6s %10s", "arrived", "lost", "twice", "by Cicada")
	}
	fmt.Fprintln(d.out)
	for _, row := range []struct {
		name string
		part rocketmq.Part
	}{
		{"due before it expired", rocketmq.Early}, {"in what expired", rocketmq.Doomed},
		{"in what stayed", rocketmq.Late}, {"recalled timers", rocketmq.Recalled},
	} {
		fmt.Fprintf(d.out, "%-21s %5d", row.name, sides[0].verdict.Sum(row.part).Sent)
		for _, s := range sides {
			c := s.verdict.Sum(row.part)
			lost := fmt.Sprint(c.Sent - c.Delivered)
			if row.part == rocketmq.Recalled {
				lost = "-"
			}
			fmt.Fprintf(d.out, "   %7d %5s %6d %10d", c.Delivered, lost, c.Twice, c.ByCicada)
		}
		fmt.Fprintln(d.out)
	}
	if trace := traces(sides[0].dir); len(trace) > 0 {
		fmt.Fprintf(d.out, "\nAll that RocketMQ logged of what it lost (%d lines, none names a message):\n",
			len(trace))
		for _, line := range trace[:min(len(trace), 3)] {
			fmt.Fprintln(d.out, "  "+line)
		}
	}
	if len(sides) > 1 {
		b, err := sides[1].cicada.Books(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(d.out, "\nThe books of Cicada: %d guarded; %d delivered by the broker, %d recalled, %d rescued.\n",
			b.Accepted, b.Suppressed, b.Cancelled, b.Delivered)
	}
	return check(sides)
}

// check is an error when a side did not end as it should.
func check(sides []*side) error {
	var errs []error
	for _, s := range sides {
		v, doomed := s.verdict, s.verdict.Sum(rocketmq.Doomed)
		lost := 0
		if s.cicada == nil {
			lost = doomed.Sent
		}
		if len(v.Lost) != lost || len(v.Twice) > 0 || len(v.Wrong) > 0 {
			errs = append(errs, fmt.Errorf("%s: %d lost instead of %d, %d twice, wrong: %v", s.name,
				len(v.Lost), lost, len(v.Twice), v.Wrong))
		}
	}
	return errors.Join(errs...)
}

// traces are the lines of a broker's log that its losses left.
func traces(dir string) (lines []string) {
	for _, name := range []string{"broker.log", "store.log", "storeerror.log", "broker_default.log"} {
		f, err := os.Open(filepath.Join(dir, "logs", "rocketmqlogs", name))
		if err != nil {
			continue
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			if strings.Contains(in.Text(), "schedule CQ offset invalid") ||
				strings.Contains(in.Text(), "Fail to read msg from commitLog") {
				lines = append(lines, in.Text()[:min(len(in.Text()), 150)])
			}
		}
		_ = f.Close()
	}
	return lines
}
