// SPDX-License-Identifier: Apache-2.0

// Package trace remembers what happened in a simulated history. A Trace is confined to one
// goroutine.
package trace

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/audit"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
)

// line is one action, as it is printed when something goes wrong.
type line struct {
	at    time.Duration
	about int // message, or -1
	text  string
}

// maxLines bounds the memory of a trace; the oldest half is forgotten.
const maxLines = 1 << 17

// Trace is what happened, in order, and the hash of it (W2).
type Trace struct {
	lines   []line
	Hash    uint64
	Count   int
	verbose bool
}

// Init begins an empty trace; verbose prints it while it grows.
func (t *Trace) Init(verbose bool) { t.verbose, t.Hash = verbose, 14695981039346656037 }

// Add adds a line about a message, -1 for none, and to the hash.
func (t *Trace) Add(at time.Duration, about int, format string, args ...any) {
	l := line{at: at, about: about, text: fmt.Sprintf(format, args...)}
	h := fnv.New64a()
	fmt.Fprintf(h, "%x %d %d %s", t.Hash, at, about, l.text)
	t.Hash = h.Sum64()
	t.Count++
	if len(t.lines) == maxLines {
		t.lines = t.lines[:copy(t.lines, t.lines[maxLines/2:])]
	}
	t.lines = append(t.lines, l)
	if t.verbose {
		fmt.Fprintln(os.Stderr, l.String())
	}
}

// String is the line as printed.
func (l line) String() string {
	if l.about < 0 {
		return fmt.Sprintf("%14v        %s", l.at, l.text)
	}
	return fmt.Sprintf("%14v  %4d  %s", l.at, l.about, l.text)
}

// keptLines is how many lines a failure prints.
const keptLines = 200

// About prints the last lines that concern a message, and those that concern all: crashes, opens,
// time is left out. For message -1 it prints the last lines.
func (t *Trace) About(no int) string {
	var out []string
	for i := len(t.lines) - 1; i >= 0 && len(out) < keptLines; i-- {
		l := &t.lines[i]
		general := l.about < 0 && !strings.HasPrefix(l.text, "time ")
		if l.about == no && (no >= 0 || general) || no >= 0 && general && !isRoutine(l.text) {
			out = append(out, l.String())
		}
	}
	var b strings.Builder
	for _, line := range slices.Backward(out) {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.String()
}

// isRoutine reports whether a line says nothing about one message.
func isRoutine(text string) bool {
	if strings.HasPrefix(text, "[") {
		_, text, _ = strings.Cut(text, "] ")
	}
	if strings.HasPrefix(text, "poll ") {
		return true
	}
	switch text {
	case "core", "commit", "sync", "read", "deliver", "timers", "drop", "compact", "flush", "hydrate",
		"collect", "sweep", "bulk", "ids":
		return true
	}
	return false
}

// Reason is an error as the trace shows it: without what differs from run to run.
func Reason(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, scheduler.ErrOldDisk):
		return "old disk"
	}
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrNotFound, delay.ErrExists, delay.ErrTooLate,
		delay.ErrUnavailable, delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrClosed,
		delay.ErrFenced, delay.ErrCorrupt, delay.ErrPrecondition,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "error"
}

// Transient reports whether err is the bucket's, for now.
func Transient(err error) bool {
	return errors.Is(err, delay.ErrUnavailable) || errors.Is(err, objstore.ErrThrottled) ||
		errors.Is(err, faulty.ErrDown) || errors.Is(err, faulty.ErrInjected) ||
		errors.Is(err, audit.ErrCut)
}
