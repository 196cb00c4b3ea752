// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// fate is what the demo knows of one message.
type fate struct {
	due       int64 // the one that counts: after a move the new one
	cancelled bool
	times     int
	late      time.Duration // of the first time
	early     bool
}

// truth is the demo's own record of every message (Y1). It is safe for concurrent use.
type truth struct {
	accepted atomic.Int64
	mu       struct {
		sync.Mutex
		all        map[string]*fate
		strangers  int64
		due        int64 // not cancelled
		came       int64 // of those, at least once
		cancelled  int64
		moved      int64
		duplicates int64
	}
}

func newTruth() *truth {
	t := &truth{}
	t.mu.all = make(map[string]*fate)
	return t
}

func (t *truth) sent(id string, due int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.all[id] = &fate{due: due}
	t.mu.due++
}

func (t *truth) cancel(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.all[id].cancelled = true
	t.mu.cancelled++
	t.mu.due--
}

func (t *truth) move(id string, due int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.all[id].due = due
	t.mu.moved++
}

// farthest are the n ids with the latest dues.
func (t *truth) farthest(n int) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]string, 0, len(t.mu.all))
	for id := range t.mu.all {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return int(t.mu.all[b].due - t.mu.all[a].due)
	})
	return ids[:min(n, len(ids))]
}

func (t *truth) received(id string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.mu.all[id]
	if f == nil {
		t.mu.strangers++
		return
	}
	f.times++
	if f.times > 1 {
		t.mu.duplicates++
		return
	}
	f.late = now.Sub(time.UnixMilli(f.due))
	f.early = f.late < 0
	if !f.cancelled {
		t.mu.came++
	}
}

// missing counts the messages that have not come and were not cancelled.
func (t *truth) missing() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.due - t.mu.came
}

// tally is truth at one moment.
type tally struct {
	came, cancelled, moved, duplicates int64
}

func (t *truth) now() tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tally{t.mu.came, t.mu.cancelled, t.mu.moved, t.mu.duplicates}
}

// judgement is the end of the story.
type judgement struct {
	lost, early, cancelledCame, strangers int64
	normal, outage                        []time.Duration // lateness, sorted
}

// judge compares everything. Messages due from down to back are judged apart: nobody could deliver
// them on time.
func (t *truth) judge(down, back time.Time) judgement {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := judgement{strangers: t.mu.strangers}
	for _, f := range t.mu.all {
		switch {
		case f.cancelled && f.times > 0:
			j.cancelledCame++
		case f.cancelled:
		case f.times == 0:
			j.lost++
		case f.early:
			j.early++
		case f.due >= down.UnixMilli() && f.due < back.UnixMilli():
			j.outage = append(j.outage, f.late)
		default:
			j.normal = append(j.normal, f.late)
		}
	}
	slices.Sort(j.normal)
	slices.Sort(j.outage)
	return j
}

// quantile of sorted durations, rounded for people.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	d := sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
