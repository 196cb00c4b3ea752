// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"encoding/binary"
	"hash/crc32"
	"unicode/utf8"
)

// ID is what a client uses to name a message: at most MaxIDBytes of UTF-8 without control
// characters when the client chose it, or 26 characters made by the server.
type ID string

// MaxIDBytes bounds a client's id.
const MaxIDBytes = 256

// Shard numbers a unit of ownership within a cluster.
type Shard uint8

// idLen is the length of a server-made id: 130 bits in base32.
const idLen = 26

// alphabet is Crockford's base32: it sorts like the bits it encodes, has no I, L, O or U.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// The 130 bits of a server-made id, most significant first:
//
//	due 48 | seq 60 | shard 8 | check 14
//
// so ids of one shard sort by due. The check covers the rest and the cluster's id, with another
// salt for reserved ids: a reserved id holds the instant of its reservation instead of a due.
const (
	idCheckBits = 14
	checkMask   = 1<<idCheckBits - 1
)

// IDKind tells what a server-made id stands for.
type IDKind uint8

// The kinds of ids.
const (
	// ClientID is any id that was not made by this cluster's server.
	ClientID IDKind = iota
	// ServerID names a message by its first key.
	ServerID
	// ReservedID was handed out before sending (POST /v1/ids); the store treats it like an id of
	// the client's own.
	ReservedID
)

// IDMaker makes and recognises the ids of one cluster. It is plain data, safe for concurrent use.
type IDMaker struct{ cluster uint32 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewIDMaker is the maker of the cluster's ids.
func NewIDMaker(clusterID string) IDMaker {
	return IDMaker{cluster: crc32.Checksum([]byte(clusterID), castagnoli)}
}

// Make is the id of the message first stored under key in shard.
func (m IDMaker) Make(shard Shard, key Key) ID { return m.make(ServerID, shard, key) }

// Reserve is an id to be handed out before its message is sent. key.Due is now, key.Seq fresh.
func (m IDMaker) Reserve(shard Shard, key Key) ID { return m.make(ReservedID, shard, key) }

func (m IDMaker) make(kind IDKind, shard Shard, key Key) ID {
	var buf [idLen]byte
	return ID(m.append(buf[:0], kind, shard, key))
}

// AppendID appends the id that Make would give.
func (m IDMaker) AppendID(dst []byte, shard Shard, key Key) []byte {
	return m.append(dst, ServerID, shard, key)
}

func (m IDMaker) append(dst []byte, kind IDKind, shard Shard, key Key) []byte {
	// hi: due 48 | seq's top 16; lo: seq's low 44 | shard 8 | check's top 12; rest: 2 check bits.
	check := m.check(kind, shard, key)
	hi := uint64(key.Due)<<16 | uint64(key.Seq)>>44
	lo := uint64(key.Seq)<<20 | uint64(shard)<<12 | uint64(check)>>2
	low := uint64(check) & 3
	var out [idLen]byte
	for i := idLen - 1; i >= 0; i-- {
		if i == idLen-1 {
			out[i] = alphabet[(lo&7)<<2|low]
			lo = lo>>3 | hi<<61
			hi >>= 3
			continue
		}
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return append(dst, out[:]...)
}

func (m IDMaker) check(kind IDKind, shard Shard, key Key) uint32 {
	var b [18]byte
	binary.BigEndian.PutUint64(b[:], uint64(key.Due))
	binary.BigEndian.PutUint64(b[8:], uint64(key.Seq))
	b[16], b[17] = byte(shard), byte(kind)
	sum := ^m.cluster
	for _, v := range b { // crc32.Update would move b to the heap
		sum = castagnoli[byte(sum)^v] ^ sum>>8
	}
	sum = ^sum
	return (sum ^ sum>>idCheckBits) & checkMask
}

// LooksServerMade reports whether id has the form of a server-made id, of any cluster. Such ids
// are refused from clients unless reserved.
func LooksServerMade(id ID) bool {
	if len(id) != idLen {
		return false
	}
	for i := range len(id) {
		if base32Value(id[i]) < 0 {
			return false
		}
	}
	return base32Value(id[0]) <= 31
}

// Parse reads a server-made id. For anything else it returns ClientID and a zero key.
func (m IDMaker) Parse(id ID) (kind IDKind, shard Shard, key Key) {
	if len(id) != idLen {
		return ClientID, 0, Key{}
	}
	var hi, lo, low uint64
	for i := range idLen {
		v := base32Value(id[i])
		if v < 0 {
			return ClientID, 0, Key{}
		}
		if i == idLen-1 {
			hi, lo = hi<<3|lo>>61, lo<<3|uint64(v)>>2
			low = uint64(v) & 3
			continue
		}
		hi, lo = hi<<5|lo>>59, lo<<5|uint64(v)
	}
	key = Key{Due: Due(hi >> 16), Seq: Seq(hi&0xffff<<44 | lo>>20)}
	shard = Shard(lo >> 12)
	check := uint32(lo&0xfff)<<2 | uint32(low)
	for _, kind := range [...]IDKind{ServerID, ReservedID} {
		if m.check(kind, shard, key) == check {
			return kind, shard, key
		}
	}
	return ClientID, 0, Key{}
}

func base32Value(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'H':
		return int(c-'A') + 10
	case c == 'J' || c == 'K':
		return int(c-'J') + 18
	case c == 'M' || c == 'N':
		return int(c-'M') + 20
	case c >= 'P' && c <= 'T':
		return int(c-'P') + 22
	case c >= 'V' && c <= 'Z':
		return int(c-'V') + 27
	default:
		return -1
	}
}

// ValidText reports whether s is UTF-8 without control characters, as ids and keys must be.
func ValidText(s string) bool {
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c == 0x7f:
			return false
		case c >= 0x80:
			ascii = false
		}
	}
	if ascii {
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r >= 0x80 && r < 0xa0 {
			return false
		}
	}
	return true
}
