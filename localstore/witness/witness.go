// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cicadamq/cicada/delay"
)

// lag bounds how far the witness is behind what was acknowledged, but for the time a sync takes.
const lag = 500 * time.Millisecond

// Witness is the open file. Advance is safe for concurrent use; of the rest one call at a time.
type Witness struct {
	fs   vfs.FS
	path string
	file vfs.File
	last State // as written

	written atomic.Uint64 // last.Batch, for anyone

	mu      sync.Mutex
	batch   uint64 // synced
	lastSeq delay.Seq
	wake    chan struct{} // has room for one: there is something to write
}

// Open reads the witness at path. One damaged slot is passed over; two, or a file of another
// length, are a delay.ErrCorrupt. Without a file the state's phase is None.
func Open(fs vfs.FS, path string) (*Witness, error) {
	w := &Witness{fs: fs, path: path, wake: make(chan struct{}, 1)}
	f, err := fs.Open(path)
	if errors.Is(err, iofs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, fileSize+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if w.last, err = Newest(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

// State is what the file says.
func (w *Witness) State() State { return w.last }

// Written is the batch that the file names; safe for concurrent use.
func (w *Witness) Written() uint64 { return w.written.Load() }

// Create writes a new witness of phase Creating under another name and renames it, so that a crash
// leaves none or a whole one. The caller syncs the directory.
func (w *Witness) Create(id StoreID) error {
	temp := w.path + ".new"
	f, err := w.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w.last = State{ID: id, Generation: 2, Phase: Creating}
	data := make([]byte, fileSize)
	older := w.last
	older.Generation--
	copy(data[slotSize:], Append(nil, older))
	copy(data, Append(nil, w.last))
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", temp, err)
	}
	return w.fs.Rename(temp, w.path)
}

// write overwrites the older slot and syncs it.
func (w *Witness) write(state State) error {
	if w.file == nil {
		f, err := w.fs.OpenReadWrite(w.path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		w.file = f
	}
	state.Generation = w.last.Generation + 1
	slot := make([]byte, slotSize)
	copy(slot, Append(nil, state))
	if _, err := w.file.WriteAt(slot, int64(state.Generation%2)*slotSize); err != nil {
		return fmt.Errorf("write witness: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync witness: %w", err)
	}
	w.last = state
	w.written.Store(state.Batch)
	return nil
}

// Begin says that the store is live, before anything is acknowledged.
func (w *Witness) Begin(id StoreID, batch uint64, seq delay.Seq) error {
	w.mu.Lock()
	w.batch, w.lastSeq = batch, seq
	w.mu.Unlock()
	return w.write(State{ID: id, Phase: Live, Batch: batch, LastSeq: seq})
}

// Advance notes that a batch, and all before it, are on disk.
func (w *Witness) Advance(batch uint64, seq delay.Seq) {
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

// Run writes the witness while there is something to write, at most every half second, until stop
// is closed. Its error is the end of the store: what a failed sync left on disk is unknown.
func (w *Witness) Run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-w.wake:
		}
		if err := w.catchUp(); err != nil {
			return err
		}
		pause := time.NewTimer(lag)
		select {
		case <-stop:
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

func (w *Witness) catchUp() error {
	w.mu.Lock()
	state := State{ID: w.last.ID, Phase: Live, Batch: w.batch, LastSeq: w.lastSeq}
	w.mu.Unlock()
	if state.Batch <= w.last.Batch {
		return nil
	}
	return w.write(state)
}

// Finish makes the witness exact; everything is on disk.
func (w *Witness) Finish(batch uint64, seq delay.Seq) error {
	return w.write(State{ID: w.last.ID, Phase: Clean, Batch: batch, LastSeq: seq})
}

// Close lets go of the file.
func (w *Witness) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
