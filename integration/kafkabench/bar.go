// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	barWidth = 30
	barEvery = 200 * time.Millisecond // between two paintings of one step
)

// bar shows how far the run has come: one line that is painted again on a terminal, else a line for
// each step. It is safe for concurrent use.
type bar struct {
	out   io.Writer
	live  bool
	total int
	began time.Time

	mu      sync.Mutex
	at      int // the step that runs, from 1
	name    string
	painted time.Time
}

func newBar(out *os.File, steps int) *bar {
	info, err := out.Stat()
	return &bar{
		out: out, total: steps, began: time.Now(),
		live: err == nil && info.Mode()&os.ModeCharDevice != 0,
	}
}

// step begins the next step.
func (b *bar) step(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.name = b.at+1, name
	b.paint(0)
}

// part tells how much of the step is done, of all.
func (b *bar) part(done, all int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live && time.Since(b.painted) >= barEvery {
		b.paint(min(1, float64(done)/float64(max(all, 1))))
	}
}

func (b *bar) paint(part float64) {
	b.painted = time.Now()
	share := min(1, (float64(b.at-1)+part)/float64(b.total))
	full := int(share * barWidth)
	line := fmt.Sprintf("[%s%s] %3.0f %% %4.0f s  %s", strings.Repeat("#", full),
		strings.Repeat("-", barWidth-full), 100*share, time.Since(b.began).Seconds(), b.name)
	if b.live {
		fmt.Fprintf(b.out, "\r%-78s", line)
	} else {
		fmt.Fprintln(b.out, line)
	}
}

// end leaves the line.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live {
		fmt.Fprintf(b.out, "\r%78s\r", "")
	}
}
