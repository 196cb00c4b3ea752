// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

func (w *World) newDisk() { w.disk = newDisk(vfs.NewCrashableMem()) }

// newBucket makes the bucket. Its faults depend on the call and the turn, not on the order in
// which the readers of a scan happen to run (W2). Before and after every commit it gives the turn
// back, so that a crash can come in between.
func (w *World) newBucket() {
	w.objs = memory.New(memory.Options{Now: w.wall})
	p := w.cfg.BucketFault
	w.bucket = faulty.New(w.objs, rand.New(rand.NewPCG(w.cfg.Seed, 2)), faulty.Options{
		FailBefore: p, FailAfter: p, Throttle: p / 2, Truncate: p / 2, FlipBit: p / 2,
		Dice: w.dice,
		Before: func(_ context.Context, c faulty.Call) error {
			w.atBucket(c)
			return nil
		},
		After: func(_ context.Context, c faulty.Call, err error) error {
			w.atBucket(c)
			return err
		},
	})
}

func (w *World) dice(c faulty.Call) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Op))
	_, _ = h.Write([]byte(c.Key)) // names are drawn from the seed too
	return rand.New(rand.NewPCG(h.Sum64(), w.turn<<20^w.cfg.Seed))
}

// atBucket is a place where others may run: before and after a conditional put, which the strand
// makes itself. The other calls may come from helpers of its own, which cannot yield.
func (w *World) atBucket(c faulty.Call) {
	if c.Op == "put_if" && w.current != nil && !w.current.dead {
		w.yield()
	}
}

// patient takes the deadlines away, which are real time, and a crash can hold a call for long.
type patient struct{ objstore.Bucket }

func (p patient) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	return p.Bucket.Put(context.WithoutCancel(ctx), key, body, cond)
}

func (p patient) Delete(ctx context.Context, keys ...string) error {
	return p.Bucket.Delete(context.WithoutCancel(ctx), keys...)
}

// open starts the process.
func (w *World) open() {
	w.spawn("open", opOpen, func() {
		w.boots++
		w.trace(nil, "open %d", w.boots)
		if err := w.tryOpen(); err != nil {
			w.trace(nil, "open failed: %s", reasonOf(err))
			w.afterFailedOpen(err)
			return
		}
		w.trace(nil, "opened: epoch %d watermark %s", w.store.Meta().Epoch,
			w.store.Meta().Watermark)
	})
}

// afterFailedOpen lets go of what was opened. A restore that was interrupted starts over.
func (w *World) afterFailedOpen(err error) {
	w.closeAll()
	switch {
	case errors.Is(err, scheduler.ErrOldDisk):
		if !w.model.restoring {
			w.fail(nil, "the own disk is not believed: %v", err)
		}
		w.newDisk()
	case errors.Is(err, delay.ErrUnavailable), errors.Is(err, objstore.ErrThrottled),
		errors.Is(err, faulty.ErrDown), errors.Is(err, faulty.ErrInjected):
	case errors.Is(err, delay.ErrCorrupt) && w.cfg.BucketFault > 0 && !w.healed:
		// A spoilt answer is told from a spoilt object by asking again.
	default:
		w.fail(nil, "open: %v", err)
	}
}

func (w *World) tryOpen() error {
	store, err := localstore.Open(w.disk, "store", localstore.Options{
		Simulated: true, MemTableBytes: memTable, ReserveBytes: -1,
	})
	if err != nil {
		return err
	}
	w.store = store
	w.checkOpened()
	if w.cfg.Bucket {
		w.tier, err = tiered.Open(w.ctx, patient{w.bucket}, tiered.Options{
			ClusterID: "simulated", SegmentBytes: 4 << 10, CacheBytes: 1, RetryBase: -1,
			Attempts: 3, Now: w.wall, Rand: rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.boots))),
		})
		if err != nil {
			return err
		}
	}
	shard, err := scheduler.OpenStepped(w.ctx, scheduler.Parts{
		Store: store, Tier: w.tier, Logger: zap.NewNop(), Now: w.wall,
		Boot:  func() time.Duration { return w.boot },
		Sinks: func(delay.Target) broker.Sink { return w.sink },
	}, w.cfg.Options, w.cfg.Seed^uint64(w.boots), w.yield)
	if err != nil {
		return err
	}
	w.shard, w.model.restoring = shard, false
	return nil
}

// memTable is so large that Pebble flushes nothing in the background: what is on the disk would
// then depend on when.
const memTable = 64 << 20

// crash ends the process at once: the process alone, the power, or the disk too.
func (w *World) crash(o op) {
	if o == opCrash {
		w.settleDisk() // the operating system lives on and writes what it was given
	}
	image := w.disk.image()
	w.trace(nil, "%s", opNames[o])
	w.noteLoss(o == opLoseDisk)
	w.killStrands()
	w.closeAll()
	w.disk = newDisk(image)
	w.model.crashed()
	if o == opLoseDisk {
		w.newDisk()
		w.disks++
		w.model.restoring = true
		w.seenMark = delay.Key{}
	}
}

// closeAll lets go of the store and the tier of a process that has ended.
func (w *World) closeAll() {
	w.shard, w.draining = nil, false
	if w.store != nil {
		_ = w.disk.release() // nobody looks at this disk again
		_ = w.store.Close()  // nor asks whether it could be closed well
		w.store = nil
	}
	if w.tier != nil {
		_ = w.tier.Close() // never fails
		w.tier = nil
	}
}

// drain ends the process in order.
func (w *World) drain() {
	w.draining = true
	w.trace(nil, "drain")
	w.spawn("drain", opDrain, func() {
		err := w.shard.Drain(w.ctx)
		w.trace(nil, "drained: %s", reasonOf(err))
		w.drained(err)
	})
}

// drained closes what Drain left, in the middle of its own strand.
func (w *World) drained(err error) {
	self := w.current
	w.noteDrained(err)
	rest := w.strands
	w.strands = nil
	for _, s := range rest {
		if s != self {
			w.current = s
			s.stop()
		}
	}
	w.current, w.strands = self, []*strand{self}
	w.settleDisk()
	mem := w.disk.mem
	w.closeAll()
	w.disk = newDisk(mem)
	w.model.crashed()
}

// reasonOf is an error as the trace shows it: without what differs from run to run.
func reasonOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, scheduler.ErrOldDisk):
		return "old disk"
	}
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrNotFound, delay.ErrExists, delay.ErrTooLate,
		delay.ErrUnavailable, delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrClosed,
		delay.ErrFenced, delay.ErrCorrupt,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "error"
}
