// SPDX-License-Identifier: Apache-2.0

package broker

// Finding is what was found out about a broker before a message depends on it: one line of
// `cicada doctor`.
type Finding struct {
	Check   string // what was looked at, in a few words
	Verdict Verdict
	Detail  string
}

// Verdict is what a finding means, in the words of the doctor.
type Verdict string

// The verdicts.
const (
	Good Verdict = "ok"
	Note Verdict = "note" // advice: nothing was found wrong
	Warn Verdict = "warn"
	Bad  Verdict = "FAIL"
)
