// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Limits of a recurrence.
const (
	MaxScheduleBytes = 256
	MaxZoneBytes     = 64
	MaxMisfireLimit  = 1000
	// DefaultMisfireLimit is how many missed firings fire_all makes up for when the schedule does
	// not say.
	DefaultMisfireLimit = 100
	// MaxScheduleIDBytes bounds the id of a schedule: the ids of its firings are longer.
	MaxScheduleIDBytes = MaxIDBytes - 16
)

// Misfire is what happens to the firings of a schedule that were missed: while the daemon was down,
// the schedule was paused, or the clock stepped over them.
type Misfire uint8

// The policies.
const (
	// FireOnce makes up for all of them with one firing, the latest, which says how many were
	// missed before it.
	FireOnce Misfire = iota
	// FireAll makes up for each of the latest MisfireLimit.
	FireAll
	// SkipMissed makes up for none.
	SkipMissed
)

var misfireNames = [...]string{"fire_once", "fire_all", "skip"}

// String is the word of the API.
func (m Misfire) String() string {
	if int(m) < len(misfireNames) {
		return misfireNames[m]
	}
	return "unknown"
}

// ParseMisfire reads the word of the API.
func ParseMisfire(s string) (Misfire, bool) {
	for i, name := range misfireNames {
		if name == s {
			return Misfire(i), true
		}
	}
	return 0, false
}

// Headers that a firing carries beside those of its schedule.
const (
	HeaderScheduleID = "cicada-schedule-id" // the id of the schedule
	HeaderMissed     = "cicada-missed"      // how many firings this one stands for, beside itself
)

// Recurrence makes a message a schedule: it is never delivered itself. At its due a firing, a
// message of its own, is made of its target, key, headers and body, and its due moves on (rule
// R20).
type Recurrence struct {
	// The definition.
	Expr         string // @every, @daily, or five or six cron fields
	Zone         string // an IANA name; "" is UTC
	Misfire      Misfire
	MisfireLimit uint32        // FireAll: at most so many at once; 0 is DefaultMisfireLimit
	Until        Due           // no firing after it; 0 is for ever
	Count        uint64        // end after so many firings; 0 is no limit
	Jitter       time.Duration // every firing is late by the same stable part of it

	// The progress. It moves with each firing, in the same batch.
	Start  Due    // when the definition was given; @every counts from it
	Next   Due    // of the calendar, without jitter; a paused schedule keeps it
	Last   Due    // due of the latest firing; 0 is none
	Since  Due    // when it was resumed: what was due before was missed
	Fired  uint64 // firings made
	Missed uint64 // firings that were due and not made
	Untold uint64 // of these, those since the latest firing
	Paused bool
}

// FiringID is the id of the firing of a schedule that is due at an instant. It is as long as a
// client's id may be when the schedule's is MaxScheduleIDBytes long.
func FiringID(schedule ID, due Due) ID {
	return ID(fmt.Sprintf("%s@%d", schedule, int64(due)))
}

// Continue takes the history of the schedule that c replaces, whose record is old: how often it has
// fired, and that it is paused. It is nothing for another record. The error is an invalid field.
func (c *Recurrence) Continue(old []byte) error {
	m, err := DecodeRecord(old)
	if err != nil || m.Recurrence == nil {
		return nil //nolint:nilerr // what cannot be read has no history
	}
	before := m.Recurrence
	if c.Count > 0 && c.Count <= before.Fired {
		return Invalid("count", "it has fired %d times already, and they count", before.Fired)
	}
	c.Last, c.Fired, c.Missed, c.Paused = before.Last, before.Fired, before.Missed, before.Paused
	return nil
}

// The flags of an encoded recurrence.
const (
	recurPaused = 1 << iota
	recurFlagsEnd
)

// appendRecurrence appends the encoding of c.
func appendRecurrence(dst []byte, c *Recurrence) []byte {
	flags := uint64(0)
	if c.Paused {
		flags |= recurPaused
	}
	dst = binary.AppendUvarint(dst, flags)
	dst = appendString(dst, c.Expr)
	dst = appendString(dst, c.Zone)
	for _, v := range [...]uint64{
		uint64(c.Misfire), uint64(c.MisfireLimit), uint64(c.Until), c.Count,
		uint64(c.Jitter.Milliseconds()), uint64(c.Start), uint64(c.Next), uint64(c.Last),
		uint64(c.Since), c.Fired, c.Missed, c.Untold,
	} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func (r *recordReader) recurrence() *Recurrence {
	var c Recurrence
	flags := r.uvarint()
	if flags >= recurFlagsEnd {
		r.fail(fmt.Sprintf("unknown recurrence flags %#x", flags))
	}
	c.Paused = flags&recurPaused != 0
	c.Expr, c.Zone = r.str(), r.str()
	c.Misfire = Misfire(r.bounded(uint64(SkipMissed)))
	c.MisfireLimit = uint32(r.bounded(math.MaxUint32))
	c.Until = Due(r.bounded(uint64(MaxDue)))
	c.Count = r.uvarint()
	c.Jitter = time.Duration(r.bounded(math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	for _, d := range [...]*Due{&c.Start, &c.Next, &c.Last, &c.Since} {
		*d = Due(r.bounded(uint64(MaxDue)))
	}
	c.Fired, c.Missed, c.Untold = r.uvarint(), r.uvarint(), r.uvarint()
	return &c
}

// digest is the part of Digest that a recurrence adds: its definition, not its progress.
func (c *Recurrence) digest(h fnv64) fnv64 {
	h = h.str(c.Expr).str(c.Zone)
	h = h.num(uint64(c.Misfire)).num(uint64(c.MisfireLimit)).num(uint64(c.Until))
	return h.num(c.Count).num(uint64(c.Jitter))
}
