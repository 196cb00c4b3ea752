// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Identity is what is remembered of an id: which generation of which message it names, and enough
// of its content to tell a repeated request from another one (S4). The local id index and the id
// section of a segment hold it.
type Identity struct {
	Key        Key // the row of the current generation
	Generation uint32
	Digest     uint64 // of target, routing key, headers, body and options
	Given      Due    // the due that was asked for, before spread
	AcceptedAt Due    //
	ByDelay    bool   // the due was asked for as a delay: Given - AcceptedAt
	FirstDue   Due    // base of MaxWait: the due of the first of a chain of replaces
	Durability Durability
	Recurs     bool // it is a schedule
	Guarded    bool // another broker is to deliver it
}

// IdentityOf is the identity of m stored under key.
func IdentityOf(key Key, m *Message) Identity {
	first := m.FirstDue
	if first == 0 {
		first = m.Due
	}
	return Identity{
		Key: key, Generation: max(m.Generation, 1), Digest: Digest(m), Given: m.GivenDue(),
		AcceptedAt: m.AcceptedAt, ByDelay: m.ByDelay, FirstDue: first, Durability: m.Durability,
		Recurs: m.Recurrence != nil, Guarded: m.Guard != nil,
	}
}

// SameContent reports whether o, just drafted, repeats the request that made id: equal digest, and
// the same given instant or the same given delay.
func (id Identity) SameContent(o Identity) bool {
	if id.Digest != o.Digest {
		return false
	}
	switch {
	case id.Recurs || o.Recurs: // when it fires follows from the content
		return id.Recurs == o.Recurs
	case id.ByDelay && o.ByDelay:
		return id.Given.Sub(id.AcceptedAt) == o.Given.Sub(o.AcceptedAt)
	default:
		return id.Given == o.Given
	}
}

// Differs says in words why o is not the same content as id.
func (id Identity) Differs(o Identity) string {
	switch {
	case id.Recurs && !o.Recurs:
		return "it is a schedule"
	case o.Recurs && !id.Recurs:
		return "it is no schedule"
	case id.Digest != o.Digest:
		return "its target, key, headers, body or options differ"
	}
	if id.ByDelay && o.ByDelay {
		return fmt.Sprintf("its delay is %v, not %v", id.Delay(), o.Delay())
	}
	return fmt.Sprintf("it is due at %v, not at %v", id.Given, o.Given)
}

// Delay is the delay that was asked for.
func (id Identity) Delay() time.Duration { return id.Given.Sub(id.AcceptedAt) }

// Digest hashes what must be equal for two requests to be the same: everything but the id, the
// instants and the generation. FNV-1a, 64 bit: it guards against mistakes, not attackers, who
// could only make their own request look repeated.
func Digest(m *Message) uint64 {
	h := fnvOffset
	h = h.str(string(m.Target)).str(m.RoutingKey)
	for _, hd := range m.Headers {
		h = h.str(hd.Name).str(hd.Value)
	}
	h = h.num(uint64(len(m.Headers))).bytes(m.Body)
	h = h.num(uint64(m.TTL)).num(uint64(m.NotAfter)).num(uint64(m.Spread))
	h = h.num(uint64(m.MaxWait)).num(uint64(m.MaxAttempts)).num(uint64(m.Backoff))
	h = h.num(uint64(m.Durability)).num(uint64(m.Mode))
	if m.Recurrence != nil {
		h = m.Recurrence.digest(h)
	}
	if m.Guard != nil {
		h = h.str(string(m.Guard.Lane)).str(m.Guard.Entry)
	}
	return uint64(h)
}

// Hash is a stable 64-bit hash of the target, the address of its lane in the local store.
func (t Target) Hash() uint64 { return uint64(fnvOffset.str(string(t))) }

// SpreadOf is the stable pseudo-random part of a spread for a message with this id hash: the same
// id gives the same point of [0, spread].
func SpreadOf(id string, salt uint64, spread time.Duration) time.Duration {
	if spread <= 0 {
		return 0
	}
	ms := uint64(spread.Milliseconds()) + 1
	h := uint64(fnvOffset.str(id).num(salt))
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	h ^= h >> 29
	return time.Duration(h%ms) * time.Millisecond
}

// fnv64 is FNV-1a (Fowler, Noll, Vo); inlined because hash/fnv allocates per message.
type fnv64 uint64

const (
	fnvOffset fnv64 = 14695981039346656037
	fnvPrime  fnv64 = 1099511628211
)

func (h fnv64) str(s string) fnv64 {
	for i := range len(s) {
		h = (h ^ fnv64(s[i])) * fnvPrime
	}
	return (h ^ 0xff) * fnvPrime // a terminator, so that "ab"+"c" and "a"+"bc" differ
}

func (h fnv64) bytes(b []byte) fnv64 {
	for len(b) >= 8 { // eight at a time: bodies are long
		h = (h ^ fnv64(binary.LittleEndian.Uint64(b))) * fnvPrime
		h ^= h >> 29
		b = b[8:]
	}
	for _, c := range b {
		h = (h ^ fnv64(c)) * fnvPrime
	}
	return (h ^ 0xff) * fnvPrime
}

func (h fnv64) num(v uint64) fnv64 {
	h = (h ^ fnv64(v)) * fnvPrime
	return h ^ h>>32
}
