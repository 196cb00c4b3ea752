// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"strconv"

	"github.com/spf13/cobra"
)

const purgeHelp = `Cancel everything scheduled now that matches, and nothing that is accepted later.

  cicada purge --target pull:orders --dry-run
  cicada purge --target pull:orders --yes

Without a filter everything matches. Prints the count first; without --yes nothing is
cancelled.`

func (a *app) purge() *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "purge", Short: "Cancel all messages that match", Long: purgeHelp,
		Args: args(0, 0, ""),
	}
	filter := addFilter(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "cancel them")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		selected := filter.object()
		if yes && dryRun {
			return usagef("--yes and --dry-run exclude each other")
		}
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := c.Purge(cmd.Context(), selected, true)
		if err != nil {
			return err
		}
		if !dryRun {
			a.say("%d messages match", n)
			if !yes {
				return usagef("nothing was cancelled; repeat with --yes to do it")
			}
			if n, err = c.Purge(cmd.Context(), selected, false); err != nil {
				return err
			}
			a.say("%d messages cancelled", n)
		}
		t := &table{}
		text := strconv.FormatInt(n, 10)
		t.add(text, map[string]any{"count": n, "dry_run": dryRun}, text)
		return a.print(t, true)
	}
	return cmd
}
