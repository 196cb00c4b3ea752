// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Failure is a broken promise, with what is needed to understand it and to see it again.
type Failure struct {
	Config Config
	Text   string
	Trace  string // the last lines about the message, or the last lines
	Step   int
}

// Error tells everything.
func (f *Failure) Error() string {
	c := &f.Config
	again := fmt.Sprintf("go test ./internal/sim -run TestSeeds -sim.seed=%d -sim.v", c.Seed)
	if c.Profile != Everything {
		again += " -sim.profile=" + string(c.Profile)
	}
	if len(c.Without) > 0 {
		again += fmt.Sprintf(" -sim.steps=%d -sim.without=%s", c.Steps, strings.Join(c.Without, ","))
	}
	return fmt.Sprintf("%s\n\n%s\n%s\ncommit %s, step %d; again: %s", f.Text, f.Trace, f.Config,
		commit(), f.Step, again)
}

// commit is that of the source, as far as the build knows it.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
