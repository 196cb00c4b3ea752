// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"math"
	"math/bits"
	"sort"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Rule is a schedule in its zone. It is immutable.
type Rule struct {
	text  string
	loc   *time.Location
	every time.Duration  // of @every; else 0
	sets  [fields]uint64 // bit v: the field may be v; star: not restricted
}

// Firing is one instant at which a rule fires.
type Firing struct {
	At   delay.Due
	Kind Kind
	// Wanted is the local time that the rule asked for. It differs from the local time of At when
	// Kind is AfterGap. It is zero for @every.
	Wanted time.Time
}

// Kind says what the clocks of the zone do around a firing.
type Kind uint8

// The kinds.
const (
	Plain    Kind = iota
	AfterGap      // the wanted time does not exist on that day; this is the first instant after it
	First         // the local time comes twice; this is the first
	Second        // and this the second, of a rule for every hour
)

// Location is the zone of the rule.
func (r *Rule) Location() *time.Location { return r.loc }

// Every is the interval of an @every rule; else 0.
func (r *Rule) Every() time.Duration { return r.every }

// hourly is whether the rule follows elapsed time (Z2).
func (r *Rule) hourly() bool {
	const all = 1<<24 - 1
	return r.sets[fieldHour]&all == all
}

// Next is the first firing after an instant. Firings of @every count from start, the first being
// one interval later; other rules ignore start. ok is false if nothing follows before the year
// 10000.
func (r *Rule) Next(after, start delay.Due) (next Firing, ok bool) {
	if r.every > 0 {
		return r.nextInterval(after, start)
	}
	const second = int64(time.Second / time.Millisecond)
	// The first whole second after the instant.
	at, f, ok := r.search(floorDiv(int64(after), second) + 1)
	if !ok || at > int64(delay.MaxDue)/second {
		return Firing{}, false
	}
	f.At = delay.Due(at * second)
	return f, true
}

func (r *Rule) nextInterval(after, start delay.Due) (Firing, bool) {
	interval := int64(r.every / time.Millisecond)
	n := int64(1)
	if after >= start {
		n = (int64(after)-int64(start))/interval + 1
	}
	if n > (int64(delay.MaxDue)-int64(start))/interval {
		return Firing{}, false
	}
	return Firing{At: start + delay.Due(n*interval)}, true
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// Seconds of larger units.
const (
	minuteSeconds = 60
	hourSeconds   = 60 * minuteSeconds
	daySeconds    = 24 * hourSeconds
)

// forever is later than every instant, in seconds.
const forever = math.MaxInt64 / 2

// lastCivil is the end of the year 9999 on a local clock.
const lastCivil = int64(delay.MaxDue)/1000 + 1

// segment is a time in which the zone's offset does not change: [start, end) in seconds, and the
// local clock is offset ahead of UTC. Its neighbour may have the same offset.
type segment struct{ start, end, offset int64 }

// segment is the one that at lies in. Where package time computes from a zone's rule its bounds are
// not always true: at the end of the list of changes the rule's last change may lie before the
// list's, and on the last day of a leap year the year is already over.
func (r *Rule) segment(at int64) segment {
	s := segment{start: -forever, end: forever, offset: r.offset(at)}
	from, to := time.Unix(at, 0).In(r.loc).ZoneBounds()
	if !from.IsZero() {
		s.start = min(from.Unix(), at)
		if r.offset(s.start) != s.offset {
			back := sort.Search(int(at-s.start), func(i int) bool {
				return r.offset(s.start+int64(i)) == s.offset
			})
			s.start += int64(back)
		}
	}
	if !to.IsZero() {
		s.end = to.Unix()
	}
	if s.end <= at {
		s.end = at + hourSeconds
	}
	return s
}

// offset is how far the local clock is ahead of UTC at an instant, in seconds.
func (r *Rule) offset(at int64) int64 {
	_, offset := time.Unix(at, 0).In(r.loc).Zone()
	return int64(offset)
}

// maxShift is more than any zone ever set its clocks back, in seconds.
const maxShift = 2 * daySeconds

// shown is the first local time that no clock showed before s began (Z1).
func (r *Rule) shown(s segment) int64 {
	if s.start == -forever {
		return -forever
	}
	most := int64(-forever)
	for at := s.start; at > s.start-maxShift && at > -forever; {
		p := r.segment(at - 1)
		most = max(most, at+p.offset)
		at = p.start
	}
	return most
}

// search finds the first firing at the instant low or later, in seconds.
func (r *Rule) search(low int64) (at int64, f Firing, ok bool) {
	for s := r.segment(low); ; s = r.segment(s.end) {
		from := max(low, s.start) + s.offset
		switch {
		case r.hourly():
		case low <= s.start:
			from = r.shown(s) // what a gap swallowed fires at the start of the segment
		default:
			from = max(from, r.shown(s))
		}
		// lastCivil bounds the search also where the segment has no end.
		below := min(s.end, forever-s.offset) + s.offset
		if c, found := r.civil(from, min(below, lastCivil)); found {
			at = max(c-s.offset, s.start)
			return at, Firing{Wanted: r.wall(c), Kind: r.kind(s, c)}, true
		}
		if s.end >= lastCivil+daySeconds {
			return 0, Firing{}, false
		}
	}
}

// wall is a local time without its zone.
func (r *Rule) wall(civil int64) time.Time { return time.Unix(civil, 0).UTC() }

// kind says what is special about the local time c that fires in s.
func (r *Rule) kind(s segment, c int64) Kind {
	switch {
	case c < s.start+s.offset:
		return AfterGap
	case s.end < forever && c >= s.end+r.segment(s.end).offset:
		return First
	case c < r.shown(s):
		return Second
	default:
		return Plain
	}
}

// civil is the first local time that matches in [from, below), in seconds as if the local clock
// were UTC.
func (r *Rule) civil(from, below int64) (int64, bool) {
	day, second := floorDiv(from, daySeconds), from-floorDiv(from, daySeconds)*daySeconds
	for ; day*daySeconds < below; second = 0 {
		y, m, d := time.Unix(day*daySeconds, 0).UTC().Date()
		if !r.has(fieldMonth, int(m)) {
			// Go to the first day of the next month.
			day += int64(time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day() - d + 1)
			continue
		}
		if r.dayMatches(d, int(floorMod(day+int64(time.Thursday), week))) {
			if s, ok := r.timeOfDay(second); ok {
				c := day*daySeconds + s
				return c, c < below
			}
		}
		day++
	}
	return 0, false
}

func floorMod(a, b int64) int64 { return a - floorDiv(a, b)*b }

// dayMatches joins day of month and day of week as POSIX does.
func (r *Rule) dayMatches(day, weekday int) bool {
	inMonth, inWeek := r.has(fieldDay, day), r.has(fieldWeekday, weekday)
	if (r.sets[fieldDay]|r.sets[fieldWeekday])&star != 0 {
		return inMonth && inWeek
	}
	return inMonth || inWeek
}

// timeOfDay is the first second of the day that matches, at from or later.
func (r *Rule) timeOfDay(from int64) (int64, bool) {
	h, m, s := from/hourSeconds, from/minuteSeconds%minuteSeconds, from%minuteSeconds
	for {
		hour, ok := r.least(fieldHour, h)
		if !ok {
			return 0, false
		}
		if hour > h {
			m, s = 0, 0
		}
		h = hour
		minute, ok := r.least(fieldMinute, m)
		if !ok {
			h, m, s = h+1, 0, 0
			continue
		}
		if minute > m {
			s = 0
		}
		m = minute
		second, ok := r.least(fieldSecond, s)
		if !ok {
			m, s = m+1, 0
			continue
		}
		return h*hourSeconds + m*minuteSeconds + second, true
	}
}

// least is the smallest value of a field that is v or more.
func (r *Rule) least(field int, v int64) (int64, bool) {
	set := (r.sets[field] &^ star) >> v << v
	if set == 0 {
		return 0, false
	}
	return int64(bits.TrailingZeros64(set)), true
}
