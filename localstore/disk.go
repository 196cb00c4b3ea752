// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

const (
	// ballastBytes is given back to the disk when it is full, so that what was accepted can
	// still be delivered and deleted.
	ballastBytes = 64 << 20
	// minOpenBytes is the free space that a start needs.
	minOpenBytes = 16 << 20
	// sampleEvery is how often the free space is read.
	sampleEvery = time.Second
	writeChunk  = 1 << 20
)

// disk watches the free space and holds the ballast. On a file system that does not know its free
// space, such as a memory one, and in simulation of such, it never refuses and has no ballast.
type disk struct {
	fs       vfs.FS
	dir      string
	ballast  string
	reserve  int64
	known    bool // the file system can tell
	free     atomic.Int64
	refusing atomic.Bool
	held     atomic.Bool // the ballast is in place
}

func newDisk(s *Store) *disk {
	d := &disk{fs: s.fs, dir: s.dir, ballast: s.path(ballastName), reserve: s.opts.ReserveBytes}
	d.free.Store(math.MaxInt64)
	_, err := d.fs.GetDiskUsage(d.dir)
	d.known = err == nil
	if d.known {
		_, err = d.fs.Stat(d.ballast) // the last run's
		d.held.Store(err == nil)
	}
	return d
}

// room refuses a disk that has no room to replay what was written last, after giving up the
// ballast: Pebble would try to write its tables for ever.
func (d *disk) room() error {
	if !d.known {
		return nil
	}
	for {
		usage, err := d.fs.GetDiskUsage(d.dir)
		switch {
		case err != nil:
			return err
		case usage.AvailBytes >= minOpenBytes:
			return nil
		case !d.held.Load():
			return fmt.Errorf("%w: %d bytes free, %d are needed to start: no space left on device",
				delay.ErrDiskFull, usage.AvailBytes, minOpenBytes)
		}
		d.release()
	}
}

// onFull is what gives up the ballast once instead of failing on a full disk, or nil.
func (d *disk) onFull() func() {
	if !d.known {
		return nil
	}
	return d.release
}

// release is called while all writes wait.
func (d *disk) release() {
	d.refusing.Store(true)
	if d.held.Swap(false) {
		// A ballast that cannot be removed leaves the disk full, which ends in Options.Fatal.
		_ = d.fs.Remove(d.ballast)
	}
}

func (d *disk) start(s *Store) {
	if !d.known {
		return
	}
	d.sample(s.log)
	s.workers.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				d.sample(s.log)
			}
		}
	})
}

// sample reads the free space, and lays the ballast when there is room for it.
func (d *disk) sample(log *zap.Logger) {
	usage, err := d.fs.GetDiskUsage(d.dir)
	if err != nil {
		log.Warn("free disk space unknown", errField(err))
		return
	}
	free := int64(min(usage.AvailBytes, math.MaxInt64))
	d.free.Store(free)
	refusing := free < d.reserve
	if d.refusing.Swap(refusing) != refusing {
		log.Warn("disk space", zap.Bool("refusing", refusing), zap.Int64("free", free),
			zap.Int64("reserve", d.reserve))
	}
	if !d.held.Load() && free > d.reserve+2*ballastBytes {
		if err := d.layBallast(); err != nil {
			log.Warn("ballast not laid", errField(err))
		}
	}
}

// layBallast reserves space. File systems that cannot reserve are written to.
func (d *disk) layBallast() error {
	f, err := d.fs.OpenReadWrite(d.ballast, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := f.Preallocate(0, ballastBytes); err != nil {
		chunk := make([]byte, writeChunk)
		for at := int64(0); at < ballastBytes; at += writeChunk {
			if _, err := f.WriteAt(chunk, at); err != nil {
				return errors.Join(err, f.Close(), d.fs.Remove(d.ballast))
			}
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	d.held.Store(true)
	return nil
}

// DiskFree is the free space in bytes as of the last second, or math.MaxInt64 when the file system
// does not tell.
func (s *Store) DiskFree() int64 { return s.disk.free.Load() }

// Refusing reports whether free space is below Options.ReserveBytes, so that nothing new should be
// accepted. What was accepted can still be finished.
func (s *Store) Refusing() bool { return s.disk.refusing.Load() }
