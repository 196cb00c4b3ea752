// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/schedules"
)

const getHelp = `Show one message, or with --body write its body to stdout as it is.

  cicada get o-1
  cicada get o-1 --body > body.bin
  cicada get o-1 --json`

func (a *app) get() *cobra.Command {
	var body bool
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show a message", Long: getHelp, Args: args(1, 1, "one id"),
	}
	cmd.Flags().BoolVar(&body, "body", false, "the body: alone, or in the JSON formats with the rest")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		format, err := a.format()
		if err != nil {
			return err
		}
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		m, err := c.Get(cmd.Context(), given[0], body)
		if err != nil {
			return err
		}
		if body && format == "table" {
			bytes, err := m.Bytes()
			if err != nil {
				return fmt.Errorf("body of %s: %w", m.ID, err)
			}
			_, err = a.Stdout.Write(bytes)
			return err
		}
		if format != "table" {
			t := &table{}
			t.add(m.ID, m)
			return a.print(t, true)
		}
		t := &table{columns: []string{"", ""}}
		pairs := [][2]string{
			{"id", m.ID}, {"state", m.State}, {"due", m.Due}, {"tier", m.Tier},
			{"target", m.Target}, {"key", m.Key}, {"size", strconv.FormatInt(m.Size, 10)},
			{"attempts", strconv.FormatUint(uint64(m.Attempts), 10)},
			{"generation", strconv.FormatUint(uint64(m.Generation), 10)},
			{"reason", m.Reason}, {"last error", m.LastError},
		}
		if m.Guard != nil {
			pairs = append(pairs, [2]string{"guard lane", m.Guard.Lane},
				[2]string{"guard entry", m.Guard.Entry})
		}
		if m.Schedule != nil {
			pairs = append(pairs, schedules.Lines(m.Schedule)...)
		}
		for _, p := range pairs {
			if p[1] != "" {
				t.add(m.ID, m, p[0], p[1])
			}
		}
		for _, name := range sortedKeys(m.Headers) {
			t.add(m.ID, m, "header "+name, m.Headers[name])
		}
		return a.print(t, true)
	}
	return cmd
}
