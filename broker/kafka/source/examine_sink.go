// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
)

// What a clock may be off by.
const (
	clockNote = 500 * time.Millisecond
	clockBad  = 2 * time.Second // the daemon itself does not follow such a step (rule R21)
)

// ExamineTransactions tries whether a sink in exactly_once mode could work: it begins a transaction
// with one record to the ledger's topic, asks the broker when that was, and aborts it. Readers of
// committed records never see it.
func ExamineTransactions(ctx context.Context, cfg Config, ledger string) []broker.Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	e := &examination{}
	cfg, err := cfg.Complete()
	if err != nil {
		e.add("transactions", broker.Bad, "%v", err)
		return e.found
	}
	id := "cicada-doctor-" + cfg.Broker
	if e.cl, err = cfg.Client(kgo.TransactionalID(id), kgo.RetryTimeout(examineTimeout/2),
		kgo.RecordRetries(2), kgo.UnknownTopicRetries(1)); err != nil {
		e.add("transactions", broker.Bad, "%v", err)
		return e.found
	}
	defer e.cl.Close()
	e.adm = kadm.NewClient(e.cl)
	if all, err := e.adm.ListTopics(ctx, ledger); err == nil &&
		errors.Is(all[ledger].Err, kerr.UnknownTopicOrPartition) {
		e.add("ledger "+ledger, broker.Note, "is not there yet: the first start makes it, and "+
			"transactions were not tried")
		return e.found
	}
	e.topic(ctx, "ledger "+ledger, ledger, kmsg.ACLOperationWrite)
	e.transaction(ctx, &cfg, id, ledger)
	return e.found
}

// sizeUnlessConfigured is what brokers take when nobody says otherwise.
const sizeUnlessConfigured = 1_048_588

// ExamineSize compares the largest message that a sink sends with what the brokers take.
func ExamineSize(ctx context.Context, cfg Config, most int64) broker.Finding {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	e := &examination{}
	const check = "largest message"
	taken, err := largestTaken(ctx, cfg)
	switch {
	case err != nil:
		e.add(check, broker.Note, "%d bytes; what the brokers take cannot be seen: %v", most, err)
	case most > taken:
		e.add(check, broker.Warn, "%d bytes, and the brokers take %d (message.max.bytes) unless a topic "+
			"says otherwise: what is larger becomes a dead letter", most, taken)
	case most < taken && taken > sizeUnlessConfigured:
		e.add(check, broker.Note, "%d bytes (sink.max_message), though the brokers take %d: what is "+
			"larger becomes a dead letter", most, taken)
	default:
		e.add(check, broker.Good, "%d bytes, and the brokers take %d", most, taken)
	}
	return e.found[0]
}

// largestTaken is what every broker takes.
func largestTaken(ctx context.Context, cfg Config) (int64, error) {
	cfg, err := cfg.Complete()
	if err != nil {
		return 0, err
	}
	cl, err := cfg.Client(kgo.RetryTimeout(examineTimeout / 2))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return 0, err
	}
	all, err := adm.DescribeBrokerConfigs(ctx, meta.Brokers.NodeIDs()...)
	if err != nil {
		return 0, err
	}
	least := int64(math.MaxInt64)
	for i := range all {
		if all[i].Err != nil {
			return 0, all[i].Err
		}
		for _, c := range all[i].Configs {
			n, err := strconv.ParseInt(c.MaybeValue(), 10, 64)
			if c.Key == "message.max.bytes" && err == nil {
				least = min(least, n)
			}
		}
	}
	if least == math.MaxInt64 {
		return 0, errors.New("they do not tell")
	}
	return least, nil
}

func (e *examination) transaction(ctx context.Context, cfg *Config, id, ledger string) {
	const check = "transactions"
	// Its producer is made first, so that the clock is read around little else.
	if _, _, err := e.cl.ProducerID(ctx); err != nil {
		e.add(check, broker.Bad, "%v", err)
		return
	}
	if err := e.cl.BeginTransaction(); err != nil {
		e.add(check, broker.Bad, "%v", err)
		return
	}
	before := cfg.Now()
	err := e.cl.ProduceSync(ctx, &kgo.Record{Topic: ledger, Key: []byte(id)}).FirstErr()
	after := cfg.Now()
	var began int64
	if err == nil {
		if all, err := e.adm.DescribeTransactions(ctx, id); err == nil {
			began = all[id].StartTimestamp
		}
	}
	if abort := e.cl.EndTransaction(ctx, kgo.TryAbort); err == nil {
		err = abort
	}
	if err != nil {
		e.add(check, broker.Bad, "%v", err)
		return
	}
	e.add(check, broker.Good, "one was begun and aborted")
	if began <= 0 {
		e.add("clock", broker.Note, "the broker does not tell its time")
		return
	}
	offset := time.UnixMilli(began).Sub(before.Add(after.Sub(before) / 2))
	verdict := broker.Good
	switch slack := after.Sub(before) / 2; {
	case offset.Abs() > clockBad+slack:
		verdict = broker.Bad
	case offset.Abs() > clockNote+slack:
		verdict = broker.Warn
	}
	e.add("clock", verdict, "the broker's is %s from ours", offset.Round(time.Millisecond))
}
