// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// The marks object: small, read as a whole.
//
//	header  64 B   magic, version, shard, cluster, epoch, id, blocks, marks, CRC
//	block*         stored, raw, count, CRC (16 B), then the stored bytes
//	footer  16 B   CRC of everything before it, magic
const (
	// MarksFooterSize is the length of the footer.
	MarksFooterSize = 16

	markMagic     = "CICADMRK"
	markEndMagic  = "CICADMND"
	markBlockHead = 16
	// maxMarkBytes bounds one encoded mark: keys, identity and an id.
	maxMarkBytes = 1 << 10
)

// MarksInfo describes a marks object.
type MarksInfo struct {
	Meta
	Count          int64
	First, Last    delay.Key // of the marks with a key; zero when there is none
	MinSeq, MaxSeq delay.Seq
	IDs            int64     // marks that carry an id
	LastID         delay.Due // the latest At of those
}

// EncodeMarks is the object of marks, which must be sorted by key; marks of an id alone, with a
// zero key, come first. m.Kept is ignored.
func EncodeMarks(z *codec.Zstd, m Meta, marks []delay.Mark) ([]byte, MarksInfo, error) {
	info := MarksInfo{Meta: m, Count: int64(len(marks))}
	info.Kept = false
	out := make([]byte, HeaderSize, HeaderSize+len(marks)*32)
	var raw []byte
	var blocks, count uint32
	for i := range marks {
		if i > 0 && marks[i].Key.Less(marks[i-1].Key) {
			return nil, MarksInfo{}, fmt.Errorf("%w: marks: key %s after %s",
				delay.ErrInvalid, marks[i].Key, marks[i-1].Key)
		}
		info.add(&marks[i])
		at := len(raw)
		raw = append(raw, 0, 0)
		raw = delay.AppendMark(raw, &marks[i])
		if n := len(raw) - at - 2; n > maxMarkBytes {
			return nil, MarksInfo{}, fmt.Errorf("%w: marks: mark of %d bytes under %s",
				delay.ErrInvalid, n, marks[i].Key)
		}
		binary.BigEndian.PutUint16(raw[at:], uint16(len(raw)-at-2))
		count++
		if len(raw) >= BlockBytes || i == len(marks)-1 {
			out = appendMarkBlock(z, out, raw, count)
			raw, count, blocks = raw[:0], 0, blocks+1
		}
	}
	putMarksHeader(out, &info, blocks)
	out = binary.BigEndian.AppendUint32(out, codec.CRC(out))
	out = append(out, 0, 0, 0, 0)
	return append(out, markEndMagic...), info, nil
}

// add counts m.
func (i *MarksInfo) add(m *delay.Mark) {
	if m.ID != "" {
		i.IDs++
		i.LastID = max(i.LastID, m.At)
	}
	if m.Key.IsZero() {
		return
	}
	if i.First.IsZero() {
		i.First, i.MinSeq = m.Key, m.Key.Seq
	}
	i.Last = m.Key
	i.MinSeq, i.MaxSeq = min(i.MinSeq, m.Key.Seq), max(i.MaxSeq, m.Key.Seq)
}

func appendMarkBlock(z *codec.Zstd, out, raw []byte, count uint32) []byte {
	at := len(out)
	out = append(out, make([]byte, markBlockHead)...)
	out = z.Compress(out, raw)
	stored := out[at+markBlockHead:]
	head := out[at:at]
	for _, v := range [...]uint32{
		uint32(len(stored)), uint32(len(raw)), count, codec.CRC(stored),
	} {
		head = binary.BigEndian.AppendUint32(head, v)
	}
	return out
}

func putMarksHeader(b []byte, i *MarksInfo, blocks uint32) {
	h := append(b[:0], markMagic...)
	h = append(h, Version, minReader, 0, 0, byte(i.Shard), 0, 0, 0)
	h = binary.BigEndian.AppendUint64(h, i.Cluster)
	h = binary.BigEndian.AppendUint32(h, uint32(i.Epoch))
	h = append(h, i.ID[:]...)
	h = binary.BigEndian.AppendUint32(h, blocks)
	h = binary.BigEndian.AppendUint64(h, uint64(i.Count))
	for len(h) < HeaderSize {
		h = append(h, 0)
	}
}

// MarksChecksum is the CRC32C that a complete marks object carries.
func MarksChecksum(body []byte) uint32 {
	return binary.BigEndian.Uint32(body[len(body)-MarksFooterSize:])
}

// DecodeMarks checks a whole marks object and calls fn for every mark, in order, until fn returns
// false. fn is not called when the object's checksum is wrong.
func DecodeMarks(z *codec.Zstd, body []byte, fn func(delay.Mark) bool) (MarksInfo, error) {
	end := len(body) - MarksFooterSize
	if end < HeaderSize || string(body[:len(markMagic)]) != markMagic ||
		string(body[end+8:]) != markEndMagic {
		return MarksInfo{}, fmt.Errorf("%w: marks: not a marks object of %d bytes",
			delay.ErrCorrupt, len(body))
	}
	foot := codec.Reader{B: body[end:]}
	if got, want := codec.CRC(body[:end]), foot.Uint32(); got != want || foot.Uint32() != 0 {
		return MarksInfo{}, fmt.Errorf("%w: marks: checksum %08x, want %08x",
			delay.ErrCorrupt, got, want)
	}
	r := codec.Reader{B: body[len(markMagic):end]}
	version, least, flags := r.Byte(), r.Byte(), r.Uint16()
	if version == 0 || least > Version || flags != 0 {
		return MarksInfo{}, fmt.Errorf("%w: %w: marks: version %d needs a reader of version %d, "+
			"this is one of version %d; flags %#x",
			delay.ErrCorrupt, codec.ErrVersion, version, least, Version, flags)
	}
	info := MarksInfo{Meta: Meta{Shard: delay.Shard(r.Byte())}}
	r.Bytes(3)
	info.Cluster, info.Epoch = r.Uint64(), delay.Epoch(r.Uint32())
	copy(info.ID[:], r.Bytes(len(info.ID)))
	blocks, count := r.Uint32(), int64(r.Uint64())
	r.Bytes(HeaderSize - (len(body[:end]) - r.Left()))
	more := true
	var prev delay.Key
	for i := uint32(0); i < blocks && r.OK() && more; i++ {
		var err error
		if more, err = decodeMarkBlock(z, &r, &info, &prev, fn); err != nil {
			return MarksInfo{}, fmt.Errorf("marks: block %d of %d: %w", i, blocks, err)
		}
	}
	if !more {
		return info, nil
	}
	if info.Count != count {
		r.Fail("%d marks, want %d", info.Count, count)
	}
	return info, r.End("marks")
}

func decodeMarkBlock(
	z *codec.Zstd, r *codec.Reader, info *MarksInfo, prev *delay.Key, fn func(delay.Mark) bool,
) (bool, error) {
	stored, raw := r.Uint32(), r.Uint32()
	count, crc := r.Uint32(), r.Uint32()
	data := r.Bytes(int(stored))
	if !r.OK() || raw > MaxBlockBytes || codec.CRC(data) != crc {
		r.Fail("%d of %d bytes, or a wrong checksum", stored, raw)
		return false, r.Err("head")
	}
	plain, err := z.Decompress(nil, data, int(raw))
	if err != nil {
		return false, err
	}
	b := codec.Reader{B: plain}
	for range count {
		enc := b.Bytes(int(b.Uint16()))
		if err := b.Err("marks"); err != nil {
			return false, err
		}
		m, err := delay.DecodeMark(enc)
		if err != nil {
			return false, err
		}
		if m.Key.Less(*prev) {
			return false, fmt.Errorf("%w: key %s after %s", delay.ErrCorrupt, m.Key, *prev)
		}
		*prev = m.Key
		info.Count++
		info.add(&m)
		if !fn(m) {
			return false, nil
		}
	}
	return true, b.End("marks")
}
