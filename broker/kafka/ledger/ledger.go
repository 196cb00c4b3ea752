// SPDX-License-Identifier: Apache-2.0

// Package ledger is the format of the records that a sink in exactly_once mode commits together
// with the messages they list (rule R17). docs/format/ledger.md describes the bytes.
//
//	<cluster>/<shard>/<broker>/owner            who took the ledger last
//	<cluster>/<shard>/<broker>/<n>   one entry: the messages of one transaction
//
// Its functions keep nothing and may be called from several goroutines.
package ledger

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// Version is the format that Append writes, and the newest that Read understands.
const Version = 1

// Limits of an entry. A record of a topic may have a megabyte unless configured otherwise, and a
// transaction is closed before its entry comes near.
const (
	MaxMessages = 10_000
	MaxBytes    = 512 << 10
)

const (
	headBytes = 1 + 8 // version, writer
	sumBytes  = 4
	ownerWord = "owner"
	digits    = 20 // of the largest number
)

// Writer tells the processes that wrote to a ledger apart: a random number each.
type Writer uint64

// Name is the part of the keys that the records of one shard's sink have in common.
func Name(cluster string, shard delay.Shard, broker string) string {
	return cluster + "/" + strconv.Itoa(int(shard)) + "/" + broker + "/"
}

// EntryKey is the key of entry n.
func EntryKey(name string, n uint64) []byte {
	b := make([]byte, 0, len(name)+digits)
	return fmt.Appendf(append(b, name...), "%0*d", digits, n)
}

// OwnerKey is the key of the record that says who took the ledger last.
func OwnerKey(name string) []byte { return []byte(name + ownerWord) }

// Size is how much a message adds to an entry at most.
func Size(id delay.ID) int { return len(id) + 2 + binary.MaxVarintLen32 }

// AppendEntry appends the value of entry n, which follows the entry previous.
func AppendEntry(dst, key []byte, w Writer, previous uint64, done []broker.Done) []byte {
	at := len(dst)
	dst = append(dst, Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(w))
	dst = binary.AppendUvarint(dst, previous)
	dst = binary.AppendUvarint(dst, uint64(len(done)))
	for _, d := range done {
		dst = binary.AppendUvarint(dst, uint64(len(d.ID)))
		dst = append(dst, d.ID...)
		dst = binary.AppendUvarint(dst, uint64(d.Generation))
	}
	return binary.BigEndian.AppendUint32(dst, sum(key, dst[at:]))
}

// AppendOwner appends the value of the owner's record.
func AppendOwner(dst, key []byte, w Writer) []byte {
	at := len(dst)
	dst = append(dst, Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(w))
	return binary.BigEndian.AppendUint32(dst, sum(key, dst[at:]))
}

// sum covers the key, so that a value under another key is not believed.
func sum(key, value []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(key, table), table, value)
}

// Record is a record of the ledger. Its strings do not alias what was read.
type Record struct {
	Owner    bool   // who took the ledger; else an entry
	Number   uint64 // of the entry
	Erased   bool   // the entry was forgotten; nothing below is set
	Writer   Writer
	Previous uint64 // the entry before it; what lies between was never committed
	Done     []broker.Done
}

// Read decodes a record; a nil value erases. ours is false for a key with another name, of which
// nothing else is said. What cannot be read is an error that is delay.ErrCorrupt.
func Read(name string, key, value []byte) (r Record, ours bool, err error) {
	rest, ours := bytes.CutPrefix(key, []byte(name))
	if !ours || bytes.IndexByte(rest, '/') >= 0 { // of a broker whose name begins like ours
		return r, false, nil
	}
	if string(rest) == ownerWord {
		r.Owner = true
	} else if r.Number, err = number(rest); err != nil {
		return r, true, fmt.Errorf("%w: ledger: key %q: no number", delay.ErrCorrupt, key)
	}
	if value == nil {
		r.Erased = true
		return r, true, nil
	}
	if err := r.value(key, value); err != nil {
		return r, true, fmt.Errorf("%w: ledger: record %q: %w", delay.ErrCorrupt, key, err)
	}
	return r, true, nil
}

func number(text []byte) (uint64, error) {
	if len(text) != digits {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return n, err
}

func (r *Record) value(key, value []byte) error {
	if len(value) < headBytes+sumBytes {
		return fmt.Errorf("%d bytes are too few", len(value))
	}
	if value[0] != Version {
		return fmt.Errorf("version %d is not known", value[0])
	}
	body := value[:len(value)-sumBytes]
	if want := binary.BigEndian.Uint32(value[len(body):]); want != sum(key, body) {
		return fmt.Errorf("checksum %08x, want %08x", sum(key, body), want)
	}
	r.Writer = Writer(binary.BigEndian.Uint64(body[1:]))
	in := input{rest: body[headBytes:]}
	if !r.Owner {
		r.Previous = in.uvarint()
		r.Done = in.done()
	}
	switch {
	case in.bad:
		return fmt.Errorf("a field is cut")
	case len(in.rest) > 0:
		return fmt.Errorf("%d bytes too many", len(in.rest))
	case !r.Owner && r.Previous >= r.Number:
		return fmt.Errorf("it follows %d", r.Previous)
	}
	return nil
}

// input reads fields; after one that is cut all are zero.
type input struct {
	rest []byte
	bad  bool
}

func (in *input) uvarint() uint64 {
	v, n := binary.Uvarint(in.rest)
	if n <= 0 {
		in.bad, in.rest = true, nil
		return 0
	}
	in.rest = in.rest[n:]
	return v
}

func (in *input) text() string {
	n := in.uvarint()
	if n > uint64(len(in.rest)) {
		in.bad, in.rest = true, nil
		return ""
	}
	s := string(in.rest[:n])
	in.rest = in.rest[n:]
	return s
}

// done reads the list. A message takes two bytes at least, which bounds what a count can ask for.
func (in *input) done() []broker.Done {
	n := in.uvarint()
	if n > uint64(len(in.rest)/2) {
		in.bad = true
		return nil
	}
	out := make([]broker.Done, 0, n)
	for range n {
		d := broker.Done{ID: delay.ID(in.text())}
		g := in.uvarint()
		if g > 1<<32-1 {
			in.bad = true
		}
		d.Generation = uint32(g)
		out = append(out, d)
	}
	return out
}
