// SPDX-License-Identifier: Apache-2.0

// Package codec is the bytes of the local store's values: what each holds, how it is written, and a
// reader that checks while it reads. docs/format/localstore.md draws them.
//
// Every Decode answers delay.ErrCorrupt, with the place, for anything that its Append did not
// write; none of them panics or allocates more than its input justifies. Values are plain data.
package codec

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cicadamq/cicada/delay"
)

// Version is the first byte of every value that is not defined in package delay.
const Version = 1

// Meta is what the shard must find again: who owns it and how far it is.
type Meta struct {
	ClusterID       string
	Epoch           delay.Epoch
	Nonce           [16]byte // of the manifest's writer (rule R10)
	NextNonce       [16]byte // of the owner that is about to take the shard (rule R10)
	ManifestVersion uint64
	Watermark       delay.Key // everything below is finished or parked
	ClaimHorizon    delay.Due // nothing later was ever claimed (rule R8)
	Boundary        delay.Key // L: below, the rows are the whole truth (rule R1)
	Uploaded        delay.Seq // messages up to it are in committed segments
	OutboxNext      uint64    // number of the next mark to be uploaded
	OutboxDone      uint64    // marks up to it are in the tier
	LeaseNext       uint64
	// Lost: messages with seqs of epochs before LostBefore that were due up to LostUpTo may have been
	// claimed, and even acked, without a trace here: their disk was lost or belongs to another owner
	// (rule R12).
	LostBefore  delay.Epoch
	LostUpTo    delay.Due
	IDsComplete bool // all ids of the tier are known here (rule R14)
	Clean       bool // the shard was drained
	Adopted     bool // the store was joined to its cluster
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
	Limit  delay.Limit
	// ClaimCursor is the highest parked key that may have been claimed (rule R8).
	ClaimCursor delay.Key
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// AppendMeta appends the value.
func AppendMeta(dst []byte, m *Meta) []byte {
	var flags byte
	for i, on := range [...]bool{m.IDsComplete, m.Clean, m.Adopted} {
		if on {
			flags |= 1 << i
		}
	}
	dst = append(dst, Version, flags)
	dst = appendString(dst, m.ClusterID)
	dst = append(dst, m.Nonce[:]...)
	dst = append(dst, m.NextNonce[:]...)
	dst = delay.AppendKey(dst, m.Watermark)
	dst = delay.AppendKey(dst, m.Boundary)
	for _, v := range [...]uint64{
		uint64(m.Epoch), m.ManifestVersion, uint64(m.ClaimHorizon), uint64(m.Uploaded),
		m.OutboxNext, m.OutboxDone, m.LeaseNext, uint64(m.LostBefore), uint64(m.LostUpTo),
	} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

// DecodeMeta reads what AppendMeta wrote.
func DecodeMeta(b []byte) (Meta, error) {
	r := Reader{B: b, What: "meta"}
	r.Version()
	flags := r.Byte()
	if flags > 7 {
		r.Fail(fmt.Sprintf("flags %#x", flags))
	}
	m := Meta{IDsComplete: flags&1 != 0, Clean: flags&2 != 0, Adopted: flags&4 != 0}
	m.ClusterID = r.Str()
	copy(m.Nonce[:], r.Bytes(len(m.Nonce)))
	copy(m.NextNonce[:], r.Bytes(len(m.NextNonce)))
	m.Watermark, m.Boundary = r.Key(), r.Key()
	m.Epoch = delay.Epoch(r.Bounded(uint64(delay.MaxEpoch)))
	m.ManifestVersion = r.Uvarint()
	m.ClaimHorizon = delay.Due(r.Bounded(math.MaxInt64))
	m.Uploaded = delay.Seq(r.Uvarint())
	m.OutboxNext, m.OutboxDone, m.LeaseNext = r.Uvarint(), r.Uvarint(), r.Uvarint()
	m.LostBefore = delay.Epoch(r.Bounded(uint64(delay.MaxEpoch)))
	m.LostUpTo = delay.Due(r.Bounded(math.MaxInt64))
	return m, r.End()
}

// AppendBooks appends the value.
func AppendBooks(dst []byte, b *delay.Books) []byte {
	dst = append(dst, Version)
	for _, v := range [...]int64{
		b.Accepted, b.Pending, b.Delivered, b.Cancelled, b.Expired, b.Dead, b.LostWithDisk,
	} {
		dst = binary.AppendVarint(dst, v)
	}
	if b.Schedules != 0 || b.Suppressed != 0 {
		dst = binary.AppendVarint(dst, b.Schedules)
	}
	if b.Suppressed != 0 {
		dst = binary.AppendVarint(dst, b.Suppressed)
	}
	return dst
}

// DecodeBooks reads what AppendBooks wrote.
func DecodeBooks(b []byte) (delay.Books, error) {
	r := Reader{B: b, What: "books"}
	r.Version()
	var k delay.Books
	for _, p := range [...]*int64{
		&k.Accepted, &k.Pending, &k.Delivered, &k.Cancelled, &k.Expired, &k.Dead,
		&k.LostWithDisk,
	} {
		*p = r.Varint()
	}
	if r.More() {
		k.Schedules = r.Varint()
		if r.More() {
			k.Suppressed = r.Varint()
		}
		if k.Schedules == 0 && k.Suppressed == 0 {
			r.Fail("bytes left over")
		}
	}
	return k, r.End()
}

// AppendIDRecord appends the value.
func AppendIDRecord(dst []byte, rec *IDRecord) []byte {
	dst = append(dst, Version, byte(rec.State))
	dst = delay.AppendIdentity(dst, rec.Identity)
	dst = binary.AppendUvarint(dst, uint64(rec.FinishedAt))
	return binary.AppendUvarint(dst, uint64(rec.Attempts))
}

// DecodeIDRecord reads what AppendIDRecord wrote.
func DecodeIDRecord(b []byte) (IDRecord, error) {
	r := Reader{B: b, What: "id record"}
	r.Version()
	var rec IDRecord
	rec.State = r.State()
	if r.bad != "" {
		return IDRecord{}, r.End()
	}
	id, rest, err := delay.DecodeIdentity(r.B[r.at:])
	if err != nil {
		return IDRecord{}, err
	}
	r.at = len(b) - len(rest)
	rec.Identity = id
	rec.FinishedAt = delay.Due(r.Bounded(uint64(delay.MaxDue)))
	rec.Attempts = uint32(r.Bounded(math.MaxUint32))
	return rec, r.End()
}

// AppendLease appends the value but for the number. Entries are written as differences: neighbours
// of one pull are near in due and seq.
func AppendLease(dst []byte, l *Lease) []byte {
	dst = append(dst, Version)
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

// DecodeLease reads what AppendLease wrote.
func DecodeLease(no uint64, b []byte) (Lease, error) {
	r := Reader{B: b, What: "lease"}
	r.Version()
	l := Lease{No: no}
	l.Target = delay.Target(r.Str())
	l.Epoch = delay.Epoch(r.Bounded(uint64(delay.MaxEpoch)))
	l.Expires = delay.Due(r.Bounded(math.MaxInt64))
	n := r.Bounded(uint64(len(r.B)-r.at) / leaseEntryMin)
	if r.bad != "" {
		return Lease{}, r.End()
	}
	l.Entries = make([]LeaseEntry, 0, n)
	var last delay.Key
	for range n {
		last.Due += delay.Due(r.Varint())
		last.Seq += delay.Seq(r.Varint())
		l.Entries = append(l.Entries, LeaseEntry{last, uint32(r.Bounded(math.MaxUint32))})
		if last.Due < 0 {
			r.Fail("negative due")
		}
	}
	return l, r.End()
}

// The flags of a target state.
const (
	targetPaused  = 1
	targetLimited = 2
)

// AppendTargetState appends the value.
func AppendTargetState(dst []byte, t TargetState) []byte {
	var flags byte
	if t.Paused {
		flags |= targetPaused
	}
	if !t.Limit.IsZero() {
		flags |= targetLimited
	}
	dst = delay.AppendKey(append(dst, Version, flags), t.ClaimCursor)
	if !t.Limit.IsZero() {
		dst = binary.AppendUvarint(dst, uint64(t.Limit.PerHour))
		dst = binary.AppendUvarint(dst, uint64(t.Limit.Burst))
	}
	return dst
}

// DecodeTargetState reads what AppendTargetState wrote.
func DecodeTargetState(b []byte) (TargetState, error) {
	r := Reader{B: b, What: "target state"}
	r.Version()
	flags := r.Byte()
	if flags > targetPaused|targetLimited {
		r.Fail(fmt.Sprintf("flags %#x", flags))
	}
	t := TargetState{Paused: flags&targetPaused != 0, ClaimCursor: r.Key()}
	if flags&targetLimited != 0 {
		t.Limit.PerHour = uint32(r.Bounded(delay.MaxLimitPerHour))
		t.Limit.Burst = uint32(r.Bounded(delay.MaxLimitBurst))
		if t.Limit.PerHour == 0 || t.Limit.Burst == 0 {
			r.Fail(fmt.Sprintf("limit %+v", t.Limit))
		}
	}
	return t, r.End()
}

// SplitParked separates the value of a parked row: the claimed flag and the record, which aliases
// v.
func SplitParked(v []byte) (claimed bool, rec []byte, err error) {
	if len(v) == 0 || v[0] > 1 {
		return false, nil, fmt.Errorf("%w: parked row: flag of %d bytes", delay.ErrCorrupt, len(v))
	}
	return v[0] == 1, v[1:], nil
}
