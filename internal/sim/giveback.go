// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
)

const patience = 12 // rounds in which space must be given back

// giveBack lets all windows pass after everything has finished: then the bucket must be empty but
// for the manifest. A collection that never deletes would pass every other check.
func (w *World) giveBack() {
	if !w.cfg.Bucket {
		return
	}
	o := &w.cfg.Options
	wait := max(o.DedupeWindow, o.DeadRetention, w.cfg.Grace, tiered.OrphanAge) + time.Hour
	for range patience {
		w.advance(wait)
		for t := scheduler.TaskTimers; t <= scheduler.TaskCount; t++ {
			w.complete(t)
		}
		if w.bare() {
			return
		}
	}
	s := w.truth.State()
	left, err := w.truth.Leftovers(w.ctx)
	w.fail(nil, "space is not given back: %d segments, %d kept, %d marks, %d to be deleted, "+
		"%d bulk cancels, orphans %v %v; watermark %s, uploaded %d; %+v %+v %+v", len(s.Segments),
		len(s.Kept), len(s.Marks), len(s.Deletes), len(s.Predicates), left, err, s.Watermark,
		s.Uploaded, s.Segments, s.Kept, s.Marks)
}

// bare reports whether the bucket holds nothing but the manifest, and that lists nothing. A paused
// schedule leaves a segment that waits for the end of time, with its marks, unless it is compacted
// away before.
func (w *World) bare() bool {
	s := w.truth.State()
	if s == nil {
		return true
	}
	left, err := w.truth.Leftovers(w.ctx)
	segments, marks := len(s.Segments), len(s.Marks)
	for i := range s.Segments {
		if w.cfg.Schedules > 0 && s.Segments[i].Last.Due == delay.MaxDue {
			segments, marks = segments-1, 0
		}
	}
	return err == nil && segments+len(s.Kept)+marks+len(s.Deletes)+len(s.Predicates)+len(left) == 0
}

// complete does a task from its beginning to its end, and what follows from it.
func (w *World) complete(kind scheduler.TaskKind) {
	for w.busy() {
	}
	if w.can(kind) {
		w.do(opOfTask(kind), scheduler.Task{Kind: kind})
	}
	for w.underWay(opOfTask(kind)) || w.busy() {
		w.busy()
	}
}
