// SPDX-License-Identifier: Apache-2.0

// Package witness is a small file beside a store that says how much of it was acknowledged. A store
// that comes back with less has lost something, whatever its own checks say.
//
//	slot 0 | 4096 bytes: record, zeros
//	slot 1 | 4096 bytes: record, zeros
//
// The slots are overwritten in turn and synced, so that a torn write spoils only the one that
// held the older state. docs/format/localstore.md draws the record.
package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
)

const (
	magic      = "CICADAWT"
	slotSize   = 4096
	recordSize = 8 + 1 + 1 + 16 + 8 + 8 + 8 + 4
	fileSize   = 2 * slotSize
)

// Version is the format of the whole directory of the store, not only of this file: the witness is
// read before anything is changed, so a program that does not know the format leaves all as it is.
const Version = 1

// ErrVersion says that the store was written by a program with another format.
var ErrVersion = errors.New("other format version")

// Phase is where the store is in its life.
type Phase uint8

// The phases.
const (
	None     Phase = iota // there is no witness
	Creating              // the store was never used
	Live                  // at least this much was acknowledged
	Clean                 // exactly this much was
)

// StoreID tells stores apart, so that a witness is never compared with another store.
type StoreID [16]byte

// State is what one slot says.
type State struct {
	ID         StoreID
	Generation uint64 // the higher one of two slots is the newer
	Phase      Phase
	Batch      uint64
	LastSeq    delay.Seq
}

// Append appends the record of a state.
func Append(dst []byte, w State) []byte {
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, Version, byte(w.Phase))
	dst = append(dst, w.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, w.Generation)
	dst = binary.BigEndian.AppendUint64(dst, w.Batch)
	dst = binary.BigEndian.AppendUint64(dst, uint64(w.LastSeq))
	return binary.BigEndian.AppendUint32(dst, crc(dst[start:]))
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// Decode reads the record at the front of a slot.
func Decode(b []byte) (State, error) {
	if len(b) < recordSize {
		return State{}, fmt.Errorf("%w: witness slot: %d bytes", delay.ErrCorrupt, len(b))
	}
	body, sum := b[:recordSize-4], binary.BigEndian.Uint32(b[recordSize-4:])
	if got := crc(body); got != sum {
		return State{}, fmt.Errorf("%w: witness slot: crc %08x, computed %08x",
			delay.ErrCorrupt, sum, got)
	}
	r := codec.Reader{B: body, What: "witness slot"}
	if m := string(r.Bytes(len(magic))); m != magic {
		r.Fail(fmt.Sprintf("magic %q", m))
	}
	if v := r.Byte(); v != Version && !r.Bad() {
		return State{}, fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v, Version)
	}
	w := State{Phase: Phase(r.Byte())}
	if w.Phase < Creating || w.Phase > Clean {
		r.Fail(fmt.Sprintf("phase %d", w.Phase))
	}
	copy(w.ID[:], r.Bytes(len(w.ID)))
	w.Generation, w.Batch, w.LastSeq = r.Uint64(), r.Uint64(), delay.Seq(r.Uint64())
	return w, r.End()
}

// Newest is the newer of the readable slots of a file. A slot of another version is an ErrVersion,
// whatever the other slot says.
func Newest(file []byte) (State, error) {
	if len(file) != fileSize {
		return State{}, fmt.Errorf("%w: witness of %d bytes, want %d", delay.ErrCorrupt, len(file),
			fileSize)
	}
	a, errA := Decode(file[:slotSize])
	b, errB := Decode(file[slotSize:])
	switch {
	case errors.Is(errA, ErrVersion), errors.Is(errB, ErrVersion):
		// The other slot is what this program left before a newer one took over.
		return State{}, errors.Join(errA, errB)
	case errA != nil && errB != nil:
		return State{}, errors.Join(errA, errB)
	case errA != nil:
		return b, nil //nolint:nilerr // a torn slot: that is what the other is for
	case errB != nil || a.Generation > b.Generation:
		return a, nil //nolint:nilerr // likewise
	default:
		return b, nil
	}
}
