// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
)

// table collects what a command prints, for every format.
type table struct {
	columns []string
	rows    []row
}

// row is one result: its cells, its id, and the value that the JSON formats show.
type row struct {
	id    string
	cells []string
	value any
}

func (t *table) add(id string, value any, cells ...string) {
	t.rows = append(t.rows, row{id: id, cells: cells, value: value})
}

// format is the output format that was asked for.
func (a *app) format() (string, error) {
	if a.flags.json {
		return "json", nil
	}
	switch a.flags.output {
	case "table", "json", "jsonl", "id":
		return a.flags.output, nil
	default:
		return "", usagef("-o %s: want table, json, jsonl or id", a.flags.output)
	}
}

// print writes t in the format asked for; one is true for a command about a single thing, whose
// JSON is an object and not a list.
func (a *app) print(t *table, one bool) error {
	format, err := a.format()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	switch format {
	case "json":
		err = writeJSON(&out, t, one)
	case "jsonl":
		for _, r := range t.rows {
			if err = appendLine(&out, r.value); err != nil {
				break
			}
		}
	case "id":
		for _, r := range t.rows {
			fmt.Fprintln(&out, r.id)
		}
	default:
		a.writeTable(&out, t)
	}
	if err != nil {
		return err
	}
	_, err = a.Stdout.Write(out.Bytes())
	return err
}

func writeJSON(out *bytes.Buffer, t *table, one bool) error {
	values := make([]any, len(t.rows))
	for i, r := range t.rows {
		values[i] = r.value
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

func appendLine(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeTable aligns columns on a terminal and separates them by tabs in a pipe (C2).
func (a *app) writeTable(out *bytes.Buffer, t *table) {
	if !a.OutTerminal {
		for _, r := range t.rows {
			for i, c := range r.cells {
				if i > 0 {
					out.WriteByte('\t')
				}
				out.WriteString(plain(c))
			}
			out.WriteByte('\n')
		}
		return
	}
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = utf8.RuneCountInString(c)
	}
	for _, r := range t.rows {
		for i, c := range r.cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(plain(c)))
		}
	}
	if len(t.columns) > 0 && t.columns[0] != "" {
		a.line(out, t.columns, widths, true)
	}
	for _, r := range t.rows {
		a.line(out, r.cells, widths, false)
	}
}

func (a *app) line(out *bytes.Buffer, cells []string, widths []int, head bool) {
	var b strings.Builder
	for i, c := range cells {
		c = plain(c)
		b.WriteString(c)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+2))
		}
	}
	text := b.String()
	if head && a.color() {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	out.WriteString(text + "\n")
}

// plain keeps a value from breaking the line or steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// color reports whether escape sequences may be used on stdout.
func (a *app) color() bool {
	v, ok := a.Env("NO_COLOR")
	return a.OutTerminal && (!ok || v == "")
}

// barEvery bounds how often a bar is drawn.
const barEvery = 100 * time.Millisecond

// progress draws a bar on stderr for work that may take long; on a pipe it does nothing.
func (a *app) progress() (tick func(phase string, done, total int64), end func()) {
	return a.bar(progressbar.OptionShowCount(), progressbar.OptionShowIts())
}

// progressBytes is progress for work that is counted in bytes; it shows how long it will take.
func (a *app) progressBytes() (tick func(phase string, done, total int64), end func()) {
	return a.bar(progressbar.OptionShowBytes(true))
}

func (a *app) bar(
	more ...progressbar.Option,
) (tick func(phase string, done, total int64), end func()) {
	if !a.ErrTerminal {
		return func(string, int64, int64) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	current := ""
	end = func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
	return func(phase string, done, total int64) {
		if bar == nil || phase != current {
			end()
			current = phase
			bar = progressbar.NewOptions64(max(total, 1), append([]progressbar.Option{
				progressbar.OptionSetWriter(a.Stderr), progressbar.OptionSetDescription(phase),
				progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish(),
				progressbar.OptionThrottle(barEvery),
			}, more...)...)
		}
		bar.ChangeMax64(max(total, 1))
		_ = bar.Set64(min(done, total))
	}, end
}
