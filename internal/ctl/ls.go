// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/internal/ctl/schedules"
)

const lsHelp = `List messages by due.

  cicada ls --target pull:orders --state scheduled --limit 20
  cicada ls --due-from 2030-01-01T00:00:00Z --all -o jsonl
  cicada ls --schedules
  cicada ls --guarded

One page of at most --limit messages; --all follows the pages to the end.`

func (a *app) ls() *cobra.Command {
	var limit int
	var all, recurring, guarded bool
	var token string
	cmd := &cobra.Command{
		Use: "ls", Short: "List messages by due", Long: lsHelp, Args: args(0, 0, ""),
		Aliases: []string{"list"},
	}
	filter := addFilter(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "messages a page, 1 to 1000")
	cmd.Flags().BoolVar(&all, "all", false, "every page")
	cmd.Flags().BoolVar(&recurring, "schedules", false, "only schedules, with their next firing")
	cmd.Flags().BoolVar(&guarded, "guarded", false,
		"only messages that another broker is to deliver, with where they wait")
	cmd.Flags().StringVar(&token, "page-token", "", "continue where an earlier page ended")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		query := filter.query()
		query.Set("limit", strconv.Itoa(limit))
		show := messageTable
		switch {
		case recurring && guarded:
			return usagef("--schedules and --guarded exclude each other")
		case recurring:
			query.Set("kind", "schedule")
			show = scheduleTable
		case guarded:
			query.Set("kind", "guarded")
			show = guardTable
		}
		for {
			if token != "" {
				query.Set("page_token", token)
			}
			page, err := c.List(cmd.Context(), query)
			if err != nil {
				return err
			}
			if err := a.print(show(page.Messages), false); err != nil {
				return err
			}
			token = page.NextPageToken
			if token == "" {
				return nil
			}
			if !all {
				a.say("there is more: --page-token %s", token)
				return nil
			}
		}
	}
	return cmd
}

func (a *app) next() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "next", Short: "List the messages that are due soonest", Args: args(0, 0, ""),
		Long: "List the pending messages that are due soonest.\n\n  cicada next --limit 5",
	}
	cmd.Flags().IntVar(&limit, "limit", 10, "1 to 1000")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		page, err := c.Next(cmd.Context(), limit)
		if err != nil {
			return err
		}
		return a.print(messageTable(page.Messages), false)
	}
	return cmd
}

func messageTable(all []client.Message) *table {
	t := &table{columns: []string{"ID", "STATE", "DUE", "TIER", "TARGET", "SIZE", "ATTEMPTS"}}
	for _, m := range all {
		t.add(m.ID, m, m.ID, m.State, m.Due, m.Tier, m.Target, strconv.FormatInt(m.Size, 10),
			strconv.FormatUint(uint64(m.Attempts), 10))
	}
	return t
}

func guardTable(all []client.Message) *table {
	t := &table{columns: []string{"ID", "STATE", "DUE", "TARGET", "LANE", "ENTRY"}}
	for _, m := range all {
		g := cmp.Or(m.Guard, &client.Guard{})
		t.add(m.ID, m, m.ID, m.State, m.Due, m.Target, g.Lane, g.Entry)
	}
	return t
}

func scheduleTable(all []client.Message) *table {
	t := &table{columns: schedules.Columns[:]}
	for _, m := range all {
		t.add(m.ID, m, schedules.Cells(&m)...)
	}
	return t
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
