// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// Sizes and limits of the format.
const (
	// Version is the version this package writes; readers take every version from minReader on.
	Version = 1
	// HeaderSize and FooterSize are fixed.
	HeaderSize = 64
	FooterSize = 192
	// BlockBytes is the raw size after which a block is closed. A block holds at least one item.
	BlockBytes = 64 << 10
	// MaxBlockBytes bounds the raw size of a block: one item of the largest record.
	MaxBlockBytes = 16 << 20
	// MaxTailBytes bounds the tail.
	MaxTailBytes = 64 << 20

	minReader  = 1
	headMagic  = "CICADSEG"
	tailMagic  = "CICADEND"
	flagKept   = 1 << 0
	knownFlags = flagKept
)

// Meta says what a segment is and whose. It is in the header and in the footer (G4).
type Meta struct {
	Cluster uint64 // codec.Hash64 of the cluster's id
	Shard   delay.Shard
	Epoch   delay.Epoch
	ID      [16]byte // the unique part of the object's name
	Kept    bool     // items carry a delay.Progress
}

// Footer describes the whole segment.
type Footer struct {
	Meta
	First, Last    delay.Key
	MinSeq, MaxSeq delay.Seq
	Count          int64 // items
	RawBytes       int64 // of the records
	IDs            int64 // entries of the id section

	IDsOffset  int64  // where the id blocks begin, the end of the blocks
	TailOffset int64  // where the filter begins
	Size       int64  // of the object
	BodyCRC    uint32 // of everything before the footer

	filterLen, dirLen, indexLen, idIndexLen uint32
	filterCRC, dirCRC, indexCRC, idIndexCRC uint32
}

func (m *Meta) flags() uint16 {
	if m.Kept {
		return flagKept
	}
	return 0
}

// putHeader fills b, the first HeaderSize bytes of the object.
func putHeader(b []byte, f *Footer) {
	b = append(b[:0], headMagic...)
	b = append(b, Version, minReader)
	b = binary.BigEndian.AppendUint16(b, f.flags())
	b = append(b, byte(f.Shard), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, f.Cluster)
	b = binary.BigEndian.AppendUint32(b, uint32(f.Epoch))
	b = append(b, f.ID[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(f.Count))
	b = binary.BigEndian.AppendUint64(b, uint64(f.First.Due))
	_ = binary.BigEndian.AppendUint64(b, uint64(f.Last.Due))
}

func appendFooter(b []byte, f *Footer) []byte {
	start := len(b)
	b = append(b, Version, minReader)
	b = binary.BigEndian.AppendUint16(b, f.flags())
	b = append(b, byte(f.Shard), 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, f.Cluster)
	b = binary.BigEndian.AppendUint32(b, uint32(f.Epoch))
	b = append(b, f.ID[:]...)
	b = delay.AppendKey(b, f.First)
	b = delay.AppendKey(b, f.Last)
	for _, v := range [...]int64{
		int64(f.MinSeq), int64(f.MaxSeq), f.Count, f.RawBytes, f.IDs, f.IDsOffset, f.TailOffset,
		f.Size,
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	for _, v := range [...]uint32{
		f.filterLen, f.dirLen, f.indexLen, f.idIndexLen,
		f.filterCRC, f.dirCRC, f.indexCRC, f.idIndexCRC, f.BodyCRC,
	} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	for len(b)-start < FooterSize-len(tailMagic)-4 {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint32(b, codec.CRC(b[start:]))
	return append(b, tailMagic...)
}

// parseFooter reads the footer of an object of size bytes and checks that its parts lie one after
// the other, within the object and its limits (G3).
func parseFooter(b []byte, size int64) (Footer, error) {
	if len(b) != FooterSize || string(b[FooterSize-len(tailMagic):]) != tailMagic {
		return Footer{}, fmt.Errorf("%w: segment: no footer at the end of %d bytes",
			delay.ErrCorrupt, size)
	}
	at := FooterSize - len(tailMagic) - 4
	if got, want := codec.CRC(b[:at]), binary.BigEndian.Uint32(b[at:]); got != want {
		return Footer{}, fmt.Errorf("%w: segment footer: checksum %08x, want %08x",
			delay.ErrCorrupt, got, want)
	}
	r := codec.Reader{B: b[:at]}
	version, least, flags := r.Byte(), r.Byte(), r.Uint16()
	if version == 0 || least > Version || flags&^knownFlags != 0 {
		return Footer{}, fmt.Errorf("%w: %w: segment: version %d needs a reader of version %d, "+
			"this is one of version %d; flags %#x",
			delay.ErrCorrupt, codec.ErrVersion, version, least, Version, flags)
	}
	f := Footer{Meta: Meta{Kept: flags&flagKept != 0, Shard: delay.Shard(r.Byte())}}
	r.Bytes(3)
	f.Cluster, f.Epoch = r.Uint64(), delay.Epoch(r.Uint32())
	copy(f.ID[:], r.Bytes(len(f.ID)))
	f.First, f.Last = r.Key(), r.Key()
	f.MinSeq, f.MaxSeq = delay.Seq(r.Uint64()), delay.Seq(r.Uint64())
	for _, p := range [...]*int64{
		&f.Count, &f.RawBytes, &f.IDs, &f.IDsOffset, &f.TailOffset, &f.Size,
	} {
		*p = int64(r.Uint64())
	}
	for _, p := range [...]*uint32{
		&f.filterLen, &f.dirLen, &f.indexLen, &f.idIndexLen,
		&f.filterCRC, &f.dirCRC, &f.indexCRC, &f.idIndexCRC, &f.BodyCRC,
	} {
		*p = r.Uint32()
	}
	if err := f.check(size); err != nil {
		r.Fail("%s", err)
	}
	return f, r.Err("segment footer")
}

// check says what is impossible about f, if anything.
func (f *Footer) check(size int64) error {
	parts := int64(f.filterLen) + int64(f.dirLen) + int64(f.indexLen) + int64(f.idIndexLen)
	switch {
	case f.Size != size:
		return fmt.Errorf("size %d, have %d bytes", f.Size, size)
	case f.IDsOffset < HeaderSize || f.TailOffset < f.IDsOffset || f.TailOffset > size:
		return fmt.Errorf("offsets %d and %d of %d", f.IDsOffset, f.TailOffset, size)
	case f.TailOffset+parts+FooterSize != size:
		return fmt.Errorf("tail of %d bytes from %d does not end %d", parts, f.TailOffset, size)
	case parts > MaxTailBytes:
		return fmt.Errorf("tail of %d bytes", parts)
	case f.Count < 1 || f.Count > size*1024 || f.IDs < 0 || f.IDs > f.Count || f.RawBytes < 0:
		return fmt.Errorf("%d items, %d ids, %d bytes", f.Count, f.IDs, f.RawBytes)
	case f.Last.Less(f.First) || f.MaxSeq < f.MinSeq:
		return fmt.Errorf("keys %s to %s", f.First, f.Last)
	}
	return nil
}
