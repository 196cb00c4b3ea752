// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"math"
	"strings"
	"time"

	"github.com/cicadamq/cicada/internal/planted"
)

// Predicate is a bulk cancel of cold messages: instead of a mark for each there is one sentence
// that covers them all (rule R6). Covered is what was stored under a key at or above Lower, with a
// seq up to Seq, and passes the filter, unless a mark said before that it is finished or has moved.
// It is cancelled from the moment the predicate is stored; who reads a cold message asks the
// predicates first. Local rows are never covered: they are cancelled one by one, like schedules;
// guarded messages are left alone.
//
// The count follows in the background, in the order of the keys. Counted and Cancelled change with
// the books, in one batch.
type Predicate struct {
	Seq   Seq // its number, a fresh one; what was accepted later is not covered
	At    Due // when it was made; the covered messages were cancelled then
	Lower Key // the boundary of what is local at that moment

	Target   Target // "" is any
	IDPrefix string // of the id, chosen by a client or made by the server
	From, To Due    // of the due: From inclusive, To exclusive; 0 is no bound

	// Counted: the books know what is covered below it. Cancelled is how many that were for this
	// predicate: what two cover is counted by one of them.
	Counted   Key
	Cancelled int64
	// Swept: this store's slots and ids know what is covered below it. It differs from Counted only
	// after a restore, which brings the books back but not what has to be forgotten.
	Swept Key
}

// Covers reports whether the predicate cancels the cold message with this record. ids and shard
// tell the id of a record that has none. It does not allocate. A record that cannot be read is not
// covered.
func (p *Predicate) Covers(ids IDMaker, shard Shard, key Key, rec []byte) bool {
	if !p.reaches(key) || recordApart(rec) && !planted.Is(planted.ScheduleCovered) {
		return false
	}
	target, due, id, err := RecordHead(rec)
	if err != nil || due < p.From || p.To != 0 && due >= p.To ||
		p.Target != "" && target != p.Target {
		return false
	}
	return id != "" && strings.HasPrefix(string(id), p.IDPrefix) ||
		id == "" && p.prefixOfMade(ids, shard, key)
}

// MayCover reports whether the record of a cold message would have to be read to know whether the
// predicate covers it. id is the message's.
func (p *Predicate) MayCover(key Key, id ID) bool {
	return p.reaches(key) && !key.Less(p.Begin()) && key.Less(p.Upper()) &&
		strings.HasPrefix(string(id), p.IDPrefix)
}

func (p *Predicate) reaches(key Key) bool {
	return (key.Seq <= p.Seq || planted.Is(planted.PurgeReachesLater)) && !key.Less(p.Lower)
}

func (p *Predicate) prefixOfMade(ids IDMaker, shard Shard, key Key) bool {
	if p.IDPrefix == "" {
		return true
	}
	var buf [idLen]byte
	return strings.HasPrefix(string(ids.AppendID(buf[:0], shard, key)), p.IDPrefix)
}

// Begin is the lowest key that can be covered. The instant of a key is never before its due.
func (p *Predicate) Begin() Key {
	if from := (Key{Due: p.From}); p.Lower.Less(from) {
		return from
	}
	return p.Lower
}

// Upper is above every key that can be covered. A message that was late has a key after its due,
// but not after the moment it was accepted (rule R2), which was before At.
func (p *Predicate) Upper() Key {
	if p.To == 0 {
		return MaxKey
	}
	return Key{Due: max(p.To, p.At+1)}
}

// Complete reports whether all that is covered is counted.
func (p *Predicate) Complete() bool { return !p.Counted.Less(p.Upper()) }

// Settled reports whether nothing needs to be known any more of what was covered under key: it is
// counted, and its id was remembered long enough. Then, and only then, a rewritten segment may
// leave it out.
func (p *Predicate) Settled(key Key, now Due, dedupeWindow time.Duration) bool {
	return key.Less(p.Counted) && p.At.Add(dedupeWindow) < now
}

// AppendPredicate appends the encoding of p.
func AppendPredicate(dst []byte, p *Predicate) []byte {
	dst = append(dst, recordVersion)
	for _, v := range [...]uint64{uint64(p.Seq), uint64(p.At)} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = AppendKey(dst, p.Lower)
	dst = appendString(dst, string(p.Target))
	dst = appendString(dst, p.IDPrefix)
	dst = binary.AppendUvarint(dst, uint64(p.From))
	dst = binary.AppendUvarint(dst, uint64(p.To))
	dst = AppendKey(dst, p.Counted)
	dst = binary.AppendUvarint(dst, uint64(p.Cancelled))
	return AppendKey(dst, p.Swept)
}

// DecodePredicate reads what AppendPredicate wrote; strings are copies.
func DecodePredicate(b []byte) (Predicate, error) {
	r := recordReader{b: b}
	var p Predicate
	r.version()
	p.Seq = Seq(r.bounded(math.MaxUint64))
	p.At = Due(r.bounded(uint64(MaxDue)))
	p.Lower = r.key()
	p.Target, p.IDPrefix = Target(cloneString(r.str())), cloneString(r.str())
	p.From, p.To = Due(r.bounded(math.MaxInt64)), Due(r.bounded(math.MaxInt64))
	p.Counted = r.key()
	p.Cancelled = int64(r.bounded(math.MaxInt64))
	p.Swept = r.key()
	return p, r.end("predicate")
}
