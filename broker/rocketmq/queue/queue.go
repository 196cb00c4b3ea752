// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// PullsAhead is how many answers of MaxPull messages wait while a batch is stored (Q6).
const PullsAhead = 8

const longPoll = 15 * time.Second

// Options say what to read, and what the records mean.
type Options struct {
	Client *remoting.Client
	Group  string // told with every pull
	Topic  string
	At     remoting.Queue
	// Partition is the name of the queue for ever.
	Partition broker.Partition
	Tier      bool // as in a Batch
	Raw       bool // bodies stay as they are packed
	// Pin stores where First begins before anything is read: what comes from then on is read, even
	// by a process that starts later and whose First would begin elsewhere.
	Pin bool
	// Linger is how long the next pull waits after an answer that was not full, so that records
	// of a busy queue are read in full answers, which cost its broker a small part of what they
	// cost one by one.
	Linger time.Duration
	// First is where to begin when the shard has no cursor; addr is the master's.
	First func(ctx context.Context, addr string) (int64, error)
	// Prepare, if not nil, looks at an answer before its records are parsed. An error says that it
	// has to be read again.
	Prepare func(ctx context.Context, all []remoting.Message) error
	// Parse reads what m asks for into item, whose memory may have been used before. keep is false
	// for a record to be passed over; an error is one to be rejected.
	Parse func(item *broker.Item, m *remoting.Message, now delay.Due) (keep bool, err error)
	// Reject deals with a record that is no request, or that the shard refuses, before the cursor
	// passes it (B6). An error says that it has to be tried again.
	Reject func(ctx context.Context, m *remoting.Message, why error) error
	Counts *Counts // of several readers together
	Log    *zap.Logger
	Quiet  *Quiet // of the warnings
}

// Counts count records. They are safe for concurrent use.
type Counts struct {
	Taken  atomic.Uint64 // handed to the shard
	Missed atomic.Uint64 // that the broker lost before they were read
}

// Reader reads one queue.
type Reader struct {
	o Options

	next atomic.Int64 // the offset to go on with
	end  atomic.Int64 // one above the highest, as of the last pull

	// Of the goroutine that takes:
	batch    broker.Batch
	rejected map[int64]bool // and not passed by the cursor: at most a batch, read again
}

// errBehind is a queue that ends before the cursor (Q7).
var errBehind = errors.New("the queue ends before the cursor: its broker lost what was read, or " +
	"the topic was made anew")

// New makes a Reader; Run reads.
func New(o Options) *Reader { return &Reader{o: o, rejected: make(map[int64]bool)} }

// Next is the offset to go on with: what lies below is stored, or rejected.
func (q *Reader) Next() int64 { return q.next.Load() }

// Ends tells that the queue ends at an offset: while the shard takes nothing no pull says so.
func (q *Reader) Ends(at int64) { q.end.Store(at) }

// Lag is how many records the queue had beyond Next when that was last known.
func (q *Reader) Lag() uint64 { return uint64(max(0, q.end.Load()-q.next.Load())) }

// Master is the address of the broker that has the queue.
func (q *Reader) Master(ctx context.Context) (string, error) {
	route, err := q.o.Client.Route(ctx, q.o.Topic)
	if err != nil {
		return "", err
	}
	if addr := route.Master(q.o.At.Broker); addr != "" {
		return addr, nil
	}
	q.o.Client.Doubt(q.o.Topic)
	return "", fmt.Errorf("%w: broker %s has no master", delay.ErrUnavailable, q.o.At.Broker)
}

// Run reads the queue, a session after the other, until ctx is done or the shard has ended, which
// it tells by stop.
func (q *Reader) Run(ctx context.Context, in broker.Intake, stop context.CancelCauseFunc) {
	pause := Backoff{}
	for ctx.Err() == nil {
		taken, err := q.session(ctx, in)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced):
			stop(err)
			return
		case taken:
			pause.Reset()
		}
		if q.o.Quiet.May() {
			q.o.Log.Warn("rocketmq queue is read again", zap.Error(err))
		}
		q.o.Client.Doubt(q.o.Topic)
		select {
		case <-ctx.Done():
		case <-time.After(pause.Next()):
		}
	}
}

// session reads from the cursor on until something goes wrong. taken says that something was
// stored.
func (q *Reader) session(ctx context.Context, in broker.Intake) (taken bool, err error) {
	addr, err := q.Master(ctx)
	if err != nil {
		return false, err
	}
	at, ok := in.Cursor(q.o.Partition)
	if !ok {
		if at, err = q.first(ctx, in, addr); err != nil {
			return false, err
		}
	}
	q.next.Store(at)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	ahead := make(chan remoting.Pulled, PullsAhead)
	var failed error
	wg.Go(func() {
		defer close(ahead)
		failed = q.pull(ctx, addr, at, ahead)
	})
	for p := range ahead {
		if err := q.take(ctx, in, p, ahead); err != nil {
			return taken, err
		}
		taken = true
	}
	return taken, failed
}

// first is where to begin without a cursor.
func (q *Reader) first(ctx context.Context, in broker.Intake, addr string) (int64, error) {
	at, err := q.o.First(ctx, addr)
	if err != nil || !q.o.Pin {
		return at, err
	}
	return at, in.Take(ctx, &broker.Batch{Partition: q.o.Partition, Next: at, Tier: q.o.Tier})
}

// pull reads ahead into out until something goes wrong.
func (q *Reader) pull(
	ctx context.Context, addr string, at int64, out chan<- remoting.Pulled,
) error {
	for {
		p, err := q.o.Client.Pull(ctx, addr, remoting.Pull{
			Group: q.o.Group, Topic: q.o.Topic, Queue: q.o.At.Number, Offset: at, Wait: longPoll,
			Raw: q.o.Raw,
		})
		if err != nil {
			return err
		}
		q.end.Store(p.Max)
		if p.Max < at {
			return fmt.Errorf("%w: cursor %d, end %d", errBehind, at, p.Max)
		}
		first := p.Next
		if len(p.Messages) > 0 {
			first = p.Messages[0].Offset
		}
		if first > at {
			q.o.Counts.Missed.Add(uint64(first - at))
			q.o.Log.Error("rocketmq broker lost records before they were read",
				zap.Int64("from", at), zap.Int64("to", first))
		}
		if p.Next <= at {
			continue
		}
		at = p.Next
		select {
		case out <- p:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if len(p.Messages) < remoting.MaxPull && q.o.Linger > 0 {
			select {
			case <-time.After(q.o.Linger):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// take stores what p holds and what was read meanwhile, as one batch.
func (q *Reader) take(
	ctx context.Context, in broker.Intake, p remoting.Pulled, more <-chan remoting.Pulled,
) error {
	b := &q.batch
	b.Partition, b.Tier, b.Items = q.o.Partition, q.o.Tier, b.Items[:0]
	var messages []remoting.Message // of the items
	for {
		if err := q.prepare(ctx, p.Messages); err != nil {
			return err
		}
		now := in.Now()
		for i := range p.Messages {
			m := &p.Messages[i]
			ok, err := q.add(ctx, now, m)
			if err != nil {
				return err
			}
			if ok {
				messages = append(messages, *m)
			}
		}
		b.Next = p.Next
		if len(b.Items)+remoting.MaxPull > broker.MaxBatch {
			break
		}
		var ok bool
		select {
		case p, ok = <-more:
		default:
		}
		if !ok {
			break
		}
	}
	b.Refused = func(ctx context.Context, items []*broker.Item) error {
		return q.refused(ctx, messages, items)
	}
	if err := in.Take(ctx, b); err != nil {
		return err
	}
	clear(q.rejected)
	q.o.Counts.Taken.Add(uint64(len(b.Items)))
	q.next.Store(b.Next)
	return nil
}

func (q *Reader) prepare(ctx context.Context, all []remoting.Message) error {
	if q.o.Prepare == nil {
		return nil
	}
	return q.o.Prepare(ctx, all)
}

// add parses m into the batch, or rejects it (B6).
func (q *Reader) add(
	ctx context.Context, now delay.Due, m *remoting.Message,
) (ok bool, err error) {
	b := &q.batch
	if len(b.Items) < cap(b.Items) {
		b.Items = b.Items[:len(b.Items)+1] // with the memory of an earlier item
	} else {
		b.Items = append(b.Items, broker.Item{})
	}
	item := &b.Items[len(b.Items)-1]
	keep, bad := false, m.Err
	if bad == nil {
		keep, bad = q.o.Parse(item, m, now)
	}
	if keep && bad == nil {
		return true, nil
	}
	b.Items = b.Items[:len(b.Items)-1]
	if bad == nil {
		return false, nil
	}
	return false, q.reject(ctx, m, bad)
}

// reject rejects a record, unless it was when it was read before.
func (q *Reader) reject(ctx context.Context, m *remoting.Message, why error) error {
	if q.rejected[m.Offset] {
		return nil
	}
	if err := q.o.Reject(ctx, m, why); err != nil {
		return fmt.Errorf("reject record %d: %w", m.Offset, err)
	}
	q.rejected[m.Offset] = true
	return nil
}

// refused rejects what the shard refuses.
func (q *Reader) refused(
	ctx context.Context, messages []remoting.Message, items []*broker.Item,
) error {
	i := 0
	for _, it := range items { // both are in the order of their offsets
		for messages[i].Offset != it.Offset {
			i++
		}
		if err := q.reject(ctx, &messages[i], it.Err); err != nil {
			return err
		}
	}
	return nil
}
