// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const countHelp = `Count pending messages, exactly.

  cicada count --target pull:orders --due-to 2030-01-01T00:00:00Z`

func (a *app) count() *cobra.Command {
	cmd := &cobra.Command{
		Use: "count", Short: "Count pending messages", Long: countHelp, Args: args(0, 0, ""),
	}
	filter := addFilter(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := c.Count(cmd.Context(), filter.query())
		if err != nil {
			return err
		}
		t := &table{}
		text := strconv.FormatInt(n, 10)
		t.add(text, map[string]int64{"count": n}, text)
		return a.print(t, true)
	}
	return cmd
}

const histogramHelp = `Show how many messages are due when, and in which tier they are.

  cicada histogram --bucket 1h
  cicada histogram --bucket 1d --from 2030-01-01T00:00:00Z --to 2030-02-01T00:00:00Z
  cicada histogram --bucket 1d --recurring --to 2030-02-01T00:00:00Z

A schedule is counted once, at its next firing; with --recurring also at those after it.`

func (a *app) histogram() *cobra.Command {
	var bucket, from, to string
	var recurring bool
	cmd := &cobra.Command{
		Use: "histogram", Short: "Count pending messages by due", Long: histogramHelp,
		Args: args(0, 0, ""),
	}
	cmd.Flags().StringVar(&bucket, "bucket", "1h", "width of a bar")
	cmd.Flags().StringVar(&from, "from", "", "first instant; default now")
	cmd.Flags().StringVar(&to, "to", "", "end; default the last message")
	cmd.Flags().BoolVar(&recurring, "recurring", false, "with the firings to come of schedules; "+
		"wants --to")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		query := url.Values{"bucket": {bucket}}
		for name, v := range map[string]string{"from": from, "to": to} {
			if v != "" {
				query.Set(name, v)
			}
		}
		if recurring {
			query.Set("recurring", "true")
		}
		buckets, err := c.Histogram(cmd.Context(), query)
		if err != nil {
			return err
		}
		return a.print(a.histogramTable(buckets, recurring), false)
	}
	return cmd
}

// barWidth is the longest bar of a histogram on a terminal.
const barWidth = 40

func (a *app) histogramTable(buckets []client.Bucket, recurring bool) *table {
	t := &table{columns: []string{"FROM", "COUNT", "BYTES", "HOT", "WARM", "COLD", ""}}
	if recurring {
		t.columns = slices.Insert(t.columns, 6, "RECURRING")
	}
	most := int64(1)
	for _, b := range buckets {
		most = max(most, b.Count)
	}
	for _, b := range buckets {
		cells := []string{b.From}
		for _, n := range []int64{b.Count, b.Bytes, b.Hot, b.Warm, b.Cold} {
			cells = append(cells, strconv.FormatInt(n, 10))
		}
		if recurring {
			cells = append(cells, strconv.FormatInt(b.Recurring, 10))
		}
		if a.OutTerminal {
			width := int((b.Count*barWidth + most - 1) / most)
			cells = append(cells, strings.Repeat("█", width))
		}
		t.add(b.From, b, cells...)
	}
	return t
}
