// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

func (a *app) targets() *cobra.Command {
	cmd := &cobra.Command{
		Use: "targets", Short: "Show where messages go and how it goes", Args: args(0, 0, ""),
		Long: "Show each target: in flight, backlog (due and waiting), attempts a second, state,\n" +
			"and its limit.",
	}
	cmd.AddCommand(a.limit())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		all, err := c.Targets(cmd.Context())
		if err != nil {
			return err
		}
		t := &table{columns: []string{
			"TARGET", "STATE", "IN FLIGHT", "BACKLOG", "RATE", "LAST ERROR", "LIMIT",
		}}
		for _, x := range all {
			t.add(x.Target, x, x.Target, laneState(x), strconv.FormatInt(x.InFlight, 10),
				strconv.FormatInt(x.Backlog, 10), strconv.FormatFloat(x.Rate, 'f', 1, 64),
				x.LastError, x.Limit.String())
		}
		return a.print(t, false)
	}
	return cmd
}

func laneState(t client.Target) string {
	switch {
	case t.Paused:
		return "paused"
	case t.Open:
		return "broken"
	default:
		return "ok"
	}
}

const limitHelp = `Limit how fast a target is delivered to. What is due waits, in order; nothing is
refused. Every attempt counts, pulled messages too. The limit survives restarts.

  cicada targets limit https://example.com/hook --rate 100/s --burst 200
  cicada targets limit pull:sms --rate 10/m
  cicada targets limit pull:sms --rate none`

func (a *app) limit() *cobra.Command {
	var rate string
	var burst int64
	cmd := &cobra.Command{
		Use: "limit TARGET", Short: "Limit how fast a target is delivered to",
		Args: args(1, 1, "one target"), Long: limitHelp,
		RunE: func(cmd *cobra.Command, given []string) error {
			perSecond, err := client.ParseRate(rate)
			if err != nil {
				return usagef("--rate %s: %v", rate, err)
			}
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			l, err := c.SetLimit(cmd.Context(), given[0], perSecond, burst)
			if err != nil {
				return err
			}
			a.say("%s: limit %s", given[0], l)
			return nil
		},
	}
	cmd.Flags().StringVar(&rate, "rate", "",
		"messages per second, minute or hour: 100/s, 10/m, 5/h; or none")
	cmd.Flags().Int64Var(&burst, "burst", 0, "how many at once (what comes in a second)")
	return cmd
}

func (a *app) pause() *cobra.Command {
	return a.setPaused("pause", "Stop delivering to a target; its messages wait", true)
}

func (a *app) resume() *cobra.Command {
	return a.setPaused("resume", "Deliver to a paused target again", false)
}

func (a *app) setPaused(verb, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " TARGET", Short: short, Args: args(1, 1, "one target"),
		Long: short + ".\n\n  cicada " + verb + " https://example.com/hook",
		RunE: func(cmd *cobra.Command, given []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetPaused(cmd.Context(), given[0], paused); err != nil {
				return err
			}
			a.say("%s: %sd", given[0], verb)
			return nil
		},
	}
}
