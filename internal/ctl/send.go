// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/internal/ctl/draft"
)

const sendHelp = `Send one message, or many with --ndjson.

  cicada send --target pull:orders --delay 10s --id o-1 'body'
  cicada send --target https://example.com/hook --at 2030-01-01T00:00:00Z @body.json
  echo body | cicada send --target pull:orders --delay 2d -
  cicada send --target pull:orders --schedule '0 9 * * MON' --tz Europe/Berlin --id weekly 'body'
  cicada send --ndjson messages.ndjson

The body is the argument; - reads it from stdin, @FILE from a file. Prints the id.
With --ndjson each line is a message as in POST /v1/messages and each gives one line;
lines that are refused are told on stderr and make the exit status 1.`

type sendFlags struct {
	text    map[string]*string
	numbers map[string]*uint64
	headers []string
	replace bool
	refuse  bool
	ndjson  string
}

func (a *app) send() *cobra.Command {
	f := sendFlags{text: make(map[string]*string), numbers: make(map[string]*uint64)}
	cmd := &cobra.Command{
		Use: "send [BODY|-|@FILE]", Short: "Send a message", Long: sendHelp,
		Args: args(0, 1, "one body"),
	}
	for _, t := range draft.TextFields {
		f.text[t.Field] = cmd.Flags().String(t.Flag, "", t.Help)
	}
	cmd.Flags().StringArrayVar(&f.headers, "header", nil, "NAME=VALUE, repeatable")
	cmd.Flags().BoolVar(&f.replace, "replace", false, "replace a message of the same id")
	cmd.Flags().BoolVar(&f.refuse, "refuse-crowded", false,
		"store nothing when the target's limit has no room in that second")
	for _, n := range draft.NumberFields {
		f.numbers[n.Field] = cmd.Flags().Uint64(n.Flag, 0, n.Help)
	}
	cmd.Flags().StringVar(&f.ndjson, "ndjson", "", "send the messages of this file, - for stdin")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		if cmd.Flags().Changed("ndjson") {
			if len(given) > 0 {
				return usagef("--ndjson and a body exclude each other")
			}
			return a.sendMany(cmd.Context(), c, f.ndjson)
		}
		return a.sendOne(cmd, c, &f, given)
	}
	return cmd
}

func (a *app) sendOne(cmd *cobra.Command, c *client.Client, f *sendFlags, given []string) error {
	if *f.text["target"] == "" {
		return usagef("send wants --target")
	}
	when := 0
	for _, field := range [...]string{"delay", "deliver_at", "schedule"} {
		if *f.text[field] != "" {
			when++
		}
	}
	if when != 1 {
		return usagef("send wants one of --delay, --at and --schedule")
	}
	if len(given) == 0 {
		return usagef("send wants a body; '' is an empty one")
	}
	m := map[string]any{}
	if err := draft.Body(m, a.Stdin, given[0]); err != nil {
		return err
	}
	for field, v := range f.text {
		if *v != "" {
			m[field] = *v
		}
	}
	if f.replace {
		m["replace"] = true
	}
	if f.refuse {
		m["refuse_crowded"] = true
	}
	for _, n := range draft.NumberFields {
		if cmd.Flags().Changed(n.Flag) {
			m[n.Field] = *f.numbers[n.Field]
		}
	}
	if len(f.headers) > 0 {
		headers, err := draft.Headers(f.headers)
		if err != nil {
			return usagef("%v", err)
		}
		m["headers"] = headers
	}
	r, err := c.Send(cmd.Context(), m)
	if err != nil {
		return err
	}
	if r.Duplicate {
		a.say("already sent; state %s, due %s", r.State, r.Due)
	}
	if r.Crowded {
		a.say("crowded: its second is full; one with room: %s", cmp.Or(r.Suggested, "none found"))
	}
	var t table
	t.add(r.ID, r, r.ID)
	return a.print(&t, true)
}

// sendMany streams lines to the daemon and prints one line per reply as it comes.
func (a *app) sendMany(ctx context.Context, c *client.Client, name string) error {
	format, err := a.format()
	if err != nil {
		return err
	}
	from := a.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("read messages: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	}
	replies, err := c.Stream(ctx, "/v1/messages", "application/x-ndjson", from)
	if err != nil {
		return err
	}
	defer replies.Close()
	lines := bufio.NewScanner(replies)
	lines.Buffer(nil, 1<<20)
	out := bufio.NewWriter(a.Stdout)
	failed, n := 0, 0
	for lines.Scan() {
		n++
		var r client.Receipt
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return errors.Join(fmt.Errorf("reply %d: %w", n, err), out.Flush())
		}
		if r.Err != nil {
			failed++
			a.say("line %d: %v", n, r.Err)
		}
		switch {
		case format == "json" || format == "jsonl":
			out.Write(bytes.TrimSpace(lines.Bytes()))
			out.WriteByte('\n')
		case r.Err == nil:
			out.WriteString(r.ID + "\n")
		}
	}
	if err := errors.Join(lines.Err(), out.Flush()); err != nil {
		return fmt.Errorf("after %d replies: %w", n, err)
	}
	if failed > 0 {
		a.say("%d of %d messages were refused", failed, n)
		return &statusError{exitError}
	}
	return nil
}
