// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"strings"

	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/scheduler"
)

// admit names the caller and gives the call its shard, or refuses it (W6, W7). action is the word
// of the audit.
func (c *call) admit(rule access.Rule, action string, intake bool) error {
	caller, err := c.server.opts.Gate.Admit(c.Request, rule)
	if caller != nil && (rule.Scope == access.Admin || caller.Operator()) {
		c.caller, c.change.Action = caller, action
	}
	if err != nil {
		c.server.rejected(err)
		return err
	}
	c.shard = caller.View(c.server.shard)
	if intake && c.server.Draining() {
		return errDraining
	}
	return nil
}

// account tells the audit of a change by an operator, and of one that was refused (W8).
func (c *call) account(err error) {
	if c.change.Action == "" {
		return
	}
	e := c.change
	e.At, e.Who, e.From = c.server.opts.Now(), c.caller.String(), c.RemoteAddr
	switch {
	case err != nil:
		e.Answer = kindOf(err).code.String()
	case e.Answer == "":
		e.Answer = "ok"
	}
	c.server.opts.Audit(e)
}

// purged notes what a purge selects and reaches. A dry run changes nothing and is no entry.
func (c *call) purged(f scheduler.Filter, dryRun bool, count int64) {
	if dryRun {
		c.change.Action = ""
		return
	}
	var parts []string
	note := func(given bool, format string, value any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	note(f.State != nil, "state=%v", f.State)
	note(f.Level != nil, "tier=%v", f.Level)
	note(f.DueFrom != 0, "due_from=%v", f.DueFrom)
	note(f.DueTo != 0, "due_to=%v", f.DueTo)
	note(f.IDPrefix != "", "id_prefix=%s", f.IDPrefix)
	c.change.Target, c.change.Filter = string(f.Target), strings.Join(parts, " ")
	c.change.Count = count
}
