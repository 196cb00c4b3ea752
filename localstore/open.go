// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
	"github.com/cicadamq/cicada/localstore/diskfs"
	"github.com/cicadamq/cicada/localstore/ledger"
	"github.com/cicadamq/cicada/localstore/witness"
)

// The names within a store's directory.
const (
	lockName    = "LOCK"
	witnessName = "witness"
	filterName  = "ids"
	ballastName = "ballast"
	dbName      = "db"
)

const (
	// memTables is how many may wait for their flush before writing stops.
	memTables = 4
	// maxL0Files lets level 0 grow under a burst rather than stop writing.
	maxL0Files = 1000
	// compactL0At is how many layers of level 0 are merged at once. Intake pays for what is merged
	// again and again; a scan pays for layers, but reads long runs here.
	compactL0At      = 12
	compactionsMost  = 2
	maxOpenFiles     = 1000
	walBytesPerSync  = 512 << 10
	rangeDeleteFlush = time.Minute
	directoryMode    = 0o755
)

// Open opens or creates the store in dir. It refuses with ErrLocked when someone else has it,
// ErrVersion when its format is another, and delay.ErrCorrupt when it is damaged or has lost
// batches that were acknowledged (invariant L2); the error names them.
func Open(fs vfs.FS, dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	s := &Store{
		opts: opts, fs: fs, dir: dir, log: opts.Logger,
		ledger: ledger.New(), filter: newIDFilter(), timers: &ledger.TimerFloor{},
		stats: &stats{}, turn: make(chan struct{}, 1), stop: make(chan struct{}),
		dead: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		s.abandon()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	if err := s.takeDir(); err != nil {
		return err
	}
	s.disk = newDisk(s)
	s.guard = diskfs.New(s.fs, diskfs.Options{
		MaxStall: s.opts.MaxStall, BeforeTable: s.pauseFlush, DiskFull: s.disk.onFull(),
		// fail tells the one who can act; here nobody waits for the error.
		Fatal: func(err error) { _ = s.fail(err) },
	})
	s.fs = s.guard
	if !s.opts.ReadOnly {
		if err := s.disk.room(); err != nil {
			return err
		}
	}
	w, err := s.openWitness()
	if err != nil {
		return err
	}
	s.witness = w
	if err := s.openOrCreate(); err != nil {
		return err
	}
	if err := s.recover(); err != nil {
		return err
	}
	if s.opts.ReadOnly {
		return nil
	}
	base := s.ledger.Base()
	if err := w.Begin(s.id, base.Batch, base.LastSeq); err != nil {
		return err
	}
	s.loadFilter()
	s.workers.Go(func() {
		if err := w.Run(s.stop); err != nil {
			// fail tells the one who can act; here nobody waits for the error.
			_ = s.fail(err)
		}
	})
	s.disk.start(s)
	if !s.opts.Simulated {
		s.late.begin()
		s.workers.Go(func() { s.late.run(s.stop) })
	}
	return nil
}

// openWitness reads the witness. Looking at a store whose witness is damaged is allowed.
func (s *Store) openWitness() (*witness.Witness, error) {
	w, err := witness.Open(s.fs, s.path(witnessName))
	if errors.Is(err, delay.ErrCorrupt) && s.opts.ReadOnly {
		s.log.Warn("witness not readable", errField(err))
		return &witness.Witness{}, nil
	}
	return w, err
}

// abandon lets go of what a refused open had taken.
func (s *Store) abandon() {
	if s.db != nil {
		// The error that refused the store is the one to report.
		_ = s.db.Close()
	}
	if s.witness != nil {
		_ = s.witness.Close()
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

func (s *Store) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// takeDir makes the directory, durably, and locks it.
func (s *Store) takeDir() error {
	if _, err := s.fs.Stat(s.dir); err != nil && !s.opts.ReadOnly {
		if err := s.fs.MkdirAll(s.dir, directoryMode); err != nil {
			return err
		}
		for d := s.dir; ; {
			parent := s.fs.PathDir(d)
			if parent == d {
				break
			}
			if err := diskfs.SyncDir(s.fs, parent); err != nil {
				return err
			}
			d = parent
		}
	}
	lock, err := s.fs.Lock(s.path(lockName))
	if isLocked(err) {
		return fmt.Errorf("%w: %s", ErrLocked, s.path(lockName))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", s.path(lockName), err)
	}
	s.lock = lock
	return nil
}

// isLocked recognises what the file systems answer for a lock that is taken. Within one process
// Pebble's answer has only a text.
func isLocked(err error) bool {
	return errors.Is(err, syscall.EAGAIN) ||
		err != nil && strings.Contains(err.Error(), "lock held")
}

// openOrCreate decides by the witness whether there must be a store. The witness is written before
// the store, as "creating", and says "live" before the first batch: so whatever is missing while
// the witness says otherwise was lost.
func (s *Store) openOrCreate() error {
	_, err := s.fs.Stat(s.path(dbName))
	exists := err == nil
	w := s.witness.State()
	switch {
	case s.opts.ReadOnly && !exists:
		return fmt.Errorf("%s: %w", s.path(dbName), delay.ErrNotFound)
	case s.opts.ReadOnly:
		return s.openDB(true)
	case w.Phase == witness.None && exists:
		return fmt.Errorf("%w: %s is missing beside a store: what was acknowledged is unknown",
			delay.ErrCorrupt, s.path(witnessName))
	case w.Phase == witness.None, w.Phase == witness.Creating:
		return s.create()
	case !exists:
		return fmt.Errorf("%w: %s is missing: batches 1 to %d, seq up to %s, were acknowledged",
			delay.ErrCorrupt, s.path(dbName), w.Batch, seqText(w.LastSeq))
	}
	return s.openDB(true)
}

func seqText(seq delay.Seq) string { return fmt.Sprintf("%d.%d", seq.Epoch(), seq.Counter()) }

// create makes a new store: opened, closed and opened again (invariant L6).
func (s *Store) create() error {
	if _, err := rand.Read(s.id[:]); err != nil {
		return err
	}
	if err := s.witness.Create(s.id); err != nil {
		return fmt.Errorf("create witness: %w", err)
	}
	if err := diskfs.SyncDir(s.fs, s.dir); err != nil {
		return err
	}
	if err := s.fs.RemoveAll(s.path(dbName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.openDB(false); err != nil {
		return err
	}
	version := append([]byte{formatVersion, byte(s.opts.Shard)}, s.id[:]...)
	if err := s.db.Set(s.metaKey(metaVersion), version, pebble.Sync); err != nil {
		return err
	}
	err := s.db.Close()
	s.db = nil // also when it failed: Pebble panics when it is closed twice
	if err != nil {
		return err
	}
	return s.openDB(true)
}

func (s *Store) openDB(exists bool) error {
	o := s.pebbleOptions()
	o.ErrorIfNotExists = exists
	o.ReadOnly = s.opts.ReadOnly
	type opened struct {
		db  *pebble.DB
		err error
	}
	done := make(chan opened, 1)
	go func() {
		db, err := pebble.Open(s.path(dbName), o)
		if f := s.failed.Load(); f != nil && err == nil {
			db, err = nil, errors.Join(f.err, db.Close())
		}
		done <- opened{db, err}
	}()
	select {
	case r := <-done:
		s.db = r.db
		return asDamage(r.err)
	case <-s.dead:
		// Pebble may try for ever to write what it replayed. The end of the process ends that.
		return s.failed.Load().err
	}
}

// asDamage names errors of opening that mean damage, a missing or short file or a checksum, and
// those of a newer format.
func asDamage(err error) error {
	if pebble.IsCorruptionError(err) || errors.Is(err, iofs.ErrNotExist) ||
		errors.Is(err, pebble.ErrDBDoesNotExist) {
		return fmt.Errorf("%w: %w", delay.ErrCorrupt, err)
	}
	if err != nil && strings.Contains(err.Error(), newerPebble) {
		return fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return err
}

// newerPebble is in what Pebble says of formats that it does not know; the error has no name there.
const newerPebble = "unknown format major version"

func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          s.fs,
		CacheSize:                   s.opts.CacheBytes,
		FormatMajorVersion:          formatMajorVersion,
		MemTableSize:                s.opts.MemTableBytes,
		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       compactL0At,
		L0StopWritesThreshold:       maxL0Files,
		MaxOpenFiles:                maxOpenFiles,
		WALBytesPerSync:             walBytesPerSync,
		FlushDelayDeleteRange:       rangeDeleteFlush,
		CompactionConcurrencyRange:  func() (int, int) { return 1, compactionsMost },
		Logger:                      pebbleLogger{s},
		EventListener:               s.listener(),
	}
	o.ApplyCompressionSettings(compression)
	s.late = newLateCompactions()
	o.Experimental.CompactionScheduler = s.late
	if s.opts.Simulated {
		// Without the ticker, which a virtual clock would have to pass ten times a second for years.
		s.late.begun.Store(true)
		o.FlushDelayDeleteRange = 0
	} else {
		o.WithFSDefaults()
	}
	return o
}

// compression spends nothing on level 0, which is written at the rate of intake and read once, by
// the compaction that moves it on.
func compression() pebble.DBCompressionSettings {
	cs := pebble.DBCompressionBalanced
	cs.Levels[0] = pebble.DBCompressionNone.Levels[0]
	return cs
}

// recover reads back what the store knows of itself and compares it with the witness.
func (s *Store) recover() error {
	if err := s.checkVersion(); err != nil {
		return err
	}
	if err := s.loadLedger(); err != nil {
		return err
	}
	if err := s.loadMeta(); err != nil {
		return err
	}
	s.timers.Set(s.ledger.Base().TimerLow)
	err := s.compareWitness()
	if err != nil && s.opts.ReadOnly {
		s.log.Warn("store opened for reading in spite of damage", errField(err))
		return nil
	}
	return err
}

func (s *Store) checkVersion() error {
	v, ok, err := s.get(s.metaKey(metaVersion))
	switch {
	case err != nil:
		return err
	case !ok:
		return s.noVersion()
	case v[0] != formatVersion:
		return fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v[0], formatVersion)
	case len(v) != 2+len(s.id):
		return fmt.Errorf("%w: version record of %d bytes", delay.ErrCorrupt, len(v))
	}
	copy(s.id[:], v[2:])
	return nil
}

// noVersion tells another shard's store from one that lost its first record.
func (s *Store) noVersion() error {
	other := delay.Shard(0)
	found := false
	lower, upper := []byte{spaceMeta}, []byte{spaceMeta + 1}
	err := s.scanRange(lower, upper, func(k, _ []byte) (bool, error) {
		if len(k) == prefixLen+1 && k[prefixLen] == metaVersion {
			other, found = delay.Shard(k[1]), true
		}
		return !found, nil
	})
	if err != nil {
		return err
	}
	if found {
		return fmt.Errorf("%w: the store is of shard %d, not %d", delay.ErrInvalid, other,
			s.opts.Shard)
	}
	return fmt.Errorf("%w: version record is missing", delay.ErrCorrupt)
}

func (s *Store) loadMeta() error {
	v, ok, err := s.get(s.metaKey(metaMeta))
	if err == nil && ok {
		s.mu.meta, err = codec.DecodeMeta(v)
	}
	if err != nil {
		return err
	}
	v, ok, err = s.get(s.metaKey(metaBooks))
	if err == nil && ok {
		s.mu.books, err = codec.DecodeBooks(v)
	}
	if err != nil {
		return err
	}
	return s.scan(s.prefix(spaceOutbox), nil, func(k, _ []byte) (bool, error) {
		n, err := numberOf(k)
		s.outboxLow = n
		return false, err
	})
}

func (s *Store) compareWitness() error {
	w := s.witness.State()
	if w.Phase == witness.None {
		return fmt.Errorf("%w: witness is missing", delay.ErrCorrupt)
	}
	if w.ID != s.id {
		return fmt.Errorf("%w: witness of store %x, this is %x", delay.ErrCorrupt, w.ID, s.id)
	}
	if base := s.ledger.Base(); base.Batch < w.Batch {
		return fmt.Errorf("%w: batches %d to %d, seq up to %s, were acknowledged and are missing: "+
			"found seq up to %s", delay.ErrCorrupt, base.Batch+1, w.Batch,
			seqText(w.LastSeq), seqText(base.LastSeq))
	}
	return nil
}
