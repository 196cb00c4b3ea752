// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/cicadamq/cicada/delay"
)

// MaxLength is the longest expression, in bytes.
const MaxLength = 256

// MinEvery is the shortest interval of @every.
const MinEvery = time.Second

// field names the field of a message that holds an expression.
const field = "schedule"

// Parse reads a schedule in a zone:
//
//	minute hour day month weekday            five fields, as cron(8) has them
//	second minute hour day month weekday     six
//	@yearly @annually @monthly @weekly @daily @midnight @hourly
//	@every 90s                               a fixed interval of at least a second, in any form that
//	                                         delay.ParseDuration reads
//
// A field is a list of numbers, names (JAN, MON), ranges and steps; Sunday is 0 or 7. Errors are
// invalid fields: "schedule" or "time_zone".
func (z *Zones) Parse(expression, zone string) (*Rule, error) {
	loc, err := z.Location(zone)
	if err != nil {
		return nil, err
	}
	r := &Rule{text: expression, loc: loc}
	switch {
	case len(expression) > MaxLength:
		return nil, delay.Invalid(field, "is longer than %d bytes", MaxLength)
	case strings.Contains(expression, "TZ="):
		return nil, delay.Invalid(field, "has a zone of its own; use time_zone")
	case strings.HasPrefix(expression, "@every"):
		err = r.parseEvery(strings.TrimPrefix(expression, "@every"))
	case strings.HasPrefix(expression, "@"):
		err = r.parseName(expression)
	default:
		err = r.parseFields(strings.Fields(expression))
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rule) parseEvery(text string) error {
	interval, err := delay.ParseDuration(strings.TrimSpace(text))
	switch {
	case err != nil || !strings.HasPrefix(text, " "):
		return delay.Invalid(field, "%q: want a duration, as in @every 5m", clip(r.text))
	case interval < MinEvery:
		return delay.Invalid(field, "%q: is less than %v", clip(r.text), MinEvery)
	}
	r.every = interval
	return nil
}

// names are the expressions that have one. They are written out so that they mean what the fields
// mean, Z1 and Z2 included.
func (r *Rule) parseName(name string) error {
	switch name {
	case "@yearly", "@annually":
		return r.parseFields([]string{"0", "0", "1", "1", "*"})
	case "@monthly":
		return r.parseFields([]string{"0", "0", "1", "*", "*"})
	case "@weekly":
		return r.parseFields([]string{"0", "0", "*", "*", "0"})
	case "@daily", "@midnight":
		return r.parseFields([]string{"0", "0", "*", "*", "*"})
	case "@hourly":
		return r.parseFields([]string{"0", "*", "*", "*", "*"})
	default:
		return delay.Invalid(field, "%q: want @yearly, @monthly, @weekly, @daily, @hourly, "+
			"@every or cron fields", clip(name))
	}
}

// The fields of an expression, in order.
const (
	fieldSecond = iota
	fieldMinute
	fieldHour
	fieldDay
	fieldMonth
	fieldWeekday
	fields
)

// star is the bit with which the parser says that a field is not restricted.
const star = 1 << 63

func (r *Rule) parseFields(text []string) error {
	switch len(text) {
	case fields - 1:
		text = append([]string{"0"}, text...)
	case fields:
	default:
		return delay.Invalid(field, "%q: want five or six fields, or a name such as @daily",
			clip(r.text))
	}
	text[fieldWeekday] = sundays(text[fieldWeekday])
	for i, t := range text {
		set, err := parseField(i, t)
		if err != nil {
			return err
		}
		r.sets[i] = set
	}
	if !r.everFires() {
		return delay.Invalid(field, "%q: never fires; no such month has that day", clip(r.text))
	}
	return nil
}

// parseField asks the library for the set of one field. It parses fields one by one to name the
// field that is wrong.
func parseField(i int, text string) (set uint64, err error) {
	name := [fields]string{"second", "minute", "hour", "day of month", "month", "weekday"}[i]
	defer func() {
		if p := recover(); p != nil {
			set, err = 0, delay.Invalid(field, "%s %q cannot be read", name, clip(text))
		}
	}()
	option := [fields]cron.ParseOption{
		cron.Second, cron.Minute, cron.Hour, cron.Dom, cron.Month, cron.Dow,
	}[i]
	parsed, err := cron.NewParser(option).Parse(text)
	if err != nil {
		why := clip(err.Error())
		if i == fieldWeekday {
			why += "; Sunday is 0 or 7"
		}
		return 0, delay.Invalid(field, "%s %q: %s", name, clip(text), why)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return 0, delay.Invalid(field, "%s %q cannot be read", name, clip(text))
	}
	set = [fields]uint64{
		spec.Second, spec.Minute, spec.Hour, spec.Dom, spec.Month, spec.Dow,
	}[i]
	if set&^star == 0 || strings.HasPrefix(text, ",") || strings.HasSuffix(text, ",") ||
		strings.Contains(text, ",,") {
		return 0, delay.Invalid(field, "%s %q has an empty item", name, clip(text))
	}
	return set, nil
}

// sundays writes Sunday as 0 where it is 7, which the library does not know: "5-7" is "5,6,0". As
// the end of a range SUN is 7 too.
func sundays(text string) string {
	items := strings.Split(text, ",")
	for i, item := range items {
		items[i] = sunday(item)
	}
	return strings.Join(items, ",")
}

// week is how many days a week has, and Sunday's other number.
const week = 7

func sunday(item string) string {
	base, step, stepped := strings.Cut(item, "/")
	low, high, ranged := strings.Cut(base, "-")
	first, ok := weekday(low)
	if !ok {
		return item
	}
	if !ranged {
		if first == week {
			return "0"
		}
		return item
	}
	last, ok := weekday(high)
	if last == 0 && first > 0 && strings.EqualFold(high, "sun") {
		last = week
	}
	if !ok || last != week {
		return item
	}
	by := 1
	if stepped {
		n, err := strconv.Atoi(step)
		if err != nil || n <= 0 {
			return item
		}
		by = min(n, week+1)
	}
	var days []string
	for d := first; d <= week; d += by {
		days = append(days, strconv.Itoa(d%week))
	}
	return strings.Join(days, ",")
}

// weekday reads a day's number, 0 to 7, or name.
func weekday(s string) (int, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(s, d.String()[:len("sun")]) {
			return int(d), true
		}
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n <= week
}

// longest is the length of each month in a leap year.
func longest(m time.Month) int {
	const leap = 2000
	return time.Date(leap, m+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// everFires is whether some month that is wanted has a day that is wanted.
func (r *Rule) everFires() bool {
	if r.sets[fieldWeekday]&star == 0 {
		return true
	}
	for m := time.January; m <= time.December; m++ {
		days := r.sets[fieldDay] &^ star & (1<<(longest(m)+1) - 1)
		if r.has(fieldMonth, int(m)) && days != 0 {
			return true
		}
	}
	return false
}

// has is whether the set of a field holds v.
func (r *Rule) has(field, v int) bool { return r.sets[field]>>v&1 != 0 }

// String is the expression with its zone, as in "0 9 * * MON Europe/Berlin".
func (r *Rule) String() string { return fmt.Sprintf("%s %s", r.text, r.loc) }
