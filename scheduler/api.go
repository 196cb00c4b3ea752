// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Receipt is the answer to one accepted message (S2), or why it was not accepted.
type Receipt struct {
	ID         delay.ID
	Due        delay.Due
	Durability delay.Durability
	Duplicate  bool
	Generation uint32
	State      delay.State
	Err        error // nil, or wraps one of delay's kinds

	seq delay.Seq
}

// Change is the kind of a change to a pending message.
type Change uint8

// The changes.
const (
	Cancel Change = iota
	StopRetrying
	Reschedule
	Fire
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
)

// String is the word of the API.
func (v Verdict) String() string {
	return [...]string{"", "CANCELLED", "RESCHEDULED", "FIRED", "STOPPED", "TOO_LATE",
		"NOT_FOUND"}[v]
}

// ChangeRequest asks for one change of one message.
type ChangeRequest struct {
	ID     delay.ID
	Change Change
	Due    delay.Due // for Reschedule: the new due, already resolved
}

// ChangeResult is the answer. Due is set for Rescheduled and Fired, State for TooLate.
type ChangeResult struct {
	Verdict    Verdict
	Due        delay.Due
	State      delay.State
	Durability delay.Durability
	Err        error // set when there is no verdict: unavailable, closed
}

// Info is what is known of one message.
type Info struct {
	ID         delay.ID
	State      delay.State
	Level      delay.Level
	Due        delay.Due
	Attempts   uint32
	Target     delay.Target
	RoutingKey string
	Headers    []delay.Header
	Size       int // bytes of the body
	Generation uint32
	Body       []byte // only when asked for
	Reason     string // of a dead or expired message
	LastError  string
	DiedAt     delay.Due // when it became dead or expired
	// Known is false for a finished server-made id of which only the id is left.
	Known bool
}

// Filter selects messages. The zero value selects all that are pending.
type Filter struct {
	Target   delay.Target
	State    *delay.State // nil is any
	Level    *delay.Level // nil is any
	DueFrom  delay.Due    // inclusive; 0 is no bound
	DueTo    delay.Due    // exclusive; 0 is no bound
	IDPrefix string
}

// Bar is one bar of the histogram of the future.
type Bar struct {
	From            delay.Due
	Count, Bytes    int64
	Hot, Warm, Cold int64
}

// Lease is one message handed to a puller.
type Lease struct {
	ID         delay.ID
	Receipt    string
	Attempt    uint32
	Due        delay.Due
	FiredAt    delay.Due
	RoutingKey string
	Headers    []delay.Header
	Body       []byte
}

// Settlement is what a consumer says of a lease.
type Settlement uint8

// The settlements.
const (
	Ack Settlement = iota
	Nack
	Extend
)

// SettleResult is the answer to one receipt.
type SettleResult uint8

// The results of settling; each settlement has its own word for success.
const (
	SettleNotFound SettleResult = iota
	Acked
	Nacked
	Extended
	Superseded
	SettleUnknown // not committed in time; repeat
)

// String is the word of the API.
func (r SettleResult) String() string {
	return [...]string{"NOT_FOUND", "ACKED", "NACKED", "EXTENDED", "SUPERSEDED", "UNKNOWN"}[r]
}

// SettleRequest settles receipts of one queue.
type SettleRequest struct {
	Queue      string
	Settlement Settlement
	Receipts   []string
	Delay      time.Duration // Nack: pause before the next attempt
	HasDelay   bool
	Reason     string        // Nack
	Lease      time.Duration // Extend: from now
}

// TargetStatus describes one lane.
type TargetStatus struct {
	Target    delay.Target
	InFlight  int
	Backlog   int64   // due and waiting: in memory and parked
	Rate      float64 // delivered per second, between the last two looks
	LastError string
	Paused    bool
	Open      bool // the breaker is open
}

// LevelStatus counts one storage level.
type LevelStatus struct{ Messages, Bytes int64 }

// ClockStatus is the guarded clock (rule R21).
type ClockStatus struct {
	Now    delay.Due
	Held   bool
	Reason string
	Steps  int64
}

// Status is the state of the shard.
type Status struct {
	ClusterID         string
	Shard             delay.Shard
	Epoch             delay.Epoch
	Watermark         delay.Key
	ClaimHorizon      delay.Due
	Boundary          delay.Key // L of rule R1
	Hot, Warm, Cold   LevelStatus
	OldestNotUploaded time.Duration
	LastFlush         time.Time
	LastFlushError    string
	DiskFreeBytes     int64
	Accepting         bool
	Restoring         bool // client ids are not known yet (rule R14)
	Clock             ClockStatus
	Books             delay.Books
}
