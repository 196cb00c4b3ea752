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
		r, err := c.Purge(cmd.Context(), selected, true)
		if err != nil {
			return err
		}
		if !dryRun {
			a.say("%d messages match", r.Count)
			if !yes {
				return usagef("nothing was cancelled; repeat with --yes to do it")
			}
			if r, err = c.Purge(cmd.Context(), selected, false); err != nil {
				return err
			}
			a.say("%d messages cancelled", r.Count)
			if r.Cancelling {
				a.say("more are cancelled and still being counted: see books.cancelling in " +
					"cicada status")
			}
		}
		t := &table{}
		text := strconv.FormatInt(r.Count, 10)
		t.add(text, map[string]any{
			"count": r.Count, "dry_run": dryRun, "cancelling": r.Cancelling,
		}, text)
		return a.print(t, true)
	}
	return cmd
}
