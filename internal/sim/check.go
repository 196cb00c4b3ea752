// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/swarm"
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
	if n := w.cfg.Watch; n > 0 && n < len(w.model.all) {
		if at := w.placeOf(w.model.all[n]); at != w.watched {
			w.watched = at
			fmt.Fprintf(os.Stderr, "%14v  %4d  is %s\n", w.boot, n, at)
		}
	}
}

// placeOf describes where a message is, for a person who looks for it.
func (w *World) placeOf(m *message) string {
	if m.id == "" {
		return "unnamed"
	}
	rec, known, _ := w.store.LookupID(string(m.id))
	key := rec.Key
	if !known {
		_, _, key = delay.NewIDMaker("simulated").Parse(m.id)
	}
	_, row := w.store.Row(key)
	_, parked, _ := w.store.ParkedLane(key)
	_, _, dead := w.store.Dead(key)
	_, marked, _ := w.store.Mark(key)
	meta := w.store.Meta()
	return fmt.Sprintf("%s known %v %s row %v parked %v dead %v mark %v, above boundary %v, "+
		"above watermark %v", key, known, rec.State, row == nil, parked, dead == nil, marked,
		!key.Less(meta.Boundary), !key.Less(meta.Watermark))
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
	for _, m := range w.model.all {
		if !m.final && !m.told || m.id == "" {
			continue
		}
		key, pending := w.pendingKey(m)
		switch {
		case pending && m.final:
			w.fail(m, "its end was durable, and key %s is pending again", key)
		case pending: // the crash came before the outcome was on the disk: a duplicate may follow
			m.told = false
		default:
			m.final = m.final || w.model.losses == 0
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
		return w.model.losses > 0 &&
			(strings.HasPrefix(p, "slot ") || strings.HasPrefix(p, "books: "))
	})
	if len(problems) > 0 {
		w.fail(nil, "check of the store: %v", problems)
	}
	meta := w.store.Meta()
	err = w.store.ScanRows(delay.Key{}, meta.Watermark, func(k delay.Key, rec []byte) bool {
		var m *message
		if msg, err := delay.DecodeRecord(rec); err == nil {
			m = w.model.find(msg.Body)
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
	rec, known, err := w.store.LookupID(string(m.id))
	key := rec.Key
	switch {
	case err != nil:
		w.fail(m, "look up: %v", err)
	case known && rec.State.Finished():
		return key, false
	case !known && m.named: // perhaps not restored yet
		if key = m.key; m.moved || key.IsZero() || !key.Less(w.store.Meta().Boundary) {
			return key, !m.final
		}
	case !known:
		_, _, key = delay.NewIDMaker("simulated").Parse(m.id)
	}
	if key.IsZero() {
		return key, false
	}
	if rec, err := w.store.Row(key); err == nil {
		return key, w.isOf(m, rec)
	}
	lane, parked, err := w.store.ParkedLane(key)
	if err != nil || !parked {
		return key, false
	}
	row, _, err := w.store.Parked(lane, key)
	return key, err == nil && w.isOf(m, row)
}

func (w *World) isOf(m *message, rec []byte) bool {
	msg, err := delay.DecodeRecord(rec)
	return err == nil && w.model.find(msg.Body) == m
}

// settled reports whether nothing waits for anything: what was told is durable then.
func (w *World) settled() bool {
	if w.shard == nil || len(w.strands) > 0 {
		return false
	}
	w.tasks = w.shard.Tasks(w.tasks[:0])
	for _, t := range w.tasks {
		if t.Kind <= scheduler.TaskDeliver {
			return false
		}
	}
	return true
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
	for _, m := range w.model.all {
		if m.final || !m.done {
			continue
		}
		if m.acked == yes || m.told && m.toldAt+outcomesAfter < now {
			m.final = true
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
	w.model.lose(uploaded)
}

// noteDrained checks the promise of an orderly end: nothing is repeated after it.
func (w *World) noteDrained(err error) {
	if err != nil && !w.cfg.Bucket {
		w.fail(nil, "drain: %v", err)
	}
	for _, m := range w.model.all {
		if m.told || m.acked == yes {
			m.final = true
		}
	}
}

// flushing is the body of a flush's strand.
func (w *World) flushing() {
	w.traceNode("flush")
	var finished []*message
	if len(w.model.all) > 0 && !w.old && w.settledBut(swarm.Flush) {
		now := w.now()
		for _, m := range w.model.all {
			// What was delivered before a crash is in the bucket once the watermark passes it.
			if m.done && (m.acked == yes && m.ackLife == w.life ||
				m.told && m.toldAt+outcomesAfter < now && m.toldBoot == w.life) {
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
			m.finalTier = true
		}
	}
}

// settledBut is settled, but for the strand that asks.
func (w *World) settledBut(kind swarm.Op) bool {
	if len(w.strands) != 1 || w.strands[0].kind != kind {
		return false
	}
	w.tasks = w.shard.Tasks(w.tasks[:0])
	for _, t := range w.tasks {
		if t.Kind <= scheduler.TaskDeliver {
			return false
		}
	}
	return true
}

// checkBucket: whoever began from the manifest now would find what is owed and nothing that has
// ended for good.
func (w *World) checkBucket() {
	pending, keys := make(map[*message]bool), make(map[delay.Key]bool)
	w.truth.Pending(func(key delay.Key, record []byte) {
		keys[key] = true
		if msg, err := delay.DecodeRecord(record); err == nil {
			if m := w.model.find(msg.Body); m != nil {
				pending[m] = true
				w.checkReturned(m, key)
			}
		}
	})
	for _, m := range w.model.all {
		if m.tier && m.accepted == yes && !pending[m] && m.untouched() &&
			w.now() < m.earliest() {
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
	switch {
	case m.finalTier && !m.retried:
		w.fail(m, "its end was in the bucket, and key %s is pending there again", key)
	case m.cancelled == yes && m.cancelTier && m.moving == 0:
		w.fail(m, "its cancel was durable in the bucket, and key %s is pending there", key)
	}
}

// finish checks the end of the history: everything owed is done, and the books say the same.
func (w *World) finish() {
	w.checkStore()
	for _, m := range w.model.all {
		w.checkEnd(m)
	}
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
	if m.id == "" || m.aside {
		return // nobody was told that it exists
	}
	info, err := w.get(m.id)
	state := info.State
	known := err == nil && (info.Body == nil || w.model.find(info.Body) == m)
	if err != nil && !errors.Is(err, delay.ErrNotFound) {
		w.fail(m, "get: %v", err)
	}
	w.trace(m, "end: %s known %v done %v", state, known, m.done)
	if known && state == delay.Cancelled && m.attempts > 0 && m.cancelled > no && !m.revived &&
		!m.retried && m.replaced == no {
		w.fail(m, "cancelled in spite of %d attempts", m.attempts)
	}
	if m.cancelled == yes || !m.owed() || m.draft.Mode == delay.AtMostOnce {
		return
	}
	forgotten := w.cfg.Options.DedupeWindow < forever
	switch {
	case err != nil && (forgotten && (m.cancelled == maybe || m.acked == maybe || m.expires() ||
		m.mayDie(w)) || m.deleted > no):
	case err != nil:
		w.fail(m, "lost: accepted, and not found")
	case state == delay.Cancelled && m.cancelled == maybe:
	case state == delay.Expired && m.expires():
	case state == delay.Dead && m.mayDie(w):
	case state == delay.Delivered && (m.acked == maybe || m.cancelled == maybe || m.stopped > no ||
		m.deleted > no):
	case state == delay.Delivered && forgotten && (m.expires() || m.mayDie(w)):
	default:
		w.fail(m, "lost: it is %s (%s), taken %d times", state, info.Reason, m.taken)
	}
}

func (m *message) expires() bool { return m.draft.TTL > 0 || m.draft.NotAfter > 0 }

// mayDie reports whether something can have made m a dead letter. An attempt at a pull message may
// have died with the poll that leased it.
func (m *message) mayDie(w *World) bool {
	tried := m.attempts > 0 || m.draft.Target.IsPull()
	return m.refusals > 0 || m.stopped > no ||
		tried && m.draft.MaxAttempts+w.cfg.Options.MaxAttempts > 0
}

// checkBooks compares the books with the model, as far as no crash has left a request open.
func (w *World) checkBooks() {
	b := w.store.Books()
	if w.model.losses > 0 || w.cfg.Options.DedupeWindow < forever {
		return
	}
	least, most := 0, 0
	for _, m := range w.model.all {
		if m.accepted == yes {
			least++
		}
		if m.accepted > no {
			most++
		}
	}
	if int(b.Accepted) < least-w.model.joined() || int(b.Accepted) > most {
		w.fail(nil, "books say %d accepted, clients were told of %d to %d", b.Accepted, least, most)
	}
}

// joined is how many messages replaced another one that was pending: they count once.
func (m *model) joined() int {
	n := 0
	for _, msg := range m.all {
		if msg.replaced > no {
			n++
		}
	}
	return n
}
