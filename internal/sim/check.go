// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// watch checks what must hold after every action.
func (w *World) watch() {
	if w.store == nil || w.shard == nil {
		return
	}
	if b := w.store.Books(); !b.Balanced() {
		w.fail(nil, "the books do not balance: %+v", b)
	}
	if w.cfg.Check {
		w.checkStore()
	}
	if n := w.cfg.Watch; n > 0 && n < len(w.model.All) {
		at := trace.Place(w.store, delay.NewIDMaker("simulated"), w.model.All[n].ID)
		if at != w.watched {
			w.watched = at
			fmt.Fprintf(os.Stderr, "%14v  %4d  is %s\n", w.boot, n, at)
		}
	}
}

// noteSynced remembers how far the disk has come: everything that was applied is durable now.
func (w *World) noteSynced() {
	mark := w.store.Meta().Watermark
	if mark.Less(w.seenMark) {
		w.fail(nil, "the watermark went back from %s to %s", w.seenMark, mark)
	}
	w.seenMark = mark
}

// checkOpened checks a disk that was just opened, before the shard touches it.
func (w *World) checkOpened() {
	meta := w.store.Meta()
	if meta.Watermark.Less(w.seenMark) {
		w.fail(nil, "the watermark went back from %s to %s across a crash", w.seenMark,
			meta.Watermark)
	}
	w.checkStore()
	for _, m := range w.model.All {
		if !m.Final && !m.Told || m.ID == "" || m.Racing {
			continue
		}
		key, pending := w.pendingKey(m)
		switch {
		case pending && m.Final:
			w.fail(m, "its end was durable, and key %s is pending again", key)
		case pending: // the crash came before the outcome was on the disk: a duplicate may follow
			m.Told = false
		default:
			m.Final = m.Final || w.model.Losses == 0
		}
	}
}

// checkStore: the counts agree, and nothing lies below the watermark, where nobody looks.
func (w *World) checkStore() {
	report, err := w.store.Check(w.ctx, nil)
	if err != nil {
		w.fail(nil, "check of the store: %v", err)
	}
	problems := slices.DeleteFunc(report.Problems, func(p string) bool {
		// After the loss of a disk the cold counts are those of whole days, less every mark.
		return w.model.Losses > 0 &&
			(strings.HasPrefix(p, "slot ") || strings.HasPrefix(p, "books: "))
	})
	if len(problems) > 0 {
		w.fail(nil, "check of the store: %v", problems)
	}
	meta := w.store.Meta()
	err = w.store.ScanRows(delay.Key{}, meta.Watermark, func(k delay.Key, rec []byte) bool {
		var m *message
		if msg, err := delay.DecodeRecord(rec); err == nil {
			m = w.model.Find(msg.ID, msg.Body)
		}
		w.fail(m, "its row %s lies below the watermark %s", k, meta.Watermark)
		return false
	})
	if err != nil {
		w.fail(nil, "scan of rows: %v", err)
	}
}

// pendingKey finds the row of m, parked or not.
func (w *World) pendingKey(m *message) (delay.Key, bool) {
	key, pending, err := w.model.Pending(w.store, m)
	if err != nil {
		w.fail(m, "look up: %v", err)
	}
	return key, pending
}

// settled reports whether nothing waits for anything: what was told is durable then.
func (w *World) settled() bool {
	return w.shard != nil && len(w.strands) == 0 && w.idle()
}

// idle reports whether no task waits but those that can always be done.
func (w *World) idle() bool {
	w.tasks = w.shard.Tasks(w.tasks[:0])
	return !slices.ContainsFunc(w.tasks, func(t scheduler.Task) bool {
		return t.Kind <= scheduler.TaskDeliver
	})
}

// outcomesAfter is how long an outcome may wait for company, and a little more.
const outcomesAfter = 100

// noteFinal remembers whose end is durable, when the world is settled.
func (w *World) noteFinal() {
	if !w.settled() {
		return
	}
	w.settleDisk()
	now := w.now()
	for _, m := range w.model.All {
		if m.Final || !m.Done {
			continue
		}
		if m.Acked == yes || m.Told && m.ToldAt+outcomesAfter < now {
			m.Final = true
		}
	}
}

// noteLoss remembers what the process took with it.
func (w *World) noteLoss(disk bool) {
	if !disk {
		return
	}
	var uploaded delay.Seq
	if s := w.truth.State(); s != nil {
		uploaded = s.Uploaded
	}
	w.model.Lose(uploaded)
}

// noteDrained checks the promise of an orderly end: nothing is repeated after it.
func (w *World) noteDrained(err error) {
	if err != nil && !w.cfg.Bucket {
		w.fail(nil, "drain: %v", err)
	}
	if err != nil {
		w.incident(false)
	}
	for _, m := range w.model.All {
		if m.Told || m.Acked == yes {
			m.Final = true
		}
	}
}

// flushing is the body of a flush's strand.
func (w *World) flushing() {
	w.traceNode("flush")
	var finished []*message
	if len(w.model.All) > 0 && !w.old && w.settledBut(swarm.Flush) {
		now := w.now()
		for _, m := range w.model.All {
			// What was delivered before a crash is in the bucket once the watermark passes it.
			if m.Done && !m.Racing && (m.Acked == yes && m.AckLife == w.life ||
				m.Told && m.ToldAt+outcomesAfter < now && m.ToldBoot == w.life) {
				finished = append(finished, m)
			}
		}
	}
	before := w.cuts
	w.taskDone(swarm.Flush, w.shard.Do(w.ctx, scheduler.Task{Kind: scheduler.TaskFlush}))
	if w.shard == nil {
		return // it was replaced and has ended
	}
	state := w.tier.State()
	w.traceNode("flushed: version %d", state.Version)
	if w.cuts > before {
		for _, m := range finished {
			m.FinalTier = true
		}
	}
}

// settledBut is settled, but for the strand that asks.
func (w *World) settledBut(kind swarm.Op) bool {
	return len(w.strands) == 1 && w.strands[0].kind == kind && w.idle()
}

// checkBucket: whoever began from the manifest now would find what is owed and nothing that has
// ended for good.
func (w *World) checkBucket() {
	pending, keys := make(map[*message]bool), make(map[delay.Key]bool)
	w.truth.Pending(func(key delay.Key, record []byte) {
		keys[key] = true
		if msg, err := delay.DecodeRecord(record); err == nil {
			if m := w.model.Find(msg.ID, msg.Body); m != nil {
				pending[m] = true
				w.checkReturned(m, key)
			}
		}
	})
	for _, m := range w.model.All {
		if m.Tier && m.Accepted == yes && !pending[m] && m.Untouched() &&
			w.now() < m.Earliest() {
			w.fail(m, "it is durable in the bucket, and the bucket does not have it")
		}
	}
	if w.shard != nil && w.node == w.main {
		w.checkKept(keys)
	}
}

// checkKept: what is unfinished behind the manifest's watermark is in a kept segment (R5).
func (w *World) checkKept(keys map[delay.Key]bool) {
	mark, uploaded := w.truth.State().Watermark, w.truth.State().Uploaded
	for n := range w.cfg.Pushes + w.cfg.Queues {
		lost := delay.Key{} // told after the scan
		err := w.store.ScanParked(w.lane(n).Hash(), lost, func(k delay.Key, _ bool, rec []byte) bool {
			_, cold, _ := delay.RecordTarget(rec)
			if (k.Less(mark) || cold && k.Seq <= uploaded) && !keys[k] {
				lost = k
			}
			return lost.IsZero()
		})
		if err != nil || !lost.IsZero() {
			w.fail(nil, "%s is parked and not in the bucket: watermark %s, uploaded %d %v", lost, mark,
				uploaded, err)
		}
	}
}

// checkReturned checks a message that is pending in the bucket.
func (w *World) checkReturned(m *message, key delay.Key) {
	if wrong := m.Returned(); wrong != "" {
		w.fail(m, "%s, and key %s is pending there again", wrong, key)
	}
}

// finish checks the end of the history: everything owed is done, and the books say the same.
func (w *World) finish() {
	w.checkStore()
	for _, m := range w.model.All {
		w.checkEnd(m)
	}
	w.checkOrders()
	w.recurs.Check()
	w.checkBooks()
	if w.tier != nil {
		report, err := w.tier.Verify(w.ctx, nil)
		if err != nil || len(report.Problems) > 0 {
			w.fail(nil, "verify: %v %v", err, report.Problems)
		}
	}
}

// checkEnd checks one message at the end.
func (w *World) checkEnd(m *message) {
	if m.ID == "" || m.Aside && !m.Racing {
		return // nobody was told that it exists
	}
	op := w.beginGet(m)
	info, err := w.get(m.ID)
	w.endGet(m, op, &info, err)
	if m.Racing {
		return
	}
	known := err == nil && (info.Body == nil || w.model.Find(m.ID, info.Body) == m)
	w.trace(m, "end: %s known %v done %v", info.State, known, m.Done)
	wrong := m.Ended(&model.End{
		Info: info, Err: err, Known: known, Forgets: w.cfg.Options.DedupeWindow < forever,
		MaxAttempts: w.cfg.Options.MaxAttempts,
	})
	if wrong != "" {
		w.fail(m, "%s", wrong)
	}
}

// checkBooks compares the books with the model, as far as no crash has left a request open.
func (w *World) checkBooks() {
	if w.model.Losses > 0 || w.cfg.Options.DedupeWindow < forever {
		return
	}
	if wrong := w.model.Booked(w.store.Books()); wrong != "" {
		w.fail(nil, "%s", wrong)
	}
}
