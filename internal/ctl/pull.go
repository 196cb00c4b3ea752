// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const pullHelp = `Lease due messages of a queue, and with --ack acknowledge them at once.

  cicada pull orders --max 10 --wait 5s --ack -o jsonl
  cicada pull orders --lease 5m

A message is printed before it is acknowledged: if this program is ended in between, it
comes again. What the server refuses to acknowledge is named, counted, and told by the exit
status: 5 when a lease had ended (SUPERSEDED), 3 when there is no such message.

Without --ack it comes again when its lease ends, unless you ack its receipt.`

func (a *app) pull() *cobra.Command {
	var req client.PullRequest
	var ack bool
	cmd := &cobra.Command{
		Use: "pull QUEUE", Short: "Lease due messages", Long: pullHelp,
		Args: args(1, 1, "one queue"),
	}
	cmd.Flags().IntVar(&req.Max, "max", 100, "at most this many, 1 to 1000")
	cmd.Flags().StringVar(&req.Wait, "wait", "0s", "wait this long for the first, up to 60s")
	cmd.Flags().StringVar(&req.Lease, "lease", "30s", "yours for this long, 1s to 12h")
	cmd.Flags().BoolVar(&ack, "ack", false, "acknowledge what was printed")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		leased, err := c.Pull(cmd.Context(), given[0], req)
		if err != nil {
			return err
		}
		t := &table{columns: []string{"ID", "DUE", "ATTEMPT", "RECEIPT", "BODY"}}
		receipts := make([]string, len(leased))
		for i, m := range leased {
			receipts[i] = m.Receipt
			t.add(m.ID, m, m.ID, m.Due, strconv.FormatUint(uint64(m.Attempt), 10), m.Receipt,
				m.Text())
		}
		if err := a.print(t, false); err != nil || !ack || len(leased) == 0 {
			return err
		}
		results, err := c.Settle(cmd.Context(), given[0], "ack", receipts, nil)
		if err != nil {
			return err
		}
		return a.unsettled(results, "ACKED")
	}
	return cmd
}

// unsettled reports the answers that are not want.
func (a *app) unsettled(results []client.Settled, want string) error {
	status, refused := exitOK, 0
	for _, r := range results {
		if r.Result == want {
			continue
		}
		refused++
		a.say("%s: %s", r.Receipt, r.Result)
		if r.Result == "NOT_FOUND" {
			status = worse(status, exitNotFound)
		} else {
			status = worse(status, exitConflict)
		}
	}
	if status != exitOK {
		a.say("%d of %d not %s", refused, len(results), strings.ToLower(want))
		return &statusError{status}
	}
	return nil
}
