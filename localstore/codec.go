// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cicadamq/cicada/delay"
)

// valueVersion is the first byte of every value that is defined here and not in package delay.
const valueVersion = 1

// Meta is what the shard must find again: who owns it and how far it is.
type Meta struct {
	ClusterID       string
	Epoch           delay.Epoch
	Nonce           [16]byte // of the manifest's writer (rule R10)
	ManifestVersion uint64
	Watermark       delay.Key // everything below is finished or parked
	ClaimHorizon    delay.Due // nothing later was ever claimed (rule R8)
	Boundary        delay.Key // L: below, the rows are the whole truth (rule R1)
	Uploaded        delay.Seq // messages up to it are in committed segments
	OutboxNext      uint64    // number of the next mark to be uploaded
	OutboxDone      uint64    // marks up to it are in the tier
	LeaseNext       uint64
	IDsComplete     bool // all ids of the tier are known here (rule R14)
	Clean           bool // the shard was drained
	Adopted         bool // the store was joined to its cluster
}

// IDRecord is what is remembered of an id until its dedupe window ends.
type IDRecord struct {
	delay.Identity
	State      delay.State
	FinishedAt delay.Due // 0 while unfinished
	Attempts   uint32
}

// Lease is one pull: what was handed out together.
type Lease struct {
	No      uint64
	Target  delay.Target
	Epoch   delay.Epoch
	Expires delay.Due
	Entries []LeaseEntry
}

// LeaseEntry is one leased message.
type LeaseEntry struct {
	Key     delay.Key
	Attempt uint32
}

// TargetState is what is durable of a lane.
type TargetState struct {
	Paused bool
	// ClaimCursor is the highest parked key that may have been claimed (rule R8).
	ClaimCursor delay.Key
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendMeta(dst []byte, m *Meta) []byte {
	var flags byte
	for i, on := range [...]bool{m.IDsComplete, m.Clean, m.Adopted} {
		if on {
			flags |= 1 << i
		}
	}
	dst = append(dst, valueVersion, flags)
	dst = appendString(dst, m.ClusterID)
	dst = append(dst, m.Nonce[:]...)
	dst = delay.AppendKey(dst, m.Watermark)
	dst = delay.AppendKey(dst, m.Boundary)
	for _, v := range [...]uint64{
		uint64(m.Epoch), m.ManifestVersion, uint64(m.ClaimHorizon), uint64(m.Uploaded),
		m.OutboxNext, m.OutboxDone, m.LeaseNext,
	} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func decodeMeta(b []byte) (Meta, error) {
	r := reader{b: b, what: "meta"}
	r.version()
	flags := r.byte()
	if flags > 7 {
		r.fail(fmt.Sprintf("flags %#x", flags))
	}
	m := Meta{IDsComplete: flags&1 != 0, Clean: flags&2 != 0, Adopted: flags&4 != 0}
	m.ClusterID = r.str()
	copy(m.Nonce[:], r.bytes(len(m.Nonce)))
	m.Watermark, m.Boundary = r.key(), r.key()
	m.Epoch = delay.Epoch(r.bounded(uint64(delay.MaxEpoch)))
	m.ManifestVersion = r.uvarint()
	m.ClaimHorizon = delay.Due(r.bounded(math.MaxInt64))
	m.Uploaded = delay.Seq(r.uvarint())
	m.OutboxNext, m.OutboxDone, m.LeaseNext = r.uvarint(), r.uvarint(), r.uvarint()
	return m, r.end()
}

func appendBooks(dst []byte, b *delay.Books) []byte {
	dst = append(dst, valueVersion)
	for _, v := range [...]int64{
		b.Accepted, b.Pending, b.Delivered, b.Cancelled, b.Expired, b.Dead, b.LostWithDisk,
	} {
		dst = binary.AppendVarint(dst, v)
	}
	return dst
}

func decodeBooks(b []byte) (delay.Books, error) {
	r := reader{b: b, what: "books"}
	r.version()
	var k delay.Books
	for _, p := range [...]*int64{
		&k.Accepted, &k.Pending, &k.Delivered, &k.Cancelled, &k.Expired, &k.Dead,
		&k.LostWithDisk,
	} {
		*p = r.varint()
	}
	return k, r.end()
}

func appendIDRecord(dst []byte, rec *IDRecord) []byte {
	dst = append(dst, valueVersion, byte(rec.State))
	dst = delay.AppendIdentity(dst, rec.Identity)
	dst = binary.AppendUvarint(dst, uint64(rec.FinishedAt))
	return binary.AppendUvarint(dst, uint64(rec.Attempts))
}

func decodeIDRecord(b []byte) (IDRecord, error) {
	r := reader{b: b, what: "id record"}
	r.version()
	var rec IDRecord
	rec.State = r.state()
	if r.bad != "" {
		return IDRecord{}, r.end()
	}
	id, rest, err := delay.DecodeIdentity(r.b[r.at:])
	if err != nil {
		return IDRecord{}, err
	}
	r.at = len(b) - len(rest)
	rec.Identity = id
	rec.FinishedAt = delay.Due(r.bounded(uint64(delay.MaxDue)))
	rec.Attempts = uint32(r.bounded(math.MaxUint32))
	return rec, r.end()
}

// appendLease writes entries as differences: neighbours of one pull are near in due and seq.
func appendLease(dst []byte, l *Lease) []byte {
	dst = append(dst, valueVersion)
	dst = appendString(dst, string(l.Target))
	dst = binary.AppendUvarint(dst, uint64(l.Epoch))
	dst = binary.AppendUvarint(dst, uint64(l.Expires))
	dst = binary.AppendUvarint(dst, uint64(len(l.Entries)))
	var last delay.Key
	for _, e := range l.Entries {
		dst = binary.AppendVarint(dst, int64(e.Key.Due)-int64(last.Due))
		dst = binary.AppendVarint(dst, int64(uint64(e.Key.Seq)-uint64(last.Seq)))
		dst = binary.AppendUvarint(dst, uint64(e.Attempt))
		last = e.Key
	}
	return dst
}

// leaseEntryMin is the length of the shortest encoded entry; it bounds what a damaged count may
// allocate.
const leaseEntryMin = 3

func decodeLease(no uint64, b []byte) (Lease, error) {
	r := reader{b: b, what: "lease"}
	r.version()
	l := Lease{No: no}
	l.Target = delay.Target(r.str())
	l.Epoch = delay.Epoch(r.bounded(uint64(delay.MaxEpoch)))
	l.Expires = delay.Due(r.bounded(math.MaxInt64))
	n := r.bounded(uint64(len(r.b)-r.at) / leaseEntryMin)
	if r.bad != "" {
		return Lease{}, r.end()
	}
	l.Entries = make([]LeaseEntry, 0, n)
	var last delay.Key
	for range n {
		last.Due += delay.Due(r.varint())
		last.Seq += delay.Seq(r.varint())
		l.Entries = append(l.Entries, LeaseEntry{last, uint32(r.bounded(math.MaxUint32))})
		if last.Due < 0 {
			r.fail("negative due")
		}
	}
	return l, r.end()
}

func appendTargetState(dst []byte, t TargetState) []byte {
	var flags byte
	if t.Paused {
		flags = 1
	}
	return delay.AppendKey(append(dst, valueVersion, flags), t.ClaimCursor)
}

func decodeTargetState(b []byte) (TargetState, error) {
	r := reader{b: b, what: "target state"}
	r.version()
	flags := r.byte()
	if flags > 1 {
		r.fail(fmt.Sprintf("flags %#x", flags))
	}
	t := TargetState{Paused: flags == 1, ClaimCursor: r.key()}
	return t, r.end()
}

// splitParked separates the value of a parked row: the claimed flag and the record.
func splitParked(v []byte) (claimed bool, rec []byte, err error) {
	if len(v) == 0 || v[0] > 1 {
		return false, nil, fmt.Errorf("%w: parked row: flag of %d bytes", delay.ErrCorrupt, len(v))
	}
	return v[0] == 1, v[1:], nil
}

// reader walks a value and remembers the first thing that was wrong.
type reader struct {
	b    []byte
	at   int
	what string
	bad  string
}

func (r *reader) fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
}

// end is the error of the walk; bytes left over are one.
func (r *reader) end() error {
	if r.bad == "" && r.at != len(r.b) {
		r.fail("bytes left over")
	}
	if r.bad == "" {
		return nil
	}
	return fmt.Errorf("%w: %s: %s at offset %d of %d", delay.ErrCorrupt, r.what, r.bad, r.at,
		len(r.b))
}

func (r *reader) version() {
	if v := r.byte(); r.bad == "" && v != valueVersion {
		r.fail(fmt.Sprintf("version %d, want %d", v, valueVersion))
	}
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b)-r.at {
		r.fail("cut short")
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.at:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b[r.at:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.at += n
	return v
}

func (r *reader) bounded(most uint64) uint64 {
	v := r.uvarint()
	if v > most {
		r.fail(fmt.Sprintf("value %d above %d", v, most))
		return 0
	}
	return v
}

// str returns a copy: values outlive the block they were read from.
func (r *reader) str() string {
	return string(r.bytes(int(r.bounded(uint64(len(r.b) - r.at)))))
}

func (r *reader) state() delay.State {
	s := delay.State(r.byte())
	if s > delay.Dead {
		r.fail(fmt.Sprintf("state %d", s))
	}
	return s
}

func (r *reader) key() delay.Key {
	b := r.bytes(delay.KeySize)
	if b == nil {
		return delay.Key{}
	}
	k, ok := delay.DecodeKey(b)
	if !ok {
		r.fail("bad key")
	}
	return k
}
