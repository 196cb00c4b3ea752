// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// idFilter answers "never seen" for most fresh ids without asking Pebble (invariant L5). It is
// saved at Close and rebuilt from the id records when there is no saved one, or when half of
// what it holds was forgotten. While it is unknown every id may exist.
type idFilter struct {
	current atomic.Pointer[bloomSet] // nil: unknown

	// The rest belongs to the turn.
	next      *bloomSet // being rebuilt; gets what current gets
	forgotten int64     // ids deleted since current was begun
}

func newIDFilter() *idFilter { return &idFilter{} }

// add notes ids that are about to be stored. The caller has the turn.
func (f *idFilter) add(hashes []uint64) {
	if len(hashes) == 0 {
		return
	}
	if set := f.current.Load(); set != nil {
		set.add(hashes)
	}
	if f.next != nil {
		f.next.add(hashes)
	}
}

// maybe is false only when no record of the id exists.
func (f *idFilter) maybe(id string) bool {
	set := f.current.Load()
	return set == nil || set.has(hashID(id))
}

// forget counts deleted ids and starts a rebuild when it pays. The caller has the turn.
func (f *idFilter) forget(s *Store, n int) {
	if n == 0 {
		return
	}
	f.forgotten += int64(n)
	set := f.current.Load()
	if set == nil || f.next != nil || f.forgotten < firstLayerIDs || f.forgotten < set.ids.Load()/2 {
		return
	}
	s.startRebuild(set.ids.Load() - f.forgotten)
}

// startRebuild begins a new filter. The caller has the turn: every batch is either before the
// iterator, which sees its ids, or after, and then adds them to next.
func (s *Store) startRebuild(expect int64) {
	set := newBloomSet(expect + expect/4)
	it, err := s.iter(s.prefix(spaceID), after(s.prefix(spaceID)))
	if err != nil {
		s.log.Error("filter of ids not rebuilt", errField(err))
		return
	}
	s.filter.next, s.filter.forgotten = set, 0
	s.workers.Go(func() {
		err := s.fillFilter(set, it)
		err = errors.Join(err, it.Close())
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
		s.filter.next = nil
		switch {
		case err == nil:
			s.filter.current.Store(set)
			s.log.Info("filter of ids rebuilt", zap.Int64("ids", set.ids.Load()),
				zap.Int64("bytes", set.bytes()))
		case errors.Is(err, delay.ErrClosed):
		default:
			s.log.Error("filter of ids not rebuilt", errField(err))
		}
	})
}

// fillChunk is how many ids are added between two looks at whether the store closes.
const fillChunk = 1024

func (s *Store) fillFilter(set *bloomSet, it iterator) error {
	hashes := make([]uint64, 0, fillChunk)
	for ok := it.First(); ok; ok = it.Next() {
		hashes = append(hashes, hashID(string(it.Key()[prefixLen:])))
		if len(hashes) < fillChunk {
			continue
		}
		set.add(hashes)
		hashes = hashes[:0]
		select {
		case <-s.stop:
			return fmt.Errorf("rebuild filter: %w", delay.ErrClosed)
		default:
		}
	}
	set.add(hashes)
	return s.readError("scan ids", it.Error())
}

// The file of the filter: magic, version, store id, batch, forgotten, number of layers; for each
// layer capacity, ids and its words; a CRC over all. Numbers are 8 bytes, little endian. It is
// valid only beside the store whose last batch it names.
const (
	filterMagic   = "CICADAID"
	filterVersion = 1
	// maxLayers is more than a filter that doubles can ever have.
	maxLayers = 64
)

// saveFilter writes the filter, if it is known. The caller has closed the store to batches.
func (s *Store) saveFilter() error {
	set := s.filter.current.Load()
	if set == nil {
		return nil
	}
	f, err := s.fs.Create(s.path(filterName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("save filter: %w", err)
	}
	err = writeFilter(f, set, s.id, s.ledger.batch, s.filter.forgotten)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save filter: %w", err)
	}
	return syncDir(s.fs, s.dir)
}

func writeFilter(f io.Writer, set *bloomSet, id storeID, batch uint64, forgotten int64) error {
	crc := crc32.New(castagnoli)
	out := bufio.NewWriter(io.MultiWriter(f, crc))
	layers := *set.layers.Load()
	head := append([]byte(filterMagic), filterVersion)
	head = append(head, id[:]...)
	for _, v := range [...]uint64{batch, uint64(forgotten), uint64(len(layers))} {
		head = binary.LittleEndian.AppendUint64(head, v)
	}
	// A bufio.Writer keeps its first error for Flush.
	_, _ = out.Write(head)
	var b [8]byte
	put := func(v uint64) {
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = out.Write(b[:])
	}
	for _, l := range layers {
		put(uint64(l.capacity))
		put(uint64(l.ids))
		for i := range l.words {
			put(l.words[i].Load())
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := f.Write(binary.LittleEndian.AppendUint32(nil, crc.Sum32()))
	return err
}

// loadFilter takes the saved filter if it is of this very state, else it starts to rebuild.
func (s *Store) loadFilter() {
	set, forgotten, err := s.readFilter()
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		s.log.Info("saved filter of ids not used", errField(err))
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err == nil {
		s.filter.current.Store(set)
		s.filter.forgotten = forgotten
		return
	}
	if s.ledger.batch == 0 {
		s.filter.current.Store(newBloomSet(0))
		return
	}
	s.startRebuild(0)
}

func (s *Store) readFilter() (*bloomSet, int64, error) {
	f, err := s.fs.Open(s.path(filterName))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	set, forgotten, err := decodeFilter(f, info.Size(), s.id, s.ledger.batch)
	return set, forgotten, errors.Join(err, f.Close())
}

func decodeFilter(f io.Reader, size int64, id storeID, batch uint64) (*bloomSet, int64, error) {
	crc := crc32.New(castagnoli)
	in := &filterReader{in: bufio.NewReader(f), crc: crc, left: size - 4}
	if magic := string(in.bytes(len(filterMagic))); magic != filterMagic {
		in.fail(fmt.Sprintf("magic %q", magic))
	}
	if v := in.bytes(1); v[0] != filterVersion {
		in.fail(fmt.Sprintf("version %d", v[0]))
	}
	if got := storeID(in.bytes(len(id))); got != id {
		in.fail(fmt.Sprintf("store %x", got))
	}
	if got := in.number(); got != batch {
		in.fail(fmt.Sprintf("batch %d, the store is at %d", got, batch))
	}
	forgotten := int64(in.number())
	n := in.number()
	if n < 1 || n > maxLayers {
		in.fail(fmt.Sprintf("%d layers", n))
	}
	set := &bloomSet{}
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
		return nil, 0, in.bad
	}
	for _, l := range layers {
		set.ids.Add(l.ids)
	}
	set.layers.Store(&layers)
	return set, forgotten, nil
}

// filterReader reads the filter's file and remembers the first thing that was wrong.
type filterReader struct {
	in   *bufio.Reader
	crc  io.Writer
	left int64
	buf  [32]byte
	bad  error
}

func (r *filterReader) fail(what string) {
	if r.bad == nil {
		r.bad = fmt.Errorf("%w: filter of ids: %s", delay.ErrCorrupt, what)
	}
}

// bytes reads n <= 32 bytes; zeros after an error.
func (r *filterReader) bytes(n int) []byte {
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

func (r *filterReader) number() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

func (r *filterReader) layer() *bloom {
	capacity, ids := int64(r.number()), int64(r.number())
	words := max(capacity/idsPerBlock, 1) * blockWords
	if capacity < 1 || ids < 0 || words > r.left/8 {
		r.fail(fmt.Sprintf("layer for %d ids", capacity))
		return nil
	}
	l := newBloom(capacity)
	l.ids = ids
	for i := range l.words {
		l.words[i].Store(r.number())
	}
	return l
}
