// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"context"
	"errors"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Limits of the sink.
const (
	maxBatchBytes = 1 << 20 // of bodies; brokers take 4 MiB unless configured otherwise
	maxParallel   = 16      // queues that a Deliver sends to, and keys it asks for, at a time
	maxDoubtful   = 1 << 16 // keys that are remembered as Unknown
	// clockSlack is how far the clock of a broker may be behind ours when a key is looked for.
	clockSlack = time.Hour
	// verifyAttempts is how often a message waits for a broker that cannot be asked for its key.
	// After that it is sent: it may be there twice, but it is there.
	verifyAttempts = 5
)

// Sink sends messages to the topics of one cluster.
type Sink struct {
	cfg     Config
	client  *remoting.Client
	started delay.Due
	turn    atomic.Uint32 // the queue that comes next for messages without a key

	mu       sync.Mutex
	doubtful map[string]struct{} // unique keys whose last attempt was Unknown
	forgot   bool                // there were more
}

var (
	_ broker.Sink    = (*Sink)(nil)
	_ broker.Checker = (*Sink)(nil)
)

// NewSink checks cfg; what is wrong with it wraps delay.ErrInvalid. It connects nowhere yet.
func NewSink(cfg Config) (*Sink, error) {
	cfg, client, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return &Sink{
		cfg: cfg, client: client, started: delay.DueOf(cfg.Now()), doubtful: map[string]struct{}{},
	}, nil
}

// Check implements broker.Checker.
func (s *Sink) Check(target delay.Target) error {
	if _, reason := topicOf(target, s.cfg.Broker); reason != "" {
		return delay.Invalid("target", "%s", reason)
	}
	return nil
}

// Close ends the connections.
func (s *Sink) Close() error { return s.client.Close() }

// parcel is the part of a batch that goes to one queue.
type parcel struct {
	queue remoting.Queue
	at    []int // indexes in the batch
}

// shipment is one Deliver.
type shipment struct {
	topic    string
	route    *remoting.Route
	batch    []broker.Delivery
	messages []remoting.Outgoing
	results  []broker.Result
}

// Deliver sends batch, a part to each queue, and returns when each has been answered or timed out.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	if len(batch) == 0 || ctx.Err() != nil {
		return
	}
	topic, reason := topicOf(batch[0].Target, s.cfg.Broker)
	if reason != "" {
		fill(results, broker.Result{Outcome: broker.Rejected, Reason: reason})
		return
	}
	topic = strings.Clone(topic) // it stays as the key of a route
	route, err := s.client.Route(ctx, topic)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		fill(results, broker.Result{Outcome: broker.Retry, Reason: noRoute(topic, err)})
		return
	case len(route.Writable()) == 0:
		s.client.Doubt(topic)
		fill(results, broker.Result{
			Outcome: broker.Retry, Reason: "topic " + topic + " has no queue that can be written",
		})
		return
	}
	sh := &shipment{
		topic: topic, route: route, batch: batch, messages: make([]remoting.Outgoing, len(batch)),
		results: results,
	}
	each(s.pack(ctx, sh), func(p parcel) { s.ship(ctx, sh, p) })
	s.note(sh)
}

func noRoute(topic string, err error) string {
	if errors.Is(err, delay.ErrNotFound) {
		return "topic " + topic + " does not exist"
	}
	return brief("no route: " + err.Error())
}

func fill(results []broker.Result, r broker.Result) {
	for i := range results {
		results[i] = r
	}
}

// each calls do for each of all, maxParallel at a time, and waits.
func each[T any](all []T, do func(T)) {
	var next atomic.Int64
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(all) {
				return
			}
			do(all[i])
		}
	}
	var wg sync.WaitGroup
	for range min(len(all), maxParallel) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// pack makes the messages, settles those that cannot be sent or are there already, and puts the
// others into parcels: by routing key, or in turn, in runs that make large batches.
func (s *Sink) pack(ctx context.Context, sh *shipment) []parcel {
	var doubts []int
	sent := make([]bool, len(sh.batch)) // or not to be sent
	for i := range sh.batch {
		d := &sh.batch[i]
		m, reason := outgoing(d)
		if reason != "" {
			sh.results[i] = broker.Result{Outcome: broker.Rejected, Reason: reason}
			sent[i] = true
			continue
		}
		sh.messages[i] = m
		if s.doubts(d, m.Properties.Value(remoting.PropertyUniqueKey)) {
			doubts = append(doubts, i)
		}
	}
	each(doubts, func(i int) { sent[i] = s.arrived(ctx, sh, i) })
	queues := sh.route.Writable()
	parcels := make([]parcel, len(queues))
	free := 0
	for i := range sh.batch {
		if !sent[i] && sh.batch[i].RoutingKey == "" {
			free++
		}
	}
	run := max(1, (free+len(queues)-1)/len(queues))
	first := int(s.turn.Add(1))
	free = 0
	for i := range sh.batch {
		if sent[i] {
			continue
		}
		var q int
		if key := sh.batch[i].RoutingKey; key != "" {
			h := fnv.New32a()
			h.Write([]byte(key))
			q = int(h.Sum32() % uint32(len(queues)))
		} else {
			q = (first + free/run) % len(queues)
			free++
		}
		parcels[q].queue, parcels[q].at = queues[q], append(parcels[q].at, i)
	}
	kept := parcels[:0]
	for _, p := range parcels {
		if len(p.at) > 0 {
			kept = append(kept, p)
		}
	}
	return kept
}

// doubts reports whether d may be there already: its last attempt was Unknown, or was made by an
// earlier process, which took that knowledge with it.
func (s *Sink) doubts(d *broker.Delivery, key string) bool {
	if d.Attempt <= 1 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, doubtful := s.doubtful[key]
	return doubtful || s.forgot || d.Due < s.started
}

// arrived reports whether the i-th message is not to be sent, and settles it then: it was found,
// or a broker cannot be asked (Q1).
func (s *Sink) arrived(ctx context.Context, sh *shipment, i int) bool {
	d := &sh.batch[i]
	query := remoting.Query{
		Topic: sh.topic, Key: sh.messages[i].Properties.Value(remoting.PropertyUniqueKey),
		Unique: true, Begin: max(d.Due.Add(-clockSlack), 0), End: delay.MaxDue,
	}
	for _, b := range sh.route.Brokers {
		if b.Addresses[0] == "" {
			continue
		}
		found, err := s.client.Query(ctx, b.Addresses[0], query)
		for k := range found {
			if same(&found[k], d) {
				sh.results[i] = broker.Result{Outcome: broker.Delivered}
				return true
			}
		}
		if err != nil && d.Attempt <= verifyAttempts {
			// It may be there from before, so it stays as unknown as it was.
			sh.results[i] = broker.Result{Reason: brief("not known whether it arrived: " + err.Error())}
			return true
		}
	}
	return false
}

// ship sends a parcel, as few batches as may be, one after the other (Q3).
func (s *Sink) ship(ctx context.Context, sh *shipment, p parcel) {
	addr := sh.route.Master(p.queue.Broker)
	for at := p.at; len(at) > 0; {
		n, size := 0, 0
		for n < len(at) && (n == 0 || size+len(sh.batch[at[n]].Body) <= maxBatchBytes) {
			size += len(sh.batch[at[n]].Body)
			n++
		}
		if !s.sendAll(ctx, sh, addr, p.queue.Number, at[:n]) {
			sh.stop(ctx, at[n:])
			return
		}
		at = at[n:]
	}
}

// stop settles what is not sent because something before it was not answered. After the end of the
// context everything stays Unknown.
func (sh *shipment) stop(ctx context.Context, rest []int) {
	for _, i := range rest {
		if ctx.Err() == nil {
			sh.results[i] = broker.Result{
				Outcome: broker.Retry, Reason: "not sent: there was no answer to messages before it",
			}
		}
	}
}

// sendAll sends messages as one batch and, if the broker will never take that, one by one (Q2). It
// reports whether the queue can go on.
func (s *Sink) sendAll(
	ctx context.Context, sh *shipment, addr string, queue int32, at []int,
) bool {
	group := make([]remoting.Outgoing, len(at))
	for k, i := range at {
		group[k] = sh.messages[i]
	}
	_, err := s.client.SendBatch(ctx, addr, sh.topic, queue, group)
	r := result(err)
	if r.Outcome == broker.Rejected && len(at) > 1 {
		for k := range at {
			if !s.sendAll(ctx, sh, addr, queue, at[k:k+1]) {
				sh.stop(ctx, at[k+1:])
				return false
			}
		}
		return true
	}
	for _, i := range at {
		sh.results[i] = r
	}
	if r.Outcome == broker.Retry || r.Outcome == broker.Unknown {
		s.client.Doubt(sh.topic)
	}
	return r.Outcome != broker.Unknown
}

// result says what an error of a send means for its messages.
func result(err error) broker.Result {
	var e *remoting.Error
	switch {
	case err == nil:
		return broker.Result{Outcome: broker.Delivered}
	case !errors.As(err, &e):
		return broker.Result{Reason: brief(err.Error())}
	}
	r := broker.Result{Reason: brief(err.Error())}
	switch e.Outcome {
	case remoting.No:
		r.Outcome = broker.Retry
	case remoting.Never:
		r.Outcome = broker.Rejected
	}
	return r
}

// note remembers what is doubtful now, and forgets what no longer is.
func (s *Sink) note(sh *shipment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range sh.batch {
		key := sh.messages[i].Properties.Value(remoting.PropertyUniqueKey)
		switch sh.results[i].Outcome {
		case broker.Unknown:
			if len(s.doubtful) >= maxDoubtful {
				s.forgot = true
			} else {
				s.doubtful[strings.Clone(key)] = struct{}{}
			}
		case broker.Delivered, broker.Rejected:
			delete(s.doubtful, key)
		}
	}
}
