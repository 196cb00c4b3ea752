// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/broker/kafka/ledger"
	"github.com/cicadamq/cicada/delay"
)

// producer is a client that owns the transactional id until another one takes it.
type producer struct{ cl *kgo.Client }

func (s *Exact) newProducer(cluster string) (*producer, error) {
	opts := append(s.cfg.options(), kgo.TransactionalID(s.transactionalID(cluster)),
		kgo.TransactionTimeout(transactionTimeout), kgo.RecordRetries(exactRetries))
	cl, err := s.cfg.Connect(opts...)
	if err != nil {
		return nil, err
	}
	return &producer{cl: cl}, nil
}

func (p *producer) close() {
	if p != nil {
		p.cl.Close()
	}
}

// run is the loop: one transaction after the other until Close or another process ends it. p is
// nil when the ledger must be taken anew.
func (s *Exact) run(ctx context.Context, p *producer) {
	defer func() { p.close() }()
	pace := time.NewTimer(0)
	defer pace.Stop()
	var work [][]item // what goes into the next transactions
	for tries := 0; ctx.Err() == nil; {
		if p == nil {
			var err error
			if p, err = s.takeAgain(ctx); err != nil {
				s.giveUp(work, "not sent: the ledger cannot be taken")
				work = nil
				if errors.Is(err, delay.ErrFenced) {
					s.end()
					return
				}
				tries++
				s.log.Warn("ledger not taken", zap.Int("tries", tries), zap.Error(err))
				doze(ctx, client.Backoff(tries))
				continue
			}
			tries = 0
		}
		if len(work) == 0 {
			if !s.await(ctx, pace) {
				return
			}
			pace.Reset(s.cfg.Window)
			if batch := s.seal(); len(batch) > 0 {
				work = append(work, batch)
			}
			continue
		}
		var healthy bool
		work, healthy = s.attempt(ctx, p, work)
		if !healthy {
			p.close()
			p = nil
		}
	}
}

// doze waits, but no longer than ctx.
func doze(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// await returns when a transaction should begin: something waits, and the window since the last
// beginning has passed or much waits.
func (s *Exact) await(ctx context.Context, pace *time.Timer) bool {
	for paced := false; ; {
		s.mu.Lock()
		n := s.waiting
		s.mu.Unlock()
		if n > 0 && (paced || n >= bulk) {
			return true
		}
		select {
		case <-pace.C:
			paced = true
		case <-s.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// seal takes what the next transaction holds. What the ledger lists already is answered instead of
// sent again (K16).
func (s *Exact) seal() []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []item
	bytes, listed, n := 0, 0, 0
	for _, j := range s.queue {
		if len(batch) > 0 && (len(batch)+len(j.records) > ledger.MaxMessages ||
			bytes+j.bytes > maxTxnBytes || listed+j.listedBytes() > ledger.MaxBytes) {
			break
		}
		n++
		j.sealed = true
		s.waiting -= len(j.records)
		s.bytes -= j.bytes
		bytes += j.bytes
		listed += j.listedBytes()
		for i := range j.records {
			if _, ok := s.settled[j.done[i]]; ok {
				delete(s.settled, j.done[i])
				j.set(i, broker.Result{Outcome: broker.Delivered})
			}
			if !j.known[i] {
				batch = append(batch, item{job: j, i: i})
			}
		}
	}
	s.queue = append(s.queue[:0], s.queue[n:]...)
	return batch
}

func (j *job) listedBytes() int {
	n := 0
	for i := range j.done {
		n += ledger.Size(j.done[i].ID)
	}
	return n
}

// ended is how a transaction ended.
type ended uint8

const (
	committed ended = iota
	aborted         // and the producer may go on
	broken          // it never commits, and the producer must not go on
	doubtful        // nobody knows, and the producer must not go on
)

// attempt runs a transaction with the first group of work. It returns what is left to do, and
// whether the producer may go on.
func (s *Exact) attempt(ctx context.Context, p *producer, work [][]item) ([][]item, bool) {
	group, rest := s.present(work[0]), work[1:]
	if len(group) == 0 {
		return rest, true
	}
	if n := len(group); n > 1 && tooMuch(group) {
		return append([][]item{group[:n/2], group[n/2:]}, rest...), true
	}
	end, errs := s.transact(ctx, p, group)
	switch end {
	case committed:
		s.repeated = false
		s.commit(group)
		return rest, true
	case doubtful:
		s.doubtful(group)
		s.giveUp(rest, "not sent: how a transaction ended is not known")
		return nil, false
	}
	s.counts.aborted.Add(1)
	if end == broken && s.spoiled && !s.repeated {
		s.repeated = true // a new producer may do
		return append([][]item{group}, rest...), false
	}
	return append(s.sort(group, errs), rest...), end == aborted
}

// tooMuch reports whether the entry of group could be larger than a topic takes.
func tooMuch(group []item) bool {
	n := 0
	for _, it := range group {
		n += ledger.Size(it.listed().ID)
	}
	return n > ledger.MaxBytes || len(group) > ledger.MaxMessages
}

// doubtful keeps group until the ledger says how its transaction ended.
func (s *Exact) doubtful(group []item) {
	s.counts.doubtful.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncertain = group
}

// present is group without what nobody waits for any more.
func (s *Exact) present(group []item) []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]item, 0, len(group))
	for _, it := range group {
		if !it.gone {
			out = append(out, it)
		}
	}
	return out
}

// transact runs one transaction: the messages, then the entry that lists them, then the commit.
// errs[i] is why group[i] was not stored.
func (s *Exact) transact(ctx context.Context, p *producer, group []item) (ended, []error) {
	n, previous, old := s.number()
	key := ledger.EntryKey(s.name, n)
	done := make([]broker.Done, len(group))
	for i, it := range group {
		done[i] = it.listed()
	}
	extra := []*kgo.Record{{
		Topic: s.cfg.LedgerTopic, Key: key,
		Value: ledger.AppendEntry(nil, key, s.writer, previous, done),
	}}
	for _, o := range old {
		extra = append(extra, &kgo.Record{Topic: s.cfg.LedgerTopic, Key: ledger.EntryKey(s.name, o)})
	}
	s.doubts(done)
	errs, end := p.transaction(ctx, group, extra)
	s.spoiled = !distinct(errs) && !slices.Contains(errs, errStuck)
	if err := cmp.Or(errs...); err != nil {
		s.log.Warn("transaction given up", zap.Uint64("entry", n), zap.Error(err))
	}
	if len(errs) > 0 {
		for _, err := range errs[len(group):] {
			if err != nil {
				s.log.Warn("entry of the ledger not stored", zap.String("reason", reason(err)))
				return end, nil // and nobody's message is to blame
			}
		}
		errs = errs[:len(group)]
	}
	switch end {
	case committed:
		s.mu.Lock()
		s.newest, s.doubt = n, doubt{}
		s.kept = append(s.kept[len(old):], n)
		s.erase -= len(old)
		s.mu.Unlock()
	case doubtful:
		s.log.Warn("how a transaction ended is not known", zap.Uint64("entry", n),
			zap.Int("messages", len(group)))
	default:
		s.doubts(nil)
	}
	return end, errs
}

// number gives the next transaction its number, and the entries it may remove.
func (s *Exact) number() (n, previous uint64, old []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	old = append(old, s.kept[:min(s.erase, maxTombstones)]...)
	return s.last, s.newest, old
}

// doubts notes the messages that a transaction holds until its end is known.
func (s *Exact) doubts(done []broker.Done) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubt = doubt{list: done}
}

// errStuck is what became of a record that nobody answered in time.
var errStuck = errors.New("no answer in time")

// fates are what became of records. The library may write to it when nobody looks any more.
type fates struct {
	all *count

	mu   sync.Mutex
	errs []error
}

// transaction stores group and extra and commits. The errors, if any, are one for each of group and
// of extra.
func (p *producer) transaction(
	ctx context.Context, group []item, extra []*kgo.Record,
) ([]error, ended) {
	n := len(group) + len(extra)
	if err := p.cl.BeginTransaction(); err != nil {
		return slices.Repeat([]error{err}, n), broken
	}
	f := &fates{all: newCount(n), errs: make([]error, n)}
	for i := range n {
		f.errs[i] = errStuck
	}
	for i := range n {
		r := extra[max(i-len(group), 0)]
		if i < len(group) {
			r = group[i].record()
			*r = again(r)
		}
		p.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			f.mu.Lock()
			f.errs[i] = err
			f.mu.Unlock()
			f.all.down()
		})
	}
	errs, failed := f.await(ctx)
	if !failed {
		return nil, p.commit(ctx)
	}
	if !p.abort(ctx) || !distinct(errs) || slices.Contains(errs, errStuck) {
		return errs, broken
	}
	return errs, aborted
}

// again is r for another try: without the context of the earlier one.
func again(r *kgo.Record) kgo.Record {
	return kgo.Record{
		Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp,
	}
}

// await waits for all records, or storeTimeout.
func (f *fates) await(ctx context.Context) (errs []error, failed bool) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	select {
	case <-f.all.zero:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	failed = slices.ContainsFunc(f.errs, func(err error) bool { return err != nil })
	return slices.Clone(f.errs), failed
}

// abort ends the transaction without effect; even where it fails nothing ever commits, because
// nobody asked for it.
func (p *producer) abort(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return p.cl.BufferedProduceRecords() == 0 && p.cl.EndTransaction(ctx, kgo.TryAbort) == nil
}

// commit ends the transaction. Close must not cut it short for nothing, so it has its own time.
func (p *producer) commit(ctx context.Context) ended {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
	defer cancel()
	switch err := p.cl.EndTransaction(ctx, kgo.TryCommit); {
	case err == nil:
		return committed
	case errors.Is(err, kerr.OperationNotAttempted): // the library did not ask
		return broken
	}
	return doubtful
}

// commit answers a group that is committed.
func (s *Exact) commit(group []item) {
	s.counts.committed.Add(1)
	s.counts.messages.Add(uint64(len(group)))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range group {
		s.deliveredLocked(it)
	}
}

func (s *Exact) deliveredLocked(it item) {
	if it.gone && !it.known[it.i] {
		s.settled[it.listed()] = struct{}{}
	}
	it.set(it.i, broker.Result{Outcome: broker.Delivered})
}

// giveUp answers groups that were never sent, or never will be committed.
func (s *Exact) giveUp(groups [][]item, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, group := range groups {
		for _, it := range group {
			it.set(it.i, broker.Result{Outcome: broker.Retry, Reason: why})
		}
	}
}

// sort answers those of an aborted group that are to blame and returns the others in new groups:
// one target's trouble must not be another's (S9), nor one message's its neighbours' (S7).
func (s *Exact) sort(group []item, errs []error) [][]item {
	if errs == nil || !distinct(errs) {
		why := "the transaction was given up"
		if err := cmp.Or(errs...); err != nil {
			why = reason(err)
		}
		s.giveUp([][]item{group}, why)
		return nil
	}
	sick := map[string]bool{} // topics of which a broker refused to store something
	for i, it := range group {
		if poison(errs[i]) {
			sick[it.record().Topic] = true
		}
	}
	var good, suspects []item
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, it := range group {
		switch err := errs[i]; {
		case err != nil && !poison(err):
			delete(s.topics, it.record().Topic)
			it.set(it.i, broker.Result{Outcome: outcomeOfAborted(err), Reason: reason(err)})
		case err != nil && len(group) == 1:
			it.set(it.i, broker.Result{Outcome: broker.Rejected, Reason: reason(err)})
		case sick[it.record().Topic]: // those that were stored too: nothing overtakes within a key
			suspects = append(suspects, it)
		default:
			good = append(good, it)
		}
	}
	groups := make([][]item, 0, 3)
	for _, some := range [][]item{good, suspects[:len(suspects)/2], suspects[len(suspects)/2:]} {
		if len(some) > 0 {
			groups = append(groups, some)
		}
	}
	return groups
}

// outcomeOfAborted is verdict for a record of which nothing remains: what would be Unknown is not.
func outcomeOfAborted(err error) broker.Outcome {
	if o := verdict(err); o == broker.Rejected {
		return o
	}
	return broker.Retry
}

// distinct reports whether errors say something about records rather than about the producer.
func distinct(errs []error) bool {
	for _, err := range errs {
		if err == nil || errors.Is(err, errStuck) {
			continue
		}
		var ke *kerr.Error
		if !errors.As(err, &ke) || producerTrouble(ke) {
			return false
		}
	}
	return true
}

// producerTrouble reports whether an answer is about the producer, whatever it sends.
func producerTrouble(err *kerr.Error) bool {
	switch err {
	case kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping,
		kerr.UnknownProducerID, kerr.InvalidTxnState, kerr.OutOfOrderSequenceNumber,
		kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.OperationNotAttempted, kerr.TransactionAbortable, kerr.ConcurrentTransactions:
		return true
	}
	return false
}

// end is the end of a sink that another process has shut out.
func (s *Exact) end() {
	s.log.Error("another process has taken the ledger: nothing is delivered any more")
	unknown := broker.Result{Reason: fencedOff}
	s.mu.Lock()
	s.phase = fenced
	for _, it := range s.uncertain {
		it.set(it.i, unknown)
	}
	for _, j := range s.queue {
		for i := range j.records {
			j.set(i, unknown)
		}
	}
	s.uncertain, s.queue, s.waiting, s.bytes = nil, nil, 0, 0
	s.mu.Unlock()
	close(s.over)
}

// errFenced says who is not the owner any more.
func (s *Exact) errFenced() error {
	return fmt.Errorf("%w: ledger %s of broker %s has another writer", delay.ErrFenced,
		s.cfg.LedgerTopic, s.cfg.Broker)
}
