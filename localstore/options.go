// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// Options are what an operator may tune, and what the composition root hands in.
type Options struct {
	// CacheBytes bounds the cache of uncompressed blocks. Default 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of a memtable; up to four exist. Default 32 MiB: larger ones
	// were slower.
	MemTableBytes uint64
	// ReserveBytes is the free disk space below which Refusing is true. Default 512 MiB;
	// negative is none.
	ReserveBytes int64
	// MaxStall is how long a write or a sync may take before Fatal is called. Default 20 s, in
	// simulation for ever; negative is for ever.
	MaxStall time.Duration
	// Shard owns every key of the store.
	Shard delay.Shard
	// Logger receives what Pebble reports. Default: nothing is logged.
	Logger *zap.Logger
	// Simulated suits a virtual clock and a memory file system: small memtables, no periodic
	// work, no ballast.
	Simulated bool
	// ReadOnly opens the store to look at it: damage found by the witness is logged, not refused,
	// nothing is written and Apply answers delay.ErrClosed. For offline checks and imports.
	ReadOnly bool
	// Fatal is called once, from any goroutine, on an error after which nothing may be
	// acknowledged: of the log, of a sync, of a manifest. It should not return; if it does, the
	// store refuses everything from then on. Default: panic.
	Fatal func(error)
}

const (
	defaultCacheBytes    = 64 << 20
	defaultMemTableBytes = 32 << 20
	defaultReserveBytes  = 512 << 20
	// defaultMaxStall is above what a disk that is merely busy takes, and well below what another
	// owner, or whoever restarts the process, needs to notice.
	defaultMaxStall     = 20 * time.Second
	simulatedCacheBytes = 1 << 20
	simulatedMemTable   = 256 << 10
)

func (o Options) withDefaults() Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCacheBytes
		if o.Simulated {
			o.CacheBytes = simulatedCacheBytes
		}
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
		if o.Simulated {
			o.MemTableBytes = simulatedMemTable
		}
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserveBytes
	}
	if o.MaxStall == 0 && !o.Simulated {
		o.MaxStall = defaultMaxStall
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic("FATAL: " + err.Error()) }
	}
	return o
}
