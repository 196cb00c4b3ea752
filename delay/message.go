// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"strings"
	"time"
)

// Limits of a message. Larger ones are refused, never cut.
const (
	MaxBodyBytes       = 4 << 20
	MaxHeaders         = 64
	MaxHeaderBytes     = 64 << 10
	MaxRoutingKeyBytes = 4 << 10
	MaxTargetBytes     = 4 << 10
	MaxQueueBytes      = 128
)

// Target names where a message goes: pull:<queue>, http(s)://…, log:, or <kind>:<broker>/<name>.
type Target string

// Kind is the part before the colon: "pull", "http", "https", "log", "kafka" and so on.
func (t Target) Kind() string {
	kind, _, ok := strings.Cut(string(t), ":")
	if !ok {
		return ""
	}
	return kind
}

// Queue is the queue of a pull target, or "".
func (t Target) Queue() string {
	q, ok := strings.CutPrefix(string(t), "pull:")
	if !ok {
		return ""
	}
	return q
}

// IsPull reports whether consumers lease the messages of t.
func (t Target) IsPull() bool { return strings.HasPrefix(string(t), "pull:") }

// Schedules is the target of the lane that makes firings; no message has it.
const Schedules Target = "schedules:"

// Lane is the target whose lane the message waits in.
func (m *Message) Lane() Target {
	switch {
	case m.Recurrence != nil:
		return Schedules
	case m.Guard != nil:
		return m.Guard.Lane
	default:
		return m.Target
	}
}

// Header is one of the caller's headers.
type Header struct{ Name, Value string }

// Durability says what an answer waited for (S3).
type Durability uint8

// The durability classes.
const (
	// Local: synced to the local disk.
	Local Durability = iota
	// Tier: also in the bucket, under a committed manifest.
	Tier
)

// String is the word of the API.
func (d Durability) String() string {
	if d == Tier {
		return "tier"
	}
	return "local"
}

// Mode says how often a message may be delivered.
type Mode uint8

// The delivery modes.
const (
	AtLeastOnce Mode = iota
	AtMostOnce
	ExactlyOnce
)

// String is the word of the API.
func (m Mode) String() string {
	return [...]string{"at_least_once", "at_most_once", "exactly_once"}[m]
}

// Message is an accepted message, as a record holds it. Strings and slices of a decoded message
// alias the record's bytes.
type Message struct {
	ID         ID     // the client's, or made by the server
	Target     Target // where it goes
	Due        Due    // resolved, spread included
	AcceptedAt Due    // by the guarded clock
	Generation uint32 // from 1; replace adds one
	Durability Durability
	Mode       Mode
	RoutingKey string
	Headers    []Header
	Body       []byte

	TTL         time.Duration // expire at Due + TTL; 0 is never
	NotAfter    Due           // expire at this instant; 0 is never
	Spread      time.Duration // as asked; already part of Due
	Given       Due           // the due that was asked for, before Spread; 0 when equal to Due
	ByDelay     bool          // the due was given as a delay from AcceptedAt (S4)
	FirstDue    Due           // the due of the first acceptance, the base of MaxWait; 0 when unset
	MaxWait     time.Duration // with replace: Due may not move beyond FirstDue + MaxWait
	MaxAttempts uint32        // 0 is the configured default
	Backoff     time.Duration // first pause between attempts; 0 is the configured default
	Recurrence  *Recurrence   // not nil: a schedule
	Guard       *Guard        // not nil: another broker is to deliver it
	// Cold is set when the message qualifies for the tier: it waits longer than tier.min_wait or
	// asked for Durability Tier.
	Cold bool
}

// Expires is the instant after which m must not be attempted any more; 0 is never, and so it is for
// a schedule, whose ttl is that of its firings.
func (m *Message) Expires() Due {
	if m.Recurrence != nil {
		return 0
	}
	e := m.NotAfter
	if m.TTL > 0 {
		if t := m.Due.Add(m.TTL); e == 0 || t < e {
			e = t
		}
	}
	return e
}

// Draft is a request to accept a message: the message and how the request was put.
type Draft struct {
	Message
	Replace bool // another content under the same id replaces it
	// RefuseCrowded refuses the message with ErrCrowded when there is no room in its second.
	RefuseCrowded bool
}

// GivenDue is the due that was asked for, before Spread.
func (m *Message) GivenDue() Due {
	if m.Given != 0 {
		return m.Given
	}
	return m.Due
}
