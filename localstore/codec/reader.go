// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
)

// Reader walks a value and remembers the first thing that was wrong.
type Reader struct {
	B    []byte
	What string // named in errors
	at   int
	bad  string
}

// Fail notes the first thing that is wrong.
func (r *Reader) Fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
}

// End is the error of the walk; bytes left over are one.
func (r *Reader) End() error {
	if r.bad == "" && r.at != len(r.B) {
		r.Fail("bytes left over")
	}
	if r.bad == "" {
		return nil
	}
	return fmt.Errorf("%w: %s: %s at offset %d of %d", delay.ErrCorrupt, r.What, r.bad, r.at,
		len(r.B))
}

// Version checks the first byte.
func (r *Reader) Version() {
	if v := r.Byte(); r.bad == "" && v != Version {
		r.Fail(fmt.Sprintf("version %d, want %d", v, Version))
	}
}

// More reports whether anything is left.
func (r *Reader) More() bool { return r.bad == "" && r.at < len(r.B) }

// Bytes are the next n bytes, which alias the value, or nil.
func (r *Reader) Bytes(n int) []byte {
	if n > len(r.B)-r.at {
		r.Fail("cut short")
		return nil
	}
	r.at += n
	return r.B[r.at-n : r.at]
}

// Byte is the next byte.
func (r *Reader) Byte() byte {
	if b := r.Bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// Uint64 is 8 bytes, big endian.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Uvarint is an unsigned varint.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.B[r.at:])
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

// Varint is a signed varint.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.B[r.at:])
	if n <= 0 {
		r.Fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

// Bounded is an unsigned varint up to most.
func (r *Reader) Bounded(most uint64) uint64 {
	v := r.Uvarint()
	if v > most {
		r.Fail(fmt.Sprintf("value %d above %d", v, most))
		return 0
	}
	return v
}

// Str is a string with its length, a copy: values outlive the block they were read from.
func (r *Reader) Str() string {
	return string(r.Bytes(int(r.Bounded(uint64(len(r.B) - r.at)))))
}

// State is one byte.
func (r *Reader) State() delay.State {
	s := delay.State(r.Byte())
	if s > delay.Suppressed {
		r.Fail(fmt.Sprintf("state %d", s))
	}
	return s
}

// Key is 16 bytes.
func (r *Reader) Key() delay.Key {
	b := r.Bytes(delay.KeySize)
	if b == nil {
		return delay.Key{}
	}
	k, ok := delay.DecodeKey(b)
	if !ok {
		r.Fail("bad key")
	}
	return k
}

// Left is how many bytes are left.
func (r *Reader) Left() int { return len(r.B) - r.at }

// Bad reports whether something was wrong.
func (r *Reader) Bad() bool { return r.bad != "" }
