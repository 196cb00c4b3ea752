// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bytes"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/cicadamq/cicada/internal/ctl/output"
)

// table collects what a command prints, for every format.
type table struct {
	columns []string
	rows    []output.Row
}

func (t *table) add(id string, value any, cells ...string) {
	t.rows = append(t.rows, output.Row{ID: id, Cells: cells, Value: value})
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
		err = output.JSON(&out, t.rows, one)
	case "jsonl":
		err = output.Lines(&out, t.rows)
	case "id":
		output.IDs(&out, t.rows)
	default:
		output.Table(&out, t.columns, t.rows, a.OutTerminal, a.color())
	}
	if err != nil {
		return err
	}
	_, err = a.Stdout.Write(out.Bytes())
	return err
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
