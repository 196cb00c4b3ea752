// SPDX-License-Identifier: Apache-2.0

package access

import "github.com/cicadamq/cicada/delay"

// Scope is what a caller may do. Scopes are a set.
type Scope uint8

// The scopes. Admin includes the others.
const (
	// Read looks: messages, counts, targets, status, metrics.
	Read Scope = 1 << iota
	// Send is for producers and consumers: send, cancel, reschedule, fire, pull, settle.
	Send
	// Admin purges, pauses, retries and deletes dead letters, confirms the clock.
	Admin
	// Public needs no credentials: health checks. No caller has it.
	Public
)

var scopeNames = [...]string{"read", "send", "admin"}

// ParseScope reads the word of the configuration.
func ParseScope(word string) (Scope, bool) {
	for i, name := range scopeNames {
		if name == word {
			return 1 << i, true
		}
	}
	return 0, false
}

// String is the word of the configuration for a single scope.
func (s Scope) String() string {
	for i, name := range scopeNames {
		if s == 1<<i {
			return name
		}
	}
	return "public"
}

// Reach is what a request is about. The zero value is nothing: such a rule admits nobody (V1).
type Reach uint8

// The reaches.
const (
	// Nothing that belongs to a target: health, fresh ids.
	Nothing Reach = iota + 1
	// Targets: messages and lanes; the view leaves out the foreign ones.
	Targets
	// Whole: the instance, the sums of all targets. Only callers without a limit.
	Whole
)

// Rule says who may make a request.
type Rule struct {
	Scope Scope
	Reach Reach
}

// Caller is who makes a request.
type Caller struct {
	Kind    string // token, certificate, anonymous
	Name    string
	Scopes  Scope
	Targets *delay.TargetSet // nil: every target
}

// String names the caller in the audit: "token shop".
func (c *Caller) String() string {
	if c.Name == "" {
		return c.Kind
	}
	return c.Kind + " " + c.Name
}

// Operator reports whether the caller was given the scope admin by name.
func (c *Caller) Operator() bool { return c.Name != "" && c.Scopes&Admin != 0 }
