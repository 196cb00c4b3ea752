// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// Item is one message of a segment. Its slices alias the block.
type Item struct {
	Key      delay.Key
	Record   []byte
	progress []byte // encoded; only in kept segments
}

// Kept is the item of a kept segment with its progress decoded.
func (it *Item) Kept() (delay.Kept, error) {
	p, rest, err := delay.DecodeProgress(it.progress)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%w: %d bytes left over", delay.ErrCorrupt, len(rest))
	}
	if err != nil {
		return delay.Kept{}, fmt.Errorf("progress of %s: %w", it.Key, err)
	}
	return delay.Kept{Key: it.Key, Progress: p, Record: it.Record}, nil
}

// appendKeyDelta encodes k as the difference to prev, which is not above it: the step in time,
// then the seq, as a step when the instant is the same.
func appendKeyDelta(dst []byte, prev, k delay.Key) []byte {
	dst = binary.AppendUvarint(dst, uint64(k.Due-prev.Due))
	if k.Due == prev.Due {
		return binary.AppendUvarint(dst, uint64(k.Seq-prev.Seq))
	}
	return binary.AppendVarint(dst, int64(k.Seq-prev.Seq))
}

func readKeyDelta(r *codec.Reader, prev delay.Key) delay.Key {
	step := r.Int64()
	k := delay.Key{Due: prev.Due + delay.Due(step)}
	if k.Due < prev.Due {
		r.Fail("instant overflows")
	}
	if step == 0 {
		k.Seq = prev.Seq + delay.Seq(r.Uvarint(1<<64-1))
		if k.Seq < prev.Seq {
			r.Fail("seq overflows")
		}
		return k
	}
	k.Seq = prev.Seq + delay.Seq(r.Varint())
	return k
}

// Iter walks the items of one decoded block.
type Iter struct {
	r     codec.Reader
	kept  bool
	first bool
	prev  delay.Key
	left  uint32
	want  delay.Key
}

// Items walks block i, whose raw bytes were given by Decode.
func (x *Index) Items(i int, raw []byte) Iter {
	b := &x.Blocks[i]
	return Iter{r: codec.Reader{B: raw}, kept: x.Kept, first: true, left: b.Count, want: b.First}
}

// Next gives the next item, or false at the end or when something is wrong: see Err.
func (it *Iter) Next() (Item, bool) {
	if it.left == 0 || !it.r.OK() {
		return Item{}, false
	}
	it.left--
	item := Item{Key: readKeyDelta(&it.r, it.prev)}
	if it.first && item.Key != it.want {
		it.r.Fail("begins at %s, want %s", item.Key, it.want)
	}
	if !it.first && !it.prev.Less(item.Key) {
		it.r.Fail("key %s after %s", item.Key, it.prev)
	}
	it.first, it.prev = false, item.Key
	if it.kept {
		item.progress = it.r.Bytes(int(it.r.Uvarint(MaxBlockBytes)))
	}
	item.Record = it.r.Bytes(int(it.r.Uvarint(MaxBlockBytes)))
	return item, it.r.OK()
}

// Err says what was wrong with the block, if anything, once Next gave false.
func (it *Iter) Err() error {
	if it.left > 0 {
		it.r.Fail("%d items missing", it.left)
	}
	return it.r.End("block")
}
