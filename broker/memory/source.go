// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// Topic is a broker with one topic, in memory. Its records, and what was acknowledged of them, stay
// when its sources end. It is safe for concurrent use.
type Topic struct {
	name string

	mu       sync.Mutex
	parts    []*partition
	rejected []Reject
	members  []*Source
	changed  chan struct{} // closed and replaced with every record
}

type partition struct {
	records      []intake.Record
	acknowledged int64
	reading      chan struct{} // holds a token while nobody reads
}

// Reject is a record that was no request, and why.
type Reject struct {
	intake.Record
	Partition int
	Reason    string
}

// NewTopic is an empty topic.
func NewTopic(name string, partitions int) *Topic {
	t := &Topic{name: name, changed: make(chan struct{})}
	for range partitions {
		p := &partition{reading: make(chan struct{}, 1)}
		p.reading <- struct{}{}
		t.parts = append(t.parts, p)
	}
	return t
}

// Append adds records to a partition. Their offsets are made here; their bytes must not change any
// more.
func (t *Topic) Append(part int, records ...intake.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[part]
	for _, r := range records {
		r.Offset = int64(len(p.records))
		p.records = append(p.records, r)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// Acknowledged is the offset below which a partition is acknowledged.
func (t *Topic) Acknowledged(part int) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.parts[part].acknowledged
}

// Rejected is a copy of the reject topic.
func (t *Topic) Rejected() []Reject {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.rejected)
}

// DefaultPause is how long a source waits before it tries again, or looks for what is covered.
const DefaultPause = 10 * time.Millisecond

// SourceOptions of a Source.
type SourceOptions struct {
	Tier        bool // commit: tier
	IDFromKey   bool
	Target      delay.Target
	CheckTarget func(delay.Target) error
	Batch       int           // records at once; 0 and more than broker.MaxBatch: that
	Pause       time.Duration // 0: DefaultPause
}

// Source reads a topic. Those of one topic share its partitions.
//
// It holds no position of its own: every batch begins at the cursor, so that nothing that happens
// between two of them matters (B4).
type Source struct {
	topic *Topic
	opts  SourceOptions
}

var _ broker.Source = (*Source)(nil)

// NewSource is a source of t.
func NewSource(t *Topic, opts SourceOptions) *Source {
	if opts.Batch <= 0 || opts.Batch > broker.MaxBatch {
		opts.Batch = broker.MaxBatch
	}
	if opts.Pause <= 0 {
		opts.Pause = DefaultPause
	}
	return &Source{topic: t, opts: opts}
}

// Close does nothing: there is nothing to release.
func (s *Source) Close() error { return nil }

// Run reads its share of the partitions.
func (s *Source) Run(ctx context.Context, in broker.Intake) error {
	s.topic.join(s)
	defer s.topic.leave(s)
	var readers sync.WaitGroup
	defer readers.Wait()
	for part := range s.topic.parts {
		readers.Go(func() { s.read(ctx, in, part) })
	}
	return nil
}

func (t *Topic) join(s *Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = append(t.members, s)
}

func (t *Topic) leave(s *Source) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members = slices.DeleteFunc(t.members, func(m *Source) bool { return m == s })
}

// assigned reports whether a partition is this source's now.
func (s *Source) assigned(part int) bool {
	t := s.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members) > 0 && t.members[part%len(t.members)] == s
}

// read takes one batch after the other from a partition, while it is assigned.
func (s *Source) read(ctx context.Context, in broker.Intake, part int) {
	r := &reader{
		source: s, in: in, part: part,
		opts: intake.Options{
			Kind: intake.Kafka, Broker: "memory", IDFromKey: s.opts.IDFromKey,
			Target: s.opts.Target, CheckTarget: s.opts.CheckTarget,
			Origin: broker.Partition(fmt.Sprintf("memory:%s/%d", s.topic.name, part)),
		},
	}
	reading := s.topic.parts[part].reading
	for ctx.Err() == nil {
		changed := s.topic.change()
		more := false
		if s.assigned(part) {
			select {
			case <-reading: // until the member that had it is done with its batch (B5)
			case <-ctx.Done():
				return
			}
			var err error
			more, err = r.step(ctx)
			reading <- struct{}{}
			if errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced) {
				return
			}
		}
		if !more && !wait(ctx, changed, s.opts.Pause) {
			return
		}
	}
}

func (t *Topic) change() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// wait returns false when ctx is done.
func wait(ctx context.Context, changed <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// reader is a source's work on one partition.
type reader struct {
	source *Source
	in     broker.Intake
	part   int
	opts   intake.Options
	batch  broker.Batch
}

// step takes one batch and acknowledges what may be; more says that it was a full one, taken.
func (r *reader) step(ctx context.Context) (more bool, err error) {
	records := r.next()
	b := &r.batch
	b.Partition, b.Tier = r.opts.Origin, r.source.opts.Tier
	b.Items = slices.Grow(b.Items[:0], len(records))
	for i := range records {
		var it broker.Item
		if fault := intake.Parse(&it, &records[i], r.in.Now(), &r.opts); fault != nil {
			r.reject(&records[i], fault) // before the cursor passes it (B6)
		} else {
			b.Items = append(b.Items, it)
		}
		b.Next = records[i].Offset + 1
	}
	if len(records) > 0 {
		b.Refused = func(_ context.Context, items []*broker.Item) error {
			for _, it := range items {
				r.reject(&records[it.Offset-records[0].Offset], it.Err)
			}
			return nil
		}
		err = r.in.Take(ctx, b)
	}
	r.acknowledge()
	return err == nil && len(records) == r.source.opts.Batch, err
}

// next is what follows the cursor, or what is acknowledged where there is none.
func (r *reader) next() []intake.Record {
	from, known := r.in.Cursor(r.opts.Origin)
	t := r.source.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[r.part]
	if !known {
		from = p.acknowledged
	}
	from = min(from, int64(len(p.records)))
	return p.records[from:min(from+int64(r.source.opts.Batch), int64(len(p.records)))]
}

// reject puts a record into the reject topic, once.
func (r *reader) reject(rec *intake.Record, reason error) {
	t := r.source.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, have := range t.rejected {
		if have.Partition == r.part && have.Offset == rec.Offset {
			return
		}
	}
	t.rejected = append(t.rejected, Reject{Record: *rec, Partition: r.part, Reason: reason.Error()})
}

// acknowledge tells the broker what is as durable as was asked for (B4).
func (r *reader) acknowledge() {
	durable, known := r.in.Cursor(r.opts.Origin)
	if r.source.opts.Tier {
		durable, known = r.in.Covered(r.opts.Origin)
	}
	if !known {
		return
	}
	t := r.source.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[r.part]
	p.acknowledged = max(p.acknowledged, durable)
}
