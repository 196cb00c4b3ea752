// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/maintain"
)

// Events are the significant happenings of a shard, for metrics and tests. Every func may be nil;
// they are called from hot paths with batches and must return at once.
type Events struct {
	Accepted  func(source string, n int)
	Rejected  func(source, code string, n int)
	Duplicate func(source string, n int)
	// Attempts tells the results of a batch: "delivered", "retry", "unknown", "rejected".
	Attempts func(target delay.Target, result string, n int)
	// Settled tells the answers to receipts: kind is "ack", "nack" or "extend", result the word of
	// the API. What was refused is a sign of leases that are too short, or of a lost answer.
	Settled  func(target delay.Target, kind, result string, n int)
	Finished func(target delay.Target, state delay.State, reason string, n int)
	// Recurred tells of firings that schedules have made, and of those that were due and not made.
	Recurred  func(fired int, missed uint64)
	Lateness  func(target delay.Target, lateness []time.Duration)
	Commit    func(d time.Duration, messages int) // build and apply one local batch
	Sync      func(d time.Duration)               // wait for its WAL sync
	Offload   func(d time.Duration, messages int, err error)
	Hydrate   func(d time.Duration, messages int, err error)
	Fallback  func(n int) // bodies fetched from the tier at delivery
	ClockStep func(d time.Duration)
	Maintain  maintain.Events
}
