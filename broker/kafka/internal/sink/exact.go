// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/ledger"
	"github.com/cicadamq/cicada/delay"
)

// Bounds of a sink in exactly_once mode.
const (
	// bulk messages do not wait for the window: a commit costs a millisecond or two.
	bulk          = 512
	maxTxnBytes   = 32 << 20 // of the messages of one transaction
	maxWaiting    = 64 << 10 // messages that wait for a transaction
	maxWaitBytes  = 256 << 20
	maxTombstones = 500 // of one transaction

	// transactionTimeout is when the brokers end what a process that vanished has left open: until
	// then readers of committed messages wait at it. It is well above stepTimeout.
	transactionTimeout = 30 * time.Second
	// stepTimeout bounds each of: ending the transaction, taking the ledger.
	stepTimeout = 10 * time.Second
	// storeTimeout bounds storing the messages: what takes longer holds up other targets.
	storeTimeout = 5 * time.Second
	// exactRetries is recordRetries of a transaction, shorter because its neighbours wait.
	exactRetries = 4
)

// phase is what an Exact may do.
type phase uint8

const (
	unread phase = iota // the ledger was not read yet
	ready
	fenced // by another process: for good
	closed
)

// Exact produces to the topics of a cluster exactly once: every transaction holds messages and the
// entry of the ledger that lists them. It is safe for concurrent use.
type Exact struct {
	cfg    Config
	writer ledger.Writer
	log    *zap.Logger
	admin  *kgo.Client // looks topics up
	counts txnCounts

	life context.Context // of the loop; set by Recover
	stop context.CancelFunc
	loop sync.WaitGroup

	// Of Recover, and of the loop afterwards.
	name      string // of the ledger's keys
	position  int64  // up to where the ledger was read
	wasSigned bool   // by a process before this one
	spoiled   bool   // the last transaction failed for its producer, and nothing holds its records
	repeated  bool   // and was tried again

	wake chan struct{} // something waits, or the loop should look again
	over chan struct{} // closed when fenced

	mu      sync.Mutex
	phase   phase
	queue   []*job
	waiting int // messages in queue
	bytes   int
	last    uint64 // the highest number given to a transaction
	newest  uint64 // the newest entry that is committed
	kept    []uint64
	erase   int // of kept, the first ones: they may be forgotten
	// uncertain is the group whose transaction ended nobody knows how; doubt lists its messages, or
	// those of the transaction under way.
	uncertain []item
	doubt     doubt
	// settled lists messages that are committed and were answered Unknown: the next attempt is
	// answered without sending (K16).
	settled map[broker.Done]struct{}
	topics  map[string]struct{} // known to exist and to have leaders
}

var (
	_ broker.Sink    = (*Exact)(nil)
	_ broker.Checker = (*Exact)(nil)
	_ broker.Ledger  = (*Exact)(nil)
)

// NewExact makes a sink in exactly_once mode. It connects lazily.
func NewExact(cfg Config) (*Exact, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	s := &Exact{
		cfg: cfg, writer: ledger.Writer(binary.BigEndian.Uint64(random[:])), log: cfg.Logger,
		wake: make(chan struct{}, 1), over: make(chan struct{}),
		settled: map[broker.Done]struct{}{}, topics: map[string]struct{}{},
	}
	var err error
	if s.admin, err = cfg.Connect(kgo.RequestRetries(adminRetries)); err != nil {
		return nil, err
	}
	p, err := s.newProducer("check") // only a producer finds some mistakes of a configuration
	if err != nil {
		s.admin.Close()
		return nil, err
	}
	p.close()
	return s, nil
}

// Check implements broker.Checker.
func (s *Exact) Check(target delay.Target) error {
	_, err := s.cfg.lent(target)
	return err
}

// Fenced is closed when another process has taken the ledger. Nothing is delivered any more, every
// result is Unknown, and the process must end.
func (s *Exact) Fenced() <-chan struct{} { return s.over }

// Last implements broker.Ledger. A transaction that is still collecting has no number yet.
func (s *Exact) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Forget implements broker.Ledger: the entries are removed with later transactions. There is no
// hurry, because only transactions add to the ledger.
func (s *Exact) Forget(_ context.Context, n uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.erase < len(s.kept) && s.kept[s.erase] <= n {
		s.erase++
	}
	return nil
}

// Close ends the loop and every connection. A transaction under way is given up.
func (s *Exact) Close() error {
	s.mu.Lock()
	if s.phase != fenced {
		s.phase = closed
	}
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	s.loop.Wait()
	s.admin.Close()
	return nil
}

// job is one Deliver. Its records hold copies: it may be over before its transaction.
type job struct {
	shipment

	done     []broker.Done // what an entry says of each record
	finished chan struct{} // closed when no result is missing

	// The rest is guarded by Exact.mu.
	results []broker.Result
	known   []bool
	missing int
	sealed  bool // handed to the loop
	gone    bool // Deliver has returned
}

// item is one message of a job.
type item struct {
	*job

	i int
}

func (it item) record() *kgo.Record { return &it.records[it.i] }
func (it item) listed() broker.Done { return it.job.done[it.i] }

func (s *Exact) newJob(topic string, batch []broker.Delivery) *job {
	j := &job{
		shipment: *s.cfg.newShipment(topic, batch, true), done: make([]broker.Done, len(batch)),
		finished: make(chan struct{}), results: make([]broker.Result, len(batch)),
		known: make([]bool, len(batch)), missing: len(batch),
	}
	bytes := 0
	for i := range batch {
		bytes += len(batch[i].ID)
	}
	var ids strings.Builder // one copy of all
	ids.Grow(bytes)
	for i := range batch {
		at := ids.Len()
		ids.WriteString(string(batch[i].ID))
		j.done[i] = broker.Done{
			ID: delay.ID(ids.String()[at:]), Generation: batch[i].Generation,
		}
	}
	return j
}

// doubt is a list of messages. It is rarely looked at, and only then made a set.
type doubt struct {
	list []broker.Done
	set  map[broker.Done]struct{} // nil: not made yet
}

func (d *doubt) has(m broker.Done) bool {
	if d.set == nil && len(d.list) > 0 {
		d.set = make(map[broker.Done]struct{}, len(d.list))
		for _, l := range d.list {
			d.set[l] = struct{}{}
		}
	}
	_, is := d.set[m]
	return is
}

// set gives a message its result. The caller holds Exact.mu.
func (j *job) set(i int, r broker.Result) {
	if j.known[i] {
		return
	}
	j.known[i], j.results[i] = true, r
	if j.missing--; j.missing == 0 {
		close(j.finished)
	}
}

// Deliver implements broker.Sink. What waits for a transaction when its time is over is Retry, what
// is in one is Unknown until its end is known.
func (s *Exact) Deliver(ctx context.Context, batch []broker.Delivery, results []broker.Result) {
	if len(batch) == 0 || ctx.Err() != nil {
		return
	}
	topic, err := s.cfg.topic(batch[0].Target)
	if err != nil {
		fill(results, broker.Rejected, err.Error())
		return
	}
	if s.answerAll(results) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DeliverTimeout)
	defer cancel()
	if why := s.lookUp(ctx, topic); why != "" {
		fill(results, broker.Retry, why)
		s.answerSettled(batch, results)
		return
	}
	j := s.newJob(topic, batch)
	if !s.enqueue(j) {
		fill(results, broker.Retry, "too much waits for a transaction")
		return
	}
	select {
	case <-j.finished:
	case <-ctx.Done():
	}
	s.collect(j, results)
}

func fill(results []broker.Result, o broker.Outcome, why string) {
	for i := range results {
		results[i] = broker.Result{Outcome: o, Reason: why}
	}
}

// answerAll answers where nothing is sent at all.
func (s *Exact) answerAll(results []broker.Result) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case ready:
		return false
	case unread:
		fill(results, broker.Retry, "the ledger was not read yet")
	case fenced:
		fill(results, broker.Unknown, fencedOff)
	default:
		fill(results, broker.Retry, "closed")
	}
	return true
}

// answerSettled answers what can be answered although the topic is not there.
func (s *Exact) answerSettled(batch []broker.Delivery, results []broker.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range batch {
		d := broker.Done{ID: batch[i].ID, Generation: batch[i].Generation}
		if _, ok := s.settled[d]; ok {
			delete(s.settled, d)
			results[i] = broker.Result{Outcome: broker.Delivered}
		} else if s.doubt.has(d) {
			results[i] = broker.Result{Reason: inDoubt}
		}
	}
}

// Reasons of results that are Unknown.
const (
	inDoubt   = "it is not known yet how its transaction ended"
	fencedOff = "fenced: another process has taken the ledger"
)

// enqueue has j delivered by a transaction that begins later than any that Last knows of.
func (s *Exact) enqueue(j *job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting > 0 && (s.waiting+len(j.records) > maxWaiting || s.bytes+j.bytes > maxWaitBytes) {
		return false
	}
	for i, fits := range j.fits {
		if !fits {
			j.set(i, tooLarge(s.cfg.MaxMessageBytes))
		}
	}
	s.queue = append(s.queue, j)
	s.waiting += len(j.records)
	s.bytes += j.bytes
	s.signal()
	return true
}

func (s *Exact) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// collect ends the Deliver of j: nothing is written to its results any more.
func (s *Exact) collect(j *job, results []broker.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !j.sealed {
		s.unqueue(j)
	}
	j.gone = true
	for i := range results {
		if j.known[i] {
			results[i] = j.results[i]
			continue
		}
		if j.sealed || s.phase == fenced || s.doubt.has(j.done[i]) {
			results[i] = broker.Result{Reason: inDoubt}
			continue
		}
		results[i] = broker.Result{Outcome: broker.Retry, Reason: "not sent: no transaction in time"}
	}
}

func (s *Exact) unqueue(j *job) {
	for n, o := range s.queue {
		if o == j {
			s.queue = append(s.queue[:n], s.queue[n+1:]...)
			s.waiting -= len(j.records)
			s.bytes -= j.bytes
			return
		}
	}
}

// txnCounts are what Stats tells.
type txnCounts struct {
	committed, aborted, doubtful, messages, fences atomic.Uint64
}

// TxnStats are counts since the sink was made.
type TxnStats struct {
	Committed uint64 // transactions with messages
	Aborted   uint64 // given up; their messages were Retry, Rejected or sent again
	Doubtful  uint64 // whose end had to be looked up in the ledger
	Messages  uint64 // committed
	Fences    uint64 // times the ledger was taken, the first one included
	Waiting   int    // messages that wait for a transaction
	Entries   int    // of the ledger that were not removed yet
	Settled   int    // messages committed but answered Unknown and not asked for since
}

// Stats tells how the sink does.
func (s *Exact) Stats() TxnStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return TxnStats{
		Committed: s.counts.committed.Load(), Aborted: s.counts.aborted.Load(),
		Doubtful: s.counts.doubtful.Load(), Messages: s.counts.messages.Load(),
		Fences: s.counts.fences.Load(), Waiting: s.waiting, Entries: len(s.kept),
		Settled: len(s.settled),
	}
}

// transactionalID names the producer: of all that use it, brokers let only the newest write.
func (s *Exact) transactionalID(cluster string) string {
	return fmt.Sprintf("cicada-%s-%d-%s", cluster, s.cfg.Shard, s.cfg.Broker)
}
