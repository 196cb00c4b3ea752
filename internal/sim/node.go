// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/audit"
	"github.com/cicadamq/cicada/internal/sim/disk"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// node is a process with its disk: an owner of the shard, one that was, or one that will be.
type node struct {
	name  int
	life  int // which incarnation of a process it is
	disk  *disk.Disk
	link  *audit.Link
	store *localstore.Store
	tier  *tiered.Tier
	shard *scheduler.Stepped // nil while the process is down

	draining  bool
	owned     bool          // the disk has belonged to an owner
	restoring bool          // the disk is new, the bucket is not
	fresh     bool          // the disk was empty when the process started
	frozen    bool          // none of its tasks run
	old       bool          // another one took the shard
	saw       bool          // and it knows
	joining   bool          // has not taken the shard yet
	found     bool          // with a disk that was set aside
	cuts      int           // that were committed
	quiet     time.Duration // it may claim nothing before
	quietLife int           // the incarnation that has to wait
	lost      *disk.Disk    // the one before this, which may be found again
	seenMark  delay.Key     // highest watermark that was synced on this disk
	seen      delay.Due     // where its clock was when it ran last
	born      time.Duration // when its process did
}

func (w *World) newNode() *node {
	n := &node{disk: disk.New(vfs.NewCrashableMem())}
	n.link = &audit.Link{
		Bucket: w.bucket, Saw: func() bool { return n.saw }, Part: w.deleted,
		Fail: func(format string, args ...any) { w.fail(nil, format, args...) },
		Read: func(s *manifest.State) {
			n.saw = n.saw || n.shard != nil && n.old && s.Epoch > n.store.Meta().Epoch
		},
	}
	return n
}

// deleted decides how many of n deletions happen.
func (w *World) deleted(n int) int {
	if n > 1 && w.chance(w.cfg.BucketFault) && !w.healed {
		return w.rng.IntN(n)
	}
	w.stats.Deleted += n
	return n
}

// traceNode writes a line that names the process, when it is not the first.
func (w *World) traceNode(format string, args ...any) {
	if w.name > 0 {
		format = fmt.Sprintf("[%d] %s", w.name, format)
	}
	w.trace(nil, format, args...)
}

// newBucket makes the bucket. Its faults depend on the call and the turn, not on the order in
// which the readers of a scan happen to run (W2). Before and after every commit and deletion it
// gives the turn back, so that a crash, or another owner, can come in between.
func (w *World) newBucket() {
	skew, grace, window := w.cfg.StoreSkew, w.cfg.Grace, w.cfg.Options.DedupeWindow
	if w.cfg.Weights[swarm.Step] > 0 {
		grace, window = 0, -200_000*time.Hour // the clock of the shard measures them (R21)
	}
	w.objs = memory.New(memory.Options{Now: func() time.Time { return w.wall().Add(skew) }})
	w.truth = audit.New(w.objs, audit.Options{
		Now: w.wall, Grace: grace, OrphanAge: tiered.OrphanAge,
		Window: window, IDs: delay.NewIDMaker("simulated"),
		Fail:      func(format string, args ...any) { w.fail(nil, format, args...) },
		Committed: w.committed,
	})
	p := w.cfg.BucketFault
	w.bucket = faulty.New(w.truth, rand.New(rand.NewPCG(w.cfg.Seed, 2)), faulty.Options{
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

// atBucket is a place where others may run: before and after a conditional put or a deletion, which
// the strand makes itself. The other calls may come from helpers of its own, which cannot yield.
func (w *World) atBucket(c faulty.Call) {
	if (c.Op == "put_if" || c.Op == "delete") && w.current != nil && !w.current.dead {
		w.yield()
	}
}

// open starts the process.
func (w *World) open() {
	w.spawn("open", swarm.Open, func() {
		w.began = w.turn
		w.boots++
		w.life, w.born = w.boots, w.boot
		w.traceNode("open %d", w.life)
		if err := w.tryOpen(); err != nil {
			w.traceNode("open failed: %s", trace.Reason(err))
			w.afterFailedOpen(err)
			return
		}
		w.traceNode("opened: epoch %d watermark %s", w.store.Meta().Epoch,
			w.store.Meta().Watermark)
	})
}

// afterFailedOpen lets go of what was opened. A restore that was interrupted starts over.
func (w *World) afterFailedOpen(err error) {
	w.closeAll()
	switch {
	case w.node != w.main:
		w.notTaken(err)
	case errors.Is(err, scheduler.ErrOldDisk):
		if !w.restoring {
			w.fail(nil, "the own disk is not believed: %v", err)
		}
		w.disk = disk.New(vfs.NewCrashableMem())
	case trace.Transient(err):
	case errors.Is(err, delay.ErrCorrupt) && (w.cfg.BucketFault > 0 && !w.healed || w.vanished()):
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
	asked := w.now()
	w.store, w.fresh = store, store.Meta().Epoch == 0
	if w.node == w.main {
		w.checkOpened()
	}
	if w.cfg.Bucket {
		n := w.node
		w.tier, err = tiered.Open(w.ctx, w.link, tiered.Options{
			ClusterID: "simulated", SegmentBytes: w.cfg.SegmentBytes, CacheBytes: 1,
			RetryBase: -1, Attempts: 3, Now: w.wall, DeleteGrace: w.cfg.Grace,
			Events: tiered.Events{Commit: func(result string) {
				if result == "ok" {
					n.cuts++
				}
			}},
			Rand: rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.life))),
		})
		if err != nil {
			return err
		}
	}
	shard, err := scheduler.OpenStepped(w.ctx, scheduler.Parts{
		Store: store, Tier: w.tier, Logger: zap.NewNop(), Now: w.wrong,
		Boot:  func() time.Duration { return w.boot },
		Sinks: func(delay.Target) broker.Sink { return w.sink },
	}, w.cfg.Options, w.cfg.Seed^uint64(w.life), w.yield)
	if err != nil {
		return err
	}
	w.shard, w.restoring, w.owned = shard, false, true
	if w.node == w.main {
		w.hist.Opened(w.now())
		w.recurs.Opened(w.seen, w.now().Add(w.born-w.boot)-1, w.now())
		w.limits.Opened(asked)
		w.checkLimits(0)
	}
	w.seen = w.now()
	return nil
}

// memTable is so large that Pebble flushes nothing in the background: what is on the disk would
// then depend on when.
const memTable = 64 << 20

// crash ends the process at once: the process alone, the power, or the disk too.
func (w *World) crash(o swarm.Op) {
	if o == swarm.Crash {
		w.settleDisk() // the operating system lives on and writes what it was given
	}
	image := disk.New(w.disk.Image())
	w.trace(nil, "%s", o.String())
	w.seen = max(w.seen, w.now())
	w.incident(o == swarm.LoseDisk)
	w.noteLoss(o == swarm.LoseDisk)
	w.end1(w.node)
	w.disk = image
	w.crashed(o == swarm.LoseDisk)
	if o == swarm.LoseDisk {
		if w.owned {
			w.lost, w.owned = image, false
		}
		w.disk = disk.New(vfs.NewCrashableMem())
		w.disks++
		w.restoring = true
		w.seenMark = delay.Key{}
	}
}

// end1 ends the process of a node, but for the strand that asks.
func (w *World) end1(n *node) {
	w.kill(func(s *strand) bool { return s.node == n })
	before := w.node
	w.node = n
	w.closeAll()
	w.node = before
}

// closeAll lets go of the store and the tier of a process that has ended.
func (w *World) closeAll() {
	w.shard, w.draining, w.frozen = nil, false, false
	if w.store != nil {
		_ = w.disk.Release() // nobody looks at this disk again
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
	w.traceNode("drain")
	w.spawn("drain", swarm.Drain, func() {
		err := w.shard.Drain(w.ctx)
		w.traceNode("drained: %s", trace.Reason(err))
		w.drained(err)
	})
}

// drained closes what Drain left, in the middle of its own strand.
func (w *World) drained(err error) {
	if w.old {
		w.retire(w.node)
		return
	}
	w.noteDrained(err)
	w.kill(func(s *strand) bool { return s.node == w.node })
	w.settleDisk()
	mem := w.disk.Mem
	w.seen = max(w.seen, w.now())
	w.closeAll()
	w.disk = disk.New(mem)
	w.crashed(false)
}

// crashed notes that the process of the main node has ended. lost: with its disk, or because
// another took the shard.
func (w *World) crashed(lost bool) {
	w.model.Crashed()
	now := max(w.now(), w.hands.High)
	w.hist.Crashed(now, lost)
	w.recurs.Crashed(now, lost)
	w.limits.Crashed()
	if lost {
		w.limits.Lost()
	}
}
