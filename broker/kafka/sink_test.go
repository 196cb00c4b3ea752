// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
	"github.com/cicadamq/cicada/broker/kafka/internal/sink"
	"github.com/cicadamq/cicada/broker/kafka/ledger"
	"github.com/cicadamq/cicada/delay"
)

// subject runs the conformance suite over loopback connections.
func subject(t *testing.T, mode string) brokertest.Subject {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, outTopic))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	plain := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(c.ListenAddrs()...))...)
		require.NoError(t, err)
		return cl
	}
	s, err := NewSink(SinkConfig{
		Config: Config{Broker: "main", Seeds: c.ListenAddrs(), Logger: zap.NewNop()},
		Mode:   mode, Cluster: func() string { return "c-1" },
	})
	require.NoError(t, err)
	if l, ok := s.(broker.Ledger); ok {
		require.NoError(t, l.Recover(t.Context(), 0, nil))
	}
	return brokertest.Subject{
		Sink: s, Target: outTarget, Carries: true, Ordered: true,
		Received: func() []brokertest.Received {
			var out []brokertest.Received
			for _, r := range readAll(t, plain, true, outTopic) {
				attempt := uint32(0)
				for _, c := range headerOf(r, "cicada-attempt") {
					attempt = attempt*10 + uint32(c-'0')
				}
				got := brokertest.Received{
					ID: delay.ID(headerOf(r, "cicada-id")), Attempt: attempt, Body: r.Value,
					Key: string(r.Key),
				}
				for _, h := range r.Headers {
					if !strings.HasPrefix(h.Key, "cicada-") {
						got.Headers = append(got.Headers,
							delay.Header{Name: h.Key, Value: string(h.Value)})
					}
				}
				out = append(out, got)
			}
			return out
		},
	}
}

// The sinks must keep what the scheduler stands on.
func TestSinkConformance(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		t.Run(mode, func(t *testing.T) {
			brokertest.Run(t, func(t *testing.T) brokertest.Subject { return subject(t, mode) })
		})
	}
}

// What exactly once stands on must hold whatever a crash leaves behind.
func TestSinkLedgerConformance(t *testing.T) {
	brokertest.RunLedger(t, func(t *testing.T) brokertest.LedgerSubject {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, outTopic))
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return ledgerSubject(t, c.ListenAddrs()[0], outTopic, DefaultLedgerTopic)
	})
}

// ledgerSubject is sinks that share a ledger of the cluster at seed.
func ledgerSubject(t *testing.T, seed, topic, ledgerTopic string) brokertest.LedgerSubject {
	plain := func(opts ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(seed))...)
		require.NoError(t, err)
		return cl
	}
	gates := map[brokertest.ExactSink]*gate{}
	return brokertest.LedgerSubject{
		Target: delay.Target("kafka:main/" + topic),
		Open: func(t *testing.T) brokertest.ExactSink {
			g := newGate((&net.Dialer{}).DialContext)
			s, err := NewSink(SinkConfig{
				Config: Config{
					Broker: "main", Seeds: []string{seed}, Dial: g.dial, Logger: zap.NewNop(),
				},
				Mode: ExactlyOnce, LedgerTopic: ledgerTopic, Cluster: func() string { return "c-1" },
			})
			require.NoError(t, err)
			gates[s.(brokertest.ExactSink)] = g
			return s.(brokertest.ExactSink)
		},
		Visible: func(t *testing.T) []broker.Done {
			var all []broker.Done
			for _, r := range readAll(t, plain, true, topic) {
				id := headerOf(r, "cicada-id")
				n := id[strings.LastIndexByte(id, '-')+1:]
				i, err := strconv.Atoi(n)
				require.NoError(t, err)
				all = append(all, broker.Done{ID: delay.ID(id), Generation: uint32(i%3 + 1)})
			}
			return all
		},
		Crash: func(_ *testing.T, s brokertest.ExactSink) { gates[s].shut(true) },
		Drop: func(t *testing.T, n uint64) {
			cl := plain()
			defer cl.Close()
			require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{
				Topic: ledgerTopic, Key: ledger.EntryKey(ledger.Name("c-1", 0, "main"), n),
			}).FirstErr())
		},
	}
}

// A mistake in the configuration may be found only when the first message is due.
func TestSinkConfig(t *testing.T) {
	good := SinkConfig{
		Config: Config{Broker: "main", Seeds: []string{"127.0.0.1:1"}},
		Mode:   ExactlyOnce, Cluster: func() string { return "c" },
	}
	s, err := NewSink(good)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	for name, spoil := range map[string]func(c *SinkConfig){
		"no broker":      func(c *SinkConfig) { c.Broker = "" },
		"no seeds":       func(c *SinkConfig) { c.Seeds = nil },
		"mode":           func(c *SinkConfig) { c.Mode = "twice" },
		"message bytes":  func(c *SinkConfig) { c.MaxMessageBytes = 1 },
		"negative":       func(c *SinkConfig) { c.DeliverTimeout = -1 },
		"window":         func(c *SinkConfig) { c.Window = time.Hour },
		"no cluster":     func(c *SinkConfig) { c.Cluster = nil },
		"ledger's topic": func(c *SinkConfig) { c.LedgerTopic = "a b" },
	} {
		bad := good
		spoil(&bad)
		_, err := NewSink(bad)
		require.ErrorIs(t, err, delay.ErrInvalid, name)
	}
}

// A target that can never work must be refused when the message is accepted, without I/O.
func TestSinkCheck(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		s, err := NewSink(SinkConfig{
			Config: Config{Broker: "main", Seeds: []string{"127.0.0.1:1"}},
			Mode:   mode, Cluster: func() string { return "c" },
		})
		require.NoError(t, err)
		check := s.(broker.Checker).Check
		require.NoError(t, check("kafka:main/orders.eu-1_x"))
		require.NoError(t, check(delay.Target("kafka:main/"+strings.Repeat("x", 249))))
		for _, bad := range []delay.Target{
			"kafka:main", "kafka:main/", "kafka:other/orders", "kafka:main/a b", "kafka:main/a/b",
			"kafka:main/.", "kafka:main/..", "kafka:main/ä", "nats:main/orders", "",
			delay.Target("kafka:main/" + strings.Repeat("x", 250)),
			"kafka:main/__consumer_offsets", "kafka:main/__transaction_state",
		} {
			var field *delay.FieldError
			require.ErrorAs(t, check(bad), &field, "%s", bad)
			require.Equal(t, "target", field.Field)
		}
		require.Equal(t, mode == ExactlyOnce, check("kafka:main/"+DefaultLedgerTopic) != nil)
		require.NoError(t, s.Close())
	}
}

// What a reader gets may differ from what was asked for: key, headers, body, time.
func TestSinkRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		for _, mode := range []string{Idempotent, ExactlyOnce} {
			s := w.open(mode)
			batch := messages(mode, 2)
			batch[0].ID = "ключ"
			batch[0].Headers = []delay.Header{
				{Name: "trace", Value: "a\x00b"}, {Name: "trace", Value: "second"},
				{Name: "Cicada-Id", Value: "forged"}, {Name: "cicada-due", Value: "forged"},
				{Name: "имя", Value: "значение"},
			}
			batch[0].Attempt = 12
			batch[1].RoutingKey, batch[1].Body = "", nil
			requireAll(t, broker.Delivered, deliver(t, s, batch))
			all := w.read(outTopic)
			all = all[len(all)-2:]
			r := all[0]
			require.Equal(t, "key0", string(r.Key))
			require.Equal(t, "body of "+mode+"0", string(r.Value))
			require.Equal(t, []kgo.RecordHeader{
				{Key: "trace", Value: []byte("a\x00b")}, {Key: "trace", Value: []byte("second")},
				{Key: "имя", Value: []byte("значение")},
				{Key: "cicada-id", Value: []byte("ключ")},
				{Key: "cicada-due", Value: []byte("2000-01-01T00:00:00.000Z")},
				{Key: "cicada-attempt", Value: []byte("12")},
				{Key: "cicada-fired-at", Value: []byte("2000-01-01T00:00:00.007Z")},
			}, r.Headers)
			require.Equal(t, int64(946_684_800_007), r.Timestamp.UnixMilli())
			require.Nil(t, all[1].Key)
			require.NotNil(t, all[1].Value, "an empty body must not be a tombstone")
			require.Empty(t, all[1].Value)
			require.NoError(t, s.Close())
		}
	})
}

// open opens a sink of either mode, ready to deliver.
func (w *world) open(mode string) broker.Sink {
	w.t.Helper()
	s, err := NewSink(w.sinkConfig(mode))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, s.Close()) })
	if l, ok := s.(broker.Ledger); ok {
		require.NoError(w.t, l.Recover(w.t.Context(), 0, nil))
	}
	return s
}

// Messages of one key may overtake each other within a batch.
func TestSinkOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 3, nil)
		for _, mode := range []string{Idempotent, ExactlyOnce} {
			s := w.open(mode)
			batch := messages(mode, 1000)
			requireAll(t, broker.Delivered, deliver(t, s, batch))
			last := map[string]int{}
			at := map[string]int{}
			for i, d := range batch {
				at[string(d.ID)] = i
			}
			for _, r := range w.read(outTopic) {
				i, ok := at[headerOf(r, "cicada-id")]
				if !ok {
					continue // of the other mode
				}
				require.GreaterOrEqual(t, i, last[string(r.Key)])
				last[string(r.Key)] = i
			}
			require.Len(t, last, 7)
			require.NoError(t, s.Close())
		}
	})
}

// One message that a topic refuses must not take its neighbours with it (S7), however they are
// packed: the broker refuses whole batches.
func TestSinkPoison(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		inBubble(t, func(t *testing.T, w *world) {
			w.topic(outTopic, 1, map[string]string{"max.message.bytes": "3000"})
			s := w.open(mode)
			batch := messages("m", 60)
			for _, i := range []int{0, 17, 18, 59} {
				batch[i].Body = noise(4000)
			}
			results := deliver(t, s, batch)
			var good []broker.Delivery
			for i, r := range results {
				if len(batch[i].Body) == 4000 {
					require.Equal(t, broker.Rejected, r.Outcome, "%d: %s", i, r.Reason)
					require.Equal(t, "MESSAGE_TOO_LARGE", r.Reason)
					continue
				}
				require.Equal(t, broker.Delivered, r.Outcome, "%d: %s", i, r.Reason)
				good = append(good, batch[i])
			}
			records := w.read(outTopic)
			once(t, records, good)
			last := map[string]int{}
			for _, r := range records {
				if mode == Idempotent {
					break // what was refused together comes later
				}
				n, err := strconv.Atoi(headerOf(r, "cicada-id")[1:])
				require.NoError(t, err)
				require.GreaterOrEqual(t, n, last[string(r.Key)])
				last[string(r.Key)] = n
			}
			batch[1].Body = make([]byte, DefaultMaxMessageBytes)
			results = deliver(t, s, batch[1:2])
			require.Equal(t, broker.Rejected, results[0].Outcome, "larger than any batch")
			require.NoError(t, s.Close())
		})
	}
}

// noise cannot be compressed.
func noise(n int) []byte {
	out := make([]byte, n)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = byte(state >> 24)
	}
	return out
}

// fault has the next requests with key answered with err.
func (w *world) fault(err *kerr.Error, n int, topic string, keys ...kmsg.Key) (stop func()) {
	return w.cluster.Fault(kfake.Fault{Keys: keys, Topic: topic, Err: err, Count: n}).Remove
}

// An answer of a broker may be taken for another one: each is held against the table.
func TestSinkAnswers(t *testing.T) {
	for _, c := range []struct {
		err  *kerr.Error
		want broker.Outcome
	}{
		{kerr.NotLeaderForPartition, broker.Retry},
		{kerr.NotEnoughReplicas, broker.Retry},
		{kerr.UnknownTopicOrPartition, broker.Retry},
		{kerr.LeaderNotAvailable, broker.Retry},
		{kerr.KafkaStorageError, broker.Retry},
		{kerr.TopicAuthorizationFailed, broker.Retry},
		{kerr.ClusterAuthorizationFailed, broker.Retry},
		{kerr.CorruptMessage, broker.Retry},
		{kerr.InvalidTimestamp, broker.Retry},
		{kerr.ThrottlingQuotaExceeded, broker.Retry},
		{kerr.InvalidRecord, broker.Rejected},
		{kerr.RecordListTooLarge, broker.Rejected},
		{kerr.UnsupportedForMessageFormat, broker.Rejected},
		{kerr.InvalidTopicException, broker.Rejected},
		{kerr.RequestTimedOut, broker.Unknown},
		{kerr.NotEnoughReplicasAfterAppend, broker.Unknown},
		{kerr.UnknownServerError, broker.Unknown},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			w.topic(outTopic, 1, nil)
			s := w.open(Idempotent)
			requireAll(t, broker.Delivered, deliver(t, s, messages("before", 2)))
			w.fault(c.err, -1, outTopic, kmsg.Produce)
			begin := time.Now()
			results := deliver(t, s, messages("m", 3))
			requireAll(t, c.want, results)
			require.NotEmpty(t, results[0].Reason, c.err.Message)
			require.LessOrEqual(t, time.Since(begin), DefaultDeliverTimeout+3*time.Second)
			require.NoError(t, s.Close())
		})
	}
}

// A short trouble is bridged without a repetition: brokers forget nothing of a producer.
func TestSinkShortTrouble(t *testing.T) {
	for _, err := range []*kerr.Error{
		kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.RequestTimedOut,
		kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError,
	} {
		for _, mode := range []string{Idempotent, ExactlyOnce} {
			inBubble(t, func(t *testing.T, w *world) {
				w.topic(outTopic, 1, nil)
				s := w.open(mode)
				w.fault(err, 2, outTopic, kmsg.Produce)
				batch := messages("m", 3)
				requireAll(t, broker.Delivered, deliver(t, s, batch))
				once(t, w.read(outTopic), batch)
				require.NoError(t, s.Close())
			})
		}
	}
}

// A topic that is missing must be Retry within seconds, and work as soon as it is there.
func TestSinkMissingTopic(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		inBubble(t, func(t *testing.T, w *world) {
			s := w.open(mode)
			begin := time.Now()
			results := deliver(t, s, messages("m", 3))
			requireAll(t, broker.Retry, results)
			require.Equal(t, "UNKNOWN_TOPIC_OR_PARTITION", results[0].Reason)
			require.Less(t, time.Since(begin), 5*time.Second)
			if e, ok := s.(*Exact); ok { // nobody else's transaction was spoiled (K14)
				require.Zero(t, e.Stats().Aborted)
			}
			w.topic(outTopic, 1, nil)
			time.Sleep(client.MinMetadataAge) // until then the answer is remembered
			batch := messages("m", 3)
			requireAll(t, broker.Delivered, deliver(t, s, batch))
			once(t, w.read(outTopic), batch)
			require.NoError(t, s.Close())
		})
	}
}

// Where nobody answers a connection nothing can have been stored: Retry, and not Unknown.
func TestSinkUnreachable(t *testing.T) {
	for _, warm := range []bool{false, true} {
		for _, mode := range []string{Idempotent, ExactlyOnce} {
			inBubble(t, func(t *testing.T, w *world) {
				w.topic(outTopic, 1, nil)
				g := newGate(w.net.DialContext)
				cfg := w.sinkConfig(mode)
				cfg.Dial = g.dial
				s, err := NewSink(cfg)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				if l, ok := s.(broker.Ledger); ok {
					require.NoError(t, l.Recover(t.Context(), 0, nil))
				}
				if warm {
					requireAll(t, broker.Delivered, deliver(t, s, messages("before", 2)))
				}
				g.shut(true)
				begin := time.Now()
				results := deliver(t, s, messages("m", 3))
				requireAll(t, broker.Retry, results)
				require.LessOrEqual(t, time.Since(begin), DefaultDeliverTimeout+3*time.Second)
				g.shut(false)
				synctest.Wait()
				time.Sleep(3 * time.Second)
				batch := messages("after", 3)
				requireAll(t, broker.Delivered, deliver(t, s, batch))
				require.NoError(t, s.Close())
			})
		}
	}
}

// gate is a network that can be shut: connections end, and none is made.
type gate struct {
	next func(context.Context, string, string) (net.Conn, error)

	mu     sync.Mutex
	closed bool
	mute   bool // answers are lost, requests arrive
	conns  map[*gated]struct{}
}

type gated struct {
	net.Conn

	g *gate
}

func newGate(next func(context.Context, string, string) (net.Conn, error)) *gate {
	return &gate{next: next, conns: map[*gated]struct{}{}}
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	shut := g.closed
	g.mu.Unlock()
	if shut {
		return nil, errors.New("connection refused")
	}
	c, err := g.next(ctx, network, address)
	if err != nil {
		return nil, err
	}
	out := &gated{Conn: c, g: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[out] = struct{}{}
	return out, nil
}

// shut ends every connection, or lets new ones be made again.
func (g *gate) shut(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
	if closed {
		for c := range g.conns {
			c.Conn.Close()
		}
		clear(g.conns)
	}
}

// lose has every answer from now on lost with its connection.
func (g *gate) lose(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mute = on
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.mu.Lock()
	mute := c.g.mute
	c.g.mu.Unlock()
	if mute && err == nil {
		c.Conn.Close()
		return 0, errors.New("connection reset")
	}
	return n, err
}

// A request whose answer is lost may have been stored: Unknown, never Retry (B2).
func TestSinkLostAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		g := newGate(w.net.DialContext)
		cfg := w.sinkConfig(Idempotent)
		cfg.Dial = g.dial
		s, err := NewSink(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		requireAll(t, broker.Delivered, deliver(t, s, messages("before", 2)))
		stop := w.on(kmsg.Produce, 0, func() (done, cut bool) {
			g.lose(true) // and the request is stored
			return false, false
		})
		batch := messages("m", 3)
		requireAll(t, broker.Unknown, deliver(t, s, batch))
		g.lose(false)
		stop()
		once(t, w.read(outTopic), messages("before", 2), batch)
		require.NoError(t, s.Close())
	})
}

// A refusal says nothing of an earlier try whose answer was lost: it may have been stored (B2).
func TestSinkRefusedAfterLostAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		g := newGate(w.net.DialContext)
		cfg := w.sinkConfig(Idempotent)
		cfg.Dial = g.dial
		s, err := NewSink(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		requireAll(t, broker.Delivered, deliver(t, s, messages("before", 2)))
		w.on(kmsg.Produce, 0, func() (done, cut bool) {
			g.lose(true) // and the request is stored
			return true, false
		})
		var heal sync.WaitGroup
		heal.Go(func() {
			time.Sleep(50 * time.Millisecond)
			w.fault(kerr.TopicAuthorizationFailed, -1, outTopic, kmsg.Produce)
			g.lose(false)
		})
		requireAll(t, broker.Unknown, deliver(t, s, messages("m", 3)))
		heal.Wait()
	})
}

// A broker that takes a request and never answers must not hold a Deliver beyond its context, and
// must not read what was lent after that.
func TestSinkHangs(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		inBubble(t, func(t *testing.T, w *world) {
			w.topic(outTopic, 1, nil)
			s := w.open(mode)
			requireAll(t, broker.Delivered, deliver(t, s, messages("before", 2)))
			release := make(chan struct{})
			w.on(kmsg.Produce, 0, func() (done, cut bool) {
				w.cluster.SleepControl(func() { <-release })
				return true, false
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			batch := messages("m", 3)
			results := make([]broker.Result, 3)
			begin := time.Now()
			s.Deliver(ctx, batch, results)
			requireAll(t, broker.Unknown, results)
			require.Less(t, time.Since(begin), 2*time.Second)
			for i := range batch {
				clear(batch[i].Body)
			}
			close(release)
			if mode == Idempotent { // the other one may still commit it
				synctest.Wait()
			}
			require.NoError(t, s.Close())
		})
	}
}

// Many lanes deliver at once: each gets its own results.
func TestSinkConcurrent(t *testing.T) {
	for _, mode := range []string{Idempotent, ExactlyOnce} {
		inBubble(t, func(t *testing.T, w *world) {
			s := w.open(mode)
			var lanes sync.WaitGroup
			for lane := range 8 {
				topic := "lane" + string(rune('a'+lane))
				w.topic(topic, 2, nil)
				lanes.Go(func() {
					for round := range 5 {
						batch := messages(topic+string(rune('0'+round)), 50)
						for i := range batch {
							batch[i].Target = delay.Target("kafka:main/" + topic)
						}
						requireAll(t, broker.Delivered, deliver(t, s, batch))
					}
				})
			}
			lanes.Wait()
			for lane := range 8 {
				topic := "lane" + string(rune('a'+lane))
				records := w.read(topic)
				require.Len(t, records, 250)
				for _, r := range records {
					require.True(t, bytes.HasPrefix(r.Value, []byte("body of "+topic)))
				}
			}
			require.NoError(t, s.Close())
		})
	}
}

// signed is a certificate for the loopback address.
type signed struct {
	pair tls.Certificate
	pool *x509.CertPool
}

func selfSigned(t *testing.T) signed {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return signed{pair: s.TLS.Certificates[0], pool: pool}
}

// A connection with TLS of our own making must check who answers.
func TestSinkTLS(t *testing.T) {
	var w sink.Wire
	cert := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.pair}})
	require.NoError(t, err)
	var server sync.WaitGroup
	server.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).HandshakeContext(t.Context())
			c.Close()
		}
	})
	defer server.Wait()
	defer l.Close()
	dial := w.Dialer((&net.Dialer{}).DialContext, &tls.Config{RootCAs: cert.pool})
	c, err := dial(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
	dial = w.Dialer((&net.Dialer{}).DialContext, &tls.Config{})
	_, err = dial(t.Context(), "tcp", l.Addr().String())
	require.Error(t, err, "nobody vouches for the certificate")
}
