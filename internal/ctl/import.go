// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/importer"
	"github.com/cicadamq/cicada/localstore"
)

const storeImportHelp = `Send the messages of a store that was set aside, and that were never
uploaded, to the running daemon again.

  cicada store import ./cicada-data/store.set-aside-20260314T150926.535Z --dry-run
  cicada store import ./cicada-data/store.set-aside-20260314T150926.535Z --yes

Messages with an id of the client's own keep it and are recognised if they are there
already; the others get a new id. Changes nothing in the old store.`

func (a *app) storeImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import DIR", Short: "Accept again what was never uploaded",
		Long: storeImportHelp, Args: args(1, 1, "DIR"),
	}
	var yes, dryRun bool
	cmd.Flags().BoolVar(&yes, "yes", false, "send them")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if yes == dryRun {
			return usagef("say --dry-run to count or --yes to send")
		}
		s, err := localstore.Open(localstore.OS(), given[0], localstore.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
		var n, again int64
		err = importer.Each(s, func(delay.Message) error { n++; return nil })
		if err != nil {
			return err
		}
		a.say("%d messages of %s were never uploaded", n, given[0])
		if !dryRun {
			if again, err = a.importAll(cmd, s, n); err != nil {
				return err
			}
		}
		t := &table{columns: []string{"", ""}}
		for _, c := range []struct {
			name string
			n    int64
		}{{"messages", n}, {"known_already", again}} {
			t.add(c.name, map[string]any{"what": c.name, "count": c.n}, c.name,
				strconv.FormatInt(c.n, 10))
		}
		return a.print(t, false)
	}
	return cmd
}

// importAll sends every message and counts those that the daemon knew.
func (a *app) importAll(cmd *cobra.Command, s *localstore.Store, total int64) (int64, error) {
	c, err := a.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	tick, end := a.progress()
	defer end()
	var done, again int64
	err = importer.Each(s, func(m delay.Message) error {
		r, err := c.Send(cmd.Context(), importer.Request(&m))
		if err != nil {
			return fmt.Errorf("message %d of %d: %w", done+1, total, err)
		}
		if r.Duplicate {
			again++
		}
		done++
		tick("importing", done, total)
		return nil
	})
	return again, err
}
