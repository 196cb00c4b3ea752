// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/calendar"
)

func (a *app) schedule() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Look at recurring schedules", Args: args(0, 0, "next"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.scheduleNext())
	return cmd
}

const scheduleNextHelp = `Print when a schedule would fire next, without a daemon.

  cicada schedule next '0 9 * * MON' --tz Europe/Berlin
  cicada schedule next '30 2 * * *' --tz America/New_York --from 2026-03-07T00:00:00Z
  cicada schedule next '@every 90m' -n 3

EXPRESSION has five cron fields (minute hour day month weekday), six (with seconds first),
or is @hourly, @daily, @weekly, @monthly, @yearly or @every DURATION. A time that does not
exist on a day fires at the first instant after the gap; one that comes twice fires once.
A schedule for every hour follows elapsed time.`

// maxFirings bounds what schedule next prints.
const maxFirings = 10_000

func (a *app) scheduleNext() *cobra.Command {
	var zone, from string
	var count int
	cmd := &cobra.Command{
		Use: "next EXPRESSION", Short: "Preview when a schedule fires", Long: scheduleNextHelp,
		Args: args(1, 1, "one expression, in quotes"),
		RunE: func(_ *cobra.Command, given []string) error {
			after := delay.InstantOf(a.Now())
			if from != "" {
				at, err := time.Parse(time.RFC3339, from)
				if err != nil {
					return usagef("--from %s: want RFC 3339 with an offset", from)
				}
				after = delay.InstantOf(at)
			}
			if count < 1 || count > maxFirings {
				return usagef("-n %d: want 1 to %d", count, maxFirings)
			}
			t, err := firings(given[0], zone, after, count)
			if err != nil {
				return usagef("%v", err)
			}
			return a.print(t, false)
		},
	}
	f := cmd.Flags()
	f.StringVar(&zone, "tz", "UTC", "IANA zone, such as Europe/Berlin")
	f.StringVar(&from, "from", "", "look from this instant on, RFC 3339 (default: now)")
	f.IntVarP(&count, "count", "n", 5, "how many firings")
	return cmd
}

// firing is one line of schedule next.
type firing struct {
	Due   string    `json:"due"`
	DueMS delay.Due `json:"due_ms"`
	Local string    `json:"local"`
	Note  string    `json:"note,omitempty"`
}

func firings(expression, zone string, after delay.Due, count int) (*table, error) {
	zones, err := calendar.NewZones()
	if err != nil {
		return nil, err
	}
	rule, err := zones.Parse(expression, zone)
	if err != nil {
		return nil, err
	}
	t := &table{columns: []string{"LOCAL", "UTC", "NOTE"}}
	start := after
	for range count {
		f, ok := rule.Next(after, start)
		if !ok {
			break
		}
		local := f.At.Time().In(rule.Location()).Format("Mon 2006-01-02 15:04:05 -07:00")
		due := f.At.String()
		t.add(due, firing{Due: due, DueMS: f.At, Local: local, Note: f.Note()}, local, due, f.Note())
		after = f.At
	}
	return t, nil
}
