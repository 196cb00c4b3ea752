// SPDX-License-Identifier: Apache-2.0

// Package output writes the results of a command in the formats of the command line: aligned
// columns for people, tabs, JSON and ids for programs.
package output

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Row is one result: its cells, its id, and the value that the JSON formats show.
type Row struct {
	ID    string
	Cells []string
	Value any
}

// JSON writes a list of the values, or with one a single value by itself.
func JSON(out *bytes.Buffer, rows []Row, one bool) error {
	values := make([]any, len(rows))
	for i, r := range rows {
		values[i] = r.Value
	}
	var v any = values
	if one && len(values) == 1 {
		v = values[0]
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Lines writes a value a line.
func Lines(out *bytes.Buffer, rows []Row) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, r := range rows {
		if err := enc.Encode(r.Value); err != nil {
			return err
		}
	}
	return nil
}

// IDs writes an id a line.
func IDs(out *bytes.Buffer, rows []Row) {
	for _, r := range rows {
		out.WriteString(r.ID + "\n")
	}
}

// Table aligns columns on a terminal, with a bold head if there may be color, and separates them by
// tabs in a pipe (C2).
func Table(out *bytes.Buffer, columns []string, rows []Row, terminal, color bool) {
	if !terminal {
		for _, r := range rows {
			for i, c := range r.Cells {
				if i > 0 {
					out.WriteByte('\t')
				}
				out.WriteString(Plain(c))
			}
			out.WriteByte('\n')
		}
		return
	}
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = utf8.RuneCountInString(c)
	}
	for _, r := range rows {
		for i, c := range r.Cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(Plain(c)))
		}
	}
	if len(columns) > 0 && columns[0] != "" {
		line(out, columns, widths, color)
	}
	for _, r := range rows {
		line(out, r.Cells, widths, false)
	}
}

func line(out *bytes.Buffer, cells []string, widths []int, bold bool) {
	var b strings.Builder
	for i, c := range cells {
		c = Plain(c)
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
		}
	}
	text := b.String()
	if bold {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	out.WriteString(text + "\n")
}

// Plain keeps a value from breaking the line or steering the terminal.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}
