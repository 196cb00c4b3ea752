// SPDX-License-Identifier: Apache-2.0

package delay

import "slices"

// State is where a message is in its life; docs/state-machine.md draws it.
type State uint8

// The states. Scheduled and Claimed are pending, the others finished.
const (
	Scheduled  State = iota // waiting, or due and not yet claimed
	Claimed                 // leased to a puller, handed to a sink, or between attempts
	Delivered               // acknowledged by the sink or the puller
	Cancelled               // withdrawn before it was claimed
	Expired                 // its ttl or not_after passed first
	Dead                    // given up: refused, out of attempts, or stopped
	Suppressed              // guarded, and delivered by the broker that it belongs to (rule R18)
)

var stateNames = [...]string{
	"scheduled", "claimed", "delivered", "cancelled", "expired", "dead", "suppressed",
}

// String is the word of the API.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// ParseState reads the word of the API.
func ParseState(s string) (State, bool) {
	for i, name := range stateNames {
		if name == s {
			return State(i), true
		}
	}
	return 0, false
}

// Finished reports whether no further attempt will be made.
func (s State) Finished() bool { return s >= Delivered }

// transitions is the state machine: from a state to the states that may follow it. A retry of a
// dead letter and a replace of a finished message start over as scheduled.
var transitions = [...][]State{
	Scheduled: {Scheduled, Claimed, Delivered, Cancelled, Expired, Dead, Suppressed},
	Claimed:   {Claimed, Delivered, Expired, Dead},
	Delivered: {Scheduled},
	Cancelled: {Scheduled},
	Expired:   {Scheduled},
	Dead:      {Scheduled},

	Suppressed: {Scheduled},
}

// CanFollow reports whether a message in state s may become next.
func (s State) CanFollow(next State) bool {
	return slices.Contains(transitions[s], next)
}

// Level is the storage level a message is found in, as GET /v1/messages/{id} names it.
type Level uint8

// The levels.
const (
	Hot  Level = iota // in the timing wheel
	Warm              // a local row
	Cold              // only in the bucket
)

// String is the word of the API.
func (l Level) String() string { return [...]string{"hot", "warm", "cold"}[l] }

// Books counts messages by outcome. Accepted = Pending + Delivered + Cancelled + Expired + Dead +
// Suppressed (S10). LostWithDisk counts what a restore found missing (rule R15); it is part of
// Accepted's other side too.
type Books struct {
	Accepted     int64
	Pending      int64
	Delivered    int64
	Cancelled    int64
	Expired      int64
	Dead         int64
	LostWithDisk int64
	// Schedules are the recurring ones that have not ended. They are no messages and on neither
	// side; each of their firings is.
	Schedules int64
	// Suppressed are guarded messages that their own broker delivered.
	Suppressed int64
}

// Balanced reports whether the books balance.
func (b Books) Balanced() bool {
	return b.Accepted == b.Pending+b.Delivered+b.Cancelled+b.Expired+b.Dead+b.Suppressed+
		b.LostWithDisk
}
