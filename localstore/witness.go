// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cicadamq/cicada/delay"
)

// The witness is a file of two slots that are overwritten in turn, so that a torn write spoils only
// the older one. docs/format/localstore.md draws it.
const (
	witnessMagic    = "CICADAWT"
	witnessVersion  = 1
	witnessSlotSize = 4096
	witnessRecord   = 8 + 1 + 1 + 16 + 8 + 8 + 8 + 4
	// witnessLag bounds how far the witness is behind what was acknowledged, but for the time a
	// sync takes.
	witnessLag = 500 * time.Millisecond
)

type witnessPhase uint8

const (
	phaseNone     witnessPhase = iota // there is no witness
	phaseCreating                     // the store was never used
	phaseLive                         // at least this much was acknowledged
	phaseClean                        // exactly this much was
)

// witnessState is what one slot says.
type witnessState struct {
	id         storeID
	generation uint64 // the higher one of two slots is the newer
	phase      witnessPhase
	batch      uint64
	lastSeq    delay.Seq
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendWitness(dst []byte, w witnessState) []byte {
	start := len(dst)
	dst = append(dst, witnessMagic...)
	dst = append(dst, witnessVersion, byte(w.phase))
	dst = append(dst, w.id[:]...)
	dst = binary.BigEndian.AppendUint64(dst, w.generation)
	dst = binary.BigEndian.AppendUint64(dst, w.batch)
	dst = binary.BigEndian.AppendUint64(dst, uint64(w.lastSeq))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func decodeWitness(b []byte) (witnessState, error) {
	if len(b) < witnessRecord {
		return witnessState{}, fmt.Errorf("%w: witness slot: %d bytes", delay.ErrCorrupt, len(b))
	}
	b = b[:witnessRecord]
	body, sum := b[:witnessRecord-4], binary.BigEndian.Uint32(b[witnessRecord-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return witnessState{}, fmt.Errorf("%w: witness slot: crc %08x, computed %08x",
			delay.ErrCorrupt, sum, got)
	}
	r := reader{b: body, what: "witness slot"}
	if magic := string(r.bytes(len(witnessMagic))); magic != witnessMagic {
		r.fail(fmt.Sprintf("magic %q", magic))
	}
	if v := r.byte(); v != witnessVersion {
		return witnessState{}, fmt.Errorf("%w: witness %d, this program knows %d", ErrVersion, v,
			witnessVersion)
	}
	w := witnessState{phase: witnessPhase(r.byte())}
	if w.phase < phaseCreating || w.phase > phaseClean {
		r.fail(fmt.Sprintf("phase %d", w.phase))
	}
	copy(w.id[:], r.bytes(len(w.id)))
	w.generation, w.batch, w.lastSeq = r.uint64(), r.uint64(), delay.Seq(r.uint64())
	return w, r.end()
}

// witness is the open file and what is to be written to it.
type witness struct {
	fs   vfs.FS
	path string
	file vfs.File
	last witnessState // as written; belongs to the one who writes

	written atomic.Uint64 // last.batch, for anyone

	mu      sync.Mutex
	batch   uint64 // synced
	lastSeq delay.Seq
	wake    chan struct{} // has room for one: there is something to write
}

// openWitness reads the witness. One damaged slot is passed over; two, or a short file, are an
// delay.ErrCorrupt. No file is phaseNone.
func openWitness(fs vfs.FS, path string, readOnly bool) (*witness, error) {
	w := &witness{fs: fs, path: path, wake: make(chan struct{}, 1)}
	f, err := fs.Open(path)
	if errors.Is(err, iofs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*witnessSlotSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	last, err := newestSlot(data)
	switch {
	case err != nil && readOnly:
		return w, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	w.last = last
	if readOnly {
		return w, nil
	}
	w.file, err = fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	return w, err
}

// newestSlot is the newer of the readable slots.
func newestSlot(data []byte) (witnessState, error) {
	if len(data) != 2*witnessSlotSize {
		return witnessState{}, fmt.Errorf("%w: %d bytes, want %d", delay.ErrCorrupt, len(data),
			2*witnessSlotSize)
	}
	a, errA := decodeWitness(data[:witnessSlotSize])
	b, errB := decodeWitness(data[witnessSlotSize:])
	switch {
	case errA != nil && errB != nil:
		return witnessState{}, errors.Join(errA, errB)
	case errA != nil:
		return b, nil
	case errB != nil || a.generation > b.generation:
		return a, nil
	default:
		return b, nil
	}
}

// create writes both slots of a new witness. A crash while it does leaves a witness that says
// creating, or none that can be read; then the file is shorter than two slots or empty.
func (w *witness) create(id storeID) error {
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			return err
		}
		w.file = nil
	}
	temp := w.path + ".new"
	f, err := w.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w.last = witnessState{id: id, generation: 2, phase: phaseCreating}
	data := make([]byte, 2*witnessSlotSize)
	older := w.last
	older.generation--
	copy(data[witnessSlotSize:], appendWitness(nil, older))
	copy(data, appendWitness(nil, w.last))
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := w.fs.Rename(temp, w.path); err != nil {
		return err
	}
	w.file, err = w.fs.OpenReadWrite(w.path, vfs.WriteCategoryUnspecified)
	return err
}

// write overwrites the older slot and syncs it.
func (w *witness) write(state witnessState) error {
	state.generation = w.last.generation + 1
	slot := make([]byte, witnessSlotSize)
	copy(slot, appendWitness(nil, state))
	offset := int64(state.generation%2) * witnessSlotSize
	if _, err := w.file.WriteAt(slot, offset); err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync witness: %w", err)
	}
	w.last = state
	w.written.Store(state.batch)
	return nil
}

// begin says that the store is live, before anything is acknowledged.
func (w *witness) begin(id storeID, batch uint64, seq delay.Seq) error {
	w.batch, w.lastSeq = batch, seq
	return w.write(witnessState{id: id, phase: phaseLive, batch: batch, lastSeq: seq})
}

// advance notes that a batch, and all before it, are on disk.
func (w *witness) advance(batch uint64, seq delay.Seq) {
	w.mu.Lock()
	newer := batch > w.batch
	if newer {
		w.batch, w.lastSeq = batch, seq
	}
	w.mu.Unlock()
	if newer {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// run writes the witness while there is something to write, at most once in witnessLag.
func (w *witness) run(s *Store) {
	for {
		select {
		case <-s.stop:
			return
		case <-w.wake:
		}
		if err := w.catchUp(); err != nil {
			// What a failed sync left on disk is unknown, and so is the disk.
			_ = s.fail(err)
			return
		}
		lag := time.NewTimer(witnessLag)
		select {
		case <-s.stop:
			lag.Stop()
			return
		case <-lag.C:
		}
	}
}

func (w *witness) catchUp() error {
	w.mu.Lock()
	state := witnessState{id: w.last.id, phase: phaseLive, batch: w.batch, lastSeq: w.lastSeq}
	w.mu.Unlock()
	if state.batch <= w.last.batch {
		return nil
	}
	return w.write(state)
}

// finish makes the witness exact; everything is on disk.
func (w *witness) finish(batch uint64, seq delay.Seq) error {
	return w.write(witnessState{id: w.last.id, phase: phaseClean, batch: batch, lastSeq: seq})
}

func (w *witness) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
