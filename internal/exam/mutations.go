// SPDX-License-Identifier: Apache-2.0

package exam

import (
	_ "embed"
	"fmt"
	"strings"
)

// Lines of rules, file, what was taken out, guard, and what it said, with tabs between them.
//
//go:embed mutations.txt
var mutations string

// Lines of ids, guards with commas between them, counts, and what they said.
//
//go:embed faults.txt
var faults string

// Mutations are the mistakes that were made by hand.
func Mutations() (all []Mutation) {
	for f := range fields(mutations, 5) {
		all = append(all, Mutation{
			Rules: f[0], File: f[1], What: f[2], Guard: Guard(f[3]), Said: f[4],
		})
	}
	return all
}

// Faults are what was done to the product from outside, and how its guards failed without the
// protection.
func Faults() (all []Fault) {
	for f := range fields(faults, 4) {
		fault := Fault{IDs: f[0], Counts: f[2], Said: f[3]}
		for g := range strings.SplitSeq(f[1], ", ") {
			fault.Guards = append(fault.Guards, Guard(g))
		}
		all = append(all, fault)
	}
	return all
}

// fields gives the lines of a table with n columns.
func fields(text string, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(text) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(f) != n {
				panic(fmt.Sprintf("BUG: %d columns, want %d: %s", len(f), n, line))
			}
			if !yield(f) {
				return
			}
		}
	}
}
