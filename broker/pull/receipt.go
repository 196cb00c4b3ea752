// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// Receipt names one lease of one message.
type Receipt struct {
	Key     delay.Key   // the row that was leased; Due within [0, delay.MaxDue]
	Epoch   delay.Epoch // of the owner that granted the lease
	Attempt uint32      // of the message, from 1
	// Lane is the hash of the queue's target (delay.Target.Hash). A receipt keeps its low LaneBits
	// bits, enough to refuse a receipt that was brought to another queue by mistake.
	Lane uint64
}

// LaneBits is how much of Receipt.Lane survives.
const LaneBits = 16

const laneMask = 1<<LaneBits - 1

// ReceiptLen is the length of a receipt: 27 bytes in base64.
const ReceiptLen = 36

// The 27 bytes of a receipt, big-endian:
//
//	version 8 | due 48 | seq 60 | epoch 20 | attempt 32 | lane 16 | check 32
//
// and the check is CRC-32C of the cluster's id and what is before it.
const (
	receiptVersion = 2 // 1 did not know its cluster
	receiptSize    = 27
	checkAt        = receiptSize - 4
)

const (
	dueBits   = 48
	epochBits = 20
	maxSeq    = delay.Seq(uint64(delay.MaxEpoch)<<40 | delay.MaxCounter)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Maker makes and reads the receipts of one cluster.
type Maker struct{ seed uint32 }

// NewMaker is the Maker of the cluster with this id.
func NewMaker(cluster string) Maker {
	if planted.Is(planted.ClusterUnread) {
		return Maker{}
	}
	return Maker{seed: crc32.Checksum([]byte(cluster), castagnoli)}
}

// Append appends the ReceiptLen characters of r: A-Z a-z 0-9 - and _. A field out of its range is a
// bug of the caller.
func (m Maker) Append(dst []byte, r Receipt) []byte {
	if r.Key.Due < 0 || r.Key.Due > delay.MaxDue || r.Key.Seq > maxSeq || r.Epoch > delay.MaxEpoch {
		panic("BUG: receipt field out of range: key " + r.Key.String())
	}
	var b [receiptSize]byte
	hi := uint64(receiptVersion)<<56 | uint64(r.Key.Due)<<8 | uint64(r.Key.Seq)>>52
	lo := uint64(r.Key.Seq)<<12 | uint64(r.Epoch)>>8
	binary.BigEndian.PutUint64(b[0:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	b[16] = byte(r.Epoch)
	binary.BigEndian.PutUint32(b[17:], r.Attempt)
	binary.BigEndian.PutUint16(b[21:], uint16(r.Lane&laneMask))
	binary.BigEndian.PutUint32(b[checkAt:], m.checksum(&b))
	return base64.RawURLEncoding.AppendEncode(dst, b[:])
}

// Parse reads what Append of the same cluster wrote. ok is false for anything else.
func (m Maker) Parse(s string) (r Receipt, ok bool) {
	if len(s) != ReceiptLen {
		return Receipt{}, false
	}
	var text [ReceiptLen]byte
	var b [receiptSize]byte
	copy(text[:], s)
	// The decoder skips line ends; a text with one gives fewer bytes and is refused (P1).
	if n, err := base64.RawURLEncoding.Decode(b[:], text[:]); err != nil || n != receiptSize {
		return Receipt{}, false
	}
	if b[0] != receiptVersion || binary.BigEndian.Uint32(b[checkAt:]) != m.checksum(&b) {
		return Receipt{}, false
	}
	hi, lo := binary.BigEndian.Uint64(b[0:]), binary.BigEndian.Uint64(b[8:])
	r = Receipt{
		Key: delay.Key{
			Due: delay.Due(hi >> 8 & (1<<dueBits - 1)),
			Seq: delay.Seq(hi&0xff<<52 | lo>>12),
		},
		Epoch:   delay.Epoch((lo<<8 | uint64(b[16])) & (1<<epochBits - 1)),
		Attempt: binary.BigEndian.Uint32(b[17:]),
		Lane:    uint64(binary.BigEndian.Uint16(b[21:])),
	}
	return r, r.Key.Due <= delay.MaxDue
}

// checksum is crc32.Update of the cluster's with what is before the check. That function would move
// b to the heap (P3), and on 23 bytes the table alone is no slower.
func (m Maker) checksum(b *[receiptSize]byte) uint32 {
	sum := ^m.seed
	for _, c := range b[:checkAt] {
		sum = castagnoli[byte(sum)^c] ^ sum>>8
	}
	return ^sum
}

// InLane reports whether r was handed out by the queue whose target has this hash.
func (r Receipt) InLane(hash uint64) bool { return r.Lane&laneMask == hash&laneMask }
