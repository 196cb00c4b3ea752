// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/bench"
	"github.com/cicadamq/cicada/internal/ctl/child"
	"github.com/cicadamq/cicada/internal/ctl/client"
)

const benchHelp = `Measure a daemon through its public API. Prints one JSON object on one line.

  cicada bench --messages 1e6 --size 200 --batch 100 --due 1h..30d --json
  cicada bench --single --messages 1e5
  cicada bench --spike 100000 --in 10s --json
  cicada bench --rate 1000 --messages 60000

Starts a daemon of its own in a temporary directory (arguments after -- go to it) unless
--server is given on this command line. Exit status 1 when something was lost or early.`

type benchFlags struct {
	messages, due, encoding, ids, order string
	spike                               string
	rate                                float64
	size, batch, connections            int
	in, quiet                           time.Duration
	single                              bool
	seed                                uint64
}

func (a *app) bench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure a daemon", Long: benchHelp,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 && cmd.ArgsLenAtDash() != 0 {
				return usagef("bench takes no arguments; those after -- go to its daemon")
			}
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVar(&f.messages, "messages", "1e6", "how many")
	s.IntVar(&f.size, "size", 200, "bytes of a body")
	s.IntVar(&f.batch, "batch", 100, "messages a request")
	s.StringVar(&f.due, "due", "1h..30d", "dues, from now: one delay or a range")
	s.IntVar(&f.connections, "connections", 0, "at the same time; default 16, with --single 64")
	s.StringVar(&f.encoding, "encoding", "json", "json, ndjson or protobuf")
	s.StringVar(&f.ids, "ids", "server", "server or client: who makes them")
	s.StringVar(&f.order, "order", "random", "random or in-order: the dues as they are sent")
	s.BoolVar(&f.single, "single", false, "one message a request")
	s.StringVar(&f.spike, "spike", "", "this many messages due at one instant, pulled by 4")
	s.DurationVar(&f.in, "in", 10*time.Second, "with --spike: the instant, from now")
	s.Float64Var(&f.rate, "rate", 0, "messages a second, pulled by 4, instead of intake")
	s.DurationVar(&f.quiet, "quiet", 20*time.Second, "give up when nothing comes for this long")
	s.Uint64Var(&f.seed, "seed", 1, "of the generator")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		plan, err := a.plan(&f)
		if err != nil {
			return err
		}
		return a.runBench(cmd.Context(), plan, given)
	}
	return cmd
}

// benchPlan is a checked command line: one of the two measurements.
type benchPlan struct {
	ingest   *bench.Ingest
	delivery *bench.Delivery
}

// maxMessages bounds a run; ids of a delivery are kept in memory.
const maxMessages = 1e10

func number(name, s string) (int64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 1 || v > maxMessages || v != math.Trunc(v) {
		return 0, usagef("--%s %s: want a whole number from 1, such as 100000 or 1e6", name, s)
	}
	return int64(v), nil
}

func (a *app) plan(f *benchFlags) (benchPlan, error) {
	count, flag := f.messages, "messages"
	if f.spike != "" {
		count, flag = f.spike, "spike"
	}
	n, err := number(flag, count)
	if err != nil {
		return benchPlan{}, err
	}
	switch {
	case f.size < 0 || f.size > delay.MaxBodyBytes:
		return benchPlan{}, usagef("--size: want 0 to %d", delay.MaxBodyBytes)
	case f.batch < 1 || f.batch > 10_000:
		return benchPlan{}, usagef("--batch: want 1 to 10000")
	case f.connections < 0 || f.connections > 1024:
		return benchPlan{}, usagef("--connections: want 1 to 1024")
	case f.spike != "" && f.rate != 0:
		return benchPlan{}, usagef("--spike and --rate exclude each other")
	case f.rate < 0 || f.spike != "" && f.in <= 0:
		return benchPlan{}, usagef("--rate and --in must be positive")
	}
	queue := "bench-" + strconv.FormatInt(a.Now().UnixMilli(), 36)
	if f.spike != "" || f.rate > 0 {
		d := &bench.Delivery{
			Messages: n, Size: f.size, Rate: f.rate, Batch: f.batch, Queue: queue, Seed: f.seed,
			Quiet: f.quiet, Now: a.Now,
		}
		if f.spike != "" {
			d.In = f.in
		}
		return benchPlan{delivery: d}, nil
	}
	in, err := a.planIngest(f, n, queue)
	return benchPlan{ingest: in}, err
}

func (a *app) planIngest(f *benchFlags, n int64, queue string) (*bench.Ingest, error) {
	encoding, err := bench.ParseEncoding(f.encoding)
	if err != nil {
		return nil, usagef("%v", err)
	}
	from, to, err := dueRange(f.due)
	if err != nil {
		return nil, err
	}
	if f.ids != "server" && f.ids != "client" {
		return nil, usagef("--ids %s: want server or client", f.ids)
	}
	if f.order != "random" && f.order != "in-order" {
		return nil, usagef("--order %s: want random or in-order", f.order)
	}
	if f.single && encoding == bench.NDJSON {
		return nil, usagef("--single and --encoding ndjson exclude each other")
	}
	connections := f.connections
	switch {
	case connections == 0 && f.single:
		connections = 64
	case connections == 0:
		connections = 16
	}
	return &bench.Ingest{
		Messages: n, Size: f.size, Batch: f.batch, DueFrom: from, DueTo: to,
		Connections: connections, Encoding: encoding, ClientIDs: f.ids == "client",
		InOrder: f.order == "in-order", Single: f.single, Queue: queue, Seed: f.seed, Now: a.Now,
	}, nil
}

// dueRange reads "1h..30d" or "1h".
func dueRange(s string) (from, to time.Duration, err error) {
	low, high, ranged := strings.Cut(s, "..")
	if from, err = delay.ParseDuration(low); err != nil {
		return 0, 0, usagef("--due %s: want a delay such as 1h, or a range such as 1h..30d", s)
	}
	to = from
	if ranged {
		to, err = delay.ParseDuration(high)
	}
	if err != nil || to < from {
		return 0, 0, usagef("--due %s: want a delay such as 1h, or a range such as 1h..30d", s)
	}
	return from, to, nil
}

// runBench measures --server, or a daemon of its own.
func (a *app) runBench(ctx context.Context, plan benchPlan, daemonArgs []string) (err error) {
	server, token := a.flags.server, a.flags.token
	var own *ownDaemon
	if server == "" {
		if own, err = a.startOwn(ctx, daemonArgs); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, own.stop()) }()
		server, token = own.process.Server(), ""
	} else if len(daemonArgs) > 0 {
		return usagef("arguments after -- are for a daemon of our own, not for --server")
	}
	connections := 16
	if plan.ingest != nil {
		connections = plan.ingest.Connections
	}
	c, err := client.New(server, client.Options{
		Token: token, Connections: connections + 8, TLS: a.flags.tls,
	})
	if err != nil {
		return usagef("%v", err)
	}
	defer c.Close()
	tick, end := a.progress()
	defer end()
	if plan.ingest != nil {
		r, err := plan.ingest.Run(ctx, c, tick)
		end()
		own.sizes(ctx, c, &r.RSSMB, &r.DiskMB, &r.BucketMB)
		return errors.Join(err, a.printReport(r, r.Failed > 0))
	}
	r, err := plan.delivery.Run(ctx, c, tick)
	end()
	own.sizes(ctx, c, &r.RSSMB, &r.DiskMB, &r.BucketMB)
	bad := r.Lost > 0 || r.Early > 0 || r.Accepted < r.Messages
	return errors.Join(err, a.printReport(r, bad))
}

// printReport prints the report on one line whatever the format: it is one object (contract).
func (a *app) printReport(r any, bad bool) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if _, err := fmt.Fprintf(a.Stdout, "%s\n", line); err != nil {
		return err
	}
	if bad {
		a.say("cicada: not everything was accepted and delivered on time; see the report")
		return &statusError{exitError}
	}
	return nil
}

// ownDaemon is a daemon that lives for one bench.
type ownDaemon struct {
	dir     string
	process *child.Process
}

func (a *app) startOwn(ctx context.Context, args []string) (*ownDaemon, error) {
	dir, err := os.MkdirTemp("", "cicada-bench-")
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	a.say("starting a daemon in %s", dir)
	p, err := child.Start(ctx, child.Options{
		Program: a.Program, Now: a.Now, LogFile: filepath.Join(dir, "log"),
		Args: append([]string{"--data-dir", filepath.Join(dir, "data")}, args...),
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &ownDaemon{dir: dir, process: p}, nil
}

// sizes fills in memory and disk. Of a daemon that is not ours (d is nil) only the memory is known,
// from its metrics.
func (d *ownDaemon) sizes(ctx context.Context, c *client.Client, rss, disk, bucket **float64) {
	mb := func(n int64) *float64 {
		v := math.Round(float64(n)/(1<<20)*10) / 10
		return &v
	}
	if d == nil {
		if n, err := c.Metric(ctx, "process_resident_memory_bytes"); err == nil {
			*rss = mb(int64(n))
		}
		return
	}
	data := filepath.Join(d.dir, "data")
	cold := child.DiskUsed(filepath.Join(data, "bucket"))
	*rss, *disk = mb(d.process.RSS()), mb(child.DiskUsed(data)-cold)
	*bucket = mb(cold)
}

func (d *ownDaemon) stop() error {
	err := d.process.Stop()
	return errors.Join(err, os.RemoveAll(d.dir))
}
