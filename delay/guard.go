// SPDX-License-Identifier: Apache-2.0

package delay

import "strings"

// Guard says that a broker of its own is to deliver the message, and where its copy waits there.
// Until that broker provably cannot deliver it any more, the message is not ours (rules R18, R19).
type Guard struct {
	// Lane is where the message waits: Guards, the broker's name here, a slash, and the name of the
	// broker that holds the copy, as in "guard:rmq/broker-a".
	Lane Target
	// Entry is where the copy waits, in the words of who guards it. Two entries are the same only
	// when they are equal.
	Entry string
}

// Guards begins the targets of the lanes that guard messages; no message has such a target.
const Guards = "guard:"

// MaxGuardBytes bounds a guard's lane and its entry, each.
const MaxGuardBytes = 1024

// IsGuard reports whether t is a lane of guarded messages.
func (t Target) IsGuard() bool { return strings.HasPrefix(string(t), Guards) }

// Invalid says what is wrong with g, or returns nil.
func (g *Guard) Invalid() error {
	switch {
	case !g.Lane.IsGuard() || len(g.Lane) == len(Guards) || len(g.Lane) > MaxGuardBytes:
		return Invalid("guard", "%q is no lane of guarded messages", g.Lane)
	case g.Entry == "" || len(g.Entry) > MaxGuardBytes:
		return Invalid("guard", "an entry of %d bytes, want 1 to %d", len(g.Entry), MaxGuardBytes)
	}
	return nil
}
