// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
)

const tierHelp = `Look into the cold tier. status asks the daemon; the others read the bucket
themselves, change nothing, and may run beside a daemon.

  cicada tier status
  cicada tier ls --bucket file:///data/bucket
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
	cmd.AddCommand(a.tierStatus(),
		a.offline("ls", "List the objects of the manifest", a.tierList),
		a.offline("verify", "Read every object and check every checksum", a.tierVerify),
		a.offline("dump", "List the messages of the segments, finished ones left out", a.tierDump),
		a.tierRestore())
	return cmd
}

func (a *app) tierStatus() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the tiers of a running daemon", Args: args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			raw, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			var all map[string]json.RawMessage
			if err := json.Unmarshal(raw, &all); err != nil {
				return fmt.Errorf("status: %w", err)
			}
			shown := make(map[string]json.RawMessage)
			for _, name := range []string{"tiers", "oldest_not_uploaded_seconds", "last_flush",
				"last_flush_error", "watermark", "epoch", "cluster"} {
				if v, ok := all[name]; ok {
					shown[name] = v
				}
			}
			text, err := json.Marshal(shown)
			if err != nil {
				return fmt.Errorf("status: %w", err)
			}
			return a.printObject(text)
		},
	}
}

// offline makes a command that reads the bucket itself.
func (a *app) offline(use, short string,
	run func(context.Context, *tiered.Tier, tiered.State) error,
) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args(0, 0, "")}
	flags := a.addDaemonFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_, url, err := a.Daemon.Places(flags.config, flags.given())
		if err != nil {
			return err
		}
		return a.withTier(cmd.Context(), url, run)
	}
	return cmd
}

func (a *app) withTier(ctx context.Context, url string,
	run func(context.Context, *tiered.Tier, tiered.State) error,
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
	return run(ctx, t, *state)
}

func (a *app) tierList(_ context.Context, _ *tiered.Tier, s tiered.State) error {
	t := &table{columns: []string{"KIND", "NAME", "MESSAGES", "BYTES", "FIRST DUE", "LAST DUE"}}
	for _, group := range []struct {
		kind string
		all  []tiered.SegmentInfo
	}{{"segment", s.Segments}, {"kept", s.Kept}, {"marks", s.Marks}} {
		for _, o := range group.all {
			first, last := o.First.Due.String(), o.Last.Due.String()
			t.add(o.Name, map[string]any{
				"kind": group.kind, "name": o.Name, "messages": o.Count, "bytes": o.Stored,
				"first_due": first, "last_due": last,
			}, group.kind, o.Name, strconv.FormatInt(o.Count, 10),
				strconv.FormatInt(o.Stored, 10), first, last)
		}
	}
	a.say("manifest version %d, epoch %d, written %s", s.Version, s.Epoch, s.WrittenAt)
	return a.print(t, false)
}

func (a *app) tierVerify(ctx context.Context, tier *tiered.Tier, _ tiered.State) error {
	tick, end := a.progress()
	report, err := tier.Verify(ctx, func(done, total int64) { tick("verifying", done, total) })
	end()
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", ""}}
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"objects", report.Objects}, {"messages", report.Messages}, {"marks", report.Marks},
		{"bytes", report.Bytes}, {"problems", int64(len(report.Problems))},
	} {
		t.add(c.name, map[string]any{"what": c.name, "count": c.n}, c.name,
			strconv.FormatInt(c.n, 10))
	}
	if err := a.print(t, false); err != nil {
		return err
	}
	for _, p := range report.Problems {
		a.say("%s: %v", p.Name, p.Err)
	}
	if len(report.Problems) > 0 {
		return &statusError{exitError}
	}
	return nil
}

// dumpPage bounds the messages printed at once.
const dumpPage = 1000

func (a *app) tierDump(ctx context.Context, tier *tiered.Tier, _ tiered.State) error {
	marked, err := finished(ctx, tier)
	if err != nil {
		return err
	}
	maker := delay.NewIDMaker(tier.ClusterID())
	t := &table{columns: []string{"ID", "DUE", "TARGET", "SIZE"}}
	var stop error
	err = tier.Scan(ctx, delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		if marked[k] {
			return true
		}
		stop = addRecord(t, maker, k, rec)
		if stop == nil && len(t.rows) == dumpPage {
			stop = a.print(t, false)
			t.rows = t.rows[:0]
			t.columns = []string{"", "", "", ""}
		}
		return stop == nil
	})
	return errors.Join(err, stop, a.print(t, false))
}

// finished are the keys that marks say are finished or moved.
func finished(ctx context.Context, tier *tiered.Tier) (map[delay.Key]bool, error) {
	marked := make(map[delay.Key]bool)
	err := tier.ScanMarks(ctx, func(m delay.Mark) bool {
		marked[m.Key] = true
		return true
	})
	return marked, err
}

func addRecord(t *table, maker delay.IDMaker, k delay.Key, rec []byte) error {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return fmt.Errorf("message %s: %w", k, err)
	}
	id := m.ID
	if id == "" {
		id = maker.Make(0, k)
	}
	t.add(string(id), map[string]any{
		"id": string(id), "due": m.Due.String(), "due_ms": int64(m.Due),
		"target": string(m.Target), "size": len(m.Body), "key": m.RoutingKey,
	}, string(id), m.Due.String(), string(m.Target), strconv.Itoa(len(m.Body)))
	return nil
}

const restoreHelp = `Say what a daemon with an empty data directory would find in the bucket.

  cicada tier restore --dry-run --bucket file:///data/bucket

The restore itself needs no command: start ` + "`cicada serve`" + ` with an empty data directory
and the bucket.`

func (a *app) tierRestore() *cobra.Command {
	cmd := a.offline("restore", "Say what a restore would bring back", a.tierWouldRestore)
	cmd.Long = restoreHelp
	dryRun := cmd.Flags().Bool("dry-run", false, "required: the daemon restores by itself")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if !*dryRun {
			return usagef("a restore needs no command: start `cicada serve` with an empty " +
				"--data-dir and this bucket; --dry-run says what it would find")
		}
		return run(cmd, given)
	}
	return cmd
}

func (a *app) tierWouldRestore(ctx context.Context, tier *tiered.Tier, s tiered.State) error {
	marked, err := finished(ctx, tier)
	if err != nil {
		return err
	}
	var messages, bytes, kept int64
	err = tier.Scan(ctx, s.Watermark, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		if !marked[k] {
			messages++
			bytes += int64(len(rec))
		}
		return true
	})
	if err != nil {
		return err
	}
	err = tier.ScanKept(ctx, func(k delay.Kept) bool {
		if !marked[k.Key] {
			kept++
		}
		return true
	})
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", ""}}
	for _, c := range [][2]string{
		{"cluster", tier.ClusterID()},
		{"manifest version", strconv.FormatUint(s.Version, 10)},
		{"epoch of the last owner", strconv.FormatUint(uint64(s.Epoch), 10)},
		{"written", s.WrittenAt.String()},
		{"watermark", s.Watermark.Due.String()},
		{"messages to come", strconv.FormatInt(messages, 10)},
		{"bytes", strconv.FormatInt(bytes, 10)},
		{"unfinished and dead", strconv.FormatInt(kept, 10)},
		{"lost with the disk, at that moment", strconv.FormatInt(s.NotUploaded, 10)},
	} {
		t.add(c[0], map[string]string{"what": c[0], "value": c[1]}, c[0], c[1])
	}
	return a.print(t, false)
}
