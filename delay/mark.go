// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"fmt"
)

// Mark says that a key is finished or has moved. It is written for every key that a segment may
// still hold, and for every id whose outcome must be remembered (rules R1, R3, R12, R14).
type Mark struct {
	Key     Key   // zero for a record of an id alone
	State   State // what became of it; Scheduled when it moved to Forward
	At      Due   // when
	Forward Key   // the key it moved to, when State is Scheduled

	ID       string   // the id, when its outcome must outlive the row
	Identity Identity // of ID
	Attempts uint32
}

// Progress is the mutable part of an unfinished or dead message: how far its delivery has come.
type Progress struct {
	State     State  // Scheduled: parked, never claimed; Claimed: attempted; Dead, Expired
	Attempts  uint32 // made so far
	NextAt    Due    // no attempt before this instant
	LastError string // of the last attempt, or the reason of death
	Reason    string // why it is dead: a word for metrics
	DiedAt    Due
}

// Kept is an unfinished or dead message behind the watermark, as uploaded again (rule R5).
type Kept struct {
	Key      Key
	Progress Progress
	Record   []byte
}

// AppendMark appends the encoding of m.
func AppendMark(dst []byte, m *Mark) []byte {
	dst = append(dst, recordVersion, byte(m.State))
	dst = AppendKey(dst, m.Key)
	dst = binary.AppendUvarint(dst, uint64(m.At))
	if m.State == Scheduled {
		dst = AppendKey(dst, m.Forward)
	}
	dst = appendString(dst, m.ID)
	if m.ID != "" {
		dst = AppendIdentity(dst, m.Identity)
		dst = binary.AppendUvarint(dst, uint64(m.Attempts))
	}
	return dst
}

// DecodeMark reads what AppendMark wrote; strings are copies.
func DecodeMark(b []byte) (Mark, error) {
	r := recordReader{b: b}
	var m Mark
	r.version()
	m.State = r.state()
	m.Key = r.key()
	m.At = Due(r.bounded(uint64(MaxDue)))
	if m.State == Scheduled {
		m.Forward = r.key()
	}
	m.ID = cloneString(r.str())
	if m.ID != "" {
		m.Identity = r.identity()
		m.Attempts = uint32(r.bounded(1<<32 - 1))
	}
	return m, r.end("mark")
}

// AppendIdentity appends the encoding of id.
func AppendIdentity(dst []byte, id Identity) []byte {
	flags := byte(id.Durability) << 1
	if id.ByDelay {
		flags |= 1
	}
	if id.Recurs {
		flags |= 4
	}
	if id.Guarded {
		flags |= 8
	}
	dst = append(dst, flags)
	dst = AppendKey(dst, id.Key)
	dst = binary.AppendUvarint(dst, uint64(id.Generation))
	dst = binary.BigEndian.AppendUint64(dst, id.Digest)
	dst = binary.AppendUvarint(dst, uint64(id.Given))
	dst = binary.AppendUvarint(dst, uint64(id.AcceptedAt))
	return binary.AppendUvarint(dst, uint64(id.FirstDue))
}

// DecodeIdentity reads an identity from the front of b and returns what follows it.
func DecodeIdentity(b []byte) (Identity, []byte, error) {
	r := recordReader{b: b}
	id := r.identity()
	if r.bad != "" {
		return Identity{}, nil, r.err()
	}
	return id, b[r.at:], nil
}

// AppendProgress appends the encoding of p.
func AppendProgress(dst []byte, p *Progress) []byte {
	dst = append(dst, recordVersion, byte(p.State))
	dst = binary.AppendUvarint(dst, uint64(p.Attempts))
	dst = binary.AppendUvarint(dst, uint64(p.NextAt))
	dst = appendString(dst, p.LastError)
	dst = appendString(dst, p.Reason)
	return binary.AppendUvarint(dst, uint64(p.DiedAt))
}

// DecodeProgress reads a Progress from the front of b and returns what follows it; strings are
// copies.
func DecodeProgress(b []byte) (Progress, []byte, error) {
	r := recordReader{b: b}
	var p Progress
	r.version()
	p.State = r.state()
	p.Attempts = uint32(r.bounded(1<<32 - 1))
	p.NextAt = Due(r.bounded(uint64(MaxDue)))
	p.LastError = cloneString(r.str())
	p.Reason = cloneString(r.str())
	p.DiedAt = Due(r.bounded(uint64(MaxDue)))
	if r.bad != "" {
		return Progress{}, nil, r.err()
	}
	return p, b[r.at:], nil
}

func cloneString(s string) string { return string([]byte(s)) }

func (r *recordReader) version() {
	if v := r.byte(); v != recordVersion {
		r.fail(fmt.Sprintf("version %d, want %d", v, recordVersion))
	}
}

func (r *recordReader) byte() byte {
	if r.at >= len(r.b) {
		r.fail("cut short")
		return 0
	}
	r.at++
	return r.b[r.at-1]
}

func (r *recordReader) state() State {
	s := State(r.byte())
	if s > Suppressed {
		r.fail(fmt.Sprintf("state %d", s))
		return 0
	}
	return s
}

func (r *recordReader) key() Key {
	k, ok := DecodeKey(r.b[r.at:])
	if !ok {
		r.fail("bad key")
		return Key{}
	}
	r.at += KeySize
	return k
}

func (r *recordReader) identity() Identity {
	var id Identity
	flags := r.byte()
	if flags > 15 {
		r.fail(fmt.Sprintf("identity flags %#x", flags))
	}
	id.ByDelay = flags&1 != 0
	id.Durability = Durability(flags >> 1 & 1)
	id.Recurs = flags&4 != 0
	id.Guarded = flags&8 != 0
	id.Key = r.key()
	id.Generation = uint32(r.bounded(1<<32 - 1))
	if len(r.b)-r.at < 8 {
		r.fail("cut short")
		return Identity{}
	}
	id.Digest = binary.BigEndian.Uint64(r.b[r.at:])
	r.at += 8
	id.Given = Due(r.bounded(uint64(MaxDue)))
	id.AcceptedAt = Due(r.bounded(uint64(MaxDue)))
	id.FirstDue = Due(r.bounded(uint64(MaxDue)))
	return id
}

// end checks that nothing is left over.
func (r *recordReader) end(what string) error {
	if r.bad == "" && r.at != len(r.b) {
		r.fail(fmt.Sprintf("%d bytes left over after the %s", len(r.b)-r.at, what))
	}
	if r.bad != "" {
		return r.err()
	}
	return nil
}
