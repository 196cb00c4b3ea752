// SPDX-License-Identifier: Apache-2.0

package commit

import "github.com/cicadamq/cicada/delay"

// Receipt is the answer to one accepted message (S2), or why it was not accepted.
type Receipt struct {
	ID         delay.ID
	Due        delay.Due
	Durability delay.Durability
	Duplicate  bool        // it repeats an earlier request; nothing was stored
	Generation uint32      // counts the contents that the id has named, from 1
	State      delay.State // of the message that it repeats
	Crowded    bool        // its target's limit leaves no room in its second
	Suggested  delay.Due   // of a crowded one: a later second with room; 0: none was found
	Err        error       // nil, or wraps one of delay's kinds
}

// Change is the kind of a change to a pending message.
type Change uint8

// The changes.
const (
	Cancel Change = iota
	StopRetrying
	Reschedule
	Fire
	PauseSchedule
	ResumeSchedule
)

// Verdict is the answer to a change (S5).
type Verdict uint8

// The verdicts. The zero value answers nothing.
const (
	NoVerdict   Verdict = iota
	Cancelled           // never delivered, before or after
	Rescheduled         //
	Fired               //
	Stopped             // claimed, and no further attempt is made
	TooLate             // claimed or finished
	NotFound            //
	Paused              // a schedule does not fire until it is resumed
	Resumed             //
	Requested           // the broker that holds the guarded copy was asked to drop it (rule R19)
)

// String is the word of the API.
func (v Verdict) String() string {
	return [...]string{"", "CANCELLED", "RESCHEDULED", "FIRED", "STOPPED", "TOO_LATE",
		"NOT_FOUND", "PAUSED", "RESUMED", "REQUESTED"}[v]
}

// ChangeRequest asks for one change of one message.
type ChangeRequest struct {
	ID     delay.ID
	Change Change
	Due    delay.Due // for Reschedule: the new due, already resolved
	Cut    delay.Seq // of a purge: a message accepted later is left alone; 0 is no cut
	// Recall, of a Cancel: while another broker holds the copy of a guarded message, ask it to drop
	// that; the verdict is then Requested, never Cancelled (rule R19). Of other messages it changes
	// nothing.
	Recall bool
	// Lost, of a guarded message: its broker has lost the copy of the row with this key, so that it
	// may be changed (rule R19).
	Lost delay.Key
	// Sourced is set for the source that brought the message, which may always change it.
	Sourced bool
}

// ChangeResult is the answer. Due is set for Rescheduled, Fired and Resumed, State for TooLate.
type ChangeResult struct {
	Verdict    Verdict
	Due        delay.Due
	State      delay.State
	Durability delay.Durability
	Err        error // set when there is no verdict: unavailable, closed, a change that cannot be
}
