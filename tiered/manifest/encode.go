// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

// The object: magic 8, version 1, least reader 1, flags 2, raw length 4, zstd of the body, CRC32C
// of everything before it 4.
const (
	magic      = "CICADMAN"
	version    = 3
	pausing    = 2 // what a reader must know of a manifest with paused targets
	basic      = 1 // and of one without
	headSize   = 16
	maxBody    = 256 << 20
	maxName    = 128
	maxCluster = 64
	maxCursor  = 1 << 20

	maxPredicate = 16 << 10 // bytes; target and id prefix have limits of their own

	flagReleased = 1
)

// Encode is the object of s.
func Encode(z *codec.Zstd, s *State) []byte {
	body := appendState(s)
	out := append(make([]byte, 0, len(body)/2+64), magic...)
	needs := needed(s)
	out = append(out, needs, needs, 0, 0)
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	out = z.Compress(out, body)
	return binary.BigEndian.AppendUint32(out, codec.CRC(out))
}

// needed is the least version that can say what s says: its bytes are written, for the sake of
// older readers.
func needed(s *State) byte {
	switch {
	case s.Books.Schedules != 0 || s.Books.Suppressed != 0 || len(s.Limits) > 0:
		return version
	case len(s.Paused) > 0:
		return pausing
	default:
		return basic
	}
}

// Decode reads what Encode wrote. Anything wrong is a delay.ErrCorrupt.
func Decode(z *codec.Zstd, b []byte) (State, error) {
	if len(b) < headSize+4 || string(b[:len(magic)]) != magic {
		return State{}, fmt.Errorf("%w: manifest: not a manifest of %d bytes",
			delay.ErrCorrupt, len(b))
	}
	end := len(b) - 4
	if got, want := codec.CRC(b[:end]), binary.BigEndian.Uint32(b[end:]); got != want {
		return State{}, fmt.Errorf("%w: manifest: checksum %08x, want %08x",
			delay.ErrCorrupt, got, want)
	}
	if b[8] == 0 || b[9] > version || b[10] != 0 || b[11] != 0 {
		return State{}, fmt.Errorf("%w: %w: manifest: version %d needs a reader of version %d, "+
			"this is one of version %d; flags %x",
			delay.ErrCorrupt, codec.ErrVersion, b[8], b[9], version, b[10:12])
	}
	raw := binary.BigEndian.Uint32(b[12:])
	if raw > maxBody {
		return State{}, fmt.Errorf("%w: manifest: body of %d bytes", delay.ErrCorrupt, raw)
	}
	body, err := z.Decompress(nil, b[headSize:end], int(raw))
	if err != nil {
		return State{}, fmt.Errorf("manifest: %w", err)
	}
	return readState(body, b[8])
}

func appendState(s *State) (b []byte) {
	flags := byte(0)
	if s.Released {
		flags |= flagReleased
	}
	b = append(b, flags, byte(s.Shard))
	b = codec.AppendString(b, s.ClusterID)
	b = binary.AppendUvarint(b, uint64(s.Epoch))
	b = binary.AppendUvarint(b, s.Version)
	b = append(b, s.Nonce[:]...)
	b = binary.AppendUvarint(b, uint64(s.WrittenAt))
	b = delay.AppendKey(b, s.Watermark)
	b = binary.AppendUvarint(b, uint64(s.ClaimHorizon))
	b = binary.AppendUvarint(b, uint64(s.Uploaded))
	for _, v := range [...]int64{
		s.Books.Accepted, s.Books.Pending, s.Books.Delivered, s.Books.Cancelled,
		s.Books.Expired, s.Books.Dead, s.Books.LostWithDisk, s.NotUploaded,
	} {
		b = binary.AppendVarint(b, v)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Cursors)))
	for _, name := range slices.Sorted(maps.Keys(s.Cursors)) {
		b = codec.AppendString(b, name)
		b = codec.AppendString(b, string(s.Cursors[name]))
	}
	for _, list := range [...][]SegmentInfo{s.Segments, s.Kept, s.Marks} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for i := range list {
			b = appendInfo(b, &list[i])
		}
	}
	b = binary.AppendUvarint(b, uint64(len(s.Deletes)))
	for _, d := range s.Deletes {
		b = codec.AppendString(b, d.Name)
		b = binary.AppendUvarint(b, uint64(d.NotBefore))
	}
	b = binary.AppendUvarint(b, uint64(len(s.Predicates)))
	for i := range s.Predicates {
		b = codec.AppendString(b, string(delay.AppendPredicate(nil, &s.Predicates[i])))
	}
	needs := needed(s)
	if needs >= pausing {
		b = binary.AppendUvarint(b, uint64(len(s.Paused)))
		for _, t := range s.Paused {
			b = codec.AppendString(b, string(t))
		}
	}
	if needs >= version {
		b = binary.AppendVarint(b, s.Books.Schedules)
		b = binary.AppendVarint(b, s.Books.Suppressed)
		b = binary.AppendUvarint(b, uint64(len(s.Limits)))
		for _, l := range s.Limits {
			b = codec.AppendString(b, string(l.Target))
			b = binary.AppendUvarint(b, uint64(l.PerHour))
			b = binary.AppendUvarint(b, uint64(l.Burst))
		}
	}
	return b
}

func appendInfo(b []byte, i *SegmentInfo) []byte {
	b = codec.AppendString(b, i.Name)
	b = append(b, i.Level)
	b = binary.AppendUvarint(b, uint64(i.Epoch))
	b = delay.AppendKey(b, i.First)
	b = delay.AppendKey(b, i.Last)
	for _, v := range [...]uint64{
		uint64(i.MinSeq), uint64(i.MaxSeq), uint64(i.Count), uint64(i.Bytes), uint64(i.Stored),
		uint64(i.TailOffset), uint64(i.Checksum), uint64(i.IDs), uint64(i.LastID),
		uint64(i.CommittedAt), uint64(i.Purged),
	} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// minInfo is the least number of bytes of a SegmentInfo.
const minInfo = 1 + 1 + 1 + 2*delay.KeySize + 11

// readState reads the body that a writer of this version wrote.
func readState(body []byte, writer byte) (State, error) {
	r := codec.Reader{B: body}
	flags := r.Byte()
	if flags&^flagReleased != 0 {
		r.Fail("flags %#x", flags)
	}
	s := State{Released: flags&flagReleased != 0, Shard: delay.Shard(r.Byte())}
	s.ClusterID = r.String(maxCluster)
	s.Epoch = delay.Epoch(r.Uvarint(uint64(delay.MaxEpoch)))
	s.Version = r.Uvarint(1<<64 - 1)
	copy(s.Nonce[:], r.Bytes(len(s.Nonce)))
	s.WrittenAt = r.Due()
	s.Watermark = r.Key()
	s.ClaimHorizon = r.Due()
	s.Uploaded = delay.Seq(r.Uvarint(1<<64 - 1))
	for _, p := range [...]*int64{
		&s.Books.Accepted, &s.Books.Pending, &s.Books.Delivered, &s.Books.Cancelled,
		&s.Books.Expired, &s.Books.Dead, &s.Books.LostWithDisk, &s.NotUploaded,
	} {
		*p = r.Varint()
	}
	readCursors(&r, &s)
	for _, list := range [...]*[]SegmentInfo{&s.Segments, &s.Kept, &s.Marks} {
		n := r.Count(minInfo)
		for i := 0; i < n && r.OK(); i++ {
			*list = append(*list, readInfo(&r))
		}
	}
	n := r.Count(2)
	for i := 0; i < n && r.OK(); i++ {
		s.Deletes = append(s.Deletes, PendingDelete{Name: r.String(maxName), NotBefore: r.Due()})
	}
	readPredicates(&r, &s)
	if writer >= pausing {
		readPaused(&r, &s)
	}
	if writer >= version {
		s.Books.Schedules, s.Books.Suppressed = r.Varint(), r.Varint()
		readLimits(&r, &s)
	}
	if r.OK() && needed(&s) != writer {
		r.Fail("version %d says no more than version %d", writer, needed(&s))
	}
	if r.OK() && (s.Epoch == 0 || s.Version == 0) {
		r.Fail("epoch %d, version %d", s.Epoch, s.Version)
	}
	if err := r.End("manifest"); err != nil {
		return State{}, err
	}
	return s, nil
}

func readCursors(r *codec.Reader, s *State) {
	n, last := r.Count(2), ""
	for i := 0; i < n && r.OK(); i++ {
		name := r.String(maxCursor)
		if i > 0 && name <= last {
			r.Fail("cursor %q after %q", name, last)
		}
		if last = name; s.Cursors == nil {
			s.Cursors = make(map[string][]byte, n)
		}
		s.Cursors[name] = []byte(r.String(maxCursor))
	}
}

func readPredicates(r *codec.Reader, s *State) {
	n, last := r.Count(2), delay.Seq(0)
	for i := 0; i < n && r.OK(); i++ {
		p, err := delay.DecodePredicate(r.Bytes(int(r.Uvarint(maxPredicate))))
		if err != nil || p.Seq <= last {
			r.Fail("predicate %d after %d: %v", p.Seq, last, err)
		}
		last = p.Seq
		s.Predicates = append(s.Predicates, p)
	}
}

// readPaused reads the paused targets.
func readPaused(r *codec.Reader, s *State) {
	n, last := r.Count(2), delay.Target("")
	for i := 0; i < n && r.OK(); i++ {
		t := delay.Target(r.String(delay.MaxTargetBytes))
		if t <= last {
			r.Fail("paused target %q after %q", t, last)
		}
		last = t
		s.Paused = append(s.Paused, t)
	}
}

// readLimits reads the limits of targets.
func readLimits(r *codec.Reader, s *State) {
	n, last := r.Count(3), delay.Target("")
	for i := 0; i < n && r.OK(); i++ {
		l := delay.TargetLimit{Target: delay.Target(r.String(delay.MaxTargetBytes))}
		l.PerHour = uint32(r.Uvarint(delay.MaxLimitPerHour))
		l.Burst = uint32(r.Uvarint(delay.MaxLimitBurst))
		if l.Target <= last || l.PerHour == 0 || l.Burst == 0 {
			r.Fail("limit %+v after that of %q", l, last)
		}
		last = l.Target
		s.Limits = append(s.Limits, l)
	}
}

func readInfo(r *codec.Reader) SegmentInfo {
	i := SegmentInfo{Name: r.String(maxName), Level: r.Byte()}
	i.Epoch = delay.Epoch(r.Uvarint(uint64(delay.MaxEpoch)))
	i.First, i.Last = r.Key(), r.Key()
	i.MinSeq = delay.Seq(r.Uvarint(1<<64 - 1))
	i.MaxSeq = delay.Seq(r.Uvarint(1<<64 - 1))
	i.Count, i.Bytes, i.Stored = r.Int64(), r.Int64(), r.Int64()
	i.TailOffset = r.Int64()
	i.Checksum = uint32(r.Uvarint(1<<32 - 1))
	i.IDs = r.Int64()
	i.LastID, i.CommittedAt = r.Due(), r.Due()
	i.Purged = delay.Seq(r.Uvarint(1<<64 - 1))
	if i.Name == "" || i.Last.Less(i.First) {
		r.Fail("object %q from %s to %s", i.Name, i.First, i.Last)
	}
	return i
}
