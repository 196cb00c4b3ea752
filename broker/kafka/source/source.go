// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/delay"
)

// Limits of a source. Together they bound its memory: what the client library holds (one fetch a
// broker, as the brokers compressed it), what waits for its turn, and what is being taken.
const (
	maxFetchBytes     = 8 << 20  // of one answer, compressed
	maxPartitionBytes = 1 << 20  // of one partition in it
	maxBatchBytes     = 32 << 20 // of one batch of records, decompressed; larger ones are skipped
	maxFetches        = 4        // answers held or under way, all brokers together
	maxPoll           = 10_000   // records handed over at a time
	maxQueued         = 64 << 20 // bytes waiting for their turn, all partitions together
	maxShares         = 8        // of that a partition has one, unless there are fewer partitions
	maxTaking         = 16       // Takes under way
	maxTakeBytes      = 4 << 20  // of records in one Take
	fetchedOverhead   = 200      // bytes a record costs beside what is in it

	minRetry = 50 * time.Millisecond
	maxRetry = 2 * time.Second

	grumbleInterval = 10 * time.Second // between two lines that say the same

	revokeGrace   = 3 * time.Second // for a Take under way when its partition moves away
	commitTimeout = 5 * time.Second
	leaveTimeout  = 5 * time.Second
)

// Defaults of Options.
const (
	DefaultCommitInterval = time.Second
	DefaultSessionTimeout = 10 * time.Second
)

// Config says how to reach the cluster.
type Config = client.Config

// Options say what to read.
type Options struct {
	Config

	Topic string
	// Group is the consumer group, of which this source is a member. Its members share the
	// partitions; its committed offsets are where reading begins on a shard that never read them.
	Group string
	// Tier commits offsets only when the bucket has the messages, and has them uploaded with the
	// next flush (commit: tier). Otherwise the local disk is enough.
	Tier bool
	// IDFromKey takes the ids of messages from the records' keys, where no header gives one.
	IDFromKey bool
	// CheckTarget refuses targets that can never work, without I/O. nil: the shard alone does.
	CheckTarget func(delay.Target) error
	// RejectTopic gets the records that can be no request, "" is none: they are counted and logged.
	RejectTopic string
	// ServerSide uses the group protocol of KIP-848, in which the broker assigns the partitions; its
	// time limits are then the broker's, too.
	ServerSide bool
	// CommitInterval is how often offsets are committed. 0: DefaultCommitInterval.
	CommitInterval time.Duration
	// SessionTimeout is how long the group waits for a member that died, unless ServerSide. 0:
	// DefaultSessionTimeout. Brokers refuse less than their group.min.session.timeout.ms (6 s).
	SessionTimeout time.Duration
}

// Stats is what a source has done since it was made, and how it stands.
type Stats struct {
	Taken      int64            // records that the shard took, repeated ones and cancels included
	Rejected   map[string]int64 // records that were not, by code as in the API
	Uncopied   int64            // of those, records that the reject topic did not take
	Missing    int64            // offsets that retention had removed before they were read
	Skipped    int64            // offsets in batches that decompress beyond the limit
	Truncated  int64            // times that the broker lost records that had been read
	Rebalances int64            // times that partitions came or went
	Restarts   int64            // times that the connections were made anew
	Partitions int              // assigned now
	Lag        int64            // offsets between what was taken and the end, of those partitions
}

// Source reads requests from a topic.
type Source struct {
	opts   Options
	log    *zap.Logger
	slots  chan *slot // free places to take at
	counts counts

	mu    sync.Mutex
	parts map[int32]*partition // assigned now
}

// counts are the running totals of Stats.
type counts struct {
	taken, uncopied, missing, skipped, truncated, rebalances, restarts atomic.Int64

	mu       sync.Mutex
	rejected map[string]int64
}

var _ broker.Source = (*Source)(nil)

// New checks opts and does no I/O; what is wrong with them wraps delay.ErrInvalid.
func New(opts Options) (*Source, error) {
	cfg, err := opts.Complete()
	if err != nil {
		return nil, err
	}
	opts.Config = cfg
	field := "brokers." + cfg.Broker + ".sources."
	if err := client.CheckTopic(opts.Topic); err != nil {
		return nil, delay.Invalid(field+"topic", "%s", err.Error())
	}
	if opts.Group == "" {
		return nil, delay.Invalid(field+"group", "must not be empty")
	}
	if opts.RejectTopic != "" {
		if err := client.CheckTopic(opts.RejectTopic); err != nil {
			return nil, delay.Invalid(field+"reject_topic", "%s", err.Error())
		}
	}
	if opts.RejectTopic == opts.Topic {
		return nil, delay.Invalid(field+"reject_topic", "is the topic itself: a record that can be "+
			"no request would come back for ever")
	}
	if opts.CommitInterval < 0 || opts.SessionTimeout < 0 {
		return nil, delay.Invalid(field+"group", "a time limit is negative")
	}
	if opts.CommitInterval == 0 {
		opts.CommitInterval = DefaultCommitInterval
	}
	if opts.SessionTimeout == 0 {
		opts.SessionTimeout = DefaultSessionTimeout
	}
	s := &Source{
		opts: opts, parts: make(map[int32]*partition), slots: make(chan *slot, maxTaking),
		log: opts.Logger.With(zap.String("topic", opts.Topic), zap.String("group", opts.Group)),
	}
	for range maxTaking {
		s.slots <- nil // made when it is needed
	}
	return s, nil
}

// Name is what metrics call the source: kafka:<broker>/<topic>.
func (s *Source) Name() string { return "kafka:" + s.opts.Broker + "/" + s.opts.Topic }

// Run implements broker.Source. A session is the life of one membership in the group; it ends when
// the topic turns out to be another one of the same name, or the client can no longer go on.
func (s *Source) Run(ctx context.Context, in broker.Intake) error {
	for wait := minRetry; ; wait = min(2*wait, maxRetry) {
		err := s.session(ctx, in)
		switch {
		case ctx.Err() != nil, errors.Is(err, delay.ErrClosed):
			return nil //nolint:nilerr // the end that was asked for
		case errors.Is(err, delay.ErrInvalid), errors.Is(err, delay.ErrFenced):
			return fmt.Errorf("source %s: %w", s.Name(), err)
		}
		s.counts.restarts.Add(1)
		s.log.Warn("joining the group anew", zap.Error(err))
		if !restFor(ctx, wait) {
			return nil
		}
	}
}

// Close implements broker.Source: there is nothing to release after Run.
func (*Source) Close() error { return nil }

// Stats may be called at any time.
func (s *Source) Stats() Stats {
	c := &s.counts
	c.mu.Lock()
	rejected := maps.Clone(c.rejected)
	c.mu.Unlock()
	st := Stats{
		Taken: c.taken.Load(), Rejected: rejected, Uncopied: c.uncopied.Load(),
		Missing: c.missing.Load(), Skipped: c.skipped.Load(), Truncated: c.truncated.Load(),
		Rebalances: c.rebalances.Load(), Restarts: c.restarts.Load(),
	}
	for _, p := range s.assigned() {
		st.Partitions++
		st.Lag += max(p.end.Load()-p.at.Load(), 0)
	}
	return st
}

// reject counts a record that was not taken, by code.
func (c *counts) reject(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejected == nil {
		c.rejected = make(map[string]int64)
	}
	c.rejected[code]++
}

// assigned are the partitions of now.
func (s *Source) assigned() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*partition, 0, len(s.parts))
	for _, p := range s.parts {
		all = append(all, p)
	}
	return all
}

func (s *Source) partition(n int32) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[n]
}

// restFor waits, and reports whether ctx is still alive.
func restFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
