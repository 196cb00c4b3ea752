// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// leastEpochMillis is the smallest number taken for epoch milliseconds (March 1973): smaller ones
// are seconds by mistake, which would be due at once instead of in years.
const leastEpochMillis = 100_000_000_000

var (
	errInstantForm = errors.New("want RFC 3339 with an offset, or epoch milliseconds")
	errSeconds     = errors.New("below 100000000000: seconds? want epoch milliseconds")
	errTooFar      = errors.New("beyond the year 9999")
	errBefore1970  = errors.New("before 1970")
	errDelayForm   = errors.New("want a duration such as 90s, 1h30m, 2d, 1w or PT90S")
	errNegative    = errors.New("must not be negative")
)

// ParseInstant reads RFC 3339 with an offset, or epoch milliseconds in digits. What is finer than
// a millisecond rounds up, so that nothing is ever early (S8). The error says what is wrong,
// without the text.
func ParseInstant(s string) (Due, error) {
	if digits(s) {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, errTooFar
		}
		return InstantOfMillis(ms)
	}
	if !rfc3339Shape(s) {
		return 0, errInstantForm
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, errInstantForm
	}
	due := DueOf(t)
	switch {
	case due < 0:
		return 0, errBefore1970
	case due > MaxDue:
		return 0, errTooFar
	}
	return due, nil
}

// InstantOfMillis checks epoch milliseconds.
func InstantOfMillis(ms int64) (Due, error) {
	switch {
	case ms < 0:
		return 0, errNegative
	case ms < leastEpochMillis:
		return 0, errSeconds
	case ms > int64(MaxDue):
		return 0, errTooFar
	}
	return Due(ms), nil
}

// digits reports whether s is a number without a sign.
func digits(s string) bool {
	for i := range len(s) {
		if s[i]-'0' > 9 {
			return false
		}
	}
	return s != ""
}

// rfc3339Shape is stricter than time.Parse, which takes one-digit hours, a comma before the
// fraction and offsets beyond a day.
func rfc3339Shape(s string) bool {
	const date = "0000-00-00T00:00:00"
	if len(s) <= len(date) || !shape(s[:len(date)], date) {
		return false
	}
	rest := s[len(date):]
	if rest[0] == '.' {
		n := 1
		for n < len(rest) && rest[n]-'0' <= 9 {
			n++
		}
		if n == 1 {
			return false
		}
		rest = rest[n:]
	}
	if rest == "Z" {
		return true
	}
	return len(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && shape(rest[1:], "00:00") &&
		rest[1:3] < "24" && rest[4:6] < "60"
}

// shape reports whether s has digits where form has zeros and is equal elsewhere.
func shape(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range len(s) {
		if form[i] == '0' {
			if s[i]-'0' > 9 {
				return false
			}
		} else if s[i] != form[i] {
			return false
		}
	}
	return true
}

// ParseMillis reads a duration in Go's form, also with d (24 h) and w (7 d), or in ISO 8601
// without years and months, whose length nobody knows. The result is in milliseconds, rounded up,
// because delays reach further than a time.Duration.
func ParseMillis(s string) (int64, error) {
	switch {
	case s == "":
		return 0, errDelayForm
	case s[0] == '-':
		return 0, errNegative
	case s[0] == 'P':
		return isoMillis(s[1:])
	case s == "0":
		return 0, nil
	case digits(s):
		return 0, fmt.Errorf("needs a unit, as in %sms, or a JSON number of milliseconds", s)
	}
	var sum nanos
	for s != "" {
		n := numberLen(s)
		unit := unitLen(s[n:])
		if n == 0 || unit == 0 {
			return 0, errDelayForm
		}
		scale, ok := unitNanos(s[n : n+unit])
		if !ok {
			return 0, fmt.Errorf("unknown unit %.8q: %w", s[n:n+unit], errDelayForm)
		}
		if !sum.add(s[:n], scale) {
			return 0, errTooFar
		}
		s = s[n+unit:]
	}
	return sum.millis(), nil
}

// isoMillis reads what follows the P of an ISO 8601 duration: weeks, days, and after T hours,
// minutes, seconds, each at most once and in this order.
func isoMillis(s string) (int64, error) {
	var sum nanos
	order, inTime, some, cut := "WD", false, false, false
	for s != "" {
		if s[0] == 'T' && !inTime {
			order, inTime, some, s = "HMS", true, false, s[1:]
			continue
		}
		n := numberLen(s)
		if n == 0 || n == len(s) || cut {
			return 0, errDelayForm // only the last number may have a fraction
		}
		unit := s[n]
		at := strings.IndexByte(order, unit)
		if !inTime && (unit == 'Y' || unit == 'M') {
			return 0, errors.New("years and months have no fixed length: use days")
		}
		if at < 0 {
			return 0, errDelayForm
		}
		order, some, cut = order[at+1:], true, strings.IndexByte(s[:n], '.') >= 0
		scale := map[byte]uint64{'W': 7 * day, 'D': day, 'H': uint64(time.Hour),
			'M': uint64(time.Minute), 'S': uint64(time.Second)}[unit]
		if !sum.add(s[:n], scale) {
			return 0, errTooFar
		}
		s = s[n+1:]
	}
	if !some {
		return 0, errDelayForm
	}
	return sum.millis(), nil
}

const day = uint64(Day)

// numberLen is the length of the decimal number at the start of s: digits with at most one point
// that has a digit at its side.
func numberLen(s string) int {
	n, point, figures := 0, false, 0
	for n < len(s) {
		switch {
		case s[n]-'0' <= 9:
			figures++
		case s[n] == '.' && !point:
			point = true
		default:
			if figures == 0 {
				return 0
			}
			return n
		}
		n++
	}
	if figures == 0 {
		return 0
	}
	return n
}

func unitLen(s string) int {
	n := 0
	for n < len(s) && s[n] != '.' && s[n]-'0' > 9 {
		n++
	}
	return n
}

func unitNanos(unit string) (uint64, bool) {
	switch unit {
	case "ns":
		return 1, true
	case "us", "µs", "μs":
		return uint64(time.Microsecond), true
	case "ms":
		return uint64(time.Millisecond), true
	case "s":
		return uint64(time.Second), true
	case "m":
		return uint64(time.Minute), true
	case "h":
		return uint64(time.Hour), true
	case "d":
		return day, true
	case "w":
		return 7 * day, true
	}
	return 0, false
}

// nanos is a sum of durations as a 128-bit number of nanoseconds, because delays reach further than
// 64 bits of them, with a mark for anything finer.
type nanos struct {
	hi, lo uint64
	finer  bool
}

// exactDigits is how many digits of a fraction are read; of the rest only whether they are zero
// matters, because the sum rounds up.
const exactDigits = 18

// add adds number units of scale nanoseconds and reports whether the sum is still in range.
func (n *nanos) add(number string, scale uint64) bool {
	whole, fraction, _ := strings.Cut(number, ".")
	if whole != "" {
		v, err := strconv.ParseUint(whole, 10, 64)
		if err != nil {
			return false
		}
		n.plus(bits.Mul64(v, scale))
	}
	if len(fraction) > exactDigits {
		n.finer = n.finer || strings.Trim(fraction[exactDigits:], "0") != ""
		fraction = fraction[:exactDigits]
	}
	part, tenth := uint64(0), uint64(1)
	for i := range len(fraction) {
		part, tenth = part*10+uint64(fraction[i]-'0'), tenth*10
	}
	if part > 0 {
		hi, lo := bits.Mul64(part, scale)
		quotient, rest := bits.Div64(hi, lo, tenth)
		n.plus(0, quotient)
		n.finer = n.finer || rest > 0
	}
	return n.millis() <= int64(MaxDue)
}

func (n *nanos) plus(hi, lo uint64) {
	sum, carry := bits.Add64(n.lo, lo, 0)
	n.lo = sum
	n.hi = min(n.hi+hi+carry, 1<<32) // far out of range already, and never round again
}

// millis rounds up, and saturates far out of range.
func (n *nanos) millis() int64 {
	hi, lo := n.hi, n.lo
	if hi >= uint64(time.Millisecond) {
		return math.MaxInt64
	}
	ms, rest := bits.Div64(hi, lo, uint64(time.Millisecond))
	if rest > 0 || n.finer {
		ms++
	}
	if ms > uint64(math.MaxInt64) {
		return math.MaxInt64
	}
	return int64(ms)
}
