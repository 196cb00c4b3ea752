// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"github.com/cicadamq/cicada/scheduler/bulk"
	"github.com/cicadamq/cicada/scheduler/clock"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/query"
)

// The words of the parts that callers of Shard use, so that they need to import this package only.
type (
	// Receipt is the answer to one accepted message (S2), or why it was not accepted.
	Receipt = commit.Receipt
	// Change is the kind of a change to a pending message.
	Change = commit.Change
	// Verdict is the answer to a change (S5).
	Verdict = commit.Verdict
	// ChangeRequest asks for one change of one message.
	ChangeRequest = commit.ChangeRequest
	// ChangeResult is the answer. Due is set for Rescheduled, Fired and Resumed, State for TooLate.
	ChangeResult = commit.ChangeResult
	// Settlement is what a consumer says of a lease.
	Settlement = core.Settlement
	// SettleResult is the answer to one receipt.
	SettleResult = core.SettleResult
	// PurgeResult is what a purge has done.
	PurgeResult = bulk.Result
	// Info is what is known of one message.
	Info = query.Info
	// Filter selects messages. The zero value selects all that are pending.
	Filter = query.Filter
	// Kind tells schedules from messages.
	Kind = query.Kind
	// Bar is one bar of the histogram of the future.
	Bar = query.Bar
	// ClockStatus is the guarded clock (rule R21).
	ClockStatus = clock.Status
)

// The changes.
const (
	Cancel       = commit.Cancel
	StopRetrying = commit.StopRetrying
	Reschedule   = commit.Reschedule
	Fire         = commit.Fire

	PauseSchedule  = commit.PauseSchedule
	ResumeSchedule = commit.ResumeSchedule
)

// The verdicts. The zero value answers nothing.
const (
	NoVerdict   = commit.NoVerdict
	Cancelled   = commit.Cancelled
	Rescheduled = commit.Rescheduled
	Fired       = commit.Fired
	Stopped     = commit.Stopped
	TooLate     = commit.TooLate
	NotFound    = commit.NotFound
	Requested   = commit.Requested

	SchedulePaused  = commit.Paused
	ScheduleResumed = commit.Resumed
	RecallRequested = commit.Requested
)

// The kinds of a filter.
const (
	AnyKind   = query.AnyKind
	Messages  = query.Messages
	Schedules = query.Schedules
	Guarded   = query.Guarded
)

// The settlements.
const (
	Ack    = core.Ack
	Nack   = core.Nack
	Extend = core.Extend
)

// The results of settling; each settlement has its own word for success.
const (
	SettleNotFound = core.SettleNotFound
	Acked          = core.Acked
	Nacked         = core.Nacked
	Extended       = core.Extended
	Superseded     = core.Superseded
	SettleUnknown  = core.SettleUnknown
)
