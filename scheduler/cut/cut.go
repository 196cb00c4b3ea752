// SPDX-License-Identifier: Apache-2.0

// Package cut makes cuts: what one flush uploads of the rows that came since the last one, of
// messages unfinished behind the watermark (rule R5), and of marks (rules R12, R14). What does not
// fit is left for the next cut.
//
// A Maker is used by whoever holds the flush, one at a time. It changes nothing in the store: a cut
// that could not be committed is made again.
package cut

import (
	"errors"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/position"
	"github.com/cicadamq/cicada/scheduler/upload"
	"github.com/cicadamq/cicada/tiered"
)

// Bounds of one cut.
const (
	keptPerFlush  = 20_000   // kept messages
	keptBytes     = 32 << 20 // and their bytes
	marksPerFlush = 100_000  //
	backlogBytes  = 16 << 20 // rows read back from the store
)

// Maker makes the cuts of a shard.
type Maker struct {
	store  *localstore.Store
	now    func() delay.Due
	pass   delay.Seq // the backlog being read ends here; 0 is none
	resume delay.Key // where it is read on
	rows   []tiered.Row
	next   delay.Key // where rows end
}

// New makes a Maker.
func New(store *localstore.Store, now func() delay.Due) *Maker {
	return &Maker{store: store, now: now}
}

// Advance takes over what is left after a cut that was committed.
func (m *Maker) Advance(part *upload.Part, left upload.Part) {
	if part.Behind > 0 {
		m.resume = left.Resume
		if left.Resume == delay.MaxKey && len(left.Kept) == 0 {
			m.pass = 0
		}
	}
	*part = left
}

// Make makes the next cut of part and what is left of part after it, which Advance is told when the
// cut is committed.
func (m *Maker) Make(part *upload.Part) (tiered.Cut, upload.Part, error) {
	meta, left := m.store.Meta(), part.Rest()
	cut := tiered.Cut{
		Watermark: part.Mark, ClaimHorizon: meta.ClaimHorizon, Uploaded: part.Last,
		Books: part.Books, Predicates: part.Bulk, NotUploaded: part.Uncold,
		Paused: part.Paused, Limits: part.Limits,
	}
	if planted.Is(planted.MarkTooNew) {
		cut.Watermark = meta.Watermark
	}
	// What waits in the buffer goes along with a backlog: left behind, it could be finished by the
	// next cut, and nobody could say how many of it the books still hold (rule R15).
	cut.Rows = make([]tiered.Row, 0, len(part.Rows)+len(m.rows))
	for _, r := range part.Rows {
		cut.Rows = append(cut.Rows, tiered.Row{Key: r.Key, Record: r.Rec})
	}
	if part.Behind > 0 {
		left.Behind, left.Since = part.Behind, part.Since
		m.backlog(&cut, meta.Uploaded, &left)
	}
	slices.SortFunc(cut.Rows, func(a, b tiered.Row) int { return a.Key.Compare(b.Key) })
	if err := m.keptOf(&cut, part, &left); err != nil {
		return cut, left, err
	}
	if part.Behind > 0 && len(left.Kept) > 0 {
		// What was parked is in no row any more: until it is kept the pass is not over.
		cut.Uploaded, left.Behind, left.Since = meta.Uploaded, part.Behind, part.Since
	}
	err := m.marksOf(&cut, part, &left)
	cut.Cursors, left.Read = part.Read.Split(func(n *position.Note) bool {
		return covers(&cut, left.Outbox, n)
	})
	return cut, left, err
}

// covers reports whether the bucket stands for all that was read below a position once the cut is
// committed (rule R16): the rows are in a segment, and so are the marks; the messages that wait too
// short to be uploaded are finished, or kept.
func covers(cut *tiered.Cut, outbox uint64, n *position.Note) bool {
	rows := n.Seq <= cut.Uploaded || planted.Is(planted.CursorBeforeRows)
	short := n.Short.IsZero() || n.Short.Less(cut.Watermark) || planted.Is(planted.ShortUncovered)
	return rows && short && n.Outbox <= outbox
}

// ReadBack reads rows that overflowed the buffer back from the store, a part in each flush: those
// that qualify and are not uploaded, up to behind, where the buffer overflowed when the pass began.
// What was parked before is no row any more: the part that Make is given must hold all that was to
// be kept when the rows were read, or a message would be in neither.
func (m *Maker) ReadBack(behind delay.Seq) error {
	if m.pass == 0 {
		m.pass, m.resume = behind, delay.Key{}
	}
	from, bytes := m.store.Meta().Uploaded, 0
	m.rows, m.next = nil, delay.MaxKey
	return m.store.ScanRows(m.resume, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		if bytes >= backlogBytes {
			m.next = k
			return false
		}
		if k.Seq <= from || k.Seq > m.pass {
			return true
		}
		if _, cold, err := delay.RecordTarget(rec); err == nil && cold {
			bytes += len(rec)
			m.rows = append(m.rows, tiered.Row{Key: k, Record: slices.Clone(rec)})
		}
		return true
	})
}

// backlog puts what was read back into the cut.
func (m *Maker) backlog(cut *tiered.Cut, from delay.Seq, left *upload.Part) {
	cut.Rows, m.rows = append(cut.Rows, m.rows...), nil
	left.Resume = m.next
	switch {
	case m.next != delay.MaxKey:
		cut.Uploaded = from
	case left.Behind == m.pass: // and the buffer held the rest
		left.Behind, left.Since = 0, 0
	default:
		cut.Uploaded = m.pass
	}
}

// keptOf adds what is behind the watermark and unfinished (rule R5). What does not fit holds the
// manifest's watermark back.
func (m *Maker) keptOf(cut *tiered.Cut, part *upload.Part, left *upload.Part) error {
	bytes := 0
	for i, ref := range part.Kept {
		if len(cut.Kept) >= keptPerFlush || bytes >= keptBytes {
			left.Kept = append(left.Kept, part.Kept[i:]...)
			break
		}
		kept, err := m.kept(ref)
		if errors.Is(err, delay.ErrNotFound) {
			continue // finished since; its mark follows
		}
		if err != nil {
			return err
		}
		bytes += len(kept.Record)
		cut.Kept = append(cut.Kept, kept)
	}
	for _, ref := range left.Kept {
		if ref.Key.Less(cut.Watermark) {
			cut.Watermark = ref.Key
		}
	}
	slices.SortStableFunc(cut.Kept, func(a, b delay.Kept) int { return a.Key.Compare(b.Key) })
	cut.Kept = slices.CompactFunc(cut.Kept, func(a, b delay.Kept) bool { return a.Key == b.Key })
	return nil
}

func (m *Maker) kept(r upload.Kept) (delay.Kept, error) {
	if r.Dead {
		p, rec, err := m.store.Dead(r.Key)
		return delay.Kept{Key: r.Key, Progress: p, Record: rec}, err
	}
	rec, claimed, err := m.store.Parked(r.Lane, r.Key)
	if err != nil {
		return delay.Kept{}, err
	}
	p, _, err := m.store.Progress(r.Key)
	if claimed && p.State == delay.Scheduled {
		p.State = delay.Claimed
	}
	return delay.Kept{Key: r.Key, Progress: p, Record: rec}, err
}

// marksOf adds the outbox, and the plain deliveries that the manifest's watermark does not cover.
func (m *Maker) marksOf(cut *tiered.Cut, part *upload.Part, left *upload.Part) error {
	meta := m.store.Meta()
	err := m.store.ScanOutbox(meta.OutboxDone, func(n uint64, mark delay.Mark) bool {
		if n >= part.Outbox {
			return false
		}
		// While a backlog is uploaded rows wait, and the marks that move messages to them too: a
		// mark without its row would lose the message with the disk (rule R3).
		waits := mark.State == delay.Scheduled && mark.Forward.Seq > cut.Uploaded &&
			!holds(cut, mark.Forward)
		waits = waits && !planted.Is(planted.MarkBeforeRow)
		if waits || len(cut.Marks) >= marksPerFlush {
			left.Outbox = n
			return false
		}
		cut.Marks = append(cut.Marks, mark)
		return true
	})
	now := m.now()
	for _, k := range part.Done {
		if !k.Less(cut.Watermark) && !planted.Is(planted.DoneUnmarked) {
			cut.Marks = append(cut.Marks, delay.Mark{Key: k, State: delay.Delivered, At: now})
		}
	}
	slices.SortStableFunc(cut.Marks, func(a, b delay.Mark) int { return a.Key.Compare(b.Key) })
	return err
}

// holds reports whether the cut, whose rows are sorted, brings the row.
func holds(cut *tiered.Cut, key delay.Key) bool {
	_, found := slices.BinarySearchFunc(cut.Rows, key, func(r tiered.Row, k delay.Key) int {
		return r.Key.Compare(k)
	})
	return found
}
