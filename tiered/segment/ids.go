// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// idEntry is an entry of the id section (rule R14).
type idEntry struct {
	id       string
	identity delay.Identity
}

// appendIDs appends the id blocks of entries, which it sorts, and gives where they lie.
func (w *Writer) appendIDs(entries []idEntry) {
	slices.SortFunc(entries, func(a, b idEntry) int {
		if c := strings.Compare(a.id, b.id); c != 0 {
			return c
		}
		return a.identity.Key.Compare(b.identity.Key)
	})
	w.idBlocks = w.idBlocks[:0]
	w.raw = w.raw[:0]
	var open idBlock
	for i := range entries {
		e := &entries[i]
		if open.Count == 0 {
			open.first = e.id
		}
		w.raw = codec.AppendString(w.raw, e.id)
		w.raw = delay.AppendIdentity(w.raw, e.identity)
		open.Count++
		if len(w.raw) >= BlockBytes || i == len(entries)-1 {
			open.Block = w.flushBlock(open.Block)
			w.idBlocks = append(w.idBlocks, open)
			open = idBlock{}
		}
	}
}

func appendIDIndex(dst []byte, blocks []idBlock) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(blocks)))
	for i := range blocks {
		dst = codec.AppendString(dst, blocks[i].first)
		dst = appendBlock(dst, &blocks[i].Block)
	}
	return dst
}

func parseIDIndex(b []byte, f *Footer) ([]idBlock, error) {
	r := codec.Reader{B: b}
	blocks := make([]idBlock, r.Count(minBlockRef-1))
	at, ids := f.IDsOffset, int64(0)
	for i := range blocks {
		blocks[i].first = r.String(delay.MaxIDBytes)
		at = readBlock(&r, &blocks[i].Block, at, f.TailOffset)
		ids += int64(blocks[i].Count)
		if !r.OK() {
			break
		}
	}
	if r.OK() && (at != f.TailOffset || ids != f.IDs) {
		r.Fail("%d blocks with %d ids end at %d", len(blocks), ids, at)
	}
	return blocks, r.End("segment id index")
}

// walkIDs calls fn for every entry of a decoded id block.
func walkIDs(
	raw []byte, count uint32, fn func(id string, ident delay.Identity) bool,
) (bool, error) {
	r := codec.Reader{B: raw}
	for range count {
		id := r.String(delay.MaxIDBytes)
		if err := r.Err("id block"); err != nil {
			return false, err
		}
		ident, rest, err := delay.DecodeIdentity(r.Rest())
		if err != nil {
			return false, err
		}
		r.Bytes(r.Left() - len(rest))
		if !fn(id, ident) {
			return false, nil
		}
	}
	return true, r.End("id block")
}
