// SPDX-License-Identifier: Apache-2.0

// Package wire reads requests and writes replies of the JSON API, without reflection: a message of
// 250 bytes costs well below a microsecond and no allocation of its own.
//
//	request bytes -> scanner -> Item (what was given) -> Rules.Resolve -> delay.Draft
//	                                 ^
//	              protobuf ----------'  (internal/server)
//
// Both front ends meet in Item, so that every rule of a message is checked in one place.
//
// # Invariants
//
//	J1  Unknown and repeated fields, wrong types, bytes after the value, invalid UTF-8 and half
//	    surrogate pairs are refused; where a field is at fault, the error is a *delay.FieldError
//	    that names it.
//	J2  Values out of range are refused, never clamped.
//	J3  A message that is refused never takes its neighbours along, unless the JSON itself is
//	    broken, because then nobody knows where the next one begins.
//	J4  Drafts alias the request's bytes, which decoding rewrites in place: the bytes belong to the
//	    Decoder until the drafts are no longer used.
//
// A Decoder serves one request at a time; everything else is plain data or pure functions.
package wire

import (
	"math/bits"
	"net/url"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker/pull"
	"github.com/cicadamq/cicada/delay"
)

// Limits of a request.
const (
	MaxBatch    = 10_000      // messages in a batch
	MaxReceipts = 1_000       // receipts in a call
	MaxPage     = 1_000       // messages of a pull or a page
	DefaultPage = 100         //
	MaxWait     = time.Minute // of a long poll
	MinLease    = time.Second //
	MaxLease    = 12 * time.Hour
	MaxReason   = 1 << 10 // bytes

	DefaultLease = 30 * time.Second
)

// Fields is a set of a message's fields.
type Fields uint32

// The fields of a message.
const (
	FieldID Fields = 1 << iota
	FieldTarget
	FieldDeliverAt
	FieldDelay
	FieldSchedule
	FieldTimeZone
	FieldMisfire
	FieldMisfireLimit
	FieldUntil
	FieldCount
	FieldJitter
	FieldBody
	FieldBodyBase64
	FieldKey
	FieldHeaders
	FieldTTL
	FieldNotAfter
	FieldSpread
	FieldDurability
	FieldReplace
	FieldMaxWait
	FieldMaxAttempts
	FieldBackoff
	FieldMode
	FieldRefuseCrowded
)

// fieldRecurring are the fields of schedules.
const fieldRecurring = FieldSchedule | FieldTimeZone | FieldMisfire | FieldMisfireLimit |
	FieldUntil | FieldCount | FieldJitter

// FieldNames are the names of the fields, in the order of their bits.
var FieldNames = [...]string{"id", "target", "deliver_at", "delay", "schedule", "time_zone",
	"misfire", "misfire_limit", "until", "count", "jitter", "body", "body_base64", "key", "headers",
	"ttl", "not_after", "spread", "durability", "replace", "max_wait", "max_attempts", "backoff",
	"mode", "refuse_crowded"}

// String is the name of the lowest field of f.
func (f Fields) String() string {
	if i := bits.TrailingZeros32(uint32(f)); i < len(FieldNames) {
		return FieldNames[i]
	}
	return ""
}

func fieldOf(name string) Fields {
	switch name {
	case "id":
		return FieldID
	case "target":
		return FieldTarget
	case "deliver_at":
		return FieldDeliverAt
	case "delay":
		return FieldDelay
	case "body":
		return FieldBody
	case "body_base64":
		return FieldBodyBase64
	case "key":
		return FieldKey
	case "headers":
		return FieldHeaders
	}
	for i, n := range FieldNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// Item is one message as a request gave it. What needs no resolving stands in Draft already.
type Item struct {
	Draft *delay.Draft
	Given Fields // the fields that the request named
	When  int64  // with FieldDeliverAt the instant, with FieldDelay the delay, in ms
}

// Rules are what the checks of a message depend on besides the message. They are plain data, safe
// for concurrent use if the funcs are.
type Rules struct {
	// Durability is the default of messages that do not say.
	Durability delay.Durability
	// NoTier refuses durability tier: there is no bucket (S3).
	NoTier bool
	// HasBroker reports whether a broker of that kind and name is configured; nil is none.
	HasBroker func(kind, name string) bool
	// CheckTarget refuses targets that can never work; nil accepts all that are well-formed. It
	// does no I/O.
	CheckTarget func(delay.Target) error
	// ExactlyOnce reports whether messages for a target are delivered exactly once; nil is none.
	ExactlyOnce func(delay.Target) bool
	// Salt places spread messages without an id.
	Salt func() uint64
}

// Resolve checks it and completes its draft: due, given and accepted instants, defaults. A schedule
// gets its due from the shard, which knows its calendar. now is the guarded clock at receipt.
// Target's own syntax is not checked here (see Target), because batches repeat targets.
func (r *Rules) Resolve(it Item, now delay.Due) error {
	d := it.Draft
	if err := r.Mode(d); err != nil {
		return err
	}
	d.AcceptedAt = now
	if it.Given&fieldRecurring != 0 {
		if err := it.recurs(); err != nil {
			return err
		}
	} else {
		due, err := it.Due(now)
		if err != nil {
			return err
		}
		d.Due, d.ByDelay = due, it.Given&FieldDelay != 0
	}
	if it.Given&FieldTarget == 0 {
		return delay.Invalid("target", "is needed")
	}
	if it.Given&(FieldBody|FieldBodyBase64) == FieldBody|FieldBodyBase64 {
		return delay.Invalid("body_base64", "only one of body and body_base64 may be given")
	}
	if d.Replace && d.ID == "" {
		return delay.Invalid("replace", "needs an id")
	}
	return r.complete(it)
}

// Mode refuses a message that asks for more than its target can do.
func (r *Rules) Mode(d *delay.Draft) error {
	if d.Mode != delay.ExactlyOnce || r.ExactlyOnce != nil && r.ExactlyOnce(d.Target) {
		return nil
	}
	return delay.Invalid("mode", "exactly_once needs a target kafka:<broker>/<topic> of a broker "+
		"with sink.mode exactly_once")
}

// complete applies spread and defaults, and checks what depends on the due.
func (r *Rules) complete(it Item) error {
	d := it.Draft
	if d.Spread > 0 {
		if d.Due > delay.MaxDue-delay.Due(d.Spread.Milliseconds()) {
			return delay.Invalid("spread", "due + spread is %v", errTooFar)
		}
		salt := uint64(0)
		if d.ID == "" && r.Salt != nil {
			salt = r.Salt()
		}
		d.Given = d.Due
		d.Due += delay.Due(delay.SpreadOf(string(d.ID), salt, d.Spread).Milliseconds())
	}
	if d.TTL > 0 && d.Due > delay.MaxDue-delay.Due(d.TTL.Milliseconds()) {
		return delay.Invalid("ttl", "due + ttl is %v", errTooFar)
	}
	if it.Given&FieldDurability == 0 {
		d.Durability = r.Durability
	}
	if d.Durability == delay.Tier && r.NoTier {
		return delay.Invalid("durability", "there is no bucket: only local is possible")
	}
	return nil
}

// Target checks the syntax of a target, then asks HasBroker and CheckTarget.
func (r *Rules) Target(t delay.Target) error {
	if len(t) > delay.MaxTargetBytes {
		return delay.Invalid("target", "longer than %d bytes", delay.MaxTargetBytes)
	}
	if !delay.ValidText(string(t)) || strings.ContainsAny(string(t), " \u00a0") {
		return delay.Invalid("target", "has spaces, control characters or invalid UTF-8")
	}
	kind, rest, found := strings.Cut(string(t), ":")
	switch kind {
	case "pull":
		if err := pull.Check(t); err != nil {
			return err
		}
	case "log":
		if rest != "" || !found {
			return delay.Invalid("target", "want log: alone")
		}
	case "http", "https":
		if err := checkURL(string(t)); err != nil {
			return err
		}
	case "kafka", "rocketmq", "nats":
		broker, topic, _ := strings.Cut(rest, "/")
		if broker == "" || topic == "" {
			return delay.Invalid("target", "want %s:<broker>/<name>", kind)
		}
		if r.HasBroker == nil || !r.HasBroker(kind, broker) {
			return delay.Invalid("target", "no %s broker named %q is configured", kind, broker)
		}
	default:
		return delay.Invalid("target", "unknown kind: want pull:<queue>, http(s)://…, log:, "+
			"kafka:, rocketmq: or nats:")
	}
	if r.CheckTarget == nil {
		return nil
	}
	return r.CheckTarget(t)
}

// checkURL checks the form of a webhook's address.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return delay.Invalid("target", "not a URL")
	case u.Hostname() == "" || u.Opaque != "":
		return delay.Invalid("target", "the URL has no host")
	case u.User != nil:
		return delay.Invalid("target", "credentials in a URL would show in logs: use a header")
	case strings.ContainsRune(s, '#'):
		return delay.Invalid("target", "a fragment is never sent")
	}
	return nil
}
