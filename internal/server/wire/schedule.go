// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"strconv"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/scheduler/calendar"
)

// MaxCount is the most firings that a schedule may end after: what every JSON number holds exactly.
const MaxCount = 1<<53 - 1

// How many firings to come a reply tells of each schedule.
const (
	ShownFirings  = 5 // alone
	ListedFirings = 1 // in a list
)

// Recurrence is that of the item's draft, which it becomes part of.
func (it *Item) Recurrence() *delay.Recurrence {
	if it.Draft.Recurrence == nil {
		it.Draft.Recurrence = new(delay.Recurrence)
	}
	return it.Draft.Recurrence
}

// recurring reads the value of a field of a schedule.
func (d *Decoder) recurring(f Fields, r *delay.Recurrence) (err error) {
	name := f.String()
	var n int64
	switch f {
	case FieldSchedule:
		r.Expr, err = d.s.text(name)
	case FieldTimeZone:
		r.Zone, err = d.s.text(name)
	case FieldMisfire:
		var word string
		if word, err = d.s.text(name); err == nil {
			r.Misfire, err = ParseMisfire(word)
		}
	case FieldMisfireLimit:
		n, err = d.s.whole(name, delay.MaxMisfireLimit)
		r.MisfireLimit = uint32(n)
	case FieldUntil:
		r.Until, err = d.s.instant(name)
	case FieldCount:
		n, err = d.s.whole(name, MaxCount)
		r.Count = uint64(n)
	default:
		r.Jitter, err = d.s.duration(name, 0)
	}
	return err
}

// ParseMisfire reads the word of the API.
func ParseMisfire(word string) (delay.Misfire, error) {
	m, ok := delay.ParseMisfire(word)
	if !ok {
		return 0, delay.Invalid("misfire", "want fire_once, fire_all or skip")
	}
	return m, nil
}

// recurs checks what a schedule says, but for the expression and the zone: the shard reads them.
func (it *Item) recurs() error {
	r, d := it.Recurrence(), it.Draft
	given := func(f Fields) bool { return it.Given&f != 0 }
	text := func(s string, most int) bool {
		return s != "" && len(s) <= most && delay.ValidText(s)
	}
	switch {
	case !given(FieldSchedule):
		return delay.Invalid((it.Given & fieldRecurring).String(), "needs a schedule")
	case given(FieldDeliverAt | FieldDelay):
		return delay.Invalid("schedule", "only one of deliver_at, delay and schedule may be given")
	case !text(r.Expr, delay.MaxScheduleBytes):
		return delay.Invalid("schedule", "want 1 to %d bytes without control characters",
			delay.MaxScheduleBytes)
	case given(FieldTimeZone) && !text(r.Zone, delay.MaxZoneBytes):
		return delay.Invalid("time_zone", "want a zone of the IANA database, such as Europe/Berlin")
	case given(FieldMisfireLimit) && (r.MisfireLimit < 1 || r.MisfireLimit > delay.MaxMisfireLimit):
		return delay.Invalid("misfire_limit", "want 1 to %d", delay.MaxMisfireLimit)
	case given(FieldMisfireLimit) && r.Misfire != delay.FireAll:
		return delay.Invalid("misfire_limit", "needs misfire fire_all")
	case given(FieldUntil) && r.Until <= 0:
		return delay.Invalid("until", "%v", errBefore1970)
	case given(FieldCount) && (r.Count < 1 || r.Count > MaxCount):
		return delay.Invalid("count", "want 1 to %d", int64(MaxCount))
	case d.NotAfter > 0:
		return delay.Invalid("not_after", "a schedule ends with until; its firings may have a ttl")
	case d.Spread > 0:
		return delay.Invalid("spread", "a schedule has jitter instead")
	case d.MaxWait > 0:
		return delay.Invalid("max_wait", "a schedule has no due that waits")
	case len(d.ID) > delay.MaxScheduleIDBytes:
		return delay.Invalid("id", "longer than %d bytes: its firings' ids end with their due",
			delay.MaxScheduleIDBytes)
	}
	return nil
}

// Firing is one firing to come of a schedule.
type Firing struct {
	Due   delay.Due
	Local string // in the zone of the schedule
	Note  string // what the clocks do around it, or ""
}

// Forecaster computes what replies tell of schedules. It is safe for concurrent use.
type Forecaster struct{ zones *calendar.Zones }

// NewForecaster opens the embedded calendar.
func NewForecaster() *Forecaster {
	zones, err := calendar.NewZones()
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return &Forecaster{zones}
}

// Next are the next firings of m, at most most: none when it is no schedule, or when its zone is
// not known any more. A paused schedule would make those from now on.
func (f *Forecaster) Next(m *scheduler.Info, now delay.Due, most int) []Firing {
	if m.Recurrence == nil || f == nil {
		return nil
	}
	from := delay.Due(0)
	if m.Recurrence.Paused {
		from = now
	}
	firings, err := f.zones.Upcoming(m.Recurrence, m.Due, from)
	if err != nil {
		return nil
	}
	zone, err := f.zones.Location(m.Recurrence.Zone)
	if err != nil {
		return nil
	}
	out := make([]Firing, 0, most)
	for next := range firings {
		if len(out) == most {
			break
		}
		local := next.At.Time().In(zone).Format(calendar.LocalForm)
		out = append(out, Firing{next.At, local, next.Note()})
	}
	return out
}

// appendSchedule appends the object of a schedule.
func appendSchedule(dst []byte, r *delay.Recurrence, next []Firing) []byte {
	dst = append(dst, `{"expression":`...)
	dst = AppendString(dst, r.Expr)
	dst = append(dst, `,"time_zone":`...)
	dst = AppendString(dst, ZoneOf(r))
	dst = append(dst, `,"misfire":"`...)
	dst = append(dst, r.Misfire.String()...)
	dst = append(dst, '"')
	if r.Misfire == delay.FireAll {
		dst = appendNumber(dst, "misfire_limit", uint64(LimitOf(r)))
	}
	if r.Until > 0 {
		dst = append(dst, `,"until":"`...)
		dst = append(AppendDue(dst, r.Until), '"')
	}
	if r.Count > 0 {
		dst = appendNumber(dst, "count", r.Count)
	}
	if r.Jitter > 0 {
		dst = append(dst, `,"jitter":"`...)
		dst = append(append(dst, r.Jitter.Truncate(time.Millisecond).String()...), '"')
	}
	dst = appendNumber(dst, "fired", r.Fired)
	dst = appendNumber(dst, "missed", r.Missed)
	if r.Last > 0 {
		dst = append(dst, `,"last":"`...)
		dst = append(AppendDue(dst, r.Last), '"')
		dst = appendNumber(dst, "last_due_ms", uint64(r.Last))
	}
	dst = append(dst, `,"paused":`...)
	dst = strconv.AppendBool(dst, r.Paused)
	dst = append(dst, `,"next":[`...)
	for i, f := range next {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"due":"`...)
		dst = append(AppendDue(dst, f.Due), '"')
		dst = appendNumber(dst, "due_ms", uint64(f.Due))
		dst = append(dst, `,"local":`...)
		dst = AppendString(dst, f.Local)
		if f.Note != "" {
			dst = append(dst, `,"note":`...)
			dst = AppendString(dst, f.Note)
		}
		dst = append(dst, '}')
	}
	return append(dst, `]}`...)
}

// ZoneOf is the name of a schedule's zone.
func ZoneOf(r *delay.Recurrence) string {
	if r.Zone == "" {
		return "UTC"
	}
	return r.Zone
}

// LimitOf is how many missed firings fire_all makes up for.
func LimitOf(r *delay.Recurrence) uint32 {
	if r.MisfireLimit == 0 {
		return delay.DefaultMisfireLimit
	}
	return r.MisfireLimit
}

// appendNumber appends a member that is not the first.
func appendNumber(dst []byte, name string, v uint64) []byte {
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return strconv.AppendUint(dst, v, 10)
}
