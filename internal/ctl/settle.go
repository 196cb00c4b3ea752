// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"strings"

	"github.com/spf13/cobra"
)

const settleHelp = ` receipts of a queue.

Prints receipt and result. SUPERSEDED (exit status 5): the lease has ended and somebody
else may have the message. NOT_FOUND (exit status 3).`

// settle makes ack, nack or extend; flags are the optional fields it may send.
func (a *app) settle(verb, done, long string, flags map[string]string) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " QUEUE RECEIPT...", Short: long + " leased messages",
		Long: long + settleHelp, Args: args(2, -1, "a queue and at least one receipt"),
	}
	values := make(map[string]*string, len(flags))
	for name, help := range flags {
		values[name] = cmd.Flags().String(name, "", help)
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		extra := make(map[string]string)
		for name, v := range values {
			if *v != "" {
				extra[name] = *v
			}
		}
		results, err := c.Settle(cmd.Context(), given[0], verb, given[1:], extra)
		if err != nil {
			return err
		}
		t := &table{columns: []string{"RECEIPT", "RESULT"}}
		for _, r := range results {
			t.add(r.Receipt, r, r.Receipt, r.Result)
		}
		if err := a.print(t, false); err != nil {
			return err
		}
		return a.unsettled(results, done)
	}
	return cmd
}

func (a *app) ack() *cobra.Command {
	return a.settle("ack", "ACKED", "Acknowledge", nil)
}

func (a *app) nack() *cobra.Command {
	return a.settle("nack", "NACKED", "Give back", map[string]string{
		"delay": "not before this long", "reason": "what went wrong",
	})
}

func (a *app) extend() *cobra.Command {
	return a.settle("extend", "EXTENDED", "Keep", map[string]string{
		"lease": "from now; default 30s",
	})
}

const dlqHelp = `Look at and settle dead letters: messages that were refused, ran out of
attempts, were stopped or expired.

  cicada dlq ls --target https://example.com/hook
  cicada dlq retry ID...
  cicada dlq rm ID...`

func (a *app) dlq() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dlq", Short: "Dead letters", Long: dlqHelp, Args: args(0, 0, "ls, retry or rm"),
		RunE: func(*cobra.Command, []string) error { return usagef("dlq wants ls, retry or rm") },
	}
	cmd.AddCommand(a.dlqList(), a.dlqEach("retry", "Make dead letters pending again", "retried"),
		a.dlqEach("rm", "Forget dead letters", "removed"))
	return cmd
}

func (a *app) dlqList() *cobra.Command {
	var limit, token string
	cmd := &cobra.Command{Use: "ls", Short: "List dead letters", Args: args(0, 0, "")}
	filter := addFilter(cmd)
	cmd.Flags().StringVar(&limit, "limit", "100", "messages a page, 1 to 1000")
	cmd.Flags().StringVar(&token, "page-token", "", "continue where an earlier page ended")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		query := filter.query()
		query.Set("limit", limit)
		if token != "" {
			query.Set("page_token", token)
		}
		page, err := c.DeadLetters(cmd.Context(), query)
		if err != nil {
			return err
		}
		t := &table{columns: []string{"ID", "STATE", "REASON", "DUE", "TARGET", "LAST ERROR"}}
		for _, m := range page.Messages {
			t.add(m.ID, m, m.ID, m.State, m.Reason, m.Due, m.Target, m.LastError)
		}
		if page.NextPageToken != "" {
			defer a.say("there is more: --page-token %s", page.NextPageToken)
		}
		return a.print(t, false)
	}
	return cmd
}

func (a *app) dlqEach(verb, short, done string) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ID...", Short: short, Args: args(1, -1, "at least one id"),
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		t := &table{columns: []string{"ID", "RESULT"}}
		status := exitOK
		for _, id := range given {
			if verb == "retry" {
				_, err = c.RetryDead(cmd.Context(), id)
			} else {
				err = c.DeleteDead(cmd.Context(), id)
			}
			result := strings.ToUpper(done)
			if err != nil {
				if status = worse(status, exitStatus(err)); exitStatus(err) != exitNotFound {
					return err
				}
				result = "NOT_FOUND"
			}
			t.add(id, map[string]string{"id": id, "result": result}, id, result)
		}
		if err := a.print(t, len(given) == 1); err != nil {
			return err
		}
		if status != exitOK {
			return &statusError{status}
		}
		return nil
	}
	return cmd
}
