// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"
)

// The record is the stored form of a message, the value of a row and the item of a segment. It
// does not hold its key. docs/format/record.md describes every field.
//
//	version  byte, 1
//	flags    uvarint: which optional fields follow, durability, mode, cold
//	target   uvarint length, bytes
//	lane     of a guarded message only: uvarint length, bytes
//	wait     svarint: due - accepted at
//	due      uvarint, absolute
//	optional fields in the order of their flags
//	body     the rest

const recordVersion = 1

// The flags of a record. The order is the order of the optional fields.
const (
	flagTier = 1 << iota
	flagCold
	flagAtMostOnce
	flagExactlyOnce
	flagID
	flagGeneration
	flagRoutingKey
	flagHeaders
	flagTTL
	flagNotAfter
	flagSpread
	flagGiven
	flagFirstDue
	flagMaxWait
	flagMaxAttempts
	flagBackoff
	flagByDelay
	flagRecurrence
	flagGuard
	flagsEnd
)

// plainFlags say all in themselves: no field follows.
const plainFlags = flagTier | flagCold | flagAtMostOnce | flagExactlyOnce | flagByDelay

func flagsOf(m *Message) uint64 {
	var f uint64
	set := func(on bool, flag uint64) {
		if on {
			f |= flag
		}
	}
	set(m.Durability == Tier, flagTier)
	set(m.Cold, flagCold)
	set(m.Mode == AtMostOnce, flagAtMostOnce)
	set(m.Mode == ExactlyOnce, flagExactlyOnce)
	set(m.ID != "", flagID)
	set(m.Generation > 1, flagGeneration)
	set(m.RoutingKey != "", flagRoutingKey)
	set(len(m.Headers) > 0, flagHeaders)
	set(m.TTL > 0, flagTTL)
	set(m.NotAfter > 0, flagNotAfter)
	set(m.Spread > 0, flagSpread)
	set(m.Given > 0 && m.Given != m.Due, flagGiven)
	set(m.FirstDue > 0, flagFirstDue)
	set(m.MaxWait > 0, flagMaxWait)
	set(m.MaxAttempts > 0, flagMaxAttempts)
	set(m.Backoff > 0, flagBackoff)
	set(m.ByDelay, flagByDelay)
	set(m.Recurrence != nil, flagRecurrence)
	set(m.Guard != nil, flagGuard)
	return f
}

// AppendRecord appends the record of m. A server-made id that follows from the key is left out by
// giving an empty m.ID.
func AppendRecord(dst []byte, m *Message) []byte {
	f := flagsOf(m)
	dst = append(dst, recordVersion)
	dst = binary.AppendUvarint(dst, f)
	dst = appendString(dst, string(m.Target))
	if m.Guard != nil {
		dst = appendString(dst, string(m.Guard.Lane))
	}
	dst = binary.AppendVarint(dst, int64(m.Due)-int64(m.AcceptedAt))
	dst = binary.AppendUvarint(dst, uint64(m.Due))
	if f&^plainFlags != 0 {
		dst = appendOptional(dst, f, m)
	}
	return append(dst, m.Body...)
}

func appendOptional(dst []byte, f uint64, m *Message) []byte {
	if f&flagID != 0 {
		dst = appendString(dst, string(m.ID))
	}
	if f&flagGeneration != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Generation))
	}
	if f&flagRoutingKey != 0 {
		dst = appendString(dst, m.RoutingKey)
	}
	if f&flagHeaders != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Headers)))
		for _, h := range m.Headers {
			dst = appendString(dst, h.Name)
			dst = appendString(dst, h.Value)
		}
	}
	for _, v := range [...]struct {
		flag  uint64
		value int64
	}{
		{flagTTL, m.TTL.Milliseconds()},
		{flagNotAfter, int64(m.NotAfter)},
		{flagSpread, m.Spread.Milliseconds()},
		{flagGiven, int64(m.Given)},
		{flagFirstDue, int64(m.FirstDue)},
		{flagMaxWait, m.MaxWait.Milliseconds()},
		{flagMaxAttempts, int64(m.MaxAttempts)},
		{flagBackoff, m.Backoff.Milliseconds()},
	} {
		if f&v.flag != 0 {
			dst = binary.AppendUvarint(dst, uint64(v.value))
		}
	}
	if f&flagRecurrence != 0 {
		dst = appendRecurrence(dst, m.Recurrence)
	}
	if f&flagGuard != 0 {
		dst = appendString(dst, m.Guard.Entry)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// RecordTarget reads only the target and whether the record is cold: what a load of references
// needs. The target of a schedule is Schedules, whatever its firings' is. The target aliases rec.
func RecordTarget(rec []byte) (target Target, cold bool, err error) {
	r := recordReader{b: rec}
	f := r.head()
	t := r.str()
	if f&flagGuard != 0 {
		t = r.str()
	}
	if r.bad != "" {
		return "", false, r.err()
	}
	if f&flagRecurrence != 0 {
		return Schedules, f&flagCold != 0, nil
	}
	return Target(t), f&flagCold != 0, nil
}

// RecordRecurs reports whether rec is the record of a schedule.
func RecordRecurs(rec []byte) bool {
	r := recordReader{b: rec}
	return r.head()&flagRecurrence != 0 && r.bad == ""
}

// recordApart reports whether rec is of what is cancelled by itself only.
func recordApart(rec []byte) bool {
	r := recordReader{b: rec}
	return r.head()&(flagRecurrence|flagGuard) != 0 && r.bad == ""
}

// RecordGuarded reports whether rec is the record of a guarded message.
func RecordGuarded(rec []byte) bool {
	r := recordReader{b: rec}
	return r.head()&flagGuard != 0 && r.bad == ""
}

// RecordHead reads what a filter asks for: the target, the due, and the id, which is "" when it
// follows from the key. Strings alias rec; nothing is allocated.
func RecordHead(rec []byte) (target Target, due Due, id ID, err error) {
	r := recordReader{b: rec}
	f := r.head()
	t := r.str()
	if f&flagGuard != 0 {
		r.str()
	}
	r.svarint()
	due = Due(r.bounded(uint64(MaxDue)))
	if f&flagID != 0 {
		id = ID(r.str())
	}
	if r.bad != "" {
		return "", 0, "", r.err()
	}
	return Target(t), due, id, nil
}

// DecodeRecord reads a record. The result aliases rec. A record of another version, cut short or
// with lengths that do not fit is an ErrCorrupt that says where.
func DecodeRecord(rec []byte) (Message, error) {
	r := recordReader{b: rec}
	f := r.head()
	var m Message
	m.Target = Target(r.str())
	if f&flagGuard != 0 {
		m.Guard = &Guard{Lane: Target(r.str())}
	}
	wait := r.svarint()
	m.Due = Due(r.bounded(uint64(MaxDue)))
	m.AcceptedAt = Due(int64(m.Due) - wait)
	m.Generation = 1
	if f&flagTier != 0 {
		m.Durability = Tier
	}
	m.Cold = f&flagCold != 0
	m.ByDelay = f&flagByDelay != 0
	switch {
	case f&flagAtMostOnce != 0:
		m.Mode = AtMostOnce
	case f&flagExactlyOnce != 0:
		m.Mode = ExactlyOnce
	}
	if f&^plainFlags != 0 {
		r.optional(f, &m)
	}
	m.Body = r.b[r.at:]
	if r.bad != "" {
		return Message{}, r.err()
	}
	return m, nil
}

// recordReader walks a record and remembers the first thing that was wrong.
type recordReader struct {
	b   []byte
	at  int
	bad string
}

func (r *recordReader) err() error {
	return fmt.Errorf("%w: record: %s at offset %d of %d", ErrCorrupt, r.bad, r.at, len(r.b))
}

func (r *recordReader) fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
}

func (r *recordReader) head() uint64 {
	if len(r.b) == 0 {
		r.fail("empty")
		return 0
	}
	if r.b[0] != recordVersion {
		r.fail(fmt.Sprintf("version %d, want %d", r.b[0], recordVersion))
		return 0
	}
	r.at = 1
	f := r.uvarint()
	if f >= flagsEnd {
		r.fail(fmt.Sprintf("unknown flags %#x", f))
	}
	return f
}

func (r *recordReader) optional(f uint64, m *Message) {
	if f&flagID != 0 {
		m.ID = ID(r.str())
	}
	if f&flagGeneration != 0 {
		m.Generation = uint32(r.bounded(1<<32 - 1))
	}
	if f&flagRoutingKey != 0 {
		m.RoutingKey = r.str()
	}
	if f&flagHeaders != 0 {
		n := r.bounded(MaxHeaders)
		if r.bad == "" {
			m.Headers = make([]Header, n)
		}
		for i := range m.Headers {
			m.Headers[i] = Header{Name: r.str(), Value: r.str()}
		}
	}
	ms := func(flag uint64) time.Duration {
		if f&flag == 0 {
			return 0
		}
		return time.Duration(r.bounded(uint64(1<<63-1)/uint64(time.Millisecond))) * time.Millisecond
	}
	due := func(flag uint64) Due {
		if f&flag == 0 {
			return 0
		}
		return Due(r.bounded(uint64(MaxDue)))
	}
	m.TTL = ms(flagTTL)
	m.NotAfter = due(flagNotAfter)
	m.Spread = ms(flagSpread)
	m.Given = due(flagGiven)
	m.FirstDue = due(flagFirstDue)
	m.MaxWait = ms(flagMaxWait)
	if f&flagMaxAttempts != 0 {
		m.MaxAttempts = uint32(r.bounded(1<<32 - 1))
	}
	m.Backoff = ms(flagBackoff)
	if f&flagRecurrence != 0 {
		m.Recurrence = r.recurrence()
	}
	if f&flagGuard != 0 {
		m.Guard.Entry = r.str()
	}
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

func (r *recordReader) svarint() int64 {
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

func (r *recordReader) bounded(most uint64) uint64 {
	v := r.uvarint()
	if v > most {
		r.fail(fmt.Sprintf("value %d above %d", v, most))
		return 0
	}
	return v
}

// str returns a string that aliases the record.
func (r *recordReader) str() string {
	n := r.uvarint()
	if n > uint64(len(r.b)-r.at) {
		r.fail(fmt.Sprintf("length %d does not fit", n))
		return ""
	}
	s := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return unsafe.String(unsafe.SliceData(s), len(s))
}
