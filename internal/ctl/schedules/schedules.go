// SPDX-License-Identifier: Apache-2.0

// Package schedules makes what the schedule commands show.
//
//	expression, zone, instant ----> Preview ---.
//	GET /v1/messages/{id} --> client.Message --+--> lines of a table
//
// # Invariants
//
//	K1  Firings are shown on the clock of their zone and in UTC, with what the clocks do around them.
//
// Its functions are pure and keep nothing.
package schedules

import (
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/scheduler/calendar"
)

// Preview are the next firings of an expression after an instant, at most count; @every counts from
// there.
func Preview(expression, zone string, after delay.Due, count int) ([]client.Firing, error) {
	zones, err := calendar.NewZones()
	if err != nil {
		return nil, err
	}
	rule, err := zones.Parse(expression, zone)
	if err != nil {
		return nil, err
	}
	var out []client.Firing
	start := after
	for range count {
		f, ok := rule.Next(after, start)
		if !ok {
			break
		}
		out = append(out, client.Firing{
			Due: f.At.String(), DueMS: int64(f.At), Note: f.Note(),
			Local: f.At.Time().In(rule.Location()).Format(calendar.LocalForm),
		})
		after = f.At
	}
	return out, nil
}

// Columns are those of Cells.
var Columns = [...]string{"ID", "EXPRESSION", "ZONE", "NEXT", "FIRED", "MISSED", "STATE"}

// Cells is the line of a schedule in a list.
func Cells(m *client.Message) []string {
	s := m.Schedule
	if s == nil {
		s = &client.Schedule{}
	}
	next := ""
	if len(s.Next) > 0 && !s.Paused {
		next = s.Next[0].Local
	}
	return []string{m.ID, s.Expression, s.TimeZone, next, strconv.FormatUint(s.Fired, 10),
		strconv.FormatUint(s.Missed, 10), state(s)}
}

func state(s *client.Schedule) string {
	if s.Paused {
		return "paused"
	}
	return "active"
}

// Lines are names and values of what a schedule was told, has done and will do.
func Lines(s *client.Schedule) [][2]string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	some := func(n uint64) string { return strings.TrimPrefix(number(n), "0") }
	misfire := s.Misfire
	if s.MisfireLimit > 0 {
		misfire += ", at most " + number(uint64(s.MisfireLimit))
	}
	out := [][2]string{
		{"schedule", s.Expression}, {"time zone", s.TimeZone}, {"misfire", misfire},
		{"until", s.Until}, {"count", some(s.Count)}, {"jitter", s.Jitter},
		{"schedule state", state(s)}, {"fired", number(s.Fired)}, {"missed", number(s.Missed)},
		{"last", s.Last},
	}
	name := "next"
	if s.Paused {
		name = "if resumed"
	}
	for _, f := range s.Next {
		line := f.Local + "  " + f.Due
		if f.Note != "" {
			line += "  " + f.Note
		}
		out = append(out, [2]string{name, line})
	}
	return out
}
