// SPDX-License-Identifier: Apache-2.0

// Package tierview makes what the tier commands show: tables, their JSON, and the numbers in them.
//
//	GET /v1/tier ---------------------> Status, Bill
//	manifest, bucket --> View --------> List, Objects, Records, Plan
//
// # Invariants
//
//	O1  A View reads only, and may run beside the owner of the bucket.
//	O2  What an estimate is made of is shown beside it.
//
// Nothing here is safe for concurrent use. A View whose bucket fails gives the error of the read;
// nothing has to be undone.
//
// See also docs/operations.md.
package tierview

import (
	"fmt"
	"time"
)

// Table is what a command prints, in any format.
type Table struct {
	Columns []string // without any: names and values
	Rows    []Row
}

// Row is one line: its cells, its name for -o id, and the value that the JSON formats show.
type Row struct {
	ID    string
	Cells []string
	Value any
}

func (t *Table) add(id string, value any, cells ...string) {
	t.Rows = append(t.Rows, Row{ID: id, Cells: cells, Value: value})
}

// pair is one line of a table of names and values.
func (t *Table) pair(name, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.add(name, nil, name, text)
}

// Size writes a number of bytes for people.
func Size(n int64) string {
	units := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n) / (1 << 10)
	for _, u := range units[:len(units)-1] {
		if f < 1<<10 {
			return fmt.Sprintf("%.1f %s", f, u)
		}
		f /= 1 << 10
	}
	return fmt.Sprintf("%.1f %s", f, units[len(units)-1])
}

// count writes a number with a comma at every third digit.
func count(n int64) string {
	text := fmt.Sprint(n)
	head := ""
	if n < 0 {
		head, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return head + text
}

// Span writes a duration in its two largest units.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Span(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		d = d.Round(time.Hour)
		return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// Ahead writes how far one clock is ahead of another.
func Ahead(d time.Duration) string {
	if d < 0 {
		return Span(-d) + " behind"
	}
	return Span(d) + " ahead"
}

// or gives text, or what stands for an empty one.
func or(text, empty string) string {
	if text == "" {
		return empty
	}
	return text
}

func plural(n int64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return count(n) + " " + word + "s"
}
