// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/codec"
)

// DayMillis is the length of a day bucket.
const DayMillis = 24 * 60 * 60 * 1000

// Block is where one block of items lies.
type Block struct {
	First  delay.Key
	Offset int64
	Stored uint32 // bytes in the object
	Raw    uint32 // bytes decompressed
	Count  uint32
	CRC    uint32 // of the stored bytes
}

// Day is a bucket of the directory: the items whose key lies on one UTC day.
type Day struct {
	Day         int64 // days since the Unix epoch
	Count       int64
	Bytes       int64 // of records
	First, Last int   // blocks that hold them
}

// idBlock is where one block of the id section lies.
type idBlock struct {
	Block
	first string
}

// Index is a segment without its blocks. It is immutable.
type Index struct {
	Footer
	Blocks []Block
	Days   []Day

	idBlocks []idBlock
	filter   []byte
}

// MemoryBytes is about how much memory x holds, for caches.
func (x *Index) MemoryBytes() int64 {
	return 256 + int64(len(x.Blocks))*48 + int64(len(x.Days))*40 + int64(len(x.idBlocks))*128 +
		int64(len(x.filter))
}

// Find gives the blocks [from, to) that may hold keys of [lower, upper).
func (x *Index) Find(lower, upper delay.Key) (from, to int) {
	if !lower.Less(upper) || x.Last.Less(lower) || !x.First.Less(upper) {
		return 0, 0
	}
	// The block before the first one that begins above lower may hold lower.
	from, found := slices.BinarySearchFunc(x.Blocks, lower, func(b Block, k delay.Key) int {
		return b.First.Compare(k)
	})
	if !found && from > 0 {
		from--
	}
	to, _ = slices.BinarySearchFunc(x.Blocks, upper, func(b Block, k delay.Key) int {
		return b.First.Compare(k)
	})
	return from, to
}

// Span is a run of blocks that lie one after the other: what one ranged read fetches.
type Span struct {
	From, To       int // blocks [From, To)
	Offset, Length int64
}

// Spans cuts the blocks [from, to) into runs of at most most stored bytes, or one block.
func (x *Index) Spans(from, to int, most int64) []Span {
	var spans []Span
	for i := from; i < to; i++ {
		b := &x.Blocks[i]
		if n := len(spans); n > 0 && spans[n-1].Length+int64(b.Stored) <= most {
			spans[n-1].To++
			spans[n-1].Length += int64(b.Stored)
			continue
		}
		spans = append(spans, Span{From: i, To: i + 1, Offset: b.Offset, Length: int64(b.Stored)})
	}
	return spans
}

// In gives the stored bytes of block i out of what was read for the span.
func (x *Index) In(s Span, data []byte, i int) []byte {
	b := &x.Blocks[i]
	at := b.Offset - s.Offset
	return data[at : at+int64(b.Stored)]
}

// Decode checks and decompresses block i. scratch is used when it is large enough; the result may
// alias stored or scratch.
func (x *Index) Decode(z *codec.Zstd, i int, stored, scratch []byte) ([]byte, error) {
	raw, err := x.Blocks[i].decode(z, stored, scratch)
	if err != nil {
		return nil, fmt.Errorf("block %d of %d: %w", i, len(x.Blocks), err)
	}
	return raw, nil
}

func (b *Block) decode(z *codec.Zstd, stored, scratch []byte) ([]byte, error) {
	if len(stored) != int(b.Stored) {
		return nil, fmt.Errorf("%w: %d stored bytes, want %d",
			delay.ErrCorrupt, len(stored), b.Stored)
	}
	if got := codec.CRC(stored); got != b.CRC && !planted.Is(planted.ChecksumUnread) {
		return nil, fmt.Errorf("%w: checksum %08x, want %08x", delay.ErrCorrupt, got, b.CRC)
	}
	return z.Decompress(scratch, stored, int(b.Raw))
}

// appendIndex encodes the block index: keys and offsets as differences.
func appendIndex(dst []byte, blocks []Block) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(blocks)))
	var prev delay.Key
	for i := range blocks {
		b := &blocks[i]
		dst = appendKeyDelta(dst, prev, b.First)
		prev = b.First
		dst = appendBlock(dst, b)
	}
	return dst
}

func appendBlock(dst []byte, b *Block) []byte {
	dst = binary.AppendUvarint(dst, uint64(b.Stored))
	dst = binary.AppendUvarint(dst, uint64(b.Raw))
	dst = binary.AppendUvarint(dst, uint64(b.Count))
	return binary.BigEndian.AppendUint32(dst, b.CRC)
}

// readBlock reads what appendBlock wrote; at is where the block begins, and the result's end.
func readBlock(r *codec.Reader, b *Block, at, end int64) int64 {
	b.Offset = at
	b.Stored = uint32(r.Uvarint(MaxBlockBytes))
	b.Raw = uint32(r.Uvarint(MaxBlockBytes))
	b.Count = uint32(r.Uvarint(uint64(b.Raw)))
	b.CRC = r.Uint32()
	if b.Count == 0 || b.Stored == 0 || b.Stored > b.Raw || at+int64(b.Stored) > end {
		r.Fail("block of %d items, %d of %d bytes at %d", b.Count, b.Stored, b.Raw, at)
	}
	return at + int64(b.Stored)
}

func parseIndex(b []byte, f *Footer) ([]Block, error) {
	r := codec.Reader{B: b}
	blocks := make([]Block, r.Count(minBlockRef))
	at, items := int64(HeaderSize), int64(0)
	var prev delay.Key
	for i := range blocks {
		blocks[i].First = readKeyDelta(&r, prev)
		if i > 0 && !prev.Less(blocks[i].First) {
			r.Fail("block %d begins at %s after %s", i, blocks[i].First, prev)
		}
		prev = blocks[i].First
		at = readBlock(&r, &blocks[i], at, f.IDsOffset)
		items += int64(blocks[i].Count)
		if !r.OK() {
			break
		}
	}
	if r.OK() && (len(blocks) == 0 || at != f.IDsOffset || items != f.Count ||
		blocks[0].First != f.First || f.Last.Less(prev)) {
		r.Fail("%d blocks with %d items end at %d", len(blocks), items, at)
	}
	return blocks, r.End("segment index")
}

// minBlockRef is the least number of bytes of an entry of the index.
const minBlockRef = 9

func appendDirectory(dst []byte, days []Day) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(days)))
	day := int64(0)
	for _, d := range days {
		for _, v := range [...]int64{d.Day - day, d.Count, d.Bytes, int64(d.First),
			int64(d.Last - d.First)} {
			dst = binary.AppendUvarint(dst, uint64(v))
		}
		day = d.Day
	}
	return dst
}

func parseDirectory(b []byte, f *Footer, blocks int) ([]Day, error) {
	r := codec.Reader{B: b}
	days := make([]Day, r.Count(5))
	var day, count, raw int64
	for i := range days {
		d := &days[i]
		day += r.Int64()
		if day < 0 {
			r.Fail("day %d", i)
		}
		d.Day, d.Count, d.Bytes = day, r.Int64(), r.Int64()
		d.First = int(r.Uvarint(math.MaxInt32))
		d.Last = d.First + int(r.Uvarint(math.MaxInt32))
		if d.Last >= blocks || d.Count == 0 {
			r.Fail("day %d: blocks %d to %d of %d", day, d.First, d.Last, blocks)
		}
		count, raw = count+d.Count, raw+d.Bytes
	}
	if count != f.Count || raw != f.RawBytes {
		r.Fail("%d items, %d bytes, want %d and %d", count, raw, f.Count, f.RawBytes)
	}
	return days, r.End("segment directory")
}

// ParseTail reads an index from the end of an object: tail holds everything from TailOffset, or
// from anywhere before it, to the end.
func ParseTail(tail []byte, size int64) (*Index, error) {
	if len(tail) < FooterSize || int64(len(tail)) > size {
		return nil, fmt.Errorf("%w: segment: tail of %d bytes", delay.ErrCorrupt, len(tail))
	}
	f, err := parseFooter(tail[len(tail)-FooterSize:], size)
	if err != nil {
		return nil, err
	}
	if need := size - f.TailOffset; need > int64(len(tail)) {
		return nil, &shortTailError{need: need}
	}
	x := &Index{Footer: f}
	rest := tail[int64(len(tail))-(size-f.TailOffset):]
	part := func(name string, n, want uint32) []byte {
		b := rest[:n:n]
		rest = rest[n:]
		if got := codec.CRC(b); got != want && err == nil {
			err = fmt.Errorf("%w: segment %s: checksum %08x, want %08x",
				delay.ErrCorrupt, name, got, want)
		}
		return b
	}
	x.filter = slices.Clone(part("filter", f.filterLen, f.filterCRC))
	dir := part("directory", f.dirLen, f.dirCRC)
	index := part("index", f.indexLen, f.indexCRC)
	ids := part("id index", f.idIndexLen, f.idIndexCRC)
	if err != nil {
		return nil, err
	}
	if x.Blocks, err = parseIndex(index, &f); err != nil {
		return nil, err
	}
	if x.Days, err = parseDirectory(dir, &f, len(x.Blocks)); err != nil {
		return nil, err
	}
	if x.idBlocks, err = parseIDIndex(ids, &f); err != nil {
		return nil, err
	}
	return x, checkFilter(x.filter, f.IDs)
}

// shortTailError says that the tail is longer than what was read.
type shortTailError struct{ need int64 }

func (e *shortTailError) Error() string { return fmt.Sprintf("tail has %d bytes", e.need) }
