// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/ledger"
	"github.com/cicadamq/cicada/delay"
)

// Bounds of the ledger's upkeep.
const (
	adminRetries   = 3
	lookUpTimeout  = 5 * time.Second
	maxKnownTopics = 10_000
	settleTime     = 250 * time.Millisecond // for a topic that was just made to be known

	// What a new ledger topic is made with: segments are closed while they are small, so that what
	// was forgotten is compacted away and reading it again stays short.
	ledgerSegmentBytes = "33554432"
	ledgerSegmentMS    = "3600000"
	ledgerDirtyRatio   = "0.1"
)

// Recover implements broker.Ledger: fence, sign, read, and only then act.
func (s *Exact) Recover(
	ctx context.Context, after uint64, apply func(entry uint64, done []broker.Done) error,
) error {
	s.mu.Lock()
	at := s.phase
	s.mu.Unlock()
	switch at {
	case ready:
		return fmt.Errorf("%w: ledger: it was read already", delay.ErrInvalid)
	case fenced:
		return s.errFenced()
	case closed:
		return fmt.Errorf("%w: ledger", delay.ErrClosed)
	}
	cluster := s.cfg.Cluster()
	if cluster == "" {
		return fmt.Errorf("%w: ledger: the cluster has no identity yet", delay.ErrUnavailable)
	}
	s.name = ledger.Name(cluster, s.cfg.Shard, s.cfg.Broker)
	if err := s.prepareTopic(ctx); err != nil {
		return err
	}
	p, err := s.take(ctx, cluster)
	if err != nil {
		return err
	}
	r := reading{after: after, apply: apply}
	next, err := s.scan(ctx, 0, true, func(rec ledger.Record) error { return r.add(s, rec) })
	if err == nil {
		err = r.check(s)
	}
	if err != nil {
		p.close()
		return err
	}
	s.begin(ctx, p, &r, next)
	return nil
}

// begin starts the loop.
func (s *Exact) begin(ctx context.Context, p *producer, r *reading, next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != unread {
		p.close()
		return
	}
	s.phase = ready
	s.newest, s.kept, s.erase = r.newest, r.kept, 0
	for s.erase < len(s.kept) && s.kept[s.erase] <= r.after {
		s.erase++
	}
	s.last = max(r.newest, r.after)
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.log.Info("ledger taken", zap.String("topic", s.cfg.LedgerTopic),
		zap.Uint64("newest", s.newest), zap.Int("entries", len(s.kept)))
	s.position = next
	s.loop.Go(func() { s.run(s.life, p) })
}

// reading follows the entries in the order in which they were committed.
type reading struct {
	after  uint64
	apply  func(entry uint64, done []broker.Done) error
	newest uint64 // entry read
	kept   []uint64
}

func (r *reading) add(s *Exact, rec ledger.Record) error {
	switch {
	case rec.Owner && rec.Erased:
		return fmt.Errorf("%w: ledger: its owner was erased", delay.ErrCorrupt)
	case rec.Owner:
		s.wasSigned = s.wasSigned || rec.Writer != s.writer
		return nil
	case rec.Erased:
		return r.erased(rec.Number)
	case rec.Number <= r.newest:
		return fmt.Errorf("%w: ledger: entry %d comes after %d", delay.ErrCorrupt, rec.Number,
			r.newest)
	case rec.Number > r.after && rec.Previous != r.newest && rec.Previous > r.after:
		return fmt.Errorf("%w: ledger: entries between %d and %d are missing", delay.ErrCorrupt,
			max(r.newest, r.after), rec.Number)
	case rec.Number > r.after && rec.Previous < r.newest:
		return fmt.Errorf("%w: ledger: entry %d does not know of %d", delay.ErrCorrupt, rec.Number,
			r.newest)
	}
	r.newest = rec.Number
	s.wasSigned = true
	r.kept = append(r.kept, rec.Number)
	if rec.Number <= r.after {
		return nil
	}
	return r.apply(rec.Number, rec.Done)
}

// erased notes that an entry was forgotten. What was forgotten is covered by a manifest, so a
// manifest that does not cover it is too old to be ours.
func (r *reading) erased(n uint64) error {
	if n > r.after {
		return fmt.Errorf("%w: ledger: entry %d was forgotten, but only %d is covered",
			delay.ErrCorrupt, n, r.after)
	}
	for i, k := range r.kept {
		if k == n {
			r.kept = append(r.kept[:i], r.kept[i+1:]...)
			break
		}
	}
	return nil
}

// check looks at the whole: a ledger that was used and is empty has been lost.
func (r *reading) check(s *Exact) error {
	if r.after > 0 && !s.wasSigned {
		return fmt.Errorf("%w: ledger: entry %d was committed, but the ledger is new: was its "+
			"topic deleted?", delay.ErrCorrupt, r.after)
	}
	return nil
}

// take shuts every earlier producer out and signs the ledger.
func (s *Exact) take(ctx context.Context, cluster string) (*producer, error) {
	p, err := s.newProducer(cluster)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if _, _, err := p.cl.ProducerID(ctx); err != nil {
		p.close()
		return nil, fmt.Errorf("%w: ledger: fence: %w", delay.ErrUnavailable, err)
	}
	key := ledger.OwnerKey(s.name)
	_, end := p.transaction(ctx, nil, []*kgo.Record{{
		Topic: s.cfg.LedgerTopic, Key: key, Value: ledger.AppendOwner(nil, key, s.writer),
	}})
	if end != committed {
		p.close()
		return nil, fmt.Errorf("%w: ledger %s: sign", delay.ErrUnavailable, s.cfg.LedgerTopic)
	}
	s.counts.fences.Add(1)
	return p, nil
}

// takeAgain replaces a producer that was given up, and finds out how its last transaction ended
// (K15). It looks first whether another process has signed: who was shut out must not shut the
// successor out in turn.
func (s *Exact) takeAgain(ctx context.Context) (*producer, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*stepTimeout)
	defer cancel()
	foreign := func(rec ledger.Record) error {
		if !rec.Erased && rec.Writer != s.writer {
			return s.errFenced()
		}
		return nil
	}
	if _, err := s.scan(ctx, s.position, false, foreign); err != nil {
		return nil, err
	}
	p, err := s.take(ctx, s.cfg.Cluster())
	if err != nil {
		return nil, err
	}
	var found []broker.Done
	var newest uint64
	next, err := s.scan(ctx, s.position, true, func(rec ledger.Record) error {
		if !rec.Owner && !rec.Erased && rec.Number > newest {
			newest, found = rec.Number, rec.Done
		}
		return foreign(rec)
	})
	if err != nil {
		p.close()
		return nil, err
	}
	s.position = next
	s.resolve(newest, found)
	return p, nil
}

// resolve answers the transaction in doubt: an entry that is there was committed with its messages.
func (s *Exact) resolve(newest uint64, found []broker.Done) {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := newest > s.newest
	for _, it := range s.uncertain {
		if there {
			s.deliveredLocked(it)
		} else {
			it.set(it.i, broker.Result{Outcome: broker.Retry, Reason: "the transaction was aborted"})
		}
	}
	if there {
		s.newest = newest
		s.kept = append(s.kept, newest)
		s.counts.committed.Add(1)
		s.counts.messages.Add(uint64(len(found)))
	}
	s.uncertain, s.doubt = nil, doubt{}
}

// scan reads the ledger from an offset to the end it has now, and calls each for every record of
// ours. With committed it waits until no transaction is open below that end.
func (s *Exact) scan(
	ctx context.Context, from int64, committed bool, each func(ledger.Record) error,
) (next int64, err error) {
	from, end, err := s.bounds(ctx, from)
	if err != nil || from >= end {
		return end, err
	}
	level := kgo.ReadUncommitted()
	if committed {
		level = kgo.ReadCommitted()
	}
	topic := s.cfg.LedgerTopic
	cl, err := s.cfg.Connect(kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
			topic: {0: kgo.NewOffset().At(from)},
		}))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return 0, fmt.Errorf("%w: ledger %s: read: %w", delay.ErrUnavailable, topic, err)
		}
		for _, e := range fetches.Errors() {
			return 0, fmt.Errorf("%w: ledger %s: read: %w", delay.ErrUnavailable, topic, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			if !r.Attrs.IsControl() {
				rec, ours, err := ledger.Read(s.name, r.Key, r.Value)
				if err == nil && ours {
					err = each(rec)
				}
				if err != nil {
					return 0, err
				}
			}
			if r.Offset >= end-1 {
				return end, nil
			}
		}
	}
}

// bounds are where the ledger begins, but not below from, and ends.
func (s *Exact) bounds(ctx context.Context, from int64) (int64, int64, error) {
	adm := kadm.NewClient(s.admin)
	topic := s.cfg.LedgerTopic
	begins, err := adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = begins.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: ledger %s: start: %w", delay.ErrUnavailable, topic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: ledger %s: end: %w", delay.ErrUnavailable, topic, err)
	}
	begin, _ := begins.Lookup(topic, 0)
	end, _ := ends.Lookup(topic, 0)
	if end.Offset < from {
		return 0, 0, fmt.Errorf("%w: ledger %s: it ends at %d, and was read up to %d",
			delay.ErrCorrupt, topic, end.Offset, from)
	}
	return max(from, begin.Offset), end.Offset, nil
}

// prepareTopic makes the ledger's topic if it is missing, and refuses one that could lose entries.
func (s *Exact) prepareTopic(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	adm := kadm.NewClient(s.admin)
	topic := s.cfg.LedgerTopic
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("%w: ledger %s: look up: %w", delay.ErrUnavailable, topic, err)
	}
	d := details[topic]
	if errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return s.makeTopic(ctx, adm)
	}
	if d.Err != nil {
		return fmt.Errorf("%w: ledger %s: look up: %w", delay.ErrUnavailable, topic, d.Err)
	}
	if len(d.Partitions) != 1 {
		return fmt.Errorf("%w: ledger %s: it has %d partitions, want 1", delay.ErrInvalid, topic,
			len(d.Partitions))
	}
	return s.checkPolicy(ctx, adm)
}

func (s *Exact) makeTopic(ctx context.Context, adm *kadm.Client) error {
	topic := s.cfg.LedgerTopic
	set := func(v string) *string { return &v }
	_, err := adm.CreateTopic(ctx, 1, -1, map[string]*string{
		"cleanup.policy": set("compact"), "segment.bytes": set(ledgerSegmentBytes),
		"segment.ms": set(ledgerSegmentMS), "min.cleanable.dirty.ratio": set(ledgerDirtyRatio),
	}, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("%w: ledger %s: create: %w", delay.ErrUnavailable, topic, err)
	}
	for { // brokers learn of it one after the other
		if _, _, err = s.bounds(ctx, 0); err == nil {
			s.log.Info("ledger topic made", zap.String("topic", topic))
			return nil
		}
		if doze(ctx, settleTime); ctx.Err() != nil {
			return err
		}
	}
}

func (s *Exact) checkPolicy(ctx context.Context, adm *kadm.Client) error {
	topic := s.cfg.LedgerTopic
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err == nil {
		var rc kadm.ResourceConfig
		rc, err = configs.On(topic, nil)
		if err == nil {
			err = rc.Err
		}
		for _, c := range rc.Configs {
			if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
				return fmt.Errorf("%w: ledger %s: cleanup.policy is %q, and would lose entries; "+
					"want compact", delay.ErrInvalid, topic, c.MaybeValue())
			}
		}
	}
	if err != nil { // not allowed to look, perhaps: whoever made the topic has to know
		s.log.Warn("cleanup.policy of the ledger is not known", zap.String("topic", topic),
			zap.Error(err))
	}
	return nil
}

// lookUp says why a transaction must not hold messages of topic, or "": a record of a topic that
// is missing or has no leader would hold up the messages of every other one (S9).
func (s *Exact) lookUp(ctx context.Context, topic string) string {
	s.mu.Lock()
	_, known := s.topics[topic]
	s.mu.Unlock()
	if known {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	details, err := kadm.NewClient(s.admin).ListTopics(ctx, topic)
	if err != nil {
		return "not sent: no broker answers"
	}
	d := details[topic]
	if d.Err != nil {
		return reason(d.Err)
	}
	for _, p := range d.Partitions {
		if p.Err != nil && !errors.Is(p.Err, kerr.ReplicaNotAvailable) || p.Leader < 0 {
			return "a partition has no leader"
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.topics) >= maxKnownTopics {
		clear(s.topics)
	}
	s.topics[strings.Clone(topic)] = struct{}{}
	return ""
}
