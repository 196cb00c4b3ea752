// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/cicadamq/cicada/internal/planted"
)

// Due is an instant in milliseconds since the Unix epoch, UTC. Valid dues lie in [0, MaxDue].
type Due int64

// MaxDue is the last millisecond of the year 9999, the furthest due instant.
const MaxDue Due = 253402300799999

// DueOf rounds t up to the next millisecond, so that a message is never early.
func DueOf(t time.Time) Due {
	if planted.Is(planted.DueRoundedDown) {
		return Due(t.UnixMilli())
	}
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return Due(ms)
}

// InstantOf rounds t down to the millisecond: "now" never claims a millisecond that has not begun.
func InstantOf(t time.Time) Due { return Due(t.UnixMilli()) }

// Time is d as a UTC time.
func (d Due) Time() time.Time { return time.UnixMilli(int64(d)).UTC() }

// String is d in RFC 3339 with milliseconds, UTC.
func (d Due) String() string { return d.Time().Format("2006-01-02T15:04:05.000Z") }

// Add moves d by t, rounded up to the millisecond, and saturates at the ends of the valid range.
func (d Due) Add(t time.Duration) Due {
	ms := t.Milliseconds()
	if t > 0 && t%time.Millisecond != 0 {
		ms++
	}
	switch sum := int64(d) + ms; {
	case ms > 0 && sum < int64(d), sum > int64(MaxDue):
		return MaxDue
	case sum < 0:
		return 0
	default:
		return Due(sum)
	}
}

// Sub is d minus o. It saturates at the range of time.Duration.
func (d Due) Sub(o Due) time.Duration {
	diff := int64(d) - int64(o)
	const most = math.MaxInt64 / int64(time.Millisecond)
	if diff > most {
		return math.MaxInt64
	}
	if diff < -most {
		return math.MinInt64
	}
	return time.Duration(diff) * time.Millisecond
}

// Seq is the acceptance number of a message within its shard: the epoch of the owner that
// accepted it in the high bits, a counter in the low 40 (rule R4). Zero is no Seq.
type Seq uint64

const (
	seqCounterBits = 40
	// MaxEpoch is the highest epoch that fits a Seq: a shard can change its owner a million times.
	MaxEpoch Epoch = 1<<20 - 1
	// MaxCounter is the highest counter of one epoch.
	MaxCounter uint64 = 1<<seqCounterBits - 1
)

// Epoch is the increasing number of a shard's owner.
type Epoch uint32

// MakeSeq joins an epoch and a counter; both must be in range.
func MakeSeq(e Epoch, counter uint64) Seq {
	if e > MaxEpoch || counter > MaxCounter {
		panic(fmt.Sprintf("BUG: seq out of range: epoch %d counter %d", e, counter))
	}
	return Seq(uint64(e)<<seqCounterBits | counter)
}

// Epoch is the epoch part of s.
func (s Seq) Epoch() Epoch { return Epoch(s >> seqCounterBits) }

// Counter is the counter part of s.
func (s Seq) Counter() uint64 { return uint64(s) & MaxCounter }

// Key is the address of a row: (instant, seq). The instant is the message's due unless the message
// was late when it was accepted (rule R2). Keys are never reused (rule R3).
type Key struct {
	Due Due
	Seq Seq
}

// KeySize is the length of an encoded Key.
const KeySize = 16

// MaxKey sorts after every valid key.
var MaxKey = Key{Due: math.MaxInt64, Seq: math.MaxUint64}

// Less orders keys by instant, then by seq.
func (k Key) Less(o Key) bool {
	if k.Due != o.Due {
		return k.Due < o.Due
	}
	return k.Seq < o.Seq
}

// Compare is -1, 0 or +1, for slices.SortFunc.
func (k Key) Compare(o Key) int {
	switch {
	case k.Less(o):
		return -1
	case o.Less(k):
		return 1
	default:
		return 0
	}
}

// Next is the smallest key above k.
func (k Key) Next() Key {
	if k.Seq == math.MaxUint64 {
		return Key{Due: k.Due + 1}
	}
	return Key{Due: k.Due, Seq: k.Seq + 1}
}

// IsZero reports whether k is the zero key, which no message has.
func (k Key) IsZero() bool { return k == Key{} }

// String is for logs and errors: instant/epoch.counter.
func (k Key) String() string {
	return fmt.Sprintf("%d/%d.%d", int64(k.Due), k.Seq.Epoch(), k.Seq.Counter())
}

// AppendKey appends the 16-byte big-endian form of k, which sorts as k does.
func AppendKey(dst []byte, k Key) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.Due))
	return binary.BigEndian.AppendUint64(dst, uint64(k.Seq))
}

// DecodeKey reads what AppendKey wrote. ok is false when b is too short or the instant negative.
func DecodeKey(b []byte) (k Key, ok bool) {
	if len(b) < KeySize {
		return Key{}, false
	}
	due := binary.BigEndian.Uint64(b)
	if due > math.MaxInt64 {
		return Key{}, false
	}
	return Key{Due: Due(due), Seq: Seq(binary.BigEndian.Uint64(b[8:]))}, true
}
