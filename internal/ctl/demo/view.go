// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// status is what the picture reads of GET /v1/status.
type status struct {
	Tiers struct {
		Hot  client.Level `json:"hot"`
		Warm client.Level `json:"warm"`
		Cold client.Level `json:"cold"`
	} `json:"tiers"`
	Books client.Books `json:"books"`
}

func (s *story) status(ctx context.Context) (status, error) {
	var st status
	raw, err := s.c.Status(ctx)
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(raw, &st)
}

const (
	drawEvery = 200 * time.Millisecond
	lineEvery = 2 * time.Second // without a terminal
	barWidth  = 46
)

// view draws the story: in place on a terminal, else one line now and then.
type view struct {
	s     *story
	mu    sync.Mutex
	title string
	drawn int // lines to go up
	last  time.Time
}

func newView(s *story) *view { return &view{s: s} }

// act begins an act.
func (v *view) act(title string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.title = title
	if !v.s.Terminal {
		fmt.Fprintf(v.s.Out, "%5.1fs  == %s\n", v.seconds(), title)
	}
}

func (v *view) seconds() float64 { return v.s.Now().Sub(v.s.start).Seconds() }

func (v *view) run(ctx context.Context) {
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ask, cancel := context.WithTimeout(ctx, time.Second)
		st, err := v.s.status(ask)
		cancel()
		if ctx.Err() == nil {
			v.draw(st, err == nil)
		}
	}
}

func (v *view) draw(st status, alive bool) {
	now := v.s.truth.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.s.Terminal {
		if at := v.s.Now(); at.Sub(v.last) >= lineEvery {
			v.last = at
			v.line(st, alive, now)
		}
		return
	}
	total := int64(v.s.messages)
	daemon := v.paint("32", "running")
	if !alive {
		daemon = v.paint("31", "dead")
	}
	rows := []string{
		"",
		fmt.Sprintf("  %5.1f s   daemon %s   %s", v.seconds(), daemon, v.paint("1", v.title)),
		"",
		v.bar("hot   memory", "31", st.Tiers.Hot.Messages, total, alive),
		v.bar("warm  local disk", "33", st.Tiers.Warm.Messages, total, alive),
		v.bar("cold  bucket only", "36", st.Tiers.Cold.Messages, total, alive),
		v.bar("delivered", "32", now.came, total, true),
		"",
		fmt.Sprintf("  accepted %d   cancelled %d   moved %d   duplicates %d",
			v.s.truth.accepted.Load(), now.cancelled, now.moved, now.duplicates),
		"",
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	for _, r := range rows {
		b.WriteString("\x1b[2K" + r + "\n")
	}
	v.drawn = len(rows)
	fmt.Fprint(v.s.Out, b.String())
}

func (v *view) line(st status, alive bool, now tally) {
	if !alive {
		fmt.Fprintf(v.s.Out, "%5.1fs  daemon dead  delivered %d\n", v.seconds(), now.came)
		return
	}
	fmt.Fprintf(v.s.Out, "%5.1fs  hot %d  warm %d  cold %d  delivered %d\n", v.seconds(),
		st.Tiers.Hot.Messages, st.Tiers.Warm.Messages, st.Tiers.Cold.Messages, now.came)
}

func (v *view) bar(name, color string, n, total int64, known bool) string {
	width := int((n*barWidth + total - 1) / total)
	width = max(0, min(width, barWidth))
	text, count := strings.Repeat("█", width)+strings.Repeat("·", barWidth-width), fmt.Sprint(n)
	if !known {
		text, count = strings.Repeat("?", barWidth), "?"
	}
	return fmt.Sprintf("  %-18s %s %s", name, v.paint(color, text), count)
}

func (v *view) paint(code, text string) string {
	if !v.s.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (v *view) end() { fmt.Fprintln(v.s.Out) }

// verdict prints the result and fails the story if it has to (Y2).
func (s *story) verdict(ctx context.Context) error {
	down := s.backAt.Sub(s.downAt).Round(10 * time.Millisecond)
	j := s.truth.judge(s.downAt, s.backAt.Add(takeover*s.flush))
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	t, b := s.truth.now(), st.Books
	say := func(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }
	say("%d messages accepted, %d cancelled, %d moved to another time", s.truth.accepted.Load(),
		t.cancelled, t.moved)
	say("killed and its disk deleted after %.1f s; running again %s later, from the bucket alone",
		s.downAt.Sub(s.start).Seconds(), down)
	say("%d delivered: %d lost, %d early, %d duplicates (a crash allows them)", t.came, j.lost,
		j.early, t.duplicates)
	say("cancelled messages that were delivered: %d", j.cancelledCame)
	say("lateness             p50 %s   p99 %s   max %s   (%d messages)", quantile(j.normal, 0.5),
		quantile(j.normal, 0.99), quantile(j.normal, 1), len(j.normal))
	say("due in the outage    p50 %s   p99 %s   max %s   (%d messages)", quantile(j.outage, 0.5),
		quantile(j.outage, 0.99), quantile(j.outage, 1), len(j.outage))
	say("books: accepted %d = pending %d + delivered %d + cancelled %d + expired %d + dead %d + "+
		"lost with the disk %d", b.Accepted, b.Pending, b.Delivered, b.Cancelled, b.Expired, b.Dead,
		b.LostWithDisk)
	if s.Keep {
		say("kept: %s", s.Dir)
	}
	return failures(j, b)
}

func failures(j judgement, b client.Books) error {
	var errs []error
	for _, f := range []struct {
		n    int64
		what string
	}{
		{j.lost, "messages were lost"}, {j.early, "messages came early"},
		{j.cancelledCame, "cancelled messages were delivered"},
		{j.strangers, "messages came that nobody sent"},
		{b.LostWithDisk, "messages are in the books as lost with the disk"},
		{b.Pending, "messages are still pending in the books"},
		{b.Missing(), "messages are missing in the books"},
	} {
		if f.n != 0 {
			errs = append(errs, fmt.Errorf("%d %s", f.n, f.what))
		}
	}
	return errors.Join(errs...)
}
