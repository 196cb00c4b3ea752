// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const cancelHelp = `Cancel messages that are still waiting.

  cicada cancel o-1 o-2
  cicada cancel o-3 --stop
  cicada cancel r-1 --recall

Prints id and result: CANCELLED (it is never delivered), TOO_LATE (exit status 5) or
NOT_FOUND (exit status 3). --stop keeps a message that is already being delivered from
further attempts: STOPPED. A guarded message that its own broker still holds is refused
(exit status 5); --recall asks that broker to drop it: REQUESTED.`

func (a *app) cancel() *cobra.Command {
	var stop, recall bool
	cmd := &cobra.Command{
		Use: "cancel ID...", Short: "Cancel messages", Long: cancelHelp,
		Args: args(1, -1, "at least one id"),
	}
	cmd.Flags().BoolVar(&stop, "stop", false, "make no further attempt when it is too late")
	cmd.Flags().BoolVar(&recall, "recall", false, "ask the broker that holds it to drop it")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		how := ""
		switch {
		case stop && recall:
			return usagef("--stop and --recall exclude each other")
		case stop:
			how = "stop"
		case recall:
			how = "recall"
		}
		return a.change(cmd.Context(), given, func(c *client.Client, id string) (client.Verdict,
			error,
		) {
			return c.Cancel(cmd.Context(), id, how)
		})
	}
	return cmd
}

const rescheduleHelp = `Move messages to another due.

  cicada reschedule o-1 --delay 2h
  cicada reschedule o-1 --at 2030-01-01T00:00:00Z`

func (a *app) reschedule() *cobra.Command {
	var delay, at string
	cmd := &cobra.Command{
		Use: "reschedule ID...", Short: "Move messages to another due", Long: rescheduleHelp,
		Args: args(1, -1, "at least one id"),
	}
	cmd.Flags().StringVar(&delay, "delay", "", "from now: 10s, 2h, 3d")
	cmd.Flags().StringVar(&at, "at", "", "RFC 3339 with offset, or epoch milliseconds")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if (delay == "") == (at == "") {
			return usagef("reschedule wants one of --delay and --at")
		}
		when := map[string]any{"delay": delay}
		if at != "" {
			when = map[string]any{"deliver_at": at}
		}
		return a.change(cmd.Context(), given, func(c *client.Client, id string) (client.Verdict,
			error,
		) {
			return c.Reschedule(cmd.Context(), id, when)
		})
	}
	return cmd
}

func (a *app) fire() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fire ID...", Short: "Make messages due now", Args: args(1, -1, "at least one id"),
		Long: "Make messages due now.\n\n  cicada fire o-1",
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		return a.change(cmd.Context(), given, func(c *client.Client, id string) (client.Verdict,
			error,
		) {
			return c.Fire(cmd.Context(), id)
		})
	}
	return cmd
}

// change makes one change to each id, prints every answer and exits by the worst. It goes on after
// an answer, and stops at an error that would meet every id.
func (a *app) change(ctx context.Context, ids []string,
	do func(*client.Client, string) (client.Verdict, error),
) error {
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	t := &table{columns: []string{"ID", "RESULT", "DUE", "DURABILITY"}}
	status := exitOK
	for _, id := range ids {
		v, err := do(c, id)
		var answer *client.Error
		switch {
		case err == nil:
		case errors.As(err, &answer) && answer.Result != "":
			status = worse(status, answerStatus(answer))
			v = client.Verdict{ID: id, Result: answer.Result}
		case errors.As(err, &answer) && answer.Status == http.StatusConflict:
			status = worse(status, exitConflict) // held by its broker (rule R19): of this id alone
			a.say("%s: %v", id, err)
			continue
		default:
			return errors.Join(err, a.print(t, false))
		}
		t.add(id, v, id, v.Result, v.Due, v.Durability)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := a.print(t, len(ids) == 1); err != nil {
		return err
	}
	if status != exitOK {
		return &statusError{status}
	}
	return nil
}
