// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Guardian watches messages that a broker of its own is to deliver, and delivers what that broker
// provably cannot deliver any more (rules R18, R19). A Source brings them, with a Guard and a due
// some time after the broker's; from that due on the shard asks again and again what to do.
//
//	Source --Item with Guard--> lane guard:<broker>/<its own name> --Judge--> Held: asked again
//	                                                                      \-> an end of the message
//
// Implementations are safe for concurrent use.
type Guardian interface {
	// Judge looks at each of batch, all of one lane and due, and writes judgments[i] for batch[i];
	// len(judgments) == len(batch). It returns when every judgment is known or ctx is done; one not
	// written by then stays Held. A message judged Released may be judged again after a crash: what
	// is found of its first release counts then.
	Judge(ctx context.Context, batch []Delivery, judgments []Judgment)
	// Lost reports of each guard whether its broker has lost the copy, so that the message is ours
	// already, before its due. What cannot be said is not lost.
	Lost(ctx context.Context, guards []*delay.Guard) []bool
	// Recall asks the broker that holds the copy of d to drop it, and returns when it has taken the
	// request. An error that is delay.ErrUnimplemented says that such a copy cannot be recalled.
	Recall(ctx context.Context, d *Delivery) error
	// Close releases connections. No other call may run or follow.
	Close() error
}

// Judgment is what becomes of a guarded message.
type Judgment struct {
	Fate Fate
	// After is the pause before the next question, when it is Held; 0 is a second.
	After time.Duration
	// Reason says in a few words why, for Refused. It never holds the message's body.
	Reason string
}

// Fate is the kind of a Judgment.
type Fate uint8

// The fates. The zero value is Held, so that a judgment nobody filled in is asked for again.
const (
	Held       Fate = iota // nothing is known yet, or the broker has it still
	Suppressed             // the broker delivered it
	Released               // the Guardian delivered it
	Refused                // it will never be taken: dead
)

// String is the label used in metrics.
func (f Fate) String() string {
	return [...]string{"held", "suppressed", "released", "refused"}[f]
}
