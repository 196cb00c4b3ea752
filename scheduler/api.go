// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/cicadamq/cicada/delay"
)

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
	Limit     delay.Limit
}

// LevelStatus counts one storage level.
type LevelStatus struct{ Messages, Bytes int64 }

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
	Accepting         bool // not draining; overload and a full disk are answered one by one
	Isolated          bool // started without the bucket, which has not answered yet (rule R11)
	Restoring         bool // client ids are not known yet (rule R14)
	Clock             ClockStatus
	Books             delay.Books
	// Cancelling: at most so many of Books.Pending are cancelled in bulk and not counted yet.
	Cancelling int64
}
