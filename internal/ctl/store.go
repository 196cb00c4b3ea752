// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/localstore"
)

const storeHelp = `Inspect the local store of a daemon that is not running.

  cicada store check --data-dir ./cicada-data
  cicada store import ./cicada-data/store.set-aside-20260314T150926.535Z --dry-run`

func (a *app) store() *cobra.Command {
	cmd := &cobra.Command{
		Use: "store", Short: "Inspect the local store (offline)", Long: storeHelp,
		Args: args(0, 0, "check or import"),
		RunE: func(*cobra.Command, []string) error { return usagef("store wants check or import") },
	}
	cmd.AddCommand(a.storeCheck(), a.storeImport())
	return cmd
}

const storeCheckHelp = `Read every value of the local store and compare what must agree: rows,
ids, slots, books.

Changes nothing. The daemon must not be running on the directory. Exit status 1 when
something is wrong.`

func (a *app) storeCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Read and compare everything", Long: storeCheckHelp,
		Args: args(0, 0, ""),
	}
	flags := a.addDaemonFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, _, err := a.Daemon.Places(flags.config, flags.given())
		if err != nil {
			return err
		}
		s, err := localstore.Open(localstore.OS(), dir, localstore.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		tick, end := a.progress()
		report, err := s.Check(cmd.Context(), func(done, total int64) {
			tick("checking", done, total)
		})
		end()
		if err != nil {
			return err
		}
		t := &table{columns: []string{"", ""}}
		for _, c := range []struct {
			name string
			n    int64
		}{
			{"rows", report.Rows}, {"parked", report.Parked}, {"dead", report.Dead},
			{"ids", report.IDs}, {"marks", report.Marks}, {"others", report.Others},
			{"problems", report.ProblemCount},
		} {
			t.add(c.name, map[string]any{"what": c.name, "count": c.n}, c.name,
				strconv.FormatInt(c.n, 10))
		}
		if err := a.print(t, false); err != nil {
			return err
		}
		for _, p := range report.Problems {
			a.say("problem: %s", p)
		}
		if report.ProblemCount > 0 {
			return fmt.Errorf("%s: %d problems", dir, report.ProblemCount)
		}
		return nil
	}
	return cmd
}
