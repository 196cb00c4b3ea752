// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// ReadFunc reads exactly length bytes of the object from offset.
type ReadFunc func(ctx context.Context, offset, length int64) ([]byte, error)

const (
	// tailGuess is how much of the end Open reads first: the tail of a usual 8 MiB segment.
	tailGuess = 64 << 10
	// spanBytes is how much a Scan reads at once.
	spanBytes = 1 << 20
)

// Reader reads one segment.
type Reader struct {
	z    *codec.Zstd
	x    *Index
	read ReadFunc
}

// Open reads the tail of an object of size bytes. tailOffset is where the tail begins when that is
// known (from a manifest), else 0.
func Open(
	ctx context.Context, z *codec.Zstd, read ReadFunc, size, tailOffset int64,
) (*Reader, error) {
	x, err := ReadIndex(ctx, read, size, tailOffset)
	if err != nil {
		return nil, err
	}
	return NewReader(z, x, read), nil
}

// ReadIndex is Open without the Reader.
func ReadIndex(ctx context.Context, read ReadFunc, size, tailOffset int64) (*Index, error) {
	need := size - tailOffset
	if tailOffset <= 0 || need < FooterSize {
		need = min(size, tailGuess)
	}
	for range 2 {
		tail, err := read(ctx, size-need, need)
		if err != nil {
			return nil, err
		}
		x, err := ParseTail(tail, size)
		if short := (*shortTailError)(nil); errors.As(err, &short) {
			need = short.need
			continue
		}
		return x, err
	}
	return nil, fmt.Errorf("%w: segment: tail has no end", delay.ErrCorrupt)
}

// NewReader reads the segment whose index is x.
func NewReader(z *codec.Zstd, x *Index, read ReadFunc) *Reader {
	return &Reader{z: z, x: x, read: read}
}

// Index is the segment's index.
func (r *Reader) Index() *Index { return r.x }

// Scan calls fn for every item with a key in [lower, upper), in order, until fn returns false. The
// item is valid until fn returns.
func (r *Reader) Scan(
	ctx context.Context, lower, upper delay.Key, fn func(Item) bool,
) error {
	from, to := r.x.Find(lower, upper)
	var scratch []byte
	for _, s := range r.x.Spans(from, to, spanBytes) {
		data, err := r.read(ctx, s.Offset, s.Length)
		if err != nil {
			return err
		}
		for i := s.From; i < s.To; i++ {
			raw, err := r.x.Decode(r.z, i, r.x.In(s, data, i), scratch)
			if err != nil {
				return err
			}
			if more, err := r.walk(i, raw, lower, upper, fn); err != nil || !more {
				return err
			}
			if cap(raw) > cap(scratch) && len(raw) != int(r.x.Blocks[i].Stored) {
				scratch = raw[:0]
			}
		}
	}
	return nil
}

func (r *Reader) walk(
	i int, raw []byte, lower, upper delay.Key, fn func(Item) bool,
) (bool, error) {
	it := r.x.Items(i, raw)
	for item, ok := it.Next(); ok; item, ok = it.Next() {
		if item.Key.Less(lower) {
			continue
		}
		if !item.Key.Less(upper) || !fn(item) {
			return false, nil
		}
	}
	if err := it.Err(); err != nil {
		return false, fmt.Errorf("block %d of %d: %w", i, len(r.x.Blocks), err)
	}
	return true, nil
}

// Get gives the item with the key, in memory of its own; ok is false when there is none.
func (r *Reader) Get(ctx context.Context, key delay.Key) (item Item, ok bool, err error) {
	err = r.Scan(ctx, key, key.Next(), func(it Item) bool {
		item, ok = it, true
		item.Record, item.progress = slices.Clone(it.Record), slices.Clone(it.progress)
		return false
	})
	return item, ok && err == nil, err
}

// IDs calls fn for every entry of the id section, sorted by id, until fn returns false.
func (r *Reader) IDs(
	ctx context.Context, fn func(id string, ident delay.Identity) bool,
) error {
	return r.walkIDBlocks(ctx, 0, len(r.x.idBlocks), fn)
}

// FindID gives the newest identity stored under id. It reads at most one block, usually none when
// the id is not there.
func (r *Reader) FindID(
	ctx context.Context, id string,
) (ident delay.Identity, ok bool, err error) {
	if !r.x.MayHaveID(id) {
		return delay.Identity{}, false, nil
	}
	// Entries of one id may begin in the block before the first one that begins at the id.
	from, _ := slices.BinarySearchFunc(r.x.idBlocks, id, func(b idBlock, id string) int {
		return strings.Compare(b.first, id)
	})
	from = max(from-1, 0)
	err = r.walkIDBlocks(ctx, from, len(r.x.idBlocks),
		func(got string, found delay.Identity) bool {
			if got == id && (!ok || ident.Key.Seq < found.Key.Seq) {
				ident, ok = found, true
			}
			return got <= id
		})
	return ident, ok && err == nil, err
}

func (r *Reader) walkIDBlocks(
	ctx context.Context, from, to int, fn func(id string, ident delay.Identity) bool,
) error {
	for i := from; i < to; i++ {
		b := &r.x.idBlocks[i]
		stored, err := r.read(ctx, b.Offset, int64(b.Stored))
		if err != nil {
			return err
		}
		raw, err := b.decode(r.z, stored, nil)
		if err == nil {
			var more bool
			if more, err = walkIDs(raw, b.Count, fn); err == nil && !more {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("id block %d of %d: %w", i, len(r.x.idBlocks), err)
		}
	}
	return nil
}

// Verify checks every byte of a whole segment and decodes every item (G2).
func Verify(ctx context.Context, z *codec.Zstd, body []byte) (*Index, error) {
	x, err := ReadIndex(ctx, sliceReader(body), int64(len(body)), 0)
	if err != nil {
		return nil, err
	}
	return x, verifyIndexed(ctx, z, body, x)
}

func verifyIndexed(ctx context.Context, z *codec.Zstd, body []byte, x *Index) error {
	if got := codec.CRC(body[:len(body)-FooterSize]); got != x.BodyCRC {
		return fmt.Errorf("%w: segment: checksum %08x, want %08x",
			delay.ErrCorrupt, got, x.BodyCRC)
	}
	var header [HeaderSize]byte
	putHeader(header[:], &x.Footer)
	if string(header[:]) != string(body[:HeaderSize]) {
		return fmt.Errorf("%w: segment: header and footer differ", delay.ErrCorrupt)
	}
	r := NewReader(z, x, sliceReader(body))
	var last delay.Key
	var items, raw int64
	var bad error
	err := r.Scan(ctx, delay.Key{}, delay.MaxKey, func(it Item) bool {
		if items > 0 && !last.Less(it.Key) {
			bad = fmt.Errorf("%w: segment: key %s after %s", delay.ErrCorrupt, it.Key, last)
			return false
		}
		items, raw, last = items+1, raw+int64(len(it.Record)), it.Key
		_, bad = delay.DecodeRecord(it.Record)
		return bad == nil
	})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	if items != x.Count || raw != x.RawBytes || last != x.Last {
		return fmt.Errorf("%w: segment: %d items, %d bytes to %s, want %d, %d, %s",
			delay.ErrCorrupt, items, raw, last, x.Count, x.RawBytes, x.Last)
	}
	return r.IDs(ctx, func(string, delay.Identity) bool { return true })
}

// sliceReader reads from a whole object in memory.
func sliceReader(body []byte) ReadFunc {
	return func(_ context.Context, offset, length int64) ([]byte, error) {
		if offset < 0 || length < 0 || offset+length > int64(len(body)) {
			return nil, fmt.Errorf("%w: segment: %d+%d of %d bytes",
				delay.ErrCorrupt, offset, length, len(body))
		}
		return body[offset : offset+length : offset+length], nil
	}
}
