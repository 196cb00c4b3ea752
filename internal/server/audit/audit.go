// SPDX-License-Identifier: Apache-2.0

// Package audit writes down who changed what: one line for each change by an operator, in a file of
// its own or in the ordinary log.
//
//	change --Entry--> Log --> audit.file, JSON lines, 0600, appended   (or the logger "audit")
//
// # Invariants
//
//	A1  An entry is one line whatever its values hold: control characters and what is no text are
//	    escaped, and values are cut at maxValue bytes.
//	A2  No entry holds a body, a header, a token or the query of a URL.
//	A3  A line is written with one call that appends, so that lines never mix, and lines of an
//	    older process stay.
//	A4  A line that cannot be written is told in the ordinary log; the change is made all the same.
//
// # Concurrency
//
// A Log is safe for concurrent use. Reopen may run beside Write: a line goes to the old file or to
// the new one.
//
// # Failure
//
// Lines are not synced: a crash of the machine may lose the last ones, a crash of the process none.
// What was written before a change whose reply was lost may have happened or not.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
)

// maxValue bounds a value of an entry, in bytes.
const maxValue = 1 << 10

// fileMode: the audit is the operator's.
const fileMode fs.FileMode = 0o600

// Entry is one change. Empty values are left out.
type Entry struct {
	At     time.Time
	Who    string // "token ops", "certificate shop", "anonymous"
	From   string // address of the client
	Action string // purge, pause, …
	ID     string // of the message
	Target string
	Filter string // what a bulk change selected
	Count  int64  // messages that a bulk change reached
	Answer string // ok, a verdict, or the code of the error
	Detail string // what else is to know: why a reload was refused
}

// line is an entry in the file.
type line struct {
	At     string `json:"at"`
	Who    string `json:"who"`
	From   string `json:"from,omitempty"`
	Action string `json:"action"`
	ID     string `json:"id,omitempty"`
	Target string `json:"target,omitempty"`
	Filter string `json:"filter,omitempty"`
	Count  int64  `json:"count,omitempty"`
	Answer string `json:"answer"`
	Detail string `json:"detail,omitempty"`
}

// Log is where entries go.
type Log struct {
	name string // of the file; "" is the ordinary log
	log  *zap.Logger
	file atomic.Pointer[os.File]
}

// Open opens the file name for appending, or writes to logger when name is empty. logger is told
// what goes wrong, too.
func Open(name string, logger *zap.Logger) (*Log, error) {
	l := &Log{name: name, log: logger}
	if err := l.Reopen(); err != nil {
		return nil, err
	}
	return l, nil
}

// Reopen opens the file by its name again, after it was moved away. When that fails the old file
// stays in use.
func (l *Log) Reopen() error {
	if l.name == "" {
		return nil
	}
	// A link in its place could have us write into another file.
	f, err := os.OpenFile(l.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW, fileMode)
	if err != nil {
		return fmt.Errorf("audit.file: %w", err)
	}
	if old := l.file.Swap(f); old != nil {
		return old.Close()
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error {
	if f := l.file.Swap(nil); f != nil {
		return f.Close()
	}
	return nil
}

// Write writes e down.
func (l *Log) Write(e Entry) {
	v := line{
		At: e.At.UTC().Format("2006-01-02T15:04:05.000Z"), Who: clean(e.Who), From: clean(e.From),
		Action: clean(e.Action), ID: clean(e.ID), Target: clean(withoutQuery(e.Target)),
		Filter: clean(e.Filter), Count: e.Count, Answer: clean(e.Answer), Detail: clean(e.Detail),
	}
	if l.name == "" {
		l.log.Info("changed", fields(&v)...)
		return
	}
	text, err := json.Marshal(&v)
	if err == nil {
		err = l.append(append(text, '\n'))
	}
	if err != nil {
		l.log.Error("audit not written", append(fields(&v), zap.Error(err))...) // A4
	}
}

// append writes one whole line (A3). A file that Reopen closed meanwhile has a successor.
func (l *Log) append(text []byte) error {
	for {
		f := l.file.Load()
		if f == nil {
			return os.ErrClosed
		}
		_, err := f.Write(text)
		if !errors.Is(err, os.ErrClosed) || l.file.Load() == f {
			return err
		}
	}
}

func fields(v *line) []zap.Field {
	out := []zap.Field{zap.String("who", v.Who), zap.String("action", v.Action)}
	for _, f := range [...]struct{ name, value string }{
		{"from", v.From}, {"id", v.ID}, {"target", v.Target}, {"filter", v.Filter},
		{"answer", v.Answer}, {"detail", v.Detail},
	} {
		if f.value != "" {
			out = append(out, zap.String(f.name, f.value))
		}
	}
	if v.Count != 0 {
		out = append(out, zap.Int64("count", v.Count))
	}
	return out
}

// withoutQuery is a target without what may be a secret in it (A2).
func withoutQuery(target string) string {
	if before, _, query := strings.Cut(target, "?"); query {
		return before + "?***"
	}
	return target
}

// clean is s with everything escaped that could be taken for another line, another value or a
// command of a terminal (A1).
func clean(s string) string {
	if len(s) > maxValue {
		s = s[:maxValue] + "…"
	}
	if strings.IndexFunc(s, unprintable) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unprintable(r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
