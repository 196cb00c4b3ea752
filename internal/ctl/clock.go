// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

const clockHelp = `Show the daemon's clock, or confirm it.

  cicada clock
  cicada clock confirm --yes

When the system clock jumps forward by more than 2 s, the daemon holds newly due messages
until an independent source agrees. confirm says that the system clock is right: messages
that are due by it are delivered at once.`

func (a *app) clock() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clock", Short: "Show or confirm the daemon's clock", Long: clockHelp,
		Args: args(0, 0, "nothing, or confirm"),
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
			var s struct {
				Clock json.RawMessage `json:"clock"`
			}
			if err := json.Unmarshal(raw, &s); err != nil || s.Clock == nil {
				return fmt.Errorf("the daemon's status tells nothing of its clock")
			}
			return a.printObject(s.Clock)
		},
	}
	cmd.AddCommand(a.clockConfirm())
	return cmd
}

func (a *app) clockConfirm() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "confirm", Short: "Say that the system clock is right", Args: args(0, 0, ""),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !yes {
			return usagef("everything due by the system clock is delivered at once; " +
				"repeat with --yes")
		}
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.ConfirmClock(cmd.Context()); err != nil {
			return err
		}
		a.say("the clock is confirmed")
		return nil
	}
	return cmd
}
