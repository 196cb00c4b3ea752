// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/scheduler/query"
)

// The fields of the requests other than messages, for which FieldNames serves.
var (
	PullFields   = [...]string{"max", "wait", "lease"}
	AckFields    = [...]string{"receipts"}
	NackFields   = [...]string{"receipts", "delay", "reason"}
	ExtendFields = [...]string{"receipts", "lease"}
	PatchFields  = [...]string{"deliver_at", "delay"}
	PurgeFields  = [...]string{"target", "state", "tier", "due_from", "due_to", "id_prefix", "kind",
		"dry_run"}
	TargetFields = [...]string{"target"}
	LimitFields  = [...]string{"target", "rate", "burst"}
)

// nameShown bounds how much of an unknown name an error repeats.
const nameShown = 64

func unknownField(name string) error {
	if len(name) > nameShown {
		name = strings.ToValidUTF8(name[:nameShown], "") + "…"
	}
	return delay.Invalid(strings.Clone(name), "unknown field")
}

// object reads an object that is all of b with the fields names; read gets the index of each as it
// comes. No bytes at all are an empty object: every field of such a request has a default.
func object(b []byte, names []string, read func(s *scanner, field int) error) error {
	s := scanner{b: b}
	if s.peek() == 0 && s.at == len(b) {
		return nil
	}
	if !s.want('{') {
		return s.err
	}
	var fault error
	seen := uint64(0)
	for first := true; s.more(first, '}'); first = false {
		name := s.name()
		var err error
		switch i := slices.Index(names, name); {
		case i < 0:
			err = unknownField(name)
			s.skip(0)
		case seen&(1<<i) != 0:
			err = delay.Invalid(names[i], "is given twice")
			s.skip(0)
		default:
			seen |= 1 << i
			err = read(&s, i)
		}
		if fault == nil {
			fault = err
		}
	}
	s.end()
	if s.err != nil {
		return s.err
	}
	return fault
}

// Pull is the body of a pull.
type Pull struct {
	Max         int
	Wait, Lease time.Duration
}

// DecodePull reads {"max","wait","lease"}; each has a default.
func DecodePull(b []byte) (Pull, error) {
	p := Pull{Max: DefaultPage, Lease: DefaultLease}
	err := object(b, PullFields[:], func(s *scanner, field int) (err error) {
		switch PullFields[field] {
		case "max":
			var n int64
			n, err = s.whole("max", MaxPage)
			p.Max = int(n)
		case "wait":
			p.Wait, err = s.duration("wait", 0)
		default:
			p.Lease, err = s.duration("lease", 0)
		}
		return err
	})
	if err != nil {
		return Pull{}, err
	}
	return p, p.Check()
}

// Check checks the ranges.
func (p Pull) Check() error {
	switch {
	case p.Max < 1 || p.Max > MaxPage:
		return delay.Invalid("max", "want 1 to %d", MaxPage)
	case p.Wait < 0 || p.Wait > MaxWait:
		return delay.Invalid("wait", "want 0 to %v", MaxWait)
	}
	return checkLease(p.Lease)
}

func checkLease(d time.Duration) error {
	if d < MinLease || d > MaxLease {
		return delay.Invalid("lease", "want %v to %v", MinLease, MaxLease)
	}
	return nil
}

// DecodeSettle reads the body of an ack, a nack or an extend. The receipts alias b.
func DecodeSettle(b []byte, kind scheduler.Settlement) (scheduler.SettleRequest, error) {
	req := scheduler.SettleRequest{Settlement: kind}
	names := AckFields[:]
	switch kind {
	case scheduler.Nack:
		names = NackFields[:]
	case scheduler.Extend:
		names, req.Lease = ExtendFields[:], DefaultLease
	}
	err := object(b, names, func(s *scanner, field int) (err error) {
		switch names[field] {
		case "receipts":
			req.Receipts, err = s.receipts()
		case "delay":
			req.HasDelay = true
			req.Delay, err = s.duration("delay", 0)
		case "reason":
			req.Reason, err = s.text("reason")
		default:
			req.Lease, err = s.duration("lease", 0)
		}
		return err
	})
	if err != nil {
		return scheduler.SettleRequest{}, err
	}
	return req, CheckSettle(req)
}

// receipts reads the list. Words that are no receipts are answered NOT_FOUND, one by one.
func (s *scanner) receipts() ([]string, error) {
	const name = "receipts"
	if s.peek() != '[' {
		return nil, s.wrong(name, "want a list of strings")
	}
	s.at++
	list := make([]string, 0, DefaultPage)
	var fault error
	for first := true; s.more(first, ']'); first = false {
		r, err := s.text(name)
		if err != nil {
			fault = err
		}
		if len(list) <= MaxReceipts {
			list = append(list, r)
		}
	}
	return list, fault
}

// CheckSettle checks the ranges of a request.
func CheckSettle(req scheduler.SettleRequest) error {
	switch n := len(req.Receipts); {
	case n == 0:
		return delay.Invalid("receipts", "is needed")
	case n > MaxReceipts:
		return delay.Invalid("receipts", "more than %d receipts in a call", MaxReceipts)
	case len(req.Reason) > MaxReason || !delay.ValidText(req.Reason):
		return delay.Invalid("reason", "want at most %d bytes without control characters", MaxReason)
	case req.Delay < 0:
		return delay.Invalid("delay", "%v", errNegative)
	}
	if req.Settlement == scheduler.Extend {
		return checkLease(req.Lease)
	}
	return nil
}

// DecodePatch reads {"deliver_at"} or {"delay"} and resolves it against now.
func DecodePatch(b []byte, now delay.Due) (delay.Due, error) {
	var it Item
	err := object(b, PatchFields[:], func(s *scanner, field int) (err error) {
		var at delay.Due
		if PatchFields[field] == "delay" {
			it.Given |= FieldDelay
			it.When, err = s.millis("delay")
			return err
		}
		it.Given |= FieldDeliverAt
		at, err = s.instant("deliver_at")
		it.When = int64(at)
		return err
	})
	if err != nil {
		return 0, err
	}
	return it.Due(now)
}

// Due is the instant that was asked for, exactly one way.
func (it Item) Due(now delay.Due) (delay.Due, error) {
	switch it.Given & (FieldDeliverAt | FieldDelay) {
	case FieldDeliverAt:
		return delay.Due(it.When), nil
	case FieldDelay:
		if it.When > int64(delay.MaxDue-now) {
			return 0, delay.Invalid("delay", "%v", errTooFar)
		}
		return now + delay.Due(it.When), nil
	case 0:
		return 0, delay.Invalid("deliver_at", "one of deliver_at, delay and schedule is needed")
	}
	return 0, delay.Invalid("delay", "only one of deliver_at, delay and schedule may be given")
}

// DecodePurge reads a filter and dry_run.
func DecodePurge(b []byte) (f scheduler.Filter, dryRun bool, err error) {
	err = object(b, PurgeFields[:], func(s *scanner, field int) (err error) {
		name := PurgeFields[field]
		if name == "dry_run" {
			dryRun, err = s.boolean(name)
			return err
		}
		var v string
		if name[:3] == "due" && s.isNumber() {
			v = text(s.number())
		} else if v, err = s.text(name); err != nil {
			return err
		}
		return SetFilter(&f, name, strings.Clone(v))
	})
	if err != nil {
		return scheduler.Filter{}, false, err
	}
	return f, dryRun, nil
}

// SetFilter sets the field of a filter that a query parameter or a purge names.
func SetFilter(f *scheduler.Filter, name, v string) (err error) {
	switch name {
	case "target":
		if v == "" {
			return delay.Invalid(name, "must not be empty")
		}
		f.Target = delay.Target(v)
	case "state":
		state, ok := delay.ParseState(v)
		if !ok {
			return delay.Invalid(name, "want scheduled, claimed, delivered, cancelled, expired or dead")
		}
		f.State = &state
	case "tier":
		level := slices.Index([]string{"hot", "warm", "cold"}, v)
		if level < 0 {
			return delay.Invalid(name, "want hot, warm or cold")
		}
		l := delay.Level(level)
		f.Level = &l
	case "due_from":
		f.DueFrom, err = ParseInstant(v)
	case "due_to":
		f.DueTo, err = ParseInstant(v)
	case "id_prefix":
		f.IDPrefix = v
	case "kind":
		var ok bool
		if f.Kind, ok = query.ParseKind(v); !ok {
			return delay.Invalid(name, "want message, schedule or guarded")
		}
	default:
		return unknownField(name)
	}
	if err != nil {
		return Reason(name, err)
	}
	return nil
}

// DecodeTarget reads {"target"}.
func DecodeTarget(b []byte) (delay.Target, error) {
	var t string
	err := object(b, TargetFields[:], func(s *scanner, _ int) (err error) {
		t, err = s.text("target")
		return err
	})
	switch {
	case err != nil:
		return "", err
	case t == "":
		return "", delay.Invalid("target", "is needed")
	}
	return delay.Target(strings.Clone(t)), nil
}

// DecodeLimit reads {"target","rate","burst"}: messages a second, 0 for no limit, and how many at
// once, about what comes in a second unless it is given.
func DecodeLimit(b []byte) (t delay.Target, limit delay.Limit, err error) {
	var target string
	rate, burst := math.NaN(), int64(0)
	err = object(b, LimitFields[:], func(s *scanner, field int) (err error) {
		switch LimitFields[field] {
		case "target":
			target, err = s.text("target")
		case "rate":
			rate, err = s.real("rate")
		default:
			burst, err = s.whole("burst", delay.MaxLimitBurst)
		}
		return err
	})
	switch {
	case err != nil:
	case target == "":
		err = delay.Invalid("target", "is needed")
	case math.IsNaN(rate):
		err = delay.Invalid("rate", "is needed")
	default:
		limit, err = delay.NewLimit(rate, burst)
	}
	return delay.Target(strings.Clone(target)), limit, err
}

// DecodeNothing refuses a body where none belongs; {} is allowed.
func DecodeNothing(b []byte) error {
	return object(b, nil, func(*scanner, int) error { return nil })
}
