// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/broker"
)

// Reply draws what goes wrong with an attempt: whether the receiver has taken the message, what the
// daemon hears of it, and the word of the trace.
func Reply(r *rand.Rand) (took bool, reply broker.Result, word string) {
	switch r.IntN(5) {
	case 0:
		return false, broker.Result{Outcome: broker.Rejected, Reason: "no"}, "rejected"
	case 1:
		return true, broker.Result{}, "reply lost"
	case 2:
		return false, broker.Result{}, "request lost"
	case 3:
		after := Between(r, time.Millisecond, 20*time.Second)
		reply = broker.Result{Outcome: broker.Retry, Reason: "busy", RetryAfter: after}
		return false, reply, fmt.Sprintf("retry after %v", after)
	default:
		return false, broker.Result{Outcome: broker.Retry, Reason: "later"}, "retry"
	}
}
