// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// errAnother ends a session: the topic was deleted and made again.
var errAnother = errors.New("the topic is another one of the same name")

// session is one membership in the group: one client, which polls in one goroutine, and one
// goroutine for each assigned partition.
type session struct {
	*Source

	in      broker.Intake
	cl      *kgo.Client
	ready   chan struct{} // closed when cl is set: the client calls back before it is made
	workers sync.WaitGroup
	queued  atomic.Int64  // bytes waiting, all partitions together
	room    chan struct{} // cap 1: queued has fallen
	ended   chan struct{} // closed when a worker found that nothing more can be taken
	end     func(error)   // says why, once
	reason  error         // set before ended is closed
	grumble *zap.Logger   // of errors that repeat themselves: sampled
}

// session reads until ctx is done or the session cannot go on, and leaves the group.
func (s *Source) session(ctx context.Context, in broker.Intake) error {
	n := &session{
		Source: s, in: in, room: make(chan struct{}, 1), ended: make(chan struct{}),
		ready:   make(chan struct{}),
		grumble: s.log.WithOptions(zap.WrapCore(sampled)),
	}
	var once sync.Once
	n.end = func(err error) {
		once.Do(func() { n.reason = err; close(n.ended) })
	}
	cl, err := s.opts.Client(n.options()...)
	if err != nil {
		return err
	}
	n.cl = cl
	close(n.ready)
	err = n.poll(ctx)
	cl.AllowRebalance()
	// Leaving calls revoked, which stops the partitions and commits.
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if e := cl.LeaveGroupContext(leave); e != nil {
		s.log.Warn("the group was not left: it will wait for this member", zap.Error(e))
	}
	cl.CloseAllowingRebalance() // no partition comes any more
	n.stop(s.assigned())
	n.workers.Wait()
	return err
}

func (n *session) options() []kgo.Opt {
	o := &n.opts
	read := kgo.ReadCommitted() // an aborted request was never made
	if planted.Is(planted.AbortedRead) {
		read = kgo.ReadUncommitted()
	}
	opts := []kgo.Opt{
		kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(o.Topic),
		kgo.FetchIsolationLevel(read),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // below the start of the log
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.AdjustFetchOffsetsFn(n.assign),
		kgo.OnPartitionsRevoked(n.revoked), kgo.OnPartitionsLost(n.lost),
		kgo.FetchMaxBytes(maxFetchBytes), kgo.FetchMaxPartitionBytes(maxPartitionBytes),
		kgo.MaxConcurrentFetches(maxFetches), kgo.MaxDecompressBatchBytes(maxBatchBytes),
		kgo.FetchMaxWait(time.Second),
		// Rejected records: a second copy does no harm, and giving up must be possible at any time,
		// which an idempotent producer does not allow.
		kgo.DisableIdempotentWrite(), kgo.ProducerBatchMaxBytes(maxRejectBytes),
		kgo.RecordDeliveryTimeout(rejectTimeout), kgo.UnknownTopicRetries(rejectTries),
		kgo.ProducerLinger(0),
	}
	if o.ServerSide {
		return append(opts, kgo.ServerSideBalancer())
	}
	return append(opts, kgo.SessionTimeout(o.SessionTimeout),
		kgo.HeartbeatInterval(o.SessionTimeout/4), kgo.Balancers(kgo.CooperativeStickyBalancer()))
}

// poll hands records to their partitions. Between a poll and AllowRebalance no partition comes or
// goes, so that a commit cannot be about a partition that is another member's by now.
func (n *session) poll(ctx context.Context) error {
	ticker := time.NewTicker(n.opts.CommitInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if n.queued.Load() >= maxQueued {
			select {
			case <-n.room:
			case <-ticker.C:
			case <-n.ended:
			case <-ctx.Done():
			}
		} else if err := n.pollOnce(ctx); err != nil {
			return err
		}
		select {
		case <-n.ended:
			return n.reason
		case <-ticker.C:
			n.commit(ctx, n.assigned())
		default:
		}
		n.cl.AllowRebalance()
	}
	return ctx.Err()
}

// pollOnce waits for records no longer than until the next commit, and leaves rebalances blocked.
func (n *session) pollOnce(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, n.opts.CommitInterval)
	fetches := n.cl.PollRecords(wait, maxPoll)
	cancel()
	records, failed := false, false
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			for k := range t.Partitions {
				p := &t.Partitions[k]
				if p.Err != nil && !nothing(t.Topic, p) {
					failed = true
					if err := n.trouble(t.Topic, p); err != nil {
						return err
					}
				}
				if len(p.Records) == 0 {
					continue
				}
				records = true
				if err := n.dispatch(t.TopicID, p); err != nil {
					return err
				}
			}
		}
	}
	if failed && !records {
		restFor(ctx, minRetry) // an error that comes at once and again must not keep a core busy
	}
	return nil
}

// nothing reports whether a poll says only that there was nothing in time.
func nothing(topic string, f *kgo.FetchPartition) bool {
	return topic == "" && f.Partition < 0 && !errors.Is(f.Err, kgo.ErrClientClosed)
}

// trouble acts on what a poll says of a partition, or of no partition at all. Most of it ends by
// itself: the client goes on trying.
func (n *session) trouble(topic string, f *kgo.FetchPartition) error {
	var large *kgo.ErrDecompressTooLarge
	var loss *kgo.ErrDataLoss
	switch err := f.Err; {
	case errors.As(err, &large):
		n.skip(large)
	case errors.As(err, &loss):
		n.counts.truncated.Add(1)
		n.log.Error("the broker lost records that had been read",
			zap.Int32("partition", loss.Partition), zap.Int64("read_to", loss.ConsumedTo),
			zap.Int64("goes_on_at", loss.ResetTo))
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("poll %s: %w", topic, err)
	default:
		n.grumble.Warn("the topic cannot be read now", zap.Int32("partition", f.Partition),
			zap.Error(err))
	}
	return nil
}

// skip passes a batch that would decompress beyond the limit: a few bytes from a stranger must not
// cost gigabytes (and never stop the partition, B6).
func (n *session) skip(e *kgo.ErrDecompressTooLarge) {
	n.counts.skipped.Add(e.NextOffset - e.Offset)
	n.log.Error("a batch of records is too large when decompressed and is passed over",
		zap.Int32("partition", e.Partition), zap.Int64("offset", e.Offset),
		zap.Int64("next", e.NextOffset), zap.Int("limit_bytes", maxBatchBytes))
	n.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{
		e.Topic: {e.Partition: {Epoch: e.Epoch, Offset: e.NextOffset}},
	})
}

// dispatch queues what a poll brought for one partition, and pauses a partition that has more than
// its share.
func (n *session) dispatch(topicID [16]byte, f *kgo.FetchPartition) error {
	p := n.partition(f.Partition)
	if p == nil {
		return nil // moved away; its next owner reads these
	}
	if topicID != ([16]byte{}) && topicID != p.topicID {
		return errAnother
	}
	var size int64
	for _, r := range f.Records {
		size += fetchedSize(r)
	}
	p.end.Store(f.LastStableOffset)
	n.queued.Add(size)
	if p.push(f.Records, size, f.LogStartOffset) < n.share() {
		return nil
	}
	only := map[string][]int32{n.opts.Topic: {p.number}}
	p.paused.Store(true)
	n.cl.PauseFetchPartitions(only)
	p.unpause() // the worker may have been faster
	return nil
}

// share is what one partition may have waiting, so that one that stands still leaves room to the
// others.
func (n *session) share() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int64(maxQueued / min(max(len(n.parts), 1), maxShares))
}

func fetchedSize(r *kgo.Record) int64 {
	size := len(r.Key) + len(r.Value) + fetchedOverhead
	for i := range r.Headers {
		size += len(r.Headers[i].Key) + len(r.Headers[i].Value) + fetchedOverhead/4
	}
	return int64(size)
}

// commit tells the group how far the partitions are durable, as the source was configured for, and
// no further than their rejected records are copied (B4).
func (n *session) commit(ctx context.Context, parts []*partition) {
	offsets := make(map[int32]kgo.EpochOffset, len(parts))
	moved := make(map[int32]*partition, len(parts))
	for _, p := range parts {
		if next := p.committable(); next > p.committed {
			offsets[p.number] = kgo.EpochOffset{Epoch: -1, Offset: next}
			moved[p.number] = p
		}
	}
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	n.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{n.opts.Topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, r *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				n.grumble.Warn("offsets are not committed; they will be", zap.Error(err))
				return
			}
			for _, t := range r.Topics {
				for _, a := range t.Partitions {
					if err := kerr.ErrorForCode(a.ErrorCode); err != nil {
						n.grumble.Warn("an offset is not committed; it will be",
							zap.Int32("partition", a.Partition), zap.Error(err))
					} else if p := moved[a.Partition]; p != nil {
						p.committed = offsets[a.Partition].Offset
					}
				}
			}
		})
}

// stop ends the work of parts and returns when none of them takes any more (B5). What is being
// taken may end in peace for a while; then it is given up, and read again by whoever is next.
func (n *session) stop(parts []*partition) {
	if len(parts) == 0 {
		return
	}
	for _, p := range parts {
		p.halt()
	}
	if planted.Is(planted.RevokedTakes) {
		return
	}
	grace := time.NewTimer(revokeGrace)
	defer grace.Stop()
	for _, p := range parts {
		select {
		case <-p.done:
		case <-grace.C:
			for _, q := range parts {
				q.cancel()
			}
			<-p.done
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range parts {
		if n.parts[p.number] == p {
			delete(n.parts, p.number)
		}
	}
}

// revoked and lost are called by the client, never at the same time and never between a poll and
// AllowRebalance.
func (n *session) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	parts := n.those(gone[n.opts.Topic])
	if len(parts) == 0 {
		return
	}
	n.stop(parts)
	n.commit(ctx, parts)
	n.counts.rebalances.Add(1)
	n.log.Info("partitions moved away", zap.Int32s("partitions", gone[n.opts.Topic]))
}

func (n *session) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	parts := n.those(gone[n.opts.Topic])
	n.stop(parts)
	if len(parts) > 0 {
		n.counts.rebalances.Add(1)
		n.log.Warn("partitions were lost to the group", zap.Int32s("partitions", gone[n.opts.Topic]))
	}
}

func (n *session) those(numbers []int32) []*partition {
	var parts []*partition
	for _, number := range numbers {
		if p := n.partition(number); p != nil {
			parts = append(parts, p)
		}
	}
	return parts
}

// sampled keeps one of the same message in a while.
func sampled(core zapcore.Core) zapcore.Core {
	return zapcore.NewSamplerWithOptions(core, grumbleInterval, 1, 0)
}

// fatal reports whether err of a Take says that nothing more will be taken.
func fatal(err error) bool {
	return errors.Is(err, delay.ErrClosed) || errors.Is(err, delay.ErrFenced)
}
