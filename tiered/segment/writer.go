// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// Writer builds segments in memory, one after the other in the same buffers.
//
//	w.Reset(meta); w.Add(...)*; body, index, err := w.Finish()
type Writer struct {
	z    *codec.Zstd
	out  []byte // the object so far
	raw  []byte // the open block
	open Block

	foot     Footer
	blocks   []Block
	days     []Day
	ids      []idEntry
	idBlocks []idBlock
	hashes   []uint64
	progress []byte
	last     delay.Key
}

// NewWriter is a writer that compresses with z.
func NewWriter(z *codec.Zstd) *Writer { return &Writer{z: z} }

// Reset begins a new segment. What Finish gave before becomes invalid.
func (w *Writer) Reset(m Meta) {
	w.out = append(w.out[:0], make([]byte, HeaderSize)...)
	w.raw, w.open = w.raw[:0], Block{}
	w.foot, w.last = Footer{Meta: m}, delay.Key{}
	w.blocks, w.days, w.ids = w.blocks[:0], w.days[:0], w.ids[:0]
}

// Add appends a message of an ordinary segment. Keys must ascend strictly.
func (w *Writer) Add(key delay.Key, record []byte) error {
	if w.foot.Kept {
		panic("BUG: segment: Add to a kept segment")
	}
	return w.add(key, record, nil)
}

// AddKept appends a message of a kept segment. Keys must ascend strictly.
func (w *Writer) AddKept(k *delay.Kept) error {
	if !w.foot.Kept {
		panic("BUG: segment: AddKept to an ordinary segment")
	}
	w.progress = delay.AppendProgress(w.progress[:0], &k.Progress)
	return w.add(k.Key, k.Record, w.progress)
}

func (w *Writer) add(key delay.Key, record, progress []byte) error {
	if w.foot.Count > 0 && !w.last.Less(key) {
		return fmt.Errorf("%w: segment: key %s after %s", delay.ErrInvalid, key, w.last)
	}
	if len(record)+len(progress) > MaxBlockBytes-BlockBytes-64 {
		return fmt.Errorf("%w: segment: record of %d bytes under %s",
			delay.ErrInvalid, len(record), key)
	}
	msg, err := delay.DecodeRecord(record)
	if err != nil {
		return fmt.Errorf("segment: record under %s: %w", key, err)
	}
	if msg.ID != "" { // an id that does not follow from the key (rule R14)
		ident := delay.IdentityOf(key, &msg)
		w.ids = append(w.ids, idEntry{id: string(msg.ID), identity: ident})
	}
	prev := w.last
	if w.open.Count == 0 {
		w.open.First, prev = key, delay.Key{}
	}
	w.raw = appendKeyDelta(w.raw, prev, key)
	if w.foot.Kept {
		w.raw = binary.AppendUvarint(w.raw, uint64(len(progress)))
		w.raw = append(w.raw, progress...)
	}
	w.raw = binary.AppendUvarint(w.raw, uint64(len(record)))
	w.raw = append(w.raw, record...)
	w.open.Count++
	w.count(key, len(record))
	if len(w.raw) >= BlockBytes {
		w.closeBlock()
	}
	return nil
}

// count keeps the totals and the directory. The key's block is the one that will be closed next.
func (w *Writer) count(key delay.Key, size int) {
	f := &w.foot
	if f.Count == 0 {
		f.First, f.MinSeq = key, key.Seq
	}
	f.MinSeq, f.MaxSeq = min(f.MinSeq, key.Seq), max(f.MaxSeq, key.Seq)
	f.Count++
	f.RawBytes += int64(size)
	f.Last, w.last = key, key
	day := int64(key.Due) / DayMillis
	if n := len(w.days); n == 0 || w.days[n-1].Day != day {
		w.days = append(w.days, Day{Day: day, First: len(w.blocks)})
	}
	d := &w.days[len(w.days)-1]
	d.Count++
	d.Bytes += int64(size)
	d.Last = len(w.blocks)
}

func (w *Writer) closeBlock() {
	if w.open.Count > 0 {
		w.blocks = append(w.blocks, w.flushBlock(w.open))
	}
	w.open = Block{}
}

// flushBlock stores the raw bytes as a block.
func (w *Writer) flushBlock(b Block) Block {
	b.Offset, b.Raw = int64(len(w.out)), uint32(len(w.raw))
	w.out = w.z.Compress(w.out, w.raw)
	stored := w.out[b.Offset:]
	b.Stored, b.CRC = uint32(len(stored)), codec.CRC(stored)
	w.raw = w.raw[:0]
	return b
}

// Count is the number of items added.
func (w *Writer) Count() int64 { return w.foot.Count }

// Stored is the size of the object so far, without the open block and the tail.
func (w *Writer) Stored() int { return len(w.out) }

// Size is about the size of the object so far: the open block counts as it is, the tail not.
func (w *Writer) Size() int { return len(w.out) + len(w.raw) }

// Finish completes the segment. The body is valid until the next Reset; the index, read back from
// the body, for ever. A segment without items is an error.
func (w *Writer) Finish() (body []byte, index *Index, err error) {
	if w.foot.Count == 0 {
		return nil, nil, fmt.Errorf("%w: segment: no items", delay.ErrInvalid)
	}
	w.closeBlock()
	f := &w.foot
	f.IDs, f.IDsOffset = int64(len(w.ids)), int64(len(w.out))
	w.appendIDs(w.ids)
	f.TailOffset = int64(len(w.out))
	w.hashes = w.hashes[:0]
	for i := range w.ids {
		w.hashes = append(w.hashes, codec.Hash64(w.ids[i].id))
	}
	part := func(length, crc *uint32, appendTo func([]byte) []byte) {
		start := len(w.out)
		w.out = appendTo(w.out)
		*length, *crc = uint32(len(w.out)-start), codec.CRC(w.out[start:])
	}
	part(&f.filterLen, &f.filterCRC, func(b []byte) []byte { return newFilter(b, w.hashes) })
	part(&f.dirLen, &f.dirCRC, func(b []byte) []byte { return appendDirectory(b, w.days) })
	part(&f.indexLen, &f.indexCRC, func(b []byte) []byte { return appendIndex(b, w.blocks) })
	part(&f.idIndexLen, &f.idIndexCRC, func(b []byte) []byte {
		return appendIDIndex(b, w.idBlocks)
	})
	putHeader(w.out[:HeaderSize], f)
	f.BodyCRC, f.Size = codec.CRC(w.out), int64(len(w.out)+FooterSize)
	w.out = appendFooter(w.out, f)
	clear(w.ids) // they hold strings
	index, err = ParseTail(slices.Clip(w.out[f.TailOffset:]), f.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("read back: %w", err)
	}
	return w.out, index, nil
}
