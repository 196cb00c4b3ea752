// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	crand "crypto/rand"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// The defaults and limits of the tier.
const (
	DefaultSegmentBytes = 8 << 20
	MaxSegmentBytes     = 64 << 20
	DefaultCacheBytes   = 32 << 20
	DefaultDeleteGrace  = 24 * time.Hour
	// OrphanAge is the age, by the store's clock, at which an object that no manifest lists is
	// deleted.
	OrphanAge = 72 * time.Hour

	// commitWithin bounds the time from an upload to its commit (T4), below the hour of rule R22.
	commitWithin = 55 * time.Minute
	// fanOut bounds the requests one call keeps under way.
	fanOut = 8
)

// Options of a Tier. The zero value of each field but Shard takes a default.
type Options struct {
	Shard     delay.Shard
	ClusterID string // must match the bucket's; an empty one is read or made
	ReadOnly  bool   // never writes: an empty bucket is an error, Take is refused
	// Known says that this cluster has used the bucket before: ClusterID is set, Open asks nothing,
	// and the first Load makes sure of it. Nothing is created in such a bucket: a manifest that is
	// missing has vanished. Until the first Load all reads are delay.ErrUnavailable (rule R11).
	Known bool
	// TryOut, if set, is called once before a Known bucket is used; its error is that of Load.
	TryOut func(context.Context) error

	SegmentBytes int           // stored size at which a segment is closed. Default 8 MiB
	CacheBytes   int64         // decoded blocks, and as much again for indexes. Default 32 MiB
	DeleteGrace  time.Duration // from "no longer listed" to deleted. Default 24 h

	RetryBase time.Duration // first pause between attempts. Default 100 ms; negative: no pauses
	RetryMax  time.Duration // longest pause. Default 5 s
	Attempts  int           // of one request. Default 5

	Logger *zap.Logger
	Now    func() time.Time
	Rand   *rand.Rand // names, cluster id, jitter; the default is seeded from the system
	Events Events
}

// Events are told of what happens, for metrics. Every func may be nil; they are called from any
// goroutine and must return at once.
type Events struct {
	// Request tells one attempt at the bucket; see objio.Policy.Observe for op and code.
	Request func(op, code string, d time.Duration, bytes int64)
	// Commit tells the result of one Commit: "ok", "unchanged", "fenced", "unavailable", "error".
	Commit func(result string)
	// Paused tells that requests of a class ("read", "write", "background") are refused for a
	// while because the bucket does not answer, or that they go on.
	Paused func(class string, paused bool)
}

func (o *Options) setDefaults() {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	o.SegmentBytes = min(o.SegmentBytes, MaxSegmentBytes)
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.DeleteGrace <= 0 {
		o.DeleteGrace = DefaultDeleteGrace
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		var seed [32]byte
		_, _ = crand.Read(seed[:]) // never fails
		o.Rand = rand.New(rand.NewChaCha8(seed))
	}
}
