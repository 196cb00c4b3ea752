// SPDX-License-Identifier: Apache-2.0

// Package broker defines the edge to the outside: where messages come from (Source) and where they
// go (Sink). Each implementation lives in a package of its own below this one and runs the
// conformance suite of broker/brokertest in one line.
//
// # Invariants
//
//	B1  A Sink reports one Result per Delivery; a batch never shares a fate (S7).
//	B2  An outcome that is not known is Unknown, never guessed (the three outcomes).
//	B3  A Sink never retries on its own beyond one call: retries, backoff and the breaker belong
//	    to the lane.
package broker

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Delivery is one attempt at one message, as a sink sees it. Its strings and slices are valid until
// Deliver returns.
type Delivery struct {
	ID         delay.ID
	Generation uint32 // of the id; with it, what a Ledger lists
	Target     delay.Target
	Due        delay.Due
	Attempt    uint32 // from 1
	FiredAt    delay.Due
	RoutingKey string
	Headers    []delay.Header
	Body       []byte
	Guard      *delay.Guard // of what a Guardian is asked about; else nil
}

// Outcome is what became of an attempt.
type Outcome uint8

// The outcomes. The zero value is Unknown, so that a result nobody filled in is retried.
const (
	Unknown   Outcome = iota // it may or may not have arrived: retried, may duplicate
	Delivered                // the receiver has taken it
	Retry                    // the receiver did not take it and may later
	Rejected                 // the receiver will never take it: dead
)

// String is the label used in metrics.
func (o Outcome) String() string {
	return [...]string{"unknown", "delivered", "retry", "rejected"}[o]
}

// Result is the outcome of one Delivery.
type Result struct {
	Outcome Outcome
	// Reason says in a few words what the receiver answered, for attempts that were not Delivered.
	// It never holds the message's body.
	Reason string
	// RetryAfter is the receiver's wish for the pause before the next attempt, 0 if it has none.
	RetryAfter time.Duration
}

// Sink hands messages to one kind of target. Implementations are safe for concurrent use.
type Sink interface {
	// Deliver makes one attempt at each of batch, all of one target, and writes results[i] for
	// batch[i]; len(results) == len(batch). It returns when every result is known, ctx is done or
	// the sink's own time limit passed; a result not written by then stays Unknown.
	Deliver(ctx context.Context, batch []Delivery, results []Result)
	// Close releases connections. No Deliver may run or follow.
	Close() error
}

// Checker is implemented by sinks that can tell at accept time that a target can never work.
type Checker interface {
	// Check returns a *delay.FieldError for field "target", or nil. It does no I/O.
	Check(target delay.Target) error
}
