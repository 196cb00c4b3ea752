// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/demo"
)

const demoHelp = `Show the whole story in about a minute, with a daemon of its own.

  cicada demo

Thousands of messages are accepted, offloaded to the bucket, cancelled and moved; the
daemon is killed, its local store deleted, and started again; everything is delivered from
the bucket and counted. Works in ./cicada-demo, which must be empty. Exit status 1 when a
message was lost or early, or the books do not balance.`

func (a *app) demo() *cobra.Command {
	opts := demo.Options{
		Program: a.Program, Out: a.Stdout, Terminal: a.OutTerminal, Color: a.color(), Now: a.Now,
	}
	cmd := &cobra.Command{
		Use: "demo", Short: "Show the whole story in a minute", Long: demoHelp,
		Args: args(0, 0, ""),
	}
	cmd.Flags().StringVar(&opts.Dir, "dir", "cicada-demo", "where to work; must be empty")
	cmd.Flags().BoolVar(&opts.Keep, "keep", false, "leave the directory")
	cmd.Flags().BoolVar(&opts.Fast, "fast", false, "fewer messages, a third of the time")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return demo.Run(cmd.Context(), opts)
	}
	return cmd
}
