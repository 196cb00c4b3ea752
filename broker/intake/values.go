// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
)

var (
	errNumber     = errors.New("want a whole number, not negative")
	errBefore1970 = errors.New("before 1970")
	errTooFar     = errors.New("beyond the year 9999")
	errLevel      = errors.New("want a delay level from 1 to 18")
	errRFC3339    = errors.New("want RFC 3339 with an offset")
	errPositive   = errors.New("must be positive")
	errTooLong    = errors.New("longer than 292 years")
	errMisfire    = errors.New("want fire_once, fire_all or skip")
	errBoolean    = errors.New("want true or false")
)

// maxCount is the most firings that a schedule may end after, as in the API.
const maxCount = 1<<53 - 1

// set takes the value of a known header.
func (p *parser) set(e *entry, name, value string) error {
	if e.weak {
		if p.weakID != "" {
			return delay.Invalid(name, "is given twice")
		}
		p.weakID = value
		return nil
	}
	f := e.field
	at, isInstant := strings.CutPrefix(value, "@at ")
	if e.form == formNATS && isInstant {
		f, value = fieldDeliverAt, at
	}
	if by := p.given[f]; by != "" {
		if by == name {
			return delay.Invalid(name, "is given twice")
		}
		return delay.Invalid(name, "%s is given too, which says the same", by)
	}
	p.given[f] = name
	if err := p.read(f, e.form, value); err != nil {
		return delay.Invalid(name, "%v", err)
	}
	return nil
}

// read sets a field. Its errors say what is wrong with the value.
func (p *parser) read(f field, form form, value string) (err error) {
	d, r := p.draft, &p.recur
	switch f {
	case fieldDeliverAt:
		p.deliver, err = instant(form, value)
	case fieldNotAfter:
		d.NotAfter, err = later(form, value)
	case fieldUntil:
		r.Until, err = later(form, value)
	case fieldDelay:
		p.wait, err = millis(form, value)
	case fieldTTL:
		d.TTL, err = positive(form, value)
		if form == formTTL && value == "never" {
			err = nil
		}
	case fieldSpread:
		d.Spread, err = duration(form, value)
	case fieldMaxWait:
		d.MaxWait, err = positive(form, value)
	case fieldBackoff:
		d.Backoff, err = positive(form, value)
	case fieldJitter:
		r.Jitter, err = duration(form, value)
	case fieldReplace:
		d.Replace, err = boolean(value)
	case fieldCancel:
		p.flag, err = boolean(value)
	default:
		return p.readWord(f, form, value)
	}
	return err
}

// readWord sets a field that is no time.
func (p *parser) readWord(f field, form form, value string) (err error) {
	d, r := p.draft, &p.recur
	var n uint64
	switch f {
	case fieldSchedule:
		r.Expr = value
	case fieldTimeZone:
		r.Zone = value
	case fieldMisfire:
		var ok bool
		if r.Misfire, ok = delay.ParseMisfire(value); !ok {
			err = errMisfire
		}
	case fieldMisfireLimit:
		n, err = count(value, delay.MaxMisfireLimit)
		r.MisfireLimit = uint32(n)
	case fieldCount:
		r.Count, err = count(value, maxCount)
	case fieldMaxAttempts:
		n, err = count(value, math.MaxUint32)
		d.MaxAttempts = uint32(n)
	case fieldTarget:
		d.Target = p.target(form, value)
	case fieldKey:
		d.RoutingKey = value
	case fieldID:
		d.ID = delay.ID(value)
		if value == "" {
			err = errors.New("must not be empty")
		}
	}
	return err
}

// target is a target, or the topic or subject of that name on the source's broker.
func (p *parser) target(form form, value string) delay.Target {
	if form == formText || value == "" {
		return delay.Target(value)
	}
	return delay.Target(string(p.opts.Kind) + ":" + p.opts.Broker + "/" + value)
}

// whole reads digits.
func whole(value string) (int64, error) {
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0, errNumber
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, errTooFar
	}
	return n, nil
}

// scaled reads digits of a unit of so many milliseconds.
func scaled(value string, unit int64) (int64, error) {
	n, err := whole(value)
	if err != nil {
		return 0, err
	}
	if n > int64(delay.MaxDue)/unit {
		return 0, errTooFar
	}
	return n * unit, nil
}

func instant(f form, value string) (delay.Due, error) {
	switch f {
	case formSeconds, formMillis:
		unit := int64(1)
		if f == formSeconds {
			unit = time.Second.Milliseconds()
		}
		ms, err := scaled(value, unit)
		if err != nil {
			return 0, err
		}
		return delay.InstantOfMillis(ms)
	case formRFC3339, formNATS:
		if !strings.Contains(value, "T") {
			return 0, errRFC3339
		}
	}
	return delay.ParseInstant(value)
}

// later reads an instant that ends something; 0 would be never.
func later(f form, value string) (delay.Due, error) {
	at, err := instant(f, value)
	if err == nil && at == 0 {
		return 0, errBefore1970
	}
	return at, err
}

// millis reads a duration.
func millis(f form, value string) (int64, error) {
	switch f {
	case formForSeconds:
		return scaled(value, time.Second.Milliseconds())
	case formForMillis:
		return scaled(value, 1)
	case formLevel:
		return level(value)
	case formTTL:
		if ms, err := scaled(value, time.Second.Milliseconds()); err == nil {
			return ms, nil
		}
		return delay.ParseMillis(value)
	}
	if ms, err := scaled(value, 1); err == nil {
		return ms, nil
	}
	return delay.ParseMillis(value)
}

func duration(f form, value string) (time.Duration, error) {
	ms, err := millis(f, value)
	switch {
	case err != nil:
		return 0, err
	case ms > math.MaxInt64/int64(time.Millisecond):
		return 0, errTooLong
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func positive(f form, value string) (time.Duration, error) {
	d, err := duration(f, value)
	if err == nil && d == 0 {
		return 0, errPositive
	}
	return d, err
}

// levels are RocketMQ's as it comes, in seconds.
var levels = [...]int64{
	1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
}

func level(value string) (int64, error) {
	n, err := whole(value)
	if err != nil || n < 1 || n > int64(len(levels)) {
		return 0, errLevel
	}
	return levels[n-1] * time.Second.Milliseconds(), nil
}

func count(value string, most uint64) (uint64, error) {
	n, err := whole(value)
	if err != nil || n < 1 || uint64(n) > most {
		return 0, errors.New("want a number from 1 to " + strconv.FormatUint(most, 10))
	}
	return uint64(n), nil
}

func boolean(value string) (bool, error) {
	switch value {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errBoolean
}
