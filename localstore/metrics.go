// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"
)

// Metrics are the numbers of the store that an operator watches. Counters start at zero at Open.
type Metrics struct {
	DiskBytes          int64 // on disk, log included
	WALBytes           int64 // of live logs
	MemTableBytes      int64
	CacheBytes         int64
	CacheHits          int64
	CacheMisses        int64
	ReadAmplification  int64 // sorted runs a read may have to look at
	L0Files            int64
	CompactionDebt     int64 // bytes that wait to be compacted
	Compactions        int64
	Flushes            int64
	BytesIn            int64 // given to the log
	BytesFlushed       int64
	BytesCompacted     int64
	Tombstones         int64
	WriteStalls        int64
	SlowDiskEvents     int64
	BackgroundErrors   int64
	Corruptions        int64 // reads that met damage
	IDReads            int64 // lookups the filter could not answer
	IDFilterBytes      int64
	Batches            uint64 // applied, ever
	WitnessBehindBatch uint64 // applied and not in the witness yet
}

// stats counts what Pebble only tells once.
type stats struct {
	stalls      atomic.Int64
	slowDisk    atomic.Int64
	background  atomic.Int64
	corruptions atomic.Int64
	idReads     atomic.Int64
	damaged     sync.Map // paths that were told
}

// Metrics reads the numbers; it takes a few of Pebble's locks and is meant for a scrape. They are 0
// after Close.
func (s *Store) Metrics() Metrics {
	if s.calls.Begin() != nil {
		return Metrics{}
	}
	defer s.calls.End()
	m := s.db.Metrics()
	total := m.Total()
	out := Metrics{
		DiskBytes:         int64(m.DiskSpaceUsage()),
		WALBytes:          int64(m.WAL.Size),
		MemTableBytes:     int64(m.MemTable.Size),
		CacheBytes:        m.BlockCache.Size,
		CacheHits:         m.BlockCache.Hits,
		CacheMisses:       m.BlockCache.Misses,
		ReadAmplification: int64(m.ReadAmp()),
		L0Files:           m.Levels[0].TablesCount,
		CompactionDebt:    int64(m.Compact.EstimatedDebt),
		Compactions:       m.Compact.Count,
		Flushes:           m.Flush.Count,
		BytesIn:           int64(m.WAL.BytesIn),
		BytesFlushed:      int64(total.TableBytesFlushed),
		BytesCompacted:    int64(total.TableBytesCompacted),
		Tombstones:        int64(m.Keys.TombstoneCount),
		WriteStalls:       s.stats.stalls.Load(),
		SlowDiskEvents:    s.stats.slowDisk.Load(),
		BackgroundErrors:  s.stats.background.Load(),
		Corruptions:       s.stats.corruptions.Load(),
		IDReads:           s.stats.idReads.Load(),
	}
	if set := s.filter.current.Load(); set != nil {
		out.IDFilterBytes = set.Bytes()
	}
	out.Batches = s.ledger.Base().Batch
	if w := s.witness.Written(); w < out.Batches {
		out.WitnessBehindBatch = out.Batches - w
	}
	return out
}

func errField(err error) zap.Field { return zap.Error(err) }

// pebbleLogger carries Pebble's own words into zap, and its end into Options.Fatal.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.s.log.Core().Enabled(zap.DebugLevel) {
		l.s.log.Debug("pebble", zap.String("text", fmt.Sprintf(format, args...)))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.log.Error("pebble", zap.String("text", fmt.Sprintf(format, args...)))
}

// Fatalf returns only when Options.Fatal does; then the store refuses everything.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	_ = l.s.fail(fmt.Errorf(format, args...))
}

// listener turns Pebble's events into log lines and counters.
func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			s.stats.background.Add(1)
			s.log.Error("background work of the store failed", errField(err))
		},
		// Damage is met by a read, which reports it to its caller; it must not end the process.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.stats.corruptions.Add(1)
			if _, told := s.stats.damaged.LoadOrStore(info.Path, true); told {
				return // a range that cannot be read is tried again and again
			}
			s.log.Error("damaged file", zap.String("path", info.Path), errField(info.Details))
		},
		DiskSlow: func(info pebble.DiskSlowInfo) {
			s.stats.slowDisk.Add(1)
			s.log.Warn("slow disk", zap.String("path", info.Path),
				zap.Stringer("operation", info.OpType), zap.Duration("for", info.Duration))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.stats.stalls.Add(1)
			s.log.Warn("writing stalls", zap.String("reason", info.Reason))
		},
		WriteStallEnd: func() { s.log.Warn("writing goes on") },
		FlushEnd: func(info pebble.FlushInfo) {
			s.flushed(info.Err)
			s.log.Debug("flushed", zap.Duration("for", info.TotalDuration), errField(info.Err))
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			s.log.Debug("compacted", zap.Duration("for", info.TotalDuration), errField(info.Err))
		},
	}
}
