// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/delay"
)

// lab is a stream on a real server, and a plain client beside ours.
type lab struct {
	realtest.Broker

	t      testing.TB
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	name   string // of the stream, and the first part of its subjects
}

func realStream(t testing.TB, cfg jetstream.StreamConfig) *lab {
	t.Helper()
	r := &lab{Broker: realtest.NATS(t), t: t, name: realtest.Name(t)}
	var err error
	r.nc, err = nats.Connect(r.Addr, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(r.nc.Close)
	r.js, err = jetstream.New(r.nc)
	require.NoError(t, err)
	cfg.Name, cfg.Subjects = r.name, []string{r.name + ".>"}
	r.stream, err = r.js.CreateStream(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.js.DeleteStream(context.Background(), r.name) })
	return r
}

func (r *lab) config() Config {
	log := zaptest.NewLogger(r.t, zaptest.Level(zap.WarnLevel))
	if testing.Verbose() {
		log = zaptest.NewLogger(r.t)
	}
	return Config{Broker: "n1", URLs: []string{r.Addr}, AckTimeout: 3 * time.Second, Logger: log}
}

func (r *lab) sink() *Sink {
	s, err := NewSink(r.config())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = s.Close() })
	waitFor(r.t, s.nc.IsConnected)
	return s
}

func (r *lab) target(subject string) delay.Target {
	return delay.Target("nats:n1/" + r.name + "." + subject)
}

func (r *lab) messages(n int) []*nats.Msg {
	r.t.Helper()
	c, err := r.js.OrderedConsumer(r.t.Context(), r.name, jetstream.OrderedConsumerConfig{})
	require.NoError(r.t, err)
	var all []*nats.Msg
	for range n {
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		require.NoError(r.t, err)
		all = append(all, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	}
	return all
}

func (r *lab) info() jetstream.StreamState {
	info, err := r.stream.Info(r.t.Context())
	require.NoError(r.t, err)
	return info.State
}

// send publishes requests from..to-1 as a plain client.
func (r *lab) send(from, to int) {
	r.t.Helper()
	for i := from; i < to; i++ {
		_, err := r.js.PublishMsgAsync(request(r.name, i), jetstream.WithStallWait(patience))
		require.NoError(r.t, err)
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-time.After(patience):
		require.Fail(r.t, "the server does not take what is published")
	}
}

func request(stream string, i int) *nats.Msg {
	return &nats.Msg{
		Subject: stream + ".s" + strconv.Itoa(i%3), Data: []byte(strconv.Itoa(i)),
		Header: nats.Header{
			"Nats-Msg-Id": {"id-" + strconv.Itoa(i)}, "cicada-delay": {"1h"},
			"cicada-target": {"pull:q"},
		},
	}
}

// The conformance suite, with a stream as the receiver.
func TestRealSinkConformance(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		r := realStream(t, jetstream.StreamConfig{Storage: jetstream.MemoryStorage})
		return brokertest.Subject{
			Sink: r.sink(), Target: r.target("out"),
			Received: func() []brokertest.Received {
				var all []brokertest.Received
				for _, m := range r.messages(int(r.info().Msgs)) {
					attempt, _ := strconv.Atoi(m.Header.Get("cicada-attempt"))
					all = append(all, brokertest.Received{
						ID: delay.ID(m.Header.Get("cicada-id")), Attempt: uint32(attempt), Body: m.Data,
					})
				}
				return all
			},
		}
	})
}

// What a stream answers in each case, in its own words: the codes may not be what we think.
func TestRealSinkAnswers(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{
		MaxMsgSize: 1000, MaxMsgs: 100, Discard: jetstream.DiscardNew,
	})
	s := r.sink()
	d := delivery1("a")
	d.Target = "nats:n1/nobody.listens"
	got := one(s, d)
	require.Equal(t, broker.Result{
		Outcome: broker.Retry, Reason: "no stream holds this subject",
	}, got)
	d.Target = r.target("a")
	require.Equal(t, broker.Delivered, one(s, d).Outcome)
	d.Attempt = 2
	require.Equal(t, broker.Delivered, one(s, d).Outcome, "a repeated attempt is a duplicate")
	require.EqualValues(t, 1, r.info().Msgs, "the server's window keeps one")
	d.Generation = 2
	require.Equal(t, broker.Delivered, one(s, d).Outcome)
	require.EqualValues(t, 2, r.info().Msgs, "another generation is another message")

	large := delivery1("large")
	large.Target, large.Body = d.Target, make([]byte, 2000)
	require.Equal(t, broker.Rejected, one(s, large).Outcome)
	large.Body = make([]byte, 8<<20)
	require.Equal(t, broker.Rejected, one(s, large).Outcome, "above max_payload")
	require.True(t, s.nc.IsConnected())

	batch := make([]broker.Delivery, 100)
	for i := range batch {
		batch[i] = delivery1(delay.ID(fmt.Sprint("b", i)))
		batch[i].Target = d.Target
	}
	results := make([]broker.Result, len(batch))
	s.Deliver(t.Context(), batch, results)
	for i := range results {
		want := broker.Delivered
		if i >= 98 {
			want = broker.Retry // the stream is full
		}
		require.Equal(t, want, results[i].Outcome, "%d: %s", i, results[i].Reason)
	}
	for i, m := range r.messages(100)[2:] {
		require.Equal(t, fmt.Sprint("b", i), m.Header.Get("cicada-id"), "the order of the batch")
	}
}

// A server that is killed while messages are under way: each result is either known or Unknown, and
// with repeated attempts each message is in the stream once.
func TestRealSinkServerKilled(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	s := r.sink()
	const n = 2000
	open := map[int]bool{}
	for i := range n {
		open[i] = true
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		sleep(t.Context(), 20*time.Millisecond) // into the middle of what is under way
		r.Kill(t)
		r.Start(t)
	})
	unknown := 0
	deadline := time.Now().Add(patience)
	for len(open) > 0 {
		require.True(t, time.Now().Before(deadline), "%d are open", len(open))
		var batch []broker.Delivery
		var which []int
		for i := range n {
			if open[i] && len(batch) < 200 {
				d := delivery1(delay.ID(fmt.Sprint("m", i)))
				d.Target = r.target("k")
				batch, which = append(batch, d), append(which, i)
			}
		}
		results := make([]broker.Result, len(batch))
		s.Deliver(t.Context(), batch, results)
		for i, res := range results {
			switch res.Outcome {
			case broker.Delivered:
				delete(open, which[i])
			case broker.Unknown:
				unknown++
			default:
				require.Equal(t, broker.Retry, res.Outcome, res.Reason)
			}
		}
	}
	wg.Wait()
	t.Logf("%d outcomes were unknown", unknown)
	seen := map[string]int{}
	for _, m := range r.messages(int(r.info().Msgs)) {
		seen[m.Header.Get("cicada-id")]++
	}
	require.Len(t, seen, n)
	for id, times := range seen {
		require.Equal(t, 1, times, id)
	}
}

// reader is a Source that runs.
type reader struct {
	*Source

	t      testing.TB
	cancel context.CancelFunc
	done   chan error
}

func (r *lab) read(in broker.Intake, change func(*SourceConfig, *Source)) *reader {
	r.t.Helper()
	sc := SourceConfig{Stream: r.name}
	if change != nil {
		change(&sc, &Source{})
	}
	s, err := NewSource(r.config(), sc)
	require.NoError(r.t, err)
	if change != nil {
		change(&sc, s)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	out := &reader{Source: s, t: r.t, cancel: cancel, done: make(chan error, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { out.done <- s.Run(ctx, in) })
	r.t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = s.Close()
	})
	return out
}

// stop ends the reader in order.
func (r *reader) stop() {
	r.t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		require.NoError(r.t, err)
	case <-time.After(patience):
		require.Fail(r.t, "Run does not end")
	}
	require.NoError(r.t, r.Close())
}

// crash ends it without a word to the server.
func (r *reader) crash() {
	r.t.Helper()
	r.nc.Close()
	r.cancel()
	<-r.done
}

// Records may be skipped or taken out of order when the process dies between a delivery and the
// store, or between the store and the ack, whatever the retention of the stream, and with servers
// that cannot set a consumer back; a work queue must be empty in the end.
func TestRealSourceCrashes(t *testing.T) {
	for _, retention := range []jetstream.RetentionPolicy{
		jetstream.LimitsPolicy, jetstream.WorkQueuePolicy, jetstream.InterestPolicy,
	} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprint(retention, old), func(t *testing.T) {
				r := realStream(t, jetstream.StreamConfig{
					Retention: retention, Storage: jetstream.MemoryStorage,
				})
				if retention == jetstream.InterestPolicy {
					if old {
						return // refused, see below
					}
					_, err := r.stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
						Durable: DefaultConsumer, AckPolicy: jetstream.AckExplicitPolicy,
					})
					require.NoError(t, err) // without one nothing would be kept
				}
				crashes(t, r, old)
				if retention != jetstream.LimitsPolicy {
					waitFor(t, func() bool { return r.info().Msgs == 0 })
				}
			})
		}
	}
}

func crashes(t *testing.T, r *lab, old bool) {
	const n = 5000
	d := newDesk(t)
	takes := 0
	d.fail = func() (bool, error) {
		takes++
		switch takes % 5 {
		case 1:
			return false, errBusy // not stored
		case 3:
			return true, errBusy // stored, and nobody knows
		}
		return true, nil
	}
	r.send(0, n/2)
	for i := range 4 {
		s := r.read(d, func(_ *SourceConfig, s *Source) { s.old = old })
		want := (i + 1) * n / 10
		waitFor(t, func() bool { return d.count() >= want })
		s.crash()
	}
	r.send(n/2, n)
	s := r.read(d, func(_ *SourceConfig, s *Source) { s.old = old })
	waitFor(t, func() bool { return d.count() == n })
	d.inOrder()
	c, err := r.stream.Consumer(t.Context(), DefaultConsumer)
	require.NoError(t, err)
	waitFor(t, func() bool {
		info, err := c.Info(t.Context())
		return err == nil && info.NumAckPending == 0 && info.NumPending == 0
	})
	s.stop()
}

// A stream with interest retention would lose its records with its consumer: on a server that
// cannot set consumers back it must not be read.
func TestRealSourceInterestOnOldServer(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{Retention: jetstream.InterestPolicy})
	_, err := r.stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable: DefaultConsumer, AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	r.send(0, 3)
	d := newDesk(t)
	s := r.read(d, func(_ *SourceConfig, s *Source) { s.old = true })
	waitFor(t, func() bool { return s.Stats().Sessions > 1 })
	s.stop()
	require.Zero(t, d.count())
	require.EqualValues(t, 3, r.info().Msgs)
}

// N4: with commit: tier an ack before the bucket has the message would lose it with the disk.
func TestRealSourceTier(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy})
	d := newDesk(t)
	d.auto = false
	s := r.read(d, func(sc *SourceConfig, _ *Source) { sc.Tier = true })
	r.send(0, 3000)
	waitFor(t, func() bool { return d.count() == 3000 })
	require.True(t, d.tier)
	sleep(t.Context(), 3*ackEvery) // for acks that must not come
	require.EqualValues(t, 3000, r.info().Msgs)
	var p broker.Partition
	d.mu.Lock()
	for p = range d.cursor {
		d.covered[p] = 1001
	}
	d.mu.Unlock()
	waitFor(t, func() bool { return r.info().Msgs == 2000 })
	s.crash() // the disk is lost: the bucket has what is below 1001
	d.loseDisk(1001)
	d.drafts = map[delay.ID]delay.Draft{}
	s = r.read(d, func(sc *SourceConfig, _ *Source) { sc.Tier = true })
	waitFor(t, func() bool { return d.count() == 2000 })
	d.mu.Lock()
	d.covered[p] = 3001
	d.mu.Unlock()
	waitFor(t, func() bool { return r.info().Msgs == 0 })
	d.inOrder()
	s.stop()
}

// After the loss of a disk that had everything alone (commit: local), the stream refills it.
func TestRealSourceRefill(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	d := newDesk(t)
	r.send(0, 2500)
	s := r.read(d, nil)
	waitFor(t, func() bool { return d.count() == 2500 })
	s.stop()
	d.loseDisk(501)
	d.drafts = map[delay.ID]delay.Draft{}
	s = r.read(d, nil)
	waitFor(t, func() bool { return d.count() == 2000 })
	d.inOrder()
	s.stop()
}

// The server dies, and is gone for a while, with records under way in both directions.
func TestRealSourceServerKilled(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	d := newDesk(t)
	s := r.read(d, nil)
	for round := range 3 {
		r.send(round*1000, (round+1)*1000)
		r.Kill(t)
		r.Start(t)
		waitFor(t, r.nc.IsConnected)
	}
	// What the killed server had not synced is published again: ids find it.
	for i := range 3000 {
		_, err := r.js.PublishMsg(t.Context(), request(r.name, i))
		require.NoError(t, err)
	}
	waitFor(t, func() bool { return d.count() == 3000 })
	d.inOrder()
	s.stop()
}

// B6: a record that is none must not stop the others, one that looks like a word of the server's
// least of all, and goes to the reject subject as it was, or is terminated where there is none.
func TestRealSourcePoison(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{Retention: jetstream.WorkQueuePolicy})
	reject := r.name + "-reject"
	_, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: reject, Subjects: []string{reject}, AllowMsgSchedules: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.js.DeleteStream(context.Background(), reject) })
	d := newDesk(t)
	d.refuse = func(item *broker.Item) error {
		if string(item.Draft.Body) == "refuse me" {
			return delay.Invalid("target", "is not known")
		}
		return nil
	}
	s := r.read(d, func(sc *SourceConfig, _ *Source) { sc.RejectSubject = reject })
	for i, m := range []*nats.Msg{
		{Header: nats.Header{"Status": {"409"}, "Description": {"Consumer Deleted"}}},
		{Header: nats.Header{"Status": {"100"}}},
		{Data: []byte("no headers")},
		{Header: nats.Header{"cicada-target": {"pull:q"}, "cicada-delay": {"1h"}}, Data: []byte("refuse me")},
	} {
		m.Subject = r.name + ".p"
		_, err := r.js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
		r.send(i*10, (i+1)*10)
	}
	waitFor(t, func() bool { return d.count() == 40 && r.info().Msgs == 0 })
	stats := s.Stats()
	require.EqualValues(t, 4, stats.Refused)
	require.EqualValues(t, 4, stats.Rejected)
	require.EqualValues(t, 1, stats.Sessions)
	other := *r
	other.name = reject
	got := other.messages(4)
	require.Equal(t, "409", got[0].Header.Get("was-Status"))
	require.Equal(t, "no headers", string(got[2].Data))
	require.Equal(t, r.name+".p", got[2].Header.Get("was-subject"))
	require.NotEmpty(t, got[2].Header.Get("cicada-error"))
	require.Equal(t, "target: is not known", got[3].Header.Get("cicada-error"))
	require.Contains(t, got[3].Header.Get("cicada-source"), "nats:n1/"+r.name+"@")
	s.stop()
}

// N5: two processes with one consumer, as in a takeover: what the server gives to the one that is
// about to be fenced must not be missing in the other.
func TestRealSourceTwoReaders(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	a, b := newDesk(t), newDesk(t)
	s1 := r.read(a, nil)
	r.send(0, 1000)
	waitFor(t, func() bool { return a.count() == 1000 })
	for _, p := range a.partitions() {
		b.cursor[p] = 1001 // from the manifest
	}
	s2 := r.read(b, nil)
	waitFor(t, func() bool { return s2.Stats().Sessions > 0 })
	for i := range 10 {
		r.send(1000+i*100, 1000+(i+1)*100)
	}
	waitFor(t, func() bool { return a.count() > 1000 || b.count() > 0 })
	s1.crash() // fenced at last
	r.send(2000, 3000)
	waitFor(t, func() bool {
		next, _ := b.Cursor(b.partitions()[0])
		return next == 3001
	})
	s2.stop()
	b.inOrder()
	for i := 1000; i < 3000; i++ {
		require.Contains(t, b.drafts, delay.ID("id-"+strconv.Itoa(i)), "was skipped")
	}
}

// N7: a stream that was deleted and made again has other records under the same numbers.
func TestRealSourceRecreated(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	d := newDesk(t)
	s := r.read(d, nil)
	r.send(0, 500)
	waitFor(t, func() bool { return d.count() == 500 })
	require.NoError(t, r.js.DeleteStream(t.Context(), r.name))
	var err error
	r.stream, err = r.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: r.name, Subjects: []string{r.name + ".>"},
	})
	require.NoError(t, err)
	r.send(500, 600)
	waitFor(t, func() bool { return d.count() == 600 })
	s.stop()
	require.Len(t, d.cursor, 2)

	for p := range d.cursor { // as if the stream had been restored from an old copy
		d.cursor[p] = 10_000
	}
	s = r.read(d, nil)
	waitFor(t, func() bool { return s.Stats().Sessions > 1 })
	s.stop()
	require.Equal(t, 600, d.count())
}

// A source that waits for its stream, and a shard that takes nothing more.
func TestRealSourceEnds(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	d := newDesk(t)
	d.fail = func() (bool, error) { return false, fmt.Errorf("take: %w", delay.ErrFenced) }
	s := r.read(d, nil)
	r.send(0, 1)
	select {
	case err := <-s.done:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "Run goes on after the shard was fenced")
	}
}

// The conformance suite of sources, on a stream and a reject stream of a real server.
func TestRealSourceConformance(t *testing.T) {
	brokertest.RunSource(t, func(t *testing.T, tier bool) brokertest.SourceSubject {
		r := realStream(t, jetstream.StreamConfig{})
		reject := *r
		reject.name = r.name + "-reject"
		var err error
		reject.stream, err = r.js.CreateStream(t.Context(), jetstream.StreamConfig{
			Name: reject.name, Subjects: []string{reject.name},
		})
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.js.DeleteStream(context.Background(), reject.name) })
		return brokertest.SourceSubject{
			Partitions: 1,
			Open: func(t *testing.T) broker.Source {
				s, err := NewSource(r.config(), SourceConfig{
					Stream: r.name, Tier: tier, RejectSubject: reject.name,
				})
				require.NoError(t, err)
				return s
			},
			Append: func(t *testing.T, _ int, records ...brokertest.Sent) {
				for i := range records {
					m := &nats.Msg{Subject: r.name + ".s", Data: records[i].Value, Header: nats.Header{}}
					for _, h := range records[i].Headers {
						m.Header.Add(h.Name, h.Value)
					}
					_, err := r.js.PublishMsg(t.Context(), m)
					require.NoError(t, err)
				}
			},
			Acknowledged: func(t *testing.T, _ int) int64 {
				c, err := r.stream.Consumer(t.Context(), DefaultConsumer)
				if err != nil {
					return 0
				}
				return int64(c.CachedInfo().AckFloor.Stream)
			},
			Rejected: func(t *testing.T) (all []brokertest.Reject) {
				state, err := reject.stream.Info(t.Context())
				require.NoError(t, err)
				for _, m := range reject.messages(int(state.State.Msgs)) {
					all = append(all, brokertest.Reject{
						Value: m.Data, Error: m.Header.Get("cicada-error"),
					})
				}
				return all
			},
			Restart: func(t *testing.T) {
				r.Kill(t)
				r.Start(t)
				waitFor(t, r.nc.IsConnected)
			},
		}
	})
}
