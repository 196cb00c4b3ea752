// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day and Week are the units that ParseDuration knows beyond those of package time: exactly 24
// and 168 hours.
const (
	Day  = 24 * time.Hour
	Week = 7 * Day
)

var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond, "us": time.Microsecond, "µs": time.Microsecond,
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": Day, "w": Week,
}

// ParseDuration reads a Go duration that may also use d (24 h) and w (7 d): "90s", "1d12h",
// "1.5h". A plain number other than 0 is refused: its unit would be a guess. Negative durations,
// values beyond 292 years and more digits than fit are refused.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	rest, total := s, time.Duration(0)
	for rest != "" {
		number, unit, after := durationPart(rest)
		size, ok := durationUnits[unit]
		if number == "" || !ok {
			return 0, fmt.Errorf("%w: duration %q: want a number and one of "+
				"ns us ms s m h d w, as in 90s or 1d12h", ErrInvalid, s)
		}
		part, err := scale(number, size)
		if err != nil || total > math.MaxInt64-part {
			return 0, fmt.Errorf("%w: duration %q: out of range", ErrInvalid, s)
		}
		total, rest = total+part, after
	}
	if s == "" {
		return 0, fmt.Errorf("%w: duration is empty", ErrInvalid)
	}
	return total, nil
}

// durationPart splits the first number and unit off s.
func durationPart(s string) (number, unit, rest string) {
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' || r == '.' }
	n := strings.IndexFunc(s, func(r rune) bool { return !isDigit(r) })
	if n < 0 {
		return s, "", ""
	}
	u := strings.IndexFunc(s[n:], isDigit)
	if u < 0 {
		u = len(s) - n
	}
	return s[:n], s[n : n+u], s[n+u:]
}

// scale is number times unit, exact for whole numbers.
func scale(number string, unit time.Duration) (time.Duration, error) {
	if !strings.Contains(number, ".") {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > math.MaxInt64/int64(unit) {
			return 0, ErrInvalid
		}
		return time.Duration(n) * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*float64(unit) >= math.MaxInt64 {
		return 0, ErrInvalid
	}
	return time.Duration(math.Round(f * float64(unit))), nil
}

// FormatDuration writes d in the fewest units that ParseDuration reads back exactly: "1d12h",
// "24h" as "1d".
func FormatDuration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range [...]struct {
		size time.Duration
		name string
	}{{Day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"},
		{time.Millisecond, "ms"}, {time.Microsecond, "us"}, {time.Nanosecond, "ns"}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", int64(n), u.name)
			d -= n * u.size
		}
	}
	return b.String()
}
