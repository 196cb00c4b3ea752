// SPDX-License-Identifier: Apache-2.0

package bloom

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cicadamq/cicada/delay"
)

// The file of a set: magic, version, stamp, forgotten, number of layers; for each layer capacity,
// ids and its words; a CRC over all. Numbers are 8 bytes, little endian.
const (
	magic   = "CICADAID"
	version = 1
	// maxLayers is more than a filter that doubles can ever have.
	maxLayers = 64
	// chunkWords are written and read at once; a layer has a multiple of 8.
	chunkWords = 512
)

// Stamp says of which state of what the set was saved; a set is read back only for the same.
type Stamp [24]byte

// Write writes the set. Nobody may add meanwhile.
func Write(f io.Writer, set *Set, stamp Stamp) error {
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	// The sum comes first: a file may use what it is given as it likes.
	out := bufio.NewWriter(io.MultiWriter(crc, f))
	layers := *set.layers.Load()
	head := append([]byte(magic), version)
	head = append(head, stamp[:]...)
	head = binary.LittleEndian.AppendUint64(head, uint64(set.forgotten.Load()))
	head = binary.LittleEndian.AppendUint64(head, uint64(len(layers)))
	// A bufio.Writer keeps its first error for Flush.
	_, _ = out.Write(head)
	for _, l := range layers {
		_, _ = out.Write(binary.LittleEndian.AppendUint64(
			binary.LittleEndian.AppendUint64(nil, uint64(l.capacity)), uint64(l.ids)))
		var chunk [chunkWords * 8]byte
		for at := 0; at < len(l.words); at += chunkWords {
			n := min(chunkWords, len(l.words)-at)
			for i := range n {
				binary.LittleEndian.PutUint64(chunk[i*8:], l.words[at+i].Load())
			}
			_, _ = out.Write(chunk[:n*8])
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := f.Write(binary.LittleEndian.AppendUint32(nil, crc.Sum32()))
	return err
}

// Read reads a file of size bytes that Write wrote. Anything else, and another stamp, is a
// delay.ErrCorrupt.
func Read(f io.Reader, size int64, stamp Stamp) (*Set, error) {
	crc := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	in := &fileReader{in: bufio.NewReader(f), crc: crc, left: size - 4}
	if m := string(in.bytes(len(magic))); m != magic {
		in.fail(fmt.Sprintf("magic %q", m))
	}
	if v := in.bytes(1); v[0] != version {
		in.fail(fmt.Sprintf("version %d", v[0]))
	}
	if got := Stamp(in.bytes(len(stamp))); got != stamp {
		in.fail(fmt.Sprintf("stamp %x, want %x", got, stamp))
	}
	set := &Set{}
	set.forgotten.Store(int64(in.number()))
	n := in.number()
	if n < 1 || n > maxLayers {
		in.fail(fmt.Sprintf("%d layers", n))
	}
	var layers []*bloom
	for range n {
		if in.bad != nil {
			break
		}
		layers = append(layers, in.layer())
	}
	sum := crc.Sum32()
	in.left += 4
	if got := binary.LittleEndian.Uint32(in.bytes(4)); got != sum {
		in.fail(fmt.Sprintf("crc %08x, computed %08x", got, sum))
	}
	if in.left != 0 {
		in.fail("bytes left over")
	}
	if in.bad != nil {
		return nil, in.bad
	}
	for _, l := range layers {
		set.ids.Add(l.ids)
	}
	set.layers.Store(&layers)
	return set, nil
}

// fileReader reads a set's file and remembers the first thing that was wrong.
type fileReader struct {
	in   *bufio.Reader
	crc  io.Writer
	left int64
	buf  [chunkWords * 8]byte
	bad  error
}

func (r *fileReader) fail(what string) {
	if r.bad == nil {
		r.bad = fmt.Errorf("%w: filter of ids: %s", delay.ErrCorrupt, what)
	}
}

// bytes reads n bytes, at most a chunk; zeros after an error. They are valid until the next call.
func (r *fileReader) bytes(n int) []byte {
	b := r.buf[:n]
	clear(b)
	if r.left -= int64(n); r.left < 0 {
		r.fail("cut short")
	}
	if r.bad != nil {
		return b
	}
	if _, err := io.ReadFull(r.in, b); err != nil {
		r.fail(err.Error())
		return b
	}
	// A hash never fails.
	_, _ = r.crc.Write(b)
	return b
}

func (r *fileReader) number() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

func (r *fileReader) layer() *bloom {
	capacity, ids := int64(r.number()), int64(r.number())
	words := max(capacity/idsPerBlock, 1) * blockWords
	if capacity < 1 || ids < 0 || words > r.left/8 {
		r.fail(fmt.Sprintf("layer for %d ids", capacity))
		return nil
	}
	l := newBloom(capacity)
	l.ids = ids
	for at := 0; at < len(l.words); at += chunkWords {
		n := min(chunkWords, len(l.words)-at)
		chunk := r.bytes(n * 8)
		for i := range n {
			l.words[at+i].Store(binary.LittleEndian.Uint64(chunk[i*8:]))
		}
	}
	return l
}
