// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/bloom"
	"github.com/cicadamq/cicada/localstore/codec"
	"github.com/cicadamq/cicada/localstore/ledger"
)

// Batch collects changes that become visible and durable together. It belongs to one goroutine
// and ends with Apply or Discard; then it must not be touched again. The size of a row is the
// length of its record: the batch keeps the counts of the slots with it, so callers must state
// the size that was put, and delete or drop only rows that exist.
type Batch struct {
	s  *Store
	pb *pebble.Batch
	// ids and timers hold their spaces' changes until seal. Pebble inserts in the order of the batch,
	// and keys that follow each other there and in the store cost a comparison or two, where keys
	// of other spaces between them cost a search each.
	ids, timers *pebble.Batch
	delta       ledger.Delta
	hashes      []uint64 // of the ids put
	idsGone     int      // ids deleted
	meta        Meta
	books       delay.Books
	sets        uint8  // which of meta and books are set
	outbox      uint64 // marks below it leave the outbox
	scratch     []byte
}

const (
	setsMeta = 1 << iota
	setsBooks
)

// retainedBatchBytes is the largest buffer a pooled batch keeps: a full commit and its overhead.
const retainedBatchBytes = 4 << 20

// NewBatch is an empty batch.
func (s *Store) NewBatch() *Batch {
	b, ok := s.batches.Get().(*Batch)
	if !ok {
		b = &Batch{}
	}
	b.s = s
	for _, pb := range []**pebble.Batch{&b.pb, &b.ids, &b.timers} {
		*pb = s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(retainedBatchBytes))
	}
	b.delta.Reset()
	b.hashes, b.idsGone, b.sets, b.outbox = b.hashes[:0], 0, 0, 0
	return b
}

// Discard gives the batch back without applying it.
func (b *Batch) Discard() { b.recycle() }

func (b *Batch) recycle() {
	s := b.s
	// Close of a batch frees memory and has no other way to fail than being called twice.
	for _, pb := range []**pebble.Batch{&b.pb, &b.ids, &b.timers} {
		_ = (*pb).Close()
		*pb = nil
	}
	b.s = nil
	s.batches.Put(b)
}

// Len is the number of changes.
func (b *Batch) Len() int { return int(b.pb.Count() + b.ids.Count() + b.timers.Count()) }

// Bytes is the size of the batch in the log, as yet.
func (b *Batch) Bytes() int { return b.pb.Len() + b.ids.Len() + b.timers.Len() }

// gather puts the changes that were kept apart behind the others.
func (b *Batch) gather() {
	_ = b.pb.Apply(b.ids, nil)
	_ = b.pb.Apply(b.timers, nil)
}

// The setters of pebble's batches fail only for indexed batches and other databases; ours are
// neither.

func (b *Batch) set(key, value []byte) { _ = b.pb.Set(key, value, nil) }

func (b *Batch) delete(key []byte) { _ = b.pb.Delete(key, nil) }

func (b *Batch) deleteRange(from, to []byte) { _ = b.pb.DeleteRange(from, to, nil) }

// setRow writes a value under a key of space without an allocation, and returns where the value
// goes.
func (b *Batch) setRow(space byte, key delay.Key, size int) *pebble.DeferredBatchOp {
	op := b.pb.SetDeferred(rowKeyLen, size)
	putRowKey(op.Key, space, b.s.opts.Shard, key)
	return op
}

func (b *Batch) deleteRow(space byte, key delay.Key) {
	op := b.pb.DeleteDeferred(rowKeyLen)
	putRowKey(op.Key, space, b.s.opts.Shard, key)
	_ = op.Finish()
}

// deleteSizedRow also tells Pebble what it saves, which guides its compactions.
func (b *Batch) deleteSizedRow(key delay.Key, size int) {
	op := b.pb.DeleteSizedDeferred(rowKeyLen, uint32(size))
	putRowKey(op.Key, spaceRow, b.s.opts.Shard, key)
	_ = op.Finish()
}

func (b *Batch) putRow(key delay.Key, rec []byte) {
	op := b.setRow(spaceRow, key, len(rec))
	copy(op.Value, rec)
	_ = op.Finish()
	b.delta.LastSeq = max(b.delta.LastSeq, key.Seq)
}

func one(size int) Tally { return Tally{Messages: 1, Bytes: int64(size)} }

func minusOne(size int) Tally { return Tally{Messages: -1, Bytes: -int64(size)} }

// PutRow stores a message. The key must be new (rule R3).
func (b *Batch) PutRow(key delay.Key, rec []byte) {
	b.putRow(key, rec)
	b.delta.Slot(key.Due).Warm.Add(one(len(rec)))
}

// DeleteRow removes the row of a finished or moved message.
func (b *Batch) DeleteRow(key delay.Key, size int) {
	b.deleteSizedRow(key, size)
	b.delta.Slot(key.Due).Warm.Add(minusOne(size))
}

// DropRow removes the row of a message that is in the bucket: warm becomes cold.
func (b *Batch) DropRow(key delay.Key, size int) {
	b.deleteSizedRow(key, size)
	t := b.delta.Slot(key.Due)
	t.Warm.Add(minusOne(size))
	t.Cold.Add(one(size))
}

// HydrateRow stores a message that came from the bucket: cold becomes warm. The caller knows that
// there is no row yet.
func (b *Batch) HydrateRow(key delay.Key, rec []byte) {
	b.putRow(key, rec)
	t := b.delta.Slot(key.Due)
	t.Cold.Add(minusOne(len(rec)))
	t.Warm.Add(one(len(rec)))
}

// ForgetCold counts a cold message out: it was finished without coming back. due is its key's.
func (b *Batch) ForgetCold(due delay.Due, size int) {
	b.delta.Slot(due).Cold.Add(minusOne(size))
}

// AddCold counts messages in that are only in the bucket, as a restore finds them: any number of
// them at once, with the bytes of their records together.
func (b *Batch) AddCold(due delay.Due, t Tally) { b.delta.Slot(due).Cold.Add(t) }

// Park moves a row to its lane's parked rows.
func (b *Batch) Park(lane uint64, key delay.Key, claimed bool, rec []byte) {
	b.DeleteRow(key, len(rec))
	b.PutParked(lane, key, claimed, rec)
}

// PutParked stores a parked row that was no row here, as a restore finds it, or changes the claimed
// flag of one after DeleteParked.
func (b *Batch) PutParked(lane uint64, key delay.Key, claimed bool, rec []byte) {
	op := b.pb.SetDeferred(parkKeyLen, 1+len(rec))
	b.parkedKey(op.Key, lane, key)
	op.Value[0] = 0
	if claimed {
		op.Value[0] = 1
	}
	copy(op.Value[1:], rec)
	_ = op.Finish()
	where := b.setRow(spaceWhere, key, laneLen)
	binary.BigEndian.PutUint64(where.Value, lane)
	_ = where.Finish()
	b.delta.LastSeq = max(b.delta.LastSeq, key.Seq)
	b.delta.Lane(lane, one(len(rec)))
}

// DeleteParked removes a parked row; size is the length of its record.
func (b *Batch) DeleteParked(lane uint64, key delay.Key, size int) {
	op := b.pb.DeleteSizedDeferred(parkKeyLen, uint32(size+1))
	b.parkedKey(op.Key, lane, key)
	_ = op.Finish()
	b.deleteRow(spaceWhere, key)
	b.delta.Lane(lane, minusOne(size))
}

func (b *Batch) parkedKey(dst []byte, lane uint64, key delay.Key) {
	dst[0], dst[1] = spaceParked, byte(b.s.opts.Shard)
	binary.BigEndian.PutUint64(dst[prefixLen:], lane)
	binary.BigEndian.PutUint64(dst[prefixLen+laneLen:], uint64(key.Due))
	binary.BigEndian.PutUint64(dst[prefixLen+laneLen+dueLen:], uint64(key.Seq))
}

// PutID remembers an id, over what was remembered of it.
func (b *Batch) PutID(id string, rec IDRecord) {
	b.scratch = codec.AppendIDRecord(b.scratch[:0], &rec)
	op := b.ids.SetDeferred(prefixLen+len(id), len(b.scratch))
	op.Key[0], op.Key[1] = spaceID, byte(b.s.opts.Shard)
	copy(op.Key[prefixLen:], id)
	copy(op.Value, b.scratch)
	_ = op.Finish()
	b.hashes = append(b.hashes, bloom.Hash(id))
}

// DeleteID forgets an id.
func (b *Batch) DeleteID(id string) {
	_ = b.ids.Delete(b.s.textKey(spaceID, id), nil)
	b.idsGone++
}

// PutProgress stores how far the delivery of an unfinished message has come.
func (b *Batch) PutProgress(key delay.Key, p delay.Progress) {
	b.scratch = delay.AppendProgress(b.scratch[:0], &p)
	op := b.setRow(spaceAttempts, key, len(b.scratch))
	copy(op.Value, b.scratch)
	_ = op.Finish()
}

// DeleteProgress removes it.
func (b *Batch) DeleteProgress(key delay.Key) { b.deleteRow(spaceAttempts, key) }

// PutDead stores a dead letter that was none before.
func (b *Batch) PutDead(key delay.Key, p delay.Progress, rec []byte) {
	b.scratch = delay.AppendProgress(b.scratch[:0], &p)
	op := b.setRow(spaceDead, key, len(b.scratch)+len(rec))
	copy(op.Value[copy(op.Value, b.scratch):], rec)
	_ = op.Finish()
	b.delta.Dead++
}

// DeleteDead removes a dead letter that exists.
func (b *Batch) DeleteDead(key delay.Key) {
	b.deleteRow(spaceDead, key)
	b.delta.Dead--
}

// PutLease stores a lease, over the one with the same number.
func (b *Batch) PutLease(l *Lease) {
	b.scratch = codec.AppendLease(b.scratch[:0], l)
	b.set(b.s.numberKey(spaceLease, l.No), b.scratch)
}

// DeleteLease removes a lease.
func (b *Batch) DeleteLease(no uint64) { b.delete(b.s.numberKey(spaceLease, no)) }

// PutMark stores the mark of a key. A mark of an id alone has no place here: see PutOutbox.
func (b *Batch) PutMark(m *delay.Mark) {
	b.scratch = delay.AppendMark(b.scratch[:0], m)
	op := b.setRow(spaceMark, m.Key, len(b.scratch))
	copy(op.Value, b.scratch)
	_ = op.Finish()
}

// DeleteMarks removes the marks of [lower, upper).
func (b *Batch) DeleteMarks(lower, upper delay.Key) {
	b.deleteRange(b.s.key(spaceMark, lower), b.s.key(spaceMark, upper))
}

// PutOutbox stores the nth mark to be uploaded.
func (b *Batch) PutOutbox(n uint64, m *delay.Mark) {
	b.scratch = delay.AppendMark(b.scratch[:0], m)
	b.set(b.s.numberKey(spaceOutbox, n), b.scratch)
}

// DeleteOutboxThrough removes the marks up to the nth, which are in the tier.
func (b *Batch) DeleteOutboxThrough(n uint64) { b.outbox = max(b.outbox, n+1) }

// PutTimer stores something to be done at an instant.
func (b *Batch) PutTimer(at delay.Due, kind byte, payload []byte) {
	_ = b.timers.Set(b.s.timerKey(at, kind, payload), nil, nil)
	b.delta.TimerMin = min(b.delta.TimerMin, at)
}

// DeleteTimer removes what PutTimer stored.
func (b *Batch) DeleteTimer(at delay.Due, kind byte, payload []byte) {
	_ = b.timers.Delete(b.s.timerKey(at, kind, payload), nil)
}

// PutCursor stores how far a source was read.
func (b *Batch) PutCursor(source string, cursor []byte) {
	b.set(b.s.textKey(spaceCursor, source), cursor)
}

// PutTarget stores the state of a target.
func (b *Batch) PutTarget(t delay.Target, state TargetState) {
	b.set(b.s.textKey(spaceTarget, string(t)), codec.AppendTargetState(nil, state))
}

// DeleteTarget removes it.
func (b *Batch) DeleteTarget(t delay.Target) { b.delete(b.s.textKey(spaceTarget, string(t))) }

// PutPredicate stores a bulk cancel, over the one with the same seq.
func (b *Batch) PutPredicate(p *delay.Predicate) {
	b.scratch = delay.AppendPredicate(b.scratch[:0], p)
	b.set(b.s.numberKey(spaceBulk, uint64(p.Seq)), b.scratch)
}

// DeletePredicate removes one.
func (b *Batch) DeletePredicate(seq delay.Seq) {
	b.delete(b.s.numberKey(spaceBulk, uint64(seq)))
}

// DeleteRowsBelow clears [from, to) of what deleted rows leave behind, which would slow later
// scans. All rows there were deleted or dropped one by one before: nothing is counted.
func (b *Batch) DeleteRowsBelow(from, to delay.Key) {
	b.deleteRange(b.s.key(spaceRow, from), b.s.key(spaceRow, to))
}

// SetMeta replaces the meta.
func (b *Batch) SetMeta(m Meta) {
	b.meta = m
	b.sets |= setsMeta
}

// SetBooks replaces the books.
func (b *Batch) SetBooks(k delay.Books) {
	b.books = k
	b.sets |= setsBooks
}
