// SPDX-License-Identifier: Apache-2.0

// Package sink is the two sinks of package kafka, which checks their configuration.
//
//	Sink   Deliver --records--> library --> brokers                        idempotent
//	Exact  Deliver --job--> queue --seal--> loop: begin . store . commit   exactly once
//	                                          |  ^
//	                       an end not known --+  +-- take: fence . sign . read the ledger
//
// The invariants K11 to K17 are in the documentation of package kafka.
package sink

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/delay"
)

// Limits of a sink.
const (
	// recordRetries bounds the tries of one Deliver after answers that say "later": about 9 s of
	// pauses. What is still refused then is the lane's to try again (B3).
	recordRetries = 8
	// unknownRetries is how often a missing topic is asked for, a second and a half together: it
	// may just have been made.
	unknownRetries = 4
)

// Config is what package kafka has checked and completed.
type Config struct {
	Broker string
	// Connect makes a client of the cluster; that of an idempotent sink tells Wire what it writes.
	Connect func(...kgo.Opt) (*kgo.Client, error)
	Wire    *Wire
	Logger  *zap.Logger

	MaxMessageBytes int
	DeliverTimeout  time.Duration

	LedgerTopic string // "" for an idempotent sink
	Window      time.Duration
	Cluster     func() string
	Shard       delay.Shard
}

// internalTopic reports whether a topic is Kafka's own.
func internalTopic(name string) bool {
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata":
		return true
	}
	return false
}

// topic is where target goes, as a copy: the library keeps it for ever (K11). An error is a
// *delay.FieldError.
func (c *Config) topic(target delay.Target) (string, error) {
	topic, err := c.lent(target)
	return strings.Clone(topic), err
}

// lent is topic without the copy: a source checks the target of every record.
func (c *Config) lent(target delay.Target) (string, error) {
	rest, ok := strings.CutPrefix(string(target), "kafka:")
	if !ok {
		return "", delay.Invalid("target", "want kafka:%s/<topic>", c.Broker)
	}
	name, topic, ok := strings.Cut(rest, "/")
	if !ok || name != c.Broker {
		return "", delay.Invalid("target", "want kafka:%s/<topic>", c.Broker)
	}
	if err := client.CheckTopic(topic); err != nil {
		return "", delay.Invalid("target", "%v", err)
	}
	if internalTopic(topic) || topic == c.LedgerTopic {
		return "", delay.Invalid("target", "topic %s is not for messages", topic)
	}
	return topic, nil
}

// options are those of every producer of the sink. Nothing lingers: a batch arrives whole, and in
// exactly_once mode the window gathers.
func (c *Config) options(more ...kgo.Opt) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(int32(c.MaxMessageBytes)),
		kgo.UnknownTopicRetries(unknownRetries), kgo.RecordRetries(recordRetries),
	}, more...)
}

// Sink produces to the topics of a cluster, at least once and without losing the order of a
// batch's equal keys. It is safe for concurrent use.
type Sink struct {
	cfg    Config
	wire   *Wire
	client *kgo.Client
	// alone sends what was refused together with others again, by itself (K13). Who holds the token
	// uses it.
	alone *kgo.Client
	token chan struct{}
}

var (
	_ broker.Sink    = (*Sink)(nil)
	_ broker.Checker = (*Sink)(nil)
)

// New makes a sink in idempotent mode. It connects lazily.
func New(cfg Config) (*Sink, error) {
	s := &Sink{cfg: cfg, wire: cfg.Wire, token: make(chan struct{}, 1)}
	// A Deliver ends with its context (B3): the library may then forget a request whose answer
	// never came. What this can repeat is reported as Unknown.
	opts := cfg.options(kgo.AllowIdempotentProduceCancellation())
	var err error
	if s.client, err = cfg.Connect(opts...); err != nil {
		return nil, err
	}
	if s.alone, err = cfg.Connect(opts...); err != nil {
		s.client.Close()
		return nil, err
	}
	return s, nil
}

// Check implements broker.Checker.
func (s *Sink) Check(target delay.Target) error {
	_, err := s.cfg.lent(target)
	return err
}

// Close ends every connection.
func (s *Sink) Close() error {
	s.client.Close()
	s.alone.Close()
	return nil
}

// Deliver implements broker.Sink.
func (s *Sink) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	if len(batch) == 0 || ctx.Err() != nil {
		return
	}
	topic, err := s.cfg.topic(batch[0].Target)
	if err != nil {
		for i := range batch {
			results[i] = broker.Result{Outcome: broker.Rejected, Reason: err.Error()}
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DeliverTimeout)
	defer cancel()
	c := s.cfg.newShipment(topic, batch, false)
	mark := s.wire.mark()
	errs := s.produce(ctx, s.client, c.records, c.fits)
	var refused []int
	for i, err := range errs {
		switch {
		case !c.fits[i]:
			results[i] = tooLarge(s.cfg.MaxMessageBytes)
		case poison(err):
			refused = append(refused, i)
		default:
			results[i] = s.wire.result(mark, err)
		}
	}
	s.sift(ctx, c.records, refused, results)
}

// produce sends the records of which fits holds and returns when the library has let go of all of
// them (K11), with what became of each.
func (s *Sink) produce(
	ctx context.Context, cl *kgo.Client, records []kgo.Record, fits []bool,
) []error {
	errs := make([]error, len(records))
	all := newCount(len(records))
	for i := range records {
		if fits != nil && !fits[i] {
			all.down()
			continue
		}
		cl.Produce(ctx, &records[i], func(_ *kgo.Record, err error) {
			errs[i] = err
			all.down()
		})
	}
	<-all.zero
	return errs
}

// sift finds out which of the records that were refused together with their neighbours are to
// blame (B1): it sends them again in halves. It returns with ctx at the latest.
func (s *Sink) sift(
	ctx context.Context, records []kgo.Record, refused []int, results []broker.Result,
) {
	if len(refused) == 0 {
		return
	}
	for _, i := range refused {
		results[i] = broker.Result{Outcome: broker.Retry, Reason: "refused with its neighbours"}
	}
	select {
	case s.token <- struct{}{}:
		defer func() { <-s.token }()
	case <-ctx.Done():
		return
	}
	for groups := halves(nil, refused); len(groups) > 0 && ctx.Err() == nil; {
		group := groups[len(groups)-1]
		groups = groups[:len(groups)-1]
		some := make([]kgo.Record, len(group))
		for n, i := range group {
			some[n] = records[i]
		}
		mark := s.wire.mark()
		var again []int
		for n, err := range s.produce(ctx, s.alone, some, nil) {
			i := group[n]
			switch {
			case !poison(err):
				results[i] = s.wire.result(mark, err)
			case len(group) == 1:
				results[i] = broker.Result{Outcome: broker.Rejected, Reason: reason(err)}
			default:
				again = append(again, i)
			}
		}
		groups = halves(groups, again)
	}
}

// halves pushes the two halves of group, the first one on top so that it is sent first.
func halves(groups [][]int, group []int) [][]int {
	switch n := len(group); n {
	case 0:
		return groups
	case 1:
		return append(groups, group)
	default:
		return append(groups, group[n/2:], group[:n/2])
	}
}

func tooLarge(most int) broker.Result {
	return broker.Result{
		Outcome: broker.Rejected, Reason: fmt.Sprintf("larger than %d bytes", most),
	}
}
