// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/internal/planted"
)

// partition is an assigned partition and the work on it, from its assignment to its revocation. The
// session's poll pushes, one worker takes.
type partition struct {
	n       *session
	number  int32
	topicID [16]byte
	name    broker.Partition
	log     *zap.Logger
	ctx     context.Context // of Takes and rejected records
	cancel  context.CancelFunc

	stop chan struct{} // closed by halt
	once sync.Once
	done chan struct{} // closed when the worker has ended
	wake chan struct{} // cap 1: there is something to do

	mu     sync.Mutex
	queue  []run
	queued int64 // bytes in queue

	end    atomic.Int64 // of the topic, as the last fetch said
	at     atomic.Int64 // where reading goes on; -1: not known yet
	paused atomic.Bool  // fetching is

	committed int64 // only in commit, and before the worker begins
}

// run is what one poll brought.
type run struct {
	records []*kgo.Record
	start   int64 // of the log, by then
}

func (n *session) newPartition(ctx context.Context, id [16]byte, number int32) *partition {
	p := &partition{
		n: n, number: number, topicID: id, name: partitionName(n.opts.Broker, n.opts.Topic, id, number),
		stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		log: n.log.With(zap.Int32("partition", number)),
	}
	// The context of the assignment ends with it; work that is under way may end in peace.
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.at.Store(-1)
	return p
}

// expect says where reading begins, before it does.
func (p *partition) expect(next int64) {
	p.at.Store(next)
	p.end.Store(next)
}

// halt asks the worker to end after what it is doing.
func (p *partition) halt() { p.once.Do(func() { close(p.stop) }) }

func (p *partition) halted() bool {
	select {
	case <-p.stop:
		return true
	default:
		return p.ctx.Err() != nil
	}
}

// committable is how far the group may be told that the partition is read (B4).
func (p *partition) committable() int64 {
	durable := p.n.in.Cursor
	if p.n.opts.Tier && !planted.Is(planted.CoverUnasked) {
		durable = p.n.in.Covered
	}
	next, ok := durable(p.name)
	if !ok {
		return 0
	}
	return next
}

// push queues records and tells how many bytes wait.
func (p *partition) push(records []*kgo.Record, size, start int64) int64 {
	p.mu.Lock()
	p.queue = append(p.queue, run{records: records, start: start})
	p.queued += size
	queued := p.queued
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return queued
}

// pull moves the next records to s, as many as one Take may have.
func (p *partition) pull(s *slot) (start int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var size int64
	for len(p.queue) > 0 && len(s.records) < broker.MaxBatch {
		r := &p.queue[0]
		start = max(start, r.start)
		for len(r.records) > 0 && len(s.records) < broker.MaxBatch {
			more := fetchedSize(r.records[0])
			if len(s.records) > 0 && size+more > maxTakeBytes {
				p.release(size)
				return start
			}
			size += more
			s.records = append(s.records, r.records[0])
			r.records[0] = nil
			r.records = r.records[1:]
		}
		if len(r.records) == 0 {
			p.queue[0] = run{}
			p.queue = p.queue[1:]
		}
	}
	p.release(size)
	return start
}

// release counts size bytes as not waiting any more; p.mu is held.
func (p *partition) release(size int64) {
	p.queued -= size
	if before := p.n.queued.Add(-size) + size; before >= maxQueued {
		select {
		case p.n.room <- struct{}{}:
		default:
		}
	}
}

func (p *partition) waiting() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queued
}

// unpause goes on fetching when little is left. Whoever changes paused back to false acts.
func (p *partition) unpause() {
	if p.paused.Load() && p.waiting() <= p.n.share()/2 && p.paused.CompareAndSwap(true, false) {
		p.n.cl.ResumeFetchPartitions(map[string][]int32{p.n.opts.Topic: {p.number}})
	}
}

// work takes until the partition moves away.
func (p *partition) work() {
	defer close(p.done)
	defer p.cancel()
	defer p.drop()
	for {
		for p.waiting() == 0 {
			select {
			case <-p.wake:
			case <-p.stop:
				return
			}
		}
		var s *slot
		select {
		case s = <-p.n.slots:
		case <-p.stop:
			return
		}
		if s == nil {
			s = newSlot()
		}
		start := p.pull(s)
		p.unpause()
		on := p.handle(s, start)
		s.reset()
		p.n.slots <- s
		if !on {
			return
		}
	}
}

// drop gives up what still waits: the next owner reads it again.
func (p *partition) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(p.queued)
	p.queue = nil
}

// handle takes one batch, and reports whether to go on.
func (p *partition) handle(s *slot, start int64) bool {
	p.gap(s, start)
	if len(s.records) == 0 {
		return true
	}
	p.parse(s)
	// What is no request leaves before the cursor passes it: it is read again if this fails (B6).
	if !planted.Is(planted.PoisonPassed) && !p.copyOut(s.rejects) {
		return false
	}
	clear(s.rejects)
	s.rejects = s.rejects[:0]
	last := s.records[len(s.records)-1].Offset
	b := broker.Batch{
		Partition: p.name, Items: s.items, Next: last + 1, Tier: p.n.opts.Tier,
		Refused: func(_ context.Context, items []*broker.Item) error {
			return p.refused(s, items) //nolint:contextcheck // it is that of take
		},
	}
	if !p.take(&b) {
		return false
	}
	for i := range b.Items {
		if b.Items[i].Err == nil {
			p.n.counts.taken.Add(1)
		}
	}
	p.at.Store(b.Next)
	return true
}

// errMoved is a partition that moved away while records of it were copied.
var errMoved = errors.New("the partition moved away")

// refused copies what the shard refuses, which leaves before the cursor passes it as well.
func (p *partition) refused(s *slot, items []*broker.Item) error {
	s.rejects = s.rejects[:0]
	i := 0
	for _, it := range items { // both are in the order of their offsets
		for s.taken[i].Offset != it.Offset {
			i++
		}
		s.rejects = append(s.rejects, reject{s.taken[i], it.Err})
	}
	if !p.copyOut(s.rejects) {
		return errMoved
	}
	return nil
}

// gap compares what came with what was to come: offsets that retention removed are counted, and
// offsets that were read before are left out. Other gaps are of compaction and of transactions.
func (p *partition) gap(s *slot, start int64) {
	at := p.at.Load()
	if at < 0 {
		return
	}
	first := s.records[0].Offset
	if missing := min(start, first) - at; missing > 0 {
		p.n.counts.missing.Add(missing)
		// Its retention is too short for how far behind this is.
		p.log.Error("the topic no longer has records that were never read", zap.Int64("wanted", at),
			zap.Int64("goes_on_at", first), zap.Int64("missing", missing))
	}
	again := 0
	for again < len(s.records) && s.records[again].Offset < at {
		again++
	}
	if again == 0 {
		return
	}
	p.n.counts.truncated.Add(1)
	// What the broker stores under offsets that it used before is taken for what was there.
	p.log.Error("the broker lost records that had been read", zap.Int64("read_to", at),
		zap.Int64("found", first))
	s.records = append(s.records[:0], s.records[again:]...)
}

// take hands b to the shard until it is taken. Trying again is always right: what was taken is
// below the cursor by then and is skipped.
func (p *partition) take(b *broker.Batch) bool {
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		err := p.n.in.Take(p.ctx, b)
		if err == nil {
			return true
		}
		if fatal(err) {
			p.n.end(err)
			return false
		}
		if !p.halted() {
			p.n.grumble.Warn("the shard takes nothing now", zap.Int32("partition", p.number),
				zap.Error(err))
		}
		if !p.rest(wait) {
			return false
		}
	}
}

// rest waits, and reports whether the partition is still ours.
func (p *partition) rest(d time.Duration) bool {
	if p.halted() {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.stop:
	case <-p.ctx.Done():
	}
	return false
}
