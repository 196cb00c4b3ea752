// SPDX-License-Identifier: Apache-2.0

package exam

import (
	"strings"

	"github.com/cicadamq/cicada/internal/planted"
)

// Guard is what must find a mistake, in words: "sim" or "sim:owners" for a profile of the
// simulation, "scheduler TestTakeover" for a test and the directory of its package.
type Guard string

// Profile is the profile of the simulation that guards; ok is false for a test.
func (g Guard) Profile() (profile string, ok bool) {
	rest, ok := strings.CutPrefix(string(g), "sim")
	if !ok || rest != "" && rest[0] != ':' {
		return "", false
	}
	return strings.TrimPrefix(rest, ":"), true
}

// Test is the test that guards, with the directory of its package; empty for the simulation.
func (g Guard) Test() (dir, name string) {
	if _, sim := g.Profile(); sim {
		return "", ""
	}
	dir, name, _ = strings.Cut(string(g), " ")
	return dir, name
}

// Rule is one rule, promise or cause of duplicates.
type Rule struct {
	ID    string // R1 to R22, S1 to S10, D1 to D13, V for access
	Words string // what it says, in a few
	// Also lists guards that no planted mistake has tried.
	Also []Guard
	Note string // for what is not built yet, or is only partly
}

// Mistake is a planted mistake, what it breaks, and what must find it. Each guard must.
type Mistake struct {
	Bug    planted.Bug
	Rules  string // ids, with spaces between them
	Guards []Guard
}

// Mutation is a mistake that was made by hand, where a constant does not fit.
type Mutation struct {
	Rules string
	File  string
	What  string // was taken out
	Guard Guard
	Said  string // the guard
}

// Fault is something that happens to the product from outside.
type Fault struct {
	IDs    string // of the matrix of faults, or what it is
	Guards []Guard
	Counts string // how often it was tried in full
	Said   string // by the guards when the protection was taken out, by hand
}

// breaks reports whether rules, ids with spaces between them, holds id.
func breaks(rules, id string) bool {
	for r := range strings.FieldsSeq(rules) {
		if r == id {
			return true
		}
	}
	return false
}
