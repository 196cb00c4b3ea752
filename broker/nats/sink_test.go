// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/delay"
)

const patience = 20 * time.Second

// open makes a sink that is connected to f.
func open(t *testing.T, f *fake) *Sink {
	t.Helper()
	s, err := NewSink(f.config())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	waitFor(t, s.nc.IsConnected)
	return s
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	require.Eventually(t, what, patience, time.Millisecond)
}

func one(s *Sink, d broker.Delivery) broker.Result {
	results := make([]broker.Result, 1)
	s.Deliver(context.Background(), []broker.Delivery{d}, results)
	return results[0]
}

func delivery1(id delay.ID) broker.Delivery {
	return broker.Delivery{
		ID: id, Generation: 1, Target: "nats:n1/orders.due", Due: 1_800_000_000_000, Attempt: 1,
		FiredAt: 1_800_000_000_007, Body: []byte("body"),
	}
}

// The suite of the seam, with a stream that follows its answers.
func TestSinkConformance(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		var mu sync.Mutex
		var got []brokertest.Received
		f := newFake(t, func(c *fakeConn, m *nats.Msg) {
			id, err := url.PathUnescape(m.Header.Get("cicada-id"))
			if err != nil || m.Reply == "" {
				return
			}
			answer := `{"stream":"S","seq":1}`
			switch brokertest.AnswerTo(delay.ID(id)) {
			case brokertest.Later:
				answer = `{"error":{"code":503,"err_code":10077,"description":"maximum bytes"}}`
			case brokertest.Never:
				answer = `{"error":{"code":400,"err_code":10054,"description":"message size"}}`
			case brokertest.Silent:
				answer = ""
				fallthrough
			case brokertest.Take:
				attempt, _ := strconv.ParseUint(m.Header.Get("cicada-attempt"), 10, 32)
				mu.Lock()
				got = append(got, brokertest.Received{
					ID: delay.ID(id), Attempt: uint32(attempt), Body: m.Data,
				})
				mu.Unlock()
			}
			if answer != "" {
				c.answer(m, answer)
			}
		})
		return brokertest.Subject{
			Sink: open(t, f), Target: "nats:n1/orders.due", Refuses: true, Hangs: true,
			Received: func() []brokertest.Received {
				mu.Lock()
				defer mu.Unlock()
				return append([]brokertest.Received(nil), got...)
			},
		}
	})
}

// A server's word may be taken for the wrong outcome: each answer has one meaning (B2, N3).
func TestAnswers(t *testing.T) {
	const failed = `{"error":{"code":%d,"err_code":%d,"description":"%s"},"type":"x"}`
	for _, c := range []struct {
		name, data string
		header     nats.Header
		want       broker.Outcome
		reason     string
	}{
		{name: "stored", data: `{"stream":"S","seq":7}`, want: broker.Delivered},
		{name: "duplicate", data: `{"stream":"S","seq":7,"duplicate":true}`, want: broker.Delivered},
		{
			name: "no stream", header: nats.Header{"Status": {"503"}}, want: broker.Retry,
			reason: "no stream holds this subject",
		},
		{
			name: "full", data: fmt.Sprintf(failed, 503, 10077, "maximum messages exceeded"),
			want: broker.Retry, reason: "the stream answers: maximum messages exceeded",
		},
		{
			name: "too large", data: fmt.Sprintf(failed, 400, 10054, "message size exceeds maximum"),
			want: broker.Rejected, reason: "the stream answers: message size exceeds maximum",
		},
		{
			name: "header too large", data: fmt.Sprintf(failed, 400, 10097, "header size"),
			want: broker.Rejected, reason: "the stream answers: header size",
		},
		{name: "a listener's", data: `thanks`, want: broker.Unknown, reason: "the answer does not come from a stream"},
		{name: "empty", data: ``, want: broker.Unknown, reason: "the answer does not come from a stream"},
		{name: "nothing", data: `{}`, want: broker.Unknown, reason: "the answer does not come from a stream"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := answer(&nats.Msg{Data: []byte(c.data), Header: c.header})
			require.Equal(t, broker.Result{Outcome: c.want, Reason: c.reason}, r)
		})
	}
}

// What the server says may not end up in a reason at any length or with control characters.
func TestReasonsAreBrief(t *testing.T) {
	long, err := json.Marshal(strings.Repeat("ä\n\x00", 1000))
	require.NoError(t, err)
	r := answer(&nats.Msg{Data: fmt.Appendf(nil, `{"error":{"err_code":1,"description":%s}}`, long)})
	require.Equal(t, broker.Retry, r.Outcome)
	require.LessOrEqual(t, len(r.Reason), 200)
	require.NotContains(t, r.Reason, "\n")
}

// N1: a target may name a subject that is an order to the server.
func TestCheck(t *testing.T) {
	s := open(t, newFake(t, func(*fakeConn, *nats.Msg) { t.Error("something was published") }))
	for _, target := range []delay.Target{
		"nats:n1/a", "nats:n1/orders.due", "nats:n1/ä.ö", "nats:n1/a/b", "nats:n1/a$b",
	} {
		require.NoError(t, s.Check(target), target)
	}
	for _, target := range []delay.Target{
		"nats:", "nats:n1", "nats:n1/", "nats:n2/a", "nats:/a", "kafka:n1/a", "nats:n1/.a",
		"nats:n1/a.", "nats:n1/a..b", "nats:n1/a.*", "nats:n1/>", "nats:n1/a.>", "nats:n1/a b",
		"nats:n1/a\tb", "nats:n1/a\r\nPUB b 0", "nats:n1/$JS.API.STREAM.DELETE.S",
		"nats:n1/$SYS.REQ.SERVER.PING", "nats:n1/_INBOX.x", "nats:n1/a\x00", "nats:n1/\xff",
		delay.Target("nats:n1/" + strings.Repeat("a", maxSubjectBytes+1)),
		"nats:n1/a\u2028b", "nats:n1/a*", "nats:n1/x>",
	} {
		err := s.Check(target)
		var field *delay.FieldError
		require.ErrorAs(t, err, &field, "%q", target)
		require.Equal(t, "target", field.Field)
		d := delivery1("x")
		d.Target = target
		require.Equal(t, broker.Rejected, one(s, d).Outcome, "%q", target)
	}
}

// N2: a caller's headers may not give orders to the server, nor say what only we say.
func TestHeaders(t *testing.T) {
	d := delivery1("id ä%")
	d.Generation, d.RoutingKey = 3, "kéy"
	d.Headers = []delay.Header{
		{Name: "x-a", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "X-Ä", Value: "no"},
	}
	_, reason := header(&d)
	require.NotEmpty(t, reason)
	d.Headers[2] = delay.Header{Name: "x-b", Value: "grün"}
	for _, name := range []string{
		"Nats-Rollup", "nats-msg-id", "NATS-TTL", "Nats-Expected-Stream", "cicada-id", "Cicada-Due",
		"Status", "description",
	} {
		d.Headers = append(d.Headers, delay.Header{Name: name, Value: "all"})
	}
	d.Headers = append(d.Headers,
		delay.Header{Name: delay.HeaderScheduleID, Value: "s"},
		delay.Header{Name: delay.HeaderMissed, Value: "2"})
	h, reason := header(&d)
	require.Empty(t, reason)
	require.Equal(t, nats.Header{
		"x-a": {"1", "2"}, "x-b": {"grün"},
		"Nats-Msg-Id": {"id %C3%A4%25%/3"}, "cicada-id": {"id %C3%A4%25"},
		"cicada-due": {d.Due.String()}, "cicada-fired-at": {d.FiredAt.String()},
		"cicada-attempt": {"1"}, "cicada-key": {"k%C3%A9y"},
		"cicada-schedule-id": {"s"}, "cicada-missed": {"2"},
	}, h)
	for _, bad := range []delay.Header{
		{Name: ""}, {Name: "a b"}, {Name: "a:b"}, {Name: "a\r\nb"}, {Name: "a", Value: "b\r\nNats-TTL: 1s"},
		{Name: "a", Value: "b\nc"},
	} {
		d.Headers = []delay.Header{bad}
		_, reason := header(&d)
		require.NotEmpty(t, reason, "%q", bad)
	}
}

// A generation, and nothing else, makes another message of the same id.
func TestMessageID(t *testing.T) {
	require.Equal(t, "a", messageID("a", 0))
	require.Equal(t, "a", messageID("a", 1))
	require.Equal(t, "a%/2", messageID("a", 2))
	require.NotContains(t, headerText("a%/2"), "%/")
}

// A connection that ends between a publish and its answer: the outcome is not known, and the next
// attempt is made as soon as there is a connection again.
func TestConnectionLost(t *testing.T) {
	var cut atomic.Bool
	f := newFake(t, func(c *fakeConn, m *nats.Msg) {
		if cut.CompareAndSwap(false, true) {
			_ = c.Close()
			return
		}
		c.answer(m, `{"stream":"S","seq":1}`)
	})
	s := open(t, f)
	r := one(s, delivery1("a"))
	require.Equal(t, broker.Unknown, r.Outcome)
	require.Equal(t, "the connection to the broker was lost", r.Reason)
	waitFor(t, s.nc.IsConnected)
	require.Equal(t, broker.Delivered, one(s, delivery1("a")).Outcome)
	require.Empty(t, s.flights)
}

// A server that is away: nothing is sent, nothing is buffered to be sent later, and that is known.
func TestNotConnected(t *testing.T) {
	f := newFake(t, func(*fakeConn, *nats.Msg) {})
	s := open(t, f)
	_ = f.ln.Close()
	f.cut()
	waitFor(t, func() bool { return !s.nc.IsConnected() })
	r := one(s, delivery1("a"))
	require.Equal(t, broker.Retry, r.Outcome)
	require.Contains(t, r.Reason, "not connected")
}

// A body that the server would end the connection for must not take its neighbours with it.
func TestTooLarge(t *testing.T) {
	f := newFake(t, func(c *fakeConn, m *nats.Msg) { c.answer(m, `{"stream":"S","seq":1}`) })
	s := open(t, f)
	batch := []broker.Delivery{delivery1("a"), delivery1("b"), delivery1("c")}
	batch[1].Body = make([]byte, f.maxPayload)
	results := make([]broker.Result, 3)
	s.Deliver(t.Context(), batch, results)
	require.Equal(t, broker.Delivered, results[0].Outcome)
	require.Equal(t, broker.Rejected, results[1].Outcome)
	require.Equal(t, broker.Delivered, results[2].Outcome)
}

// A subject that we may not publish to is dropped without an answer: waiting for it would hold the
// lane for the whole time limit of every batch.
func TestForbidden(t *testing.T) {
	f := newFake(t, func(c *fakeConn, m *nats.Msg) {
		c.write(`-ERR 'Permissions Violation for Publish to "%s"'`, m.Subject)
	})
	cfg := f.config()
	cfg.AckTimeout = time.Hour
	s, err := NewSink(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	waitFor(t, s.nc.IsConnected)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var r [1]broker.Result
	s.Deliver(ctx, []broker.Delivery{delivery1("a")}, r[:])
	require.NoError(t, ctx.Err(), "only the time limit ended it")
	require.Equal(t, broker.Retry, r[0].Outcome)
	require.Equal(t, "not permitted to publish to this subject", r[0].Reason)
}

// An answer that never comes ends with the time limit, Unknown.
func TestNoAnswer(t *testing.T) {
	f := newFake(t, func(*fakeConn, *nats.Msg) {})
	cfg := f.config()
	cfg.AckTimeout = 30 * time.Millisecond
	s, err := NewSink(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	waitFor(t, s.nc.IsConnected)
	r := one(s, delivery1("a"))
	require.Equal(t, broker.Unknown, r.Outcome)
	require.NotEmpty(t, r.Reason)
	require.Empty(t, s.flights)
}

// A mistake in the configuration is found before anything is started.
func TestBadConfig(t *testing.T) {
	good := Config{Broker: "n1", URLs: []string{"nats://127.0.0.1:1"}}
	for _, change := range []func(*Config){
		func(c *Config) { c.Broker = "" },
		func(c *Config) { c.Broker = "a/b" },
		func(c *Config) { c.URLs = nil },
		func(c *Config) { c.URLs = []string{""} },
		func(c *Config) { c.URLs = []string{"nats://a b:1"} },
		func(c *Config) { c.Creds, c.Token = "f", "t" },
		func(c *Config) { c.Password = "p" },
		func(c *Config) { c.AckTimeout = -1 },
	} {
		cfg := good
		change(&cfg)
		_, err := NewSink(cfg)
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
	for _, sc := range []SourceConfig{
		{}, {Stream: "a.b"}, {Stream: "a b"}, {Stream: "S", Subject: "a..b"}, {Stream: "S", Consumer: "*"},
		{Stream: "S", RejectSubject: "a.>"}, {Stream: "S", RejectSubject: "$JS.API.X"},
		{Stream: "S", MaxAckPending: 10},
	} {
		_, err := NewSource(good, sc)
		require.ErrorIs(t, err, delay.ErrInvalid, "%+v", sc)
	}
}
