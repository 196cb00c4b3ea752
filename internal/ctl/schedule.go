// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/internal/ctl/schedules"
)

func (a *app) schedule() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Look at recurring schedules and steer them",
		Args: args(0, 0, "ls, next, pause, resume or trigger"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := a.ls()
	ls.Short, ls.Long = "List schedules by their next firing", scheduleLsHelp
	ls.PreRunE = func(cmd *cobra.Command, _ []string) error {
		return cmd.Flags().Set("schedules", "true")
	}
	cmd.AddCommand(ls, a.scheduleNext(),
		a.steer("pause", "Keep schedules from firing until they are resumed",
			func(ctx context.Context, c *client.Client, id string) (client.Verdict, error) {
				return c.PauseSchedule(ctx, id, true)
			}),
		a.steer("resume", "Let paused schedules fire again",
			func(ctx context.Context, c *client.Client, id string) (client.Verdict, error) {
				return c.PauseSchedule(ctx, id, false)
			}),
		a.steer("trigger", "Make one firing of schedules now; they go on as before",
			func(ctx context.Context, c *client.Client, id string) (client.Verdict, error) {
				return c.Fire(ctx, id)
			}))
	return cmd
}

const scheduleLsHelp = `List schedules by their next firing.

  cicada schedule ls --target pull:orders
  cicada schedule ls --all -o jsonl`

// steer is a command that does one thing to each schedule.
func (a *app) steer(verb, short string,
	do func(context.Context, *client.Client, string) (client.Verdict, error),
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID...", Short: short, Args: args(1, -1, "at least one id"),
		Long: short + ".\n\n  cicada schedule " + verb + " weekly",
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.change(cmd.Context(), given,
				func(c *client.Client, id string) (client.Verdict, error) {
					return do(cmd.Context(), c, id)
				})
		},
	}
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
			firings, err := schedules.Preview(given[0], zone, after, count)
			if err != nil {
				return usagef("%v", err)
			}
			t := &table{columns: []string{"LOCAL", "UTC", "NOTE"}}
			for _, f := range firings {
				t.add(f.Due, f, f.Local, f.Due, f.Note)
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
