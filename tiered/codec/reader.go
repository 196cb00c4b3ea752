// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cicadamq/cicada/delay"
)

// Reader walks an encoded object field by field (C1). The zero value with B set is ready.
type Reader struct {
	B   []byte
	at  int
	bad string
}

// Fail records that the input is wrong, unless something was wrong before.
func (r *Reader) Fail(format string, args ...any) {
	if r.bad == "" {
		r.bad = fmt.Sprintf(format, args...)
	}
}

// OK reports whether nothing was wrong so far.
func (r *Reader) OK() bool { return r.bad == "" }

// Err is nil, or a delay.ErrCorrupt that names what, the first thing wrong and its offset.
func (r *Reader) Err(what string) error {
	if r.bad == "" {
		return nil
	}
	return fmt.Errorf("%w: %s: %s at offset %d of %d",
		delay.ErrCorrupt, what, r.bad, r.at, len(r.B))
}

// End is Err, and also an error when bytes are left over.
func (r *Reader) End(what string) error {
	if r.bad == "" && r.at != len(r.B) {
		r.Fail("%d bytes left over", len(r.B)-r.at)
	}
	return r.Err(what)
}

// Left is the number of bytes not read yet.
func (r *Reader) Left() int { return len(r.B) - r.at }

// Rest is what was not read yet, without reading it.
func (r *Reader) Rest() []byte { return r.B[r.at:] }

// Bytes reads n bytes; the result aliases the input.
func (r *Reader) Bytes(n int) []byte {
	if r.bad != "" || n < 0 || n > len(r.B)-r.at {
		r.Fail("%d bytes do not fit", n)
		return nil
	}
	r.at += n
	return r.B[r.at-n : r.at : r.at]
}

// Uvarint reads a value of at most most.
func (r *Reader) Uvarint(most uint64) uint64 {
	if r.bad != "" {
		return 0
	}
	v, n := binary.Uvarint(r.B[r.at:])
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	if v > most {
		r.Fail("value %d above %d", v, most)
		return 0
	}
	r.at += n
	return v
}

// Varint reads a signed value.
func (r *Reader) Varint() int64 {
	if r.bad != "" {
		return 0
	}
	v, n := binary.Varint(r.B[r.at:])
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

// Int64 reads a value that is never negative.
func (r *Reader) Int64() int64 { return int64(r.Uvarint(math.MaxInt64)) }

// Due reads an instant.
func (r *Reader) Due() delay.Due { return delay.Due(r.Uvarint(math.MaxInt64)) }

// Count reads how many things of at least each bytes follow, so that a wrong count can never make
// the caller allocate more than the input could hold.
func (r *Reader) Count(each int) int {
	n := r.Uvarint(math.MaxInt32)
	if r.bad == "" && n*uint64(each) > uint64(r.Left()) {
		r.Fail("count %d does not fit", n)
		return 0
	}
	return int(n)
}

// String reads a length of at most most and a copy of that many bytes.
func (r *Reader) String(most int) string {
	return string(r.Bytes(int(r.Uvarint(uint64(most)))))
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	b := r.Bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// Uint16 reads two big-endian bytes.
func (r *Reader) Uint16() uint16 {
	b := r.Bytes(2)
	if len(b) == 0 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// Uint32 reads four big-endian bytes.
func (r *Reader) Uint32() uint32 {
	b := r.Bytes(4)
	if len(b) == 0 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Uint64 reads eight big-endian bytes.
func (r *Reader) Uint64() uint64 {
	b := r.Bytes(8)
	if len(b) == 0 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// Key reads a key as delay.AppendKey wrote it.
func (r *Reader) Key() delay.Key {
	b := r.Bytes(delay.KeySize)
	if len(b) == 0 {
		return delay.Key{}
	}
	k, ok := delay.DecodeKey(b)
	if !ok {
		r.Fail("bad key")
	}
	return k
}

// AppendString appends what String reads.
func AppendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
