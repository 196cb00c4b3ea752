// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

const statusHelp = `Show the daemon's state: tiers, watermark, last flush, disk, clock, books.

  cicada status
  cicada status --json | jq .books`

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the daemon's state", Long: statusHelp, Args: args(0, 0, ""),
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
			return a.printObject(raw)
		},
	}
}

// printObject shows a JSON object: as it is, or as lines of dotted keys in its own order.
func (a *app) printObject(raw json.RawMessage) error {
	format, err := a.format()
	if err != nil {
		return err
	}
	t := &table{columns: []string{"", ""}}
	if format != "table" {
		t.add("", raw)
		return a.print(t, true)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := flatten(dec, "", t); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return a.print(t, false)
}

// flatten reads one value and adds a row for each leaf below it.
func flatten(dec *json.Decoder, key string, t *table) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	d, nested := tok.(json.Delim)
	if !nested {
		t.add("", nil, key, fmt.Sprint(tok))
		return nil
	}
	for i := 0; dec.More(); i++ {
		name := fmt.Sprint(i)
		if d == '{' {
			k, err := dec.Token()
			if err != nil {
				return err
			}
			name = fmt.Sprint(k)
		}
		if key != "" {
			name = key + "." + name
		}
		if err := flatten(dec, name, t); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
