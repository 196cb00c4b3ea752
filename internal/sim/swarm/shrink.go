// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"errors"
	"slices"
	"strings"
	"unicode"
)

// Shrink looks for a smaller configuration than c, whose history fails at step: fewer steps, fewer
// kinds of actions, no chances that it does not need. fails plays a history and reports the step at
// which the same failure came.
func Shrink(c Config, step int, fails func(Config) (step int, same bool)) Config {
	try := func(next Config) bool {
		at, same := fails(next)
		if same {
			c, step = next, at
		}
		return same
	}
	shorten := func() {
		for part := 2; part <= 8; part *= 2 {
			for next := c; ; next = c {
				next.Steps = min(c.Steps, step) - c.Steps/part
				if next.Steps < 1 || next.Steps >= c.Steps || !try(next) {
					break
				}
			}
		}
	}
	shorten()
	for _, name := range slices.Backward(Leavable()) {
		next := c
		next.Without = append(slices.Clone(next.Without), name)
		if next.LeaveOut(name) {
			try(next)
		}
	}
	shorten()
	return c
}

// Smaller looks for a smaller history that breaks the same promise. It plays at most runs histories
// and gives the smallest failure that play returned, which may be f itself.
func (f *Failure) Smaller(runs int, play func(Config) error) *Failure {
	best := f
	Shrink(f.Config, f.Step, func(c Config) (step int, same bool) {
		if runs == 0 {
			return 0, false
		}
		runs--
		var next *Failure
		if !errors.As(play(c), &next) || KindOf(next.Text) != KindOf(f.Text) {
			return 0, false
		}
		best = next
		return next.Step, true
	})
	return best
}

// KindOf is the text of a failure without what differs from history to history.
func KindOf(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	text = strings.TrimPrefix(text, "message ")
	if _, rest, ok := strings.Cut(text, "): "); ok {
		text = rest
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, text[:min(len(text), 40)])
}
