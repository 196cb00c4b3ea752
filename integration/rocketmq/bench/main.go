// SPDX-License-Identifier: Apache-2.0

// Command bench measures Cicada beside a real RocketMQ and prints a table. It needs Java 17 and,
// the first time, Maven, and takes about ten minutes; what is compared runs one after the other on
// the same broker.
//
//	go run ./rocketmq/bench -program ../bin/cicada [-only mirror,rescue,owner]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/rocketmq"
)

const (
	size  = 200 // bytes of a body
	grace = 5 * time.Second
	// longest bounds every wait for something to be done.
	longest = 5 * time.Minute
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	program := flag.String("program", "", "the cicada binary")
	only := flag.String("only", "mirror,rescue,owner", "which parts")
	mirrored := flag.Int("mirrored", 200_000, "messages of the part mirror")
	rescued := flag.Int("rescued", 10_000, "messages of the part rescue")
	burst := flag.Int("burst", 100_000, "messages of the part owner")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{
		program: *program, counts: map[string]int{
			"mirror": *mirrored, "rescue": *rescued, "owner": *burst,
		},
	}
	fmt.Println("| figure | measured |\n|---|---|")
	for part := range strings.SplitSeq(*only, ",") {
		if err := b.run(ctx, part); err != nil {
			return fmt.Errorf("bench %s: %w", part, err)
		}
	}
	return nil
}

type bench struct {
	program string
	counts  map[string]int

	dir     string
	cluster *rocketmq.Cluster
	cicada  *rocketmq.Daemon
}

func row(figure, format string, args ...any) {
	fmt.Printf("| %s | %s |\n", figure, fmt.Sprintf(format, args...))
}

// run starts a cluster for one part.
func (b *bench) run(ctx context.Context, part string) (err error) {
	measure, ok := map[string]func(ctx context.Context, n int) error{
		"mirror": b.mirror, "rescue": b.rescue, "owner": b.owner,
	}[part]
	if !ok {
		return errors.New("want mirror, rescue or owner")
	}
	if b.dir, err = os.MkdirTemp("", "cicada-bench-rocketmq-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	opts := rocketmq.Options{}
	if part != "rescue" { // whose log must expire
		opts = rocketmq.Options{Keep: true, Settings: []string{
			"mappedFileSizeCommitLog=268435456", "messageDelayLevel=1s 2h",
		}}
		if err := os.Setenv("CICADA_ROCKETMQ_HEAP", "2g"); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "%s: starting RocketMQ\n", part)
	if b.cluster, err = rocketmq.Start(ctx, b.dir, opts); err != nil {
		return err
	}
	defer b.cluster.Close()
	b.cicada, err = rocketmq.NewDaemon(rocketmq.DaemonOptions{
		Program: b.program, Dir: filepath.Join(b.dir, "cicada"), NameAddr: b.cluster.NameAddr,
		Guardian: part != "owner", Grace: grace, Source: map[bool]string{true: requests}[part == "owner"],
	})
	if err != nil {
		return err
	}
	defer b.cicada.Kill()
	if err := b.cluster.Prepare(ctx, &rocketmq.Plan{Topics: []string{requests, "far"}}); err != nil {
		return err
	}
	return measure(ctx, b.counts[part])
}

const requests = "requests"

// mirror compares the mirror with a plain loop, and the broker's ingest with and without it.
func (b *bench) mirror(ctx context.Context, n int) error {
	const level = 2 // two hours
	load := func(name string) (float64, error) {
		fmt.Fprintf(os.Stderr, "mirror: sending %d %s\n", n, name)
		took, err := b.cluster.Client.Load(ctx, rocketmq.Load{
			Topic: "far", Name: name, Count: n, Size: size, Level: level,
		})
		return float64(n) / took.Seconds(), err
	}
	if _, err := load("warm"); err != nil {
		return err
	}
	var without, with, plain, mirrored []float64
	for round := range 3 {
		rate, err := load(fmt.Sprint("without", round))
		if err != nil {
			return err
		}
		without = append(without, rate)
		if rate, err = pullAll(ctx, b.cluster.BrokerAddr, level-1, n); err != nil {
			return err
		}
		plain = append(plain, rate)
		// What was sent without the mirror is what it catches up with now.
		before := int64((2*round + 1) * n)
		if round == 0 {
			before = 0
		}
		behind := int64((2*round+2)*n) - before
		began := time.Now()
		if err := b.cicada.Start(); err != nil {
			return err
		}
		ready := time.Since(began)
		if err := b.accepted(ctx, before+behind); err != nil {
			return err
		}
		mirrored = append(mirrored, float64(behind)/(time.Since(began)-ready).Seconds())
		if rate, err = load(fmt.Sprint("with", round)); err != nil {
			return err
		}
		with = append(with, rate)
		began = time.Now()
		if err := b.accepted(ctx, before+behind+int64(n)); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "mirror: %s behind at the end of the load\n", time.Since(began))
		b.cicada.Stop()
	}
	row("plain pull loop on one level's queue, messages/s", "%.0f", plain)
	row("mirror catching up on it, messages/s", "%.0f: %.0f %% of the loop", mirrored,
		100*median(mirrored)/median(plain))
	row("broker's ingest of delays without the mirror, messages/s", "%.0f", without)
	row("broker's ingest of delays with the mirror, messages/s", "%.0f: %.0f %%", with,
		100*median(with)/median(without))
	return nil
}

func median(v []float64) float64 {
	lowest, highest, sum := v[0], v[0], 0.0
	for _, x := range v {
		lowest, highest, sum = min(lowest, x), max(highest, x), sum+x
	}
	if len(v) == 3 {
		return sum - lowest - highest
	}
	return sum / float64(len(v))
}

// accepted returns when the daemon has accepted n messages.
func (b *bench) accepted(ctx context.Context, n int64) error {
	var books rocketmq.Books
	for deadline := time.Now().Add(longest); time.Now().Before(deadline); {
		var err error
		if books, err = b.cicada.Books(ctx); err != nil {
			return err
		}
		if books.Accepted >= n {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d of %d messages were accepted: %s", books.Accepted, n, b.cicada.Log())
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// rescue lets the log expire under timers that are due within one second.
func (b *bench) rescue(ctx context.Context, n int) error {
	if err := b.cicada.Start(); err != nil {
		return err
	}
	if err := b.consume(ctx, "lost"); err != nil {
		return err
	}
	due := time.Now().Add(100 * time.Second)
	if _, err := b.cluster.Client.Load(ctx, rocketmq.Load{
		Topic: "lost", Name: "lost", Count: n, Size: size, Due: due.UnixMilli(), Spread: time.Second,
	}); err != nil {
		return err
	}
	ends, err := b.cluster.Bury(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "rescue: expiring the log")
	if err := b.cluster.Expire(ctx, ends); err != nil {
		return err
	}
	if time.Now().After(due) {
		return errors.New("the log expired too late")
	}
	fmt.Fprintf(os.Stderr, "rescue: due in %s\n", time.Until(due))
	t, err := b.arrived(ctx, n, due)
	if err != nil {
		return err
	}
	earliest := (2 * grace).Milliseconds()
	row(fmt.Sprintf("rescue of %d lost timers due in one second: after due + 2 graces", n),
		"p50 %d ms, p99 %d ms, max %d ms; %d arrived, %d twice, %d early", t.P50-earliest,
		t.P99-earliest, t.Max-earliest, t.Arrived, t.Twice, t.Early)
	return nil
}

// owner compares the broker's timer wheel with Cicada as the only deliverer.
func (b *bench) owner(ctx context.Context, n int) error {
	var p99 [2]int64
	for i, who := range []string{"wheel", "owner", "wheel", "owner"} {
		if i == 1 {
			if err := b.cicada.Start(); err != nil {
				return err
			}
		}
		topic := fmt.Sprint("burst-", i)
		if err := b.consume(ctx, topic); err != nil {
			return err
		}
		load := rocketmq.Load{
			Topic: topic, Name: topic, Count: n, Size: size, Spread: time.Second,
			Due: time.Now().Add(45 * time.Second).UnixMilli(),
		}
		if who == "owner" {
			load.Topic, load.Target = requests, "rocketmq:rmq/"+topic
		}
		took, err := b.cluster.Client.Load(ctx, load)
		if err != nil {
			return err
		}
		if took > 40*time.Second {
			return fmt.Errorf("the load took %s: send fewer", took)
		}
		t, err := b.arrived(ctx, n, time.UnixMilli(load.Due))
		if err != nil {
			return err
		}
		row(fmt.Sprintf("%d due in one second, %s", n, map[string]string{
			"wheel": "the broker's timer wheel", "owner": "Cicada in owner mode",
		}[who]), "p50 %d ms, p99 %d ms, max %d ms; %d arrived, %d twice, %d early", t.P50, t.P99,
			t.Max, t.Arrived, t.Twice, t.Early)
		if i >= 2 {
			p99[i-2] = t.P99
		}
	}
	row("p99 of the wheel over that of Cicada, second round", "%.1f",
		float64(p99[0])/float64(max(p99[1], 1)))
	return nil
}

// consume begins to count what arrives in a topic.
func (b *bench) consume(ctx context.Context, topic string) error {
	c := b.cluster.Client
	if err := b.cluster.Prepare(ctx, &rocketmq.Plan{Topics: []string{topic}}); err != nil {
		return err
	}
	if err := c.Subscribe(ctx, "count-"+topic, true, topic); err != nil {
		return err
	}
	_, err := c.Tally(ctx, true)
	return err
}

// arrived waits for n messages that are due from due on.
func (b *bench) arrived(ctx context.Context, n int, due time.Time) (t rocketmq.Tally, err error) {
	for deadline := due.Add(longest); time.Now().Before(deadline) && t.Arrived < n; {
		if err = pause(ctx, time.Second); err == nil {
			t, err = b.cluster.Client.Tally(ctx, false)
		}
		if err != nil {
			return t, err
		}
	}
	if err := pause(ctx, 3*time.Second); err != nil { // what comes twice
		return t, err
	}
	if t, err = b.cluster.Client.Tally(ctx, true); err == nil && t.Arrived < n {
		err = fmt.Errorf("%d of %d messages arrived", t.Arrived, n)
	}
	return t, err
}
