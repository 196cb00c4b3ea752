// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Decoder reads the messages of one request after another. The zero value with Rules is ready.
type Decoder struct {
	Rules *Rules

	s       scanner
	headers []delay.Header // arena of the request's headers
	// target is the last target that passed its checks: batches repeat it.
	target delay.Target
}

// Reset forgets what aliases the last request.
func (d *Decoder) Reset() {
	d.s.reset(nil)
	clear(d.headers)
	d.headers = d.headers[:0]
	d.target = ""
}

// One reads a single message that is all of b.
func (d *Decoder) One(b []byte, now delay.Due, draft *delay.Draft) error {
	d.s.reset(b)
	err := d.message(now, draft)
	d.s.end()
	if d.s.err != nil {
		return d.s.err
	}
	return err
}

// Batch is a decoded request: the drafts of the messages that are good, and one entry in Errs for
// each message, good or not, in order.
type Batch struct {
	Drafts []delay.Draft
	Errs   []error
	Single bool // the request was one message, not a list
}

// Reset makes b empty, keeps its memory and lets go of what the drafts alias.
func (b *Batch) Reset() {
	clear(b.Drafts)
	clear(b.Errs)
	b.Drafts, b.Errs, b.Single = b.Drafts[:0], b.Errs[:0], false
}

// Add appends the message that read fills, or its error.
func (b *Batch) Add(read func(*delay.Draft) error) {
	b.Drafts = append(b.Drafts, delay.Draft{})
	last := len(b.Drafts) - 1
	err := read(&b.Drafts[last])
	if err != nil {
		b.Drafts = b.Drafts[:last]
	}
	b.Errs = append(b.Errs, err)
}

// Messages reads one message or {"messages":[…]} into out, which is empty. An error means that
// nothing of the request may be accepted.
func (d *Decoder) Messages(body []byte, now delay.Due, out *Batch) error {
	d.s.reset(body)
	if !d.list() {
		out.Single = true
		out.Add(func(draft *delay.Draft) error { return d.One(body, now, draft) })
		return d.s.err
	}
	d.s.want('[')
	for first := true; d.s.more(first, ']'); first = false {
		if len(out.Errs) == MaxBatch {
			return delay.Invalid("messages", "more than %d messages in a batch", MaxBatch)
		}
		out.Drafts = append(out.Drafts, delay.Draft{})
		last := len(out.Drafts) - 1
		err := d.message(now, &out.Drafts[last])
		if err != nil {
			out.Drafts = out.Drafts[:last]
		}
		out.Errs = append(out.Errs, err)
	}
	if d.s.err == nil && d.s.peek() == ',' {
		return delay.Invalid("messages", "no other field may stand beside it")
	}
	d.s.want('}')
	d.s.end()
	return d.s.err
}

// list reports whether the request is a list, and goes to its value.
func (d *Decoder) list() bool {
	if d.s.peek() != '{' {
		return false
	}
	d.s.at++
	d.s.peek()
	if !d.s.word(`"messages"`) || d.s.peek() != ':' {
		return false
	}
	d.s.at++
	return true
}

// message reads one object. Its error is the first fault of the message; a fault of the JSON is in
// the scanner.
func (d *Decoder) message(now delay.Due, draft *delay.Draft) error {
	if c := d.s.peek(); c != '{' {
		d.s.skip(0)
		return delay.Invalid("messages", "want an object for each message")
	}
	d.s.at++
	it := Item{Draft: draft}
	var fault error
	for first := true; d.s.more(first, '}'); first = false {
		name := d.s.name()
		f := fieldOf(name)
		var err error
		switch {
		case d.s.err != nil:
			return d.s.err
		case f == 0:
			err = unknownField(name)
			d.s.skip(0)
		case it.Given&f != 0:
			err = delay.Invalid(f.String(), "is given twice")
			d.s.skip(0)
		default:
			it.Given |= f
			err = d.field(f, &it)
		}
		if fault == nil {
			fault = err
		}
	}
	if d.s.err != nil {
		return d.s.err
	}
	if fault != nil {
		return fault
	}
	if it.Given&FieldTarget != 0 && (draft.Target != d.target || d.target == "") {
		if err := d.Rules.Target(draft.Target); err != nil {
			return err
		}
		d.target = draft.Target
	}
	return d.Rules.Resolve(it, now)
}

// field reads the value of f.
func (d *Decoder) field(f Fields, it *Item) error {
	m := it.Draft
	var err error
	switch f {
	case FieldTarget:
		var t string
		t, err = d.s.text(f.String())
		m.Target = delay.Target(t)
	case FieldDelay:
		it.When, err = d.s.millis(f.String())
	case FieldDeliverAt:
		var at delay.Due
		at, err = d.s.instant(f.String())
		if it.Given&FieldDelay == 0 {
			it.When = int64(at)
		}
	case FieldBody:
		m.Body, err = d.s.bytes(f.String())
		if err == nil {
			err = CheckBody(f, m.Body)
		}
	case FieldBodyBase64:
		err = d.base64(m)
	case FieldKey:
		if m.RoutingKey, err = d.s.text(f.String()); err == nil {
			err = CheckKey(m.RoutingKey)
		}
	case FieldHeaders:
		err = d.readHeaders(m)
	case FieldID:
		var id string
		if id, err = d.s.text(f.String()); err == nil {
			m.ID = delay.ID(id)
			err = CheckID(m.ID)
		}
	default:
		err = d.option(f, it)
	}
	return err
}

// option reads the value of one of the rarer fields.
func (d *Decoder) option(f Fields, it *Item) error {
	m, name := it.Draft, f.String()
	var err error
	var word string
	switch f {
	case FieldTTL:
		m.TTL, err = d.s.duration(name, 1)
	case FieldNotAfter:
		if m.NotAfter, err = d.s.instant(name); err == nil && m.NotAfter == 0 {
			err = delay.Invalid(name, "before 1970")
		}
	case FieldSpread:
		m.Spread, err = d.s.duration(name, 0)
	case FieldMaxWait:
		m.MaxWait, err = d.s.duration(name, 1)
	case FieldBackoff:
		m.Backoff, err = d.s.duration(name, 1)
	case FieldMaxAttempts:
		var n int64
		n, err = d.s.whole(name, 1<<32-1)
		m.MaxAttempts = uint32(n)
	case FieldReplace:
		m.Replace, err = d.s.boolean(name)
	case FieldRefuseCrowded:
		m.RefuseCrowded, err = d.s.boolean(name)
	case FieldDurability:
		if word, err = d.s.text(name); err == nil {
			m.Durability, err = ParseDurability(word)
		}
	case FieldMode:
		if word, err = d.s.text(name); err == nil {
			m.Mode, err = ParseMode(word)
		}
	default:
		err = d.recurring(f, it.Recurrence())
	}
	return err
}

func (d *Decoder) base64(m *delay.Draft) error {
	const name = "body_base64"
	v, err := d.s.bytes(name)
	if err != nil {
		return err
	}
	if bytes.IndexByte(v, '\n') >= 0 || bytes.IndexByte(v, '\r') >= 0 {
		return delay.Invalid(name, "has line breaks")
	}
	// In place: three bytes never stand beyond the four they came from.
	n, err := base64.StdEncoding.Strict().Decode(v, v)
	if err != nil {
		return delay.Invalid(name, "not standard base64 with padding")
	}
	m.Body = v[:n:n]
	return CheckBody(FieldBodyBase64, m.Body)
}

// readHeaders reads the map and sorts it by name: a map has no order, and its content must be
// equal when a client repeats it (S4).
func (d *Decoder) readHeaders(m *delay.Draft) error {
	const name = "headers"
	if d.s.peek() != '{' {
		return d.s.wrong(name, "want an object of strings")
	}
	d.s.at++
	start := len(d.headers)
	var fault error
	for first := true; d.s.more(first, '}'); first = false {
		h := d.s.name()
		if d.s.peek() != '"' {
			d.s.skip(0)
			fault = delay.Invalid(name, "%q: want a string", h)
			continue
		}
		v, ok := d.s.str()
		if !ok {
			fault = delay.Invalid(name, "%q: not valid UTF-8", h)
		}
		if len(d.headers)-start > delay.MaxHeaders {
			continue // one too many is remembered, for the refusal
		}
		d.headers = append(d.headers, delay.Header{Name: h, Value: text(v)})
	}
	if d.s.err != nil || fault != nil {
		d.headers = d.headers[:start]
		return fault
	}
	m.Headers = d.headers[start:len(d.headers):len(d.headers)]
	return SortHeaders(m.Headers)
}

// SortHeaders sorts headers by name and checks their number, size and names.
func SortHeaders(headers []delay.Header) error {
	if len(headers) > delay.MaxHeaders {
		return delay.Invalid("headers", "more than %d headers", delay.MaxHeaders)
	}
	if len(headers) > 1 {
		slices.SortFunc(headers, func(a, b delay.Header) int { return strings.Compare(a.Name, b.Name) })
	}
	size := 0
	for i, h := range headers {
		size += len(h.Name) + len(h.Value)
		switch {
		case h.Name == "" || !delay.ValidText(h.Name):
			return delay.Invalid("headers", "%.64q: want a name without control characters", h.Name)
		case reserved(h.Name):
			return delay.Invalid("headers", "%.64q: names with cicada- are reserved", h.Name)
		case !delay.ValidText(h.Value):
			return delay.Invalid("headers", "%.64q: control characters in the value", h.Name)
		case i > 0 && h.Name == headers[i-1].Name:
			return delay.Invalid("headers", "%.64q: is given twice", h.Name)
		}
	}
	if size > delay.MaxHeaderBytes {
		return delay.Invalid("headers", "%d bytes together, more than %d", size, delay.MaxHeaderBytes)
	}
	return nil
}

// reserved reports whether a header's name belongs to Cicada, in any case: HTTP ignores it.
func reserved(name string) bool {
	const prefix = "cicada-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// CheckID checks the form of a client's id. Ids that look server-made are checked by the shard.
func CheckID(id delay.ID) error {
	switch {
	case id == "":
		return delay.Invalid("id", "must not be empty")
	case len(id) > delay.MaxIDBytes:
		return delay.Invalid("id", "longer than %d bytes", delay.MaxIDBytes)
	case !delay.ValidText(string(id)):
		return delay.Invalid("id", "has control characters or invalid UTF-8")
	}
	return nil
}

// CheckKey checks a routing key.
func CheckKey(key string) error {
	switch {
	case len(key) > delay.MaxRoutingKeyBytes:
		return delay.Invalid("key", "longer than %d bytes", delay.MaxRoutingKeyBytes)
	case !delay.ValidText(key):
		return delay.Invalid("key", "has control characters or invalid UTF-8")
	}
	return nil
}

// CheckBody checks the size of a body that field f gave.
func CheckBody(f Fields, body []byte) error {
	if len(body) > delay.MaxBodyBytes {
		return delay.Invalid(f.String(), "%d bytes, more than %d", len(body), delay.MaxBodyBytes)
	}
	return nil
}

// ParseDurability reads the word of the API.
func ParseDurability(word string) (delay.Durability, error) {
	for _, d := range [...]delay.Durability{delay.Local, delay.Tier} {
		if word == d.String() {
			return d, nil
		}
	}
	return 0, delay.Invalid("durability", "want local or tier")
}

// ParseMode reads the word of the API.
func ParseMode(word string) (delay.Mode, error) {
	for _, m := range [...]delay.Mode{delay.AtLeastOnce, delay.AtMostOnce, delay.ExactlyOnce} {
		if word == m.String() {
			return m, nil
		}
	}
	return 0, delay.Invalid("mode", "want at_least_once, at_most_once or exactly_once")
}

// The readers of single values. Their error is a *delay.FieldError that names the field; a fault
// of the JSON is in s.err besides.

func (s *scanner) wrong(name, want string) error {
	s.skip(0)
	return delay.Invalid(name, "%s", want)
}

func (s *scanner) bytes(name string) ([]byte, error) {
	if s.peek() != '"' {
		return nil, s.wrong(name, "want a string")
	}
	v, ok := s.str()
	if !ok {
		return nil, delay.Invalid(name, "not valid UTF-8")
	}
	return v, nil
}

func (s *scanner) text(name string) (string, error) {
	v, err := s.bytes(name)
	return text(v), err
}

func (s *scanner) boolean(name string) (bool, error) {
	switch {
	case s.word("true"):
		return true, nil
	case s.word("false"):
		return false, nil
	}
	return false, s.wrong(name, "want true or false")
}

func (s *scanner) isNumber() bool {
	c := s.peek()
	return c == '-' || c-'0' <= 9
}

// whole reads an integer in [1, most].
func (s *scanner) whole(name string, most int64) (int64, error) {
	if !s.isNumber() {
		return 0, s.wrong(name, "want an integer")
	}
	number := s.number()
	v, ok := integer(number)
	switch {
	case !ok && bytes.ContainsAny(number, ".eE"):
		return 0, delay.Invalid(name, "want an integer")
	case !ok || v < 1 || v > most:
		return 0, delay.Invalid(name, "want 1 to %d", most)
	}
	return v, nil
}

// real reads a number that need not be whole.
func (s *scanner) real(name string) (float64, error) {
	if !s.isNumber() {
		return 0, s.wrong(name, "want a number")
	}
	n, err := strconv.ParseFloat(string(s.number()), 64)
	if s.err == nil && err != nil {
		return 0, delay.Invalid(name, "is out of range")
	}
	return n, s.err
}

func (s *scanner) instant(name string) (delay.Due, error) {
	var due delay.Due
	var err error
	if s.isNumber() {
		due, err = InstantOfMillis(millis(s.number()))
	} else {
		var v string
		if v, err = s.text(name); err != nil {
			return 0, err
		}
		due, err = ParseInstant(v)
	}
	if err != nil {
		return 0, Reason(name, err)
	}
	return due, nil
}

// millis reads a duration that is not negative, in milliseconds, at most as far as dues reach.
func (s *scanner) millis(name string) (int64, error) {
	var ms int64
	var err error
	if s.isNumber() {
		ms = millis(s.number())
	} else {
		var v string
		if v, err = s.text(name); err != nil {
			return 0, err
		}
		ms, err = ParseMillis(v)
	}
	if err != nil {
		return 0, Reason(name, err)
	}
	return Delay(name, ms)
}

// Delay checks a delay in milliseconds: not negative, and at most as far as dues reach.
func Delay(name string, ms int64) (int64, error) {
	switch {
	case ms < 0:
		return 0, Reason(name, errNegative)
	case ms > int64(delay.MaxDue):
		return 0, Reason(name, errTooFar)
	}
	return ms, nil
}

// duration reads a duration of at least least milliseconds that a time.Duration holds.
func (s *scanner) duration(name string, least int64) (time.Duration, error) {
	ms, err := s.millis(name)
	if err != nil {
		return 0, err
	}
	return Duration(name, ms, least)
}

// Duration converts milliseconds, at least least.
func Duration(name string, ms, least int64) (time.Duration, error) {
	switch {
	case ms < 0:
		return 0, delay.Invalid(name, "%v", errNegative)
	case ms < least:
		return 0, delay.Invalid(name, "must be positive")
	case ms > maxDurationMillis:
		return 0, delay.Invalid(name, "longer than 292 years")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// Reason is err, which says what is wrong with the value of a field, as the field's error.
func Reason(field string, err error) error { return delay.Invalid(field, "%v", err) }
