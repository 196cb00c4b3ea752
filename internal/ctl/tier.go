// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/tierview"
	"github.com/cicadamq/cicada/tiered"
)

const tierHelp = `Look into the cold tier. status asks the daemon; the others read the bucket
themselves, change nothing, and may run beside a daemon.

  cicada tier status
  cicada tier ls --bucket file:///data/bucket
  cicada tier ls --orphans --bucket 's3://cold/cicada?endpoint=http://minio:9000'
  cicada tier verify --bucket file:///data/bucket
  cicada tier dump --bucket file:///data/bucket -o jsonl > messages.jsonl
  cicada tier restore --dry-run --bucket file:///data/bucket`

func (a *app) tier() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tier", Short: "Look into the cold tier", Long: tierHelp,
		Args: args(0, 0, "status, ls, verify, dump or restore"),
		RunE: func(*cobra.Command, []string) error {
			return usagef("tier wants status, ls, verify, dump or restore")
		},
	}
	cmd.AddCommand(a.tierStatus(), a.tierList(),
		a.offline("verify", "Read every object and check every checksum", a.tierVerify),
		a.tierDump(), a.tierRestore())
	return cmd
}

const tierStatusHelp = `Show the cold tier of a running daemon: manifest, objects by level, the
trial of the store, what was asked of it, and what a month costs at these prices.

  cicada tier status
  cicada tier status --price-storage 0.015 --price-put 4.5 --price-get 0.36
  cicada tier status --json | jq .figures`

func (a *app) tierStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the cold tier of a running daemon", Long: tierStatusHelp,
		Args: args(0, 0, ""),
	}
	var p tierview.Prices
	f := cmd.Flags()
	f.Float64Var(&p.Storage, "price-storage", tierview.DefaultStoragePrice,
		"dollars for a GB and month")
	f.Float64Var(&p.Put, "price-put", tierview.DefaultPutPrice, "dollars for a million PUT and LIST")
	f.Float64Var(&p.Get, "price-get", tierview.DefaultGetPrice, "dollars for a million GET")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if p.Storage < 0 || p.Put < 0 || p.Get < 0 {
			return usagef("prices are not negative")
		}
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.Tier(cmd.Context())
		if err != nil {
			return err
		}
		t, whole, err := tierview.Status(raw, p, a.Now())
		if err != nil {
			return err
		}
		return a.showOne(t, whole)
	}
	return cmd
}

// show prints a table of tierview.
func (a *app) show(v *tierview.Table) error {
	t := &table{columns: v.Columns}
	for _, r := range v.Rows {
		t.add(r.ID, r.Value, r.Cells...)
	}
	return a.print(t, false)
}

// showOne prints a table of names and values, or the whole as one JSON value.
func (a *app) showOne(v *tierview.Table, whole any) error {
	format, err := a.format()
	if err != nil {
		return err
	}
	if format == "table" {
		v.Columns = []string{"", ""}
		return a.show(v)
	}
	t := &table{}
	t.add("", whole)
	return a.print(t, true)
}

// offline makes a command that reads the bucket itself.
func (a *app) offline(
	use, short string, run func(context.Context, *tierview.View, []string) error,
) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args(0, 0, "")}
	flags := a.addDaemonFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		_, url, err := a.Daemon.Places(flags.config, flags.given())
		if err != nil {
			return err
		}
		return a.withTier(cmd.Context(), url, func(ctx context.Context, v *tierview.View) error {
			return run(ctx, v, given)
		})
	}
	return cmd
}

func (a *app) withTier(
	ctx context.Context, url string, run func(context.Context, *tierview.View) error,
) (err error) {
	bucket, err := a.Bucket(ctx, url)
	if err != nil {
		return err
	}
	if bucket == nil {
		return usagef("--bucket none: there is no cold tier to look into")
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	t, err := tiered.Open(ctx, bucket, tiered.Options{ReadOnly: true, Now: a.Now})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	state, err := t.Load(ctx)
	if err != nil {
		return err
	}
	if state == nil {
		return fmt.Errorf("%w: %s holds no manifest: nothing was ever uploaded", delay.ErrNotFound,
			url)
	}
	return run(ctx, &tierview.View{Tier: t, State: *state, Bucket: bucket, Now: a.Now})
}

const tierListHelp = `List what the manifest lists: segments by level and due, kept segments,
marks, and what waits for its deletion.

  cicada tier ls --bucket URL --marked     # how many of a segment's messages are finished
  cicada tier ls --bucket URL --days       # messages of each day
  cicada tier ls --bucket URL --orphans    # what no manifest names, and what is missing

--orphans exits with 1 when an object is missing.`

func (a *app) tierList() *cobra.Command {
	var marked, days, orphans bool
	cmd := a.offline("ls", "List the objects of the manifest",
		func(ctx context.Context, v *tierview.View, _ []string) error {
			s := &v.State
			a.say("manifest version %d, epoch %d, written %s", s.Version, s.Epoch, s.WrittenAt)
			var t *tierview.Table
			var err error
			missing := 0
			switch {
			case days:
				t, err = v.Days(ctx)
			case orphans:
				t, missing, err = v.Objects(ctx)
			default:
				t, err = v.List(ctx, marked)
			}
			if err == nil {
				err = a.show(t)
			}
			if err == nil && missing > 0 {
				err = fmt.Errorf("%w: %d objects are missing", delay.ErrCorrupt, missing)
			}
			return err
		})
	cmd.Long = tierListHelp
	cmd.Flags().BoolVar(&marked, "marked", false, "read the marks, and count them by segment")
	cmd.Flags().BoolVar(&days, "days", false, "messages by day instead")
	cmd.Flags().BoolVar(&orphans, "orphans", false, "compare the bucket with the manifest instead")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if marked && days || marked && orphans || days && orphans {
			return usagef("--marked, --days and --orphans exclude each other")
		}
		return run(cmd, given)
	}
	return cmd
}

func (a *app) tierVerify(ctx context.Context, v *tierview.View, _ []string) error {
	tick, end := a.progressBytes()
	r, err := v.Tier.Verify(ctx, func(done, total int64) { tick("verifying", done, total) })
	end()
	if err != nil {
		return err
	}
	type problem struct {
		Name  string `json:"name"`
		Error string `json:"error"`
	}
	t, wrong := &tierview.Table{}, make([]problem, len(r.Problems))
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"objects", r.Objects}, {"messages", r.Messages}, {"marks", r.Marks}, {"bytes", r.Bytes},
		{"problems", int64(len(r.Problems))},
	} {
		t.Rows = append(t.Rows, tierview.Row{Cells: []string{c.name, strconv.FormatInt(c.n, 10)}})
	}
	for i, p := range r.Problems {
		wrong[i] = problem{p.Name, p.Err.Error()}
		t.Rows = append(t.Rows, tierview.Row{Cells: []string{p.Name, p.Err.Error()}})
	}
	err = a.showOne(t, map[string]any{"manifest_version": r.Version, "objects": r.Objects,
		"messages": r.Messages, "marks": r.Marks, "bytes": r.Bytes, "problems": wrong})
	if err == nil && len(wrong) > 0 {
		err = &statusError{exitError}
	}
	return err
}

const tierDumpHelp = `List messages in the bucket: all that are not finished, overdue and dead ones
first; or all that is in the objects named; or one position in every object.

  cicada tier dump --bucket URL -o jsonl > messages.jsonl
  cicada tier dump --bucket URL --body -o jsonl l0/0000001-03e6p1mvx86r35xyy5zkbsfkkr.seg
  cicada tier dump --bucket URL --key 1800000000000/1.17`

func (a *app) tierDump() *cobra.Command {
	var d tierview.Dump
	cmd := a.offline("dump [NAME...]", "List the messages of the segments",
		func(ctx context.Context, v *tierview.View, given []string) error {
			d.Names = given
			return v.Records(ctx, d, a.show)
		})
	cmd.Long, cmd.Args = tierDumpHelp, args(0, -1, "")
	cmd.Flags().StringVar(&d.Key, "key", "", "only this position: instant/epoch.counter")
	cmd.Flags().BoolVar(&d.Body, "body", false, "with bodies")
	return cmd
}

const restoreHelp = `Say what a daemon with an empty data directory would find in the bucket,
and about how long it would take. It reads all messages that would come back; --rough
reads only the indexes.

  cicada tier restore --dry-run --bucket file:///data/bucket

The restore itself needs no command: start ` + "`cicada serve`" + ` with an empty data directory
and the bucket.`

func (a *app) tierRestore() *cobra.Command {
	var dryRun, rough bool
	cmd := a.offline("restore", "Say what a restore would bring back",
		func(ctx context.Context, v *tierview.View, _ []string) error {
			tick, end := a.progressBytes()
			p, err := v.Plan(ctx, rough, func(done, total int64) { tick("counting", done, total) })
			end()
			if err != nil {
				return err
			}
			return a.showOne(p.Table(), p)
		})
	cmd.Long = restoreHelp
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "required: the daemon restores by itself")
	cmd.Flags().BoolVar(&rough, "rough", false, "count by whole days, from the indexes")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if !dryRun {
			return usagef("a restore needs no command: start `cicada serve` with an empty " +
				"--data-dir and this bucket; --dry-run says what it would find")
		}
		return run(cmd, given)
	}
	return cmd
}
