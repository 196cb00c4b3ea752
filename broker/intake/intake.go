// SPDX-License-Identifier: Apache-2.0

// Package intake reads what a record of a broker asks for: the headers of the contract, and those
// that the users of the broker know from elsewhere, each in its own unit.
//
//	record: key, value, headers --Parse--> broker.Item: a draft, or an id to cancel
//	                               |
//	                               +--> an error that names the header: the reject topic
//
// Every header that it knows is a row of a table, from which docs/format/headers.md is made.
//
// # Invariants
//
//	I1  A header that is not understood, contradicts another or is out of range is an error that
//	    names it: nothing is ignored, guessed or clamped.
//	I2  Control headers do not reach the receiver; all others do, as they were.
//	I3  The same record gives the same item, whenever it is read: reading it again finds the
//	    message of the first time, and after the loss of a disk one with the same due (rule R17).
//	    Only a record without a time of its broker, or with one of the future, counts from now.
//	I4  Nothing is copied: an item aliases its record.
//
// All of it is plain data: functions may run concurrently on records and items of their own.
package intake

import (
	"strconv"
	"unsafe"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Kind is a kind of source, as a configuration writes it. It chooses the headers of others that are
// understood.
type Kind string

// The kinds.
const (
	Kafka    Kind = "kafka"
	NATS     Kind = "nats"
	RocketMQ Kind = "rocketmq"
)

// Headers that a source adds to a record in its reject topic. They are ignored when such a record
// is sent again.
const (
	HeaderError  = "cicada-error"  // what is wrong
	HeaderSource = "cicada-source" // where it was: topic, partition, offset
)

// Options of a partition. They are plain data, safe for concurrent use if CheckTarget is.
type Options struct {
	Kind Kind
	// Broker is the name of the source's broker: headers that name a topic or subject alone mean
	// one on it.
	Broker string
	// IDFromKey takes the id from the record's key.
	IDFromKey bool
	// Target is that of records that name none; "" refuses them.
	Target delay.Target
	// CheckTarget refuses targets that can never work. It does no I/O. nil checks the form alone.
	CheckTarget func(delay.Target) error
	// Origin and the offset are the id of a record without one.
	Origin broker.Partition
}

// Header is a header or property of a record.
type Header struct {
	Name  string
	Value []byte
}

// Record is what a broker holds.
type Record struct {
	Key     []byte
	Value   []byte // nil is null, which Kafka alone has: there it withdraws an id
	Headers []Header
	Offset  int64
	// Stored is when the broker got the record, as it says: delays count from there, so that they
	// end at the same instant however late and however often it is read. 0: it does not say.
	Stored delay.Due
}

// Parse fills dst, whatever it held, and reuses its memory. Its strings and bytes alias those of
// rec, which must stay unchanged for as long as dst is used. now is the guarded clock: delays count
// from rec.Stored, but never from later than now. The error is a *delay.FieldError whose field is a
// header, or one of CheckTarget; of dst only the offset is right then.
func Parse(dst *broker.Item, rec *Record, now delay.Due, opts *Options) error {
	*dst = broker.Item{
		Offset: rec.Offset,
		Draft:  delay.Draft{Message: delay.Message{Headers: dst.Draft.Headers[:0]}},
	}
	p := parser{opts: opts, rec: rec, draft: &dst.Draft}
	for i := range rec.Headers {
		if err := p.header(&rec.Headers[i]); err != nil {
			return err
		}
	}
	if err := p.identify(); err != nil {
		return err
	}
	if p.cancels() {
		return p.cancel(dst)
	}
	return p.complete(now)
}

// parser is the state of one Parse. It stays on the stack.
type parser struct {
	opts  *Options
	rec   *Record
	draft *delay.Draft

	given   [fields]string // the header that gave each field, "" if none
	deliver delay.Due      // of fieldDeliverAt
	wait    int64          // of fieldDelay, in ms
	weakID  string         // an id that another one overrides
	flag    bool           // of fieldCancel
	recur   delay.Recurrence
}

// text is b as a string, without a copy (I4).
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// header takes one header of the record.
func (p *parser) header(h *Header) error {
	if h.Name == "" || !delay.ValidText(h.Name) {
		return delay.Invalid("headers", "%.64q: want a name without control characters", h.Name)
	}
	e := lookup(p.opts.Kind, h.Name)
	switch {
	case e == nil && isOurs(h.Name):
		return delay.Invalid(h.Name, "unknown: names with cicada- are reserved")
	case e == nil && p.opts.Kind == NATS && isOfServer(h.Name):
		if isSchedule(h.Name) {
			return delay.Invalid(h.Name, "is not supported: nothing is sent for it")
		}
		return nil // it told the server what to do with this message, not with the one to come
	case e == nil:
	case e.field == fieldNone:
		return nil
	default:
		if err := p.set(e, h.Name, text(h.Value)); err != nil || !e.keep {
			return err
		}
	}
	p.draft.Headers = append(p.draft.Headers, delay.Header{Name: h.Name, Value: text(h.Value)})
	return nil
}

// identify decides about the id: the record's, or where it lies.
func (p *parser) identify() error {
	name, id := p.given[fieldID], string(p.draft.ID)
	if p.opts.IDFromKey {
		key := text(p.rec.Key)
		if name != "" && id != key {
			return delay.Invalid(name, "is not the record's key, which is the id here")
		}
		name, id = "cicada-id", key
	}
	if id == "" && p.weakID != "" {
		name, id = "Nats-Msg-Id", p.weakID
	}
	switch {
	case id == "" && !p.cancels():
		p.draft.ID = origin(p.opts.Origin, p.rec.Offset)
		return nil
	case id == "":
		return delay.Invalid("cicada-id", "a record that cancels needs one")
	case len(id) > delay.MaxIDBytes:
		return delay.Invalid(name, "longer than %d bytes", delay.MaxIDBytes)
	case !delay.ValidText(id):
		return delay.Invalid(name, "the id has control characters or invalid UTF-8")
	}
	p.draft.ID = delay.ID(id)
	return nil
}

// origin is the id of a record that has none: where it lies, for ever the same (I3).
func origin(part broker.Partition, offset int64) delay.ID {
	const sum = 16
	var number [21]byte
	tail := strconv.AppendInt(append(number[:0], '/'), offset, 10)
	if len(part)+len(tail) <= delay.MaxIDBytes {
		return delay.ID(string(part) + string(tail))
	}
	hash := strconv.FormatUint(delay.Target(part).Hash(), 16) // FNV-1a of all of it
	return delay.ID(string(part[:delay.MaxIDBytes-len(tail)-sum-1]) + "~" + hash + string(tail))
}

// cancels reports whether the record withdraws its id.
func (p *parser) cancels() bool {
	return p.flag || p.opts.Kind == Kafka && p.rec.Value == nil
}

// cancel makes dst a cancel. What else was asked for contradicts it.
func (p *parser) cancel(dst *broker.Item) error {
	for f, name := range p.given {
		if name != "" && field(f) != fieldID && field(f) != fieldCancel {
			return delay.Invalid(name, "the record cancels: only an id may be given")
		}
	}
	dst.Cancel = p.draft.ID
	return nil
}

// complete checks the draft and resolves what depends on several headers.
func (p *parser) complete(now delay.Due) error {
	d := p.draft
	d.AcceptedAt = now
	if len(p.rec.Value) > delay.MaxBodyBytes {
		return delay.Invalid("value", "%d bytes, more than %d", len(p.rec.Value),
			delay.MaxBodyBytes)
	}
	d.Body = p.rec.Value
	if err := p.address(); err != nil {
		return err
	}
	if err := checkHeaders(d.Headers); err != nil {
		return err
	}
	if p.recurring() {
		return p.schedule()
	}
	if err := p.resolve(now); err != nil {
		return err
	}
	if d.Spread > 0 {
		if d.Due > delay.MaxDue-delay.Due(d.Spread.Milliseconds()) {
			return p.wrong(fieldSpread, "due + spread is beyond the year 9999")
		}
		d.Given = d.Due
		d.Due += delay.Due(delay.SpreadOf(string(d.ID), 0, d.Spread).Milliseconds())
	}
	if d.TTL > 0 && d.Due > delay.MaxDue-delay.Due(d.TTL.Milliseconds()) {
		return p.wrong(fieldTTL, "due + ttl is beyond the year 9999")
	}
	return nil
}

// resolve is the due, asked for in exactly one way (S8).
func (p *parser) resolve(now delay.Due) error {
	at, wait := p.given[fieldDeliverAt], p.given[fieldDelay]
	switch {
	case at != "" && wait != "":
		return delay.Invalid(wait, "%s is given too", at)
	case at != "":
		p.draft.Due = p.deliver
	case wait == "":
		return delay.Invalid("cicada-deliver-at",
			"one of cicada-deliver-at, cicada-delay and cicada-schedule is needed")
	default:
		from := p.began(now)
		if p.wait > int64(delay.MaxDue-from) {
			return delay.Invalid(wait, "beyond the year 9999")
		}
		p.draft.Due, p.draft.ByDelay = from+delay.Due(p.wait), true
	}
	return nil
}

// began is the instant from which a delay counts. A broker, or a producer, whose clock is ahead
// would make it longer than was asked for.
func (p *parser) began(now delay.Due) delay.Due {
	if stored := p.rec.Stored; stored > 0 && stored < now {
		return stored
	}
	return now
}

// address completes the target and the routing key.
func (p *parser) address() error {
	d := p.draft
	name := p.given[fieldTarget]
	if name == "" {
		name, d.Target = "cicada-target", p.opts.Target
	}
	if err := checkTarget(name, d.Target, p.opts.CheckTarget); err != nil {
		return err
	}
	name = p.given[fieldKey]
	if name == "" && !p.opts.IDFromKey {
		name, d.RoutingKey = "key", text(p.rec.Key)
	}
	switch {
	case len(d.RoutingKey) > delay.MaxRoutingKeyBytes:
		return delay.Invalid(name, "longer than %d bytes", delay.MaxRoutingKeyBytes)
	case !delay.ValidText(d.RoutingKey):
		return delay.Invalid(name, "has control characters or invalid UTF-8: "+
			"give another one with cicada-key")
	}
	return nil
}

// wrong is an error of a field that was given.
func (p *parser) wrong(f field, format string, args ...any) error {
	return delay.Invalid(p.given[f], format, args...)
}

// recurring reports whether a field of schedules was given.
func (p *parser) recurring() bool {
	for _, f := range scheduleFields {
		if p.given[f] != "" {
			return true
		}
	}
	return false
}

// firingBytes is what the id of a firing is longer than its schedule's: @ and its due.
const firingBytes = 16

// schedule makes the draft one. The shard reads the expression and the zone, and says when the
// first firing is due.
func (p *parser) schedule() error {
	r := &p.recur
	given := func(f field) bool { return p.given[f] != "" }
	switch {
	case !given(fieldSchedule):
		for _, f := range scheduleFields {
			if given(f) {
				return p.wrong(f, "needs cicada-schedule")
			}
		}
	case given(fieldDeliverAt):
		return p.wrong(fieldDeliverAt, "%s is given too", p.given[fieldSchedule])
	case given(fieldDelay):
		return p.wrong(fieldDelay, "%s is given too", p.given[fieldSchedule])
	case r.Expr == "" || len(r.Expr) > delay.MaxScheduleBytes || !delay.ValidText(r.Expr):
		return p.wrong(fieldSchedule, "want 1 to %d bytes without control characters",
			delay.MaxScheduleBytes)
	case given(fieldTimeZone) &&
		(r.Zone == "" || len(r.Zone) > delay.MaxZoneBytes || !delay.ValidText(r.Zone)):
		return p.wrong(fieldTimeZone,
			"want a zone of the IANA database, such as Europe/Berlin")
	case given(fieldMisfireLimit) && r.Misfire != delay.FireAll:
		return p.wrong(fieldMisfireLimit, "needs cicada-misfire: fire_all")
	case given(fieldNotAfter):
		return p.wrong(fieldNotAfter,
			"a schedule ends with cicada-until; its firings may have a ttl")
	case given(fieldSpread):
		return p.wrong(fieldSpread, "a schedule has cicada-jitter instead")
	case given(fieldMaxWait):
		return p.wrong(fieldMaxWait, "a schedule has no due that waits")
	case len(p.draft.ID) > delay.MaxIDBytes-firingBytes:
		return delay.Invalid("cicada-id",
			"longer than %d bytes: its firings' ids end with their due",
			delay.MaxIDBytes-firingBytes)
	}
	p.draft.Recurrence = new(p.recur)
	return nil
}
