// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
)

// verdicts are the findings by check, the worst of each.
func verdicts(found []broker.Finding) map[string]broker.Verdict {
	rank := map[broker.Verdict]int{broker.Good: 1, broker.Note: 2, broker.Warn: 3, broker.Bad: 4}
	out := make(map[string]broker.Verdict)
	for _, f := range found {
		if rank[f.Verdict] > rank[out[f.Check]] {
			out[f.Check] = f.Verdict
		}
	}
	return out
}

// says reports whether a finding of that verdict holds the text.
func says(found []broker.Finding, v broker.Verdict, text string) bool {
	for _, f := range found {
		if f.Verdict == v && strings.Contains(f.Detail, text) {
			return true
		}
	}
	return false
}

// A server that is away must be told at once, and not be waited for without end as a daemon does.
func TestExamineUnreachable(t *testing.T) {
	cfg := Config{Broker: "n1", URLs: []string{"nats://127.0.0.1:1"}}
	require.Equal(t, map[string]broker.Verdict{"reachable": broker.Bad},
		verdicts(Examine(t.Context(), cfg, nil)))
	require.Equal(t, map[string]broker.Verdict{"configured": broker.Bad},
		verdicts(Examine(t.Context(), Config{Broker: "n1"}, nil)))
}

// A server without JetStream keeps nothing; one with little room, or a clock that is off, is found
// out by the first message otherwise.
func TestExamineAccount(t *testing.T) {
	f := newFake(t, func(c *fakeConn, m *nats.Msg) {
		if m.Subject == "$JS.API.INFO" {
			c.answer(m, `{"type":"io.nats.jetstream.api.v1.account_info_response",
				"error":{"code":503,"err_code":10076,"description":"jetstream not enabled"}}`)
		}
	})
	found := Examine(t.Context(), f.config(), []SourceConfig{{Stream: "S"}})
	require.Equal(t, broker.Good, verdicts(found)["reachable"])
	require.Equal(t, broker.Bad, verdicts(found)["jetstream"])
	require.NotContains(t, verdicts(found), "source S", "nothing more can be said")

	now := time.Now()
	for off, want := range map[time.Duration]broker.Verdict{
		0: broker.Good, time.Second: broker.Warn, -time.Minute: broker.Bad,
	} {
		cfg := almostFull(t, now, false).config()
		cfg.Now = func() time.Time { return now.Add(off) }
		found := Examine(t.Context(), cfg, []SourceConfig{{Stream: "S"}, {Stream: "a b"}})
		require.Equal(t, want, verdicts(found)["clock"], "%s: %v", off, found)
		require.Equal(t, broker.Warn, verdicts(found)["jetstream"])
		require.Equal(t, broker.Bad, verdicts(found)["source a b"])
		require.Equal(t, broker.Good, verdicts(found)["consumer cicada"])
	}
}

// A server that drops one kind of request must cost the time limit of that one, not of the whole,
// and what it does answer must be told all the same.
func TestExamineSilence(t *testing.T) {
	t.Parallel()
	now := time.Now()
	cfg := almostFull(t, now, true).config()
	cfg.Now = func() time.Time { return now }
	cfg.AckTimeout = 2 * time.Second // for its answers too
	found := Examine(t.Context(), cfg, []SourceConfig{{Stream: "S"}})
	require.Equal(t, broker.Warn, verdicts(found)["jetstream"], "%v", found)
	require.Equal(t, broker.Good, verdicts(found)["clock"], "%v", found)
	require.Equal(t, broker.Bad, verdicts(found)["consumer cicada"], "%v", found)
	require.True(t, says(found, broker.Bad, context.DeadlineExceeded.Error()), "%v", found)
}

// almostFull is a server with a stream S and little room, where it is now. Silent, it does not
// answer who wants to make a consumer.
func almostFull(t *testing.T, now time.Time, silent bool) *fake {
	t.Helper()
	info, err := json.Marshal(map[string]any{
		"type": "io.nats.jetstream.api.v1.stream_info_response", "ts": now,
		"config": map[string]any{"name": "S", "subjects": []string{"s.>"}}, "state": map[string]any{},
	})
	require.NoError(t, err)
	return newFake(t, func(c *fakeConn, m *nats.Msg) {
		switch {
		case m.Subject == "$JS.API.INFO":
			c.answer(m, `{"type":"io.nats.jetstream.api.v1.account_info_response","storage":95,
				"limits":{"max_storage":100}}`)
		case strings.HasPrefix(m.Subject, "$JS.API.STREAM.INFO."):
			c.answer(m, string(info))
		case strings.HasPrefix(m.Subject, "$JS.API.CONSUMER.INFO."):
			c.answer(m, `{"type":"io.nats.jetstream.api.v1.consumer_info_response",
				"error":{"code":404,"err_code":10014,"description":"consumer not found"}}`)
		case m.Reply != "" && !(silent && strings.HasPrefix(m.Subject, "$JS.API.CONSUMER.CREATE.")):
			c.send(m.Reply, &nats.Msg{Subject: m.Reply, Header: nats.Header{"Status": {"503"}}})
		}
	})
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a.>", "a", false}, {"a.>", "a.b.c", true},
		{">", "x", true}, {"a.*", "a.b", true}, {"a.*", "a.b.c", false}, {"*.b", "a.*", true},
		{"a.*.c", "a.>", true}, {"a.b", "a.b.c", false},
	} {
		require.Equal(t, c.want, anyOverlap([]string{"other", c.a}, c.b), "%s %s", c.a, c.b)
		require.Equal(t, c.want, anyOverlap([]string{c.b}, c.a), "%s %s", c.b, c.a)
	}
	require.True(t, cannotSetBack("2.13.9"))
	require.True(t, cannotSetBack("v1.4.0"))
	require.False(t, cannotSetBack("2.14.0"))
	require.False(t, cannotSetBack("3.0"))
	require.False(t, cannotSetBack("unknown"))
}

// What a real server answers must be read as it is meant: a stream, a consumer or a reject subject
// that cannot work is else found by the first message that is lost. And nothing may be changed.
func TestRealExamine(t *testing.T) {
	r := realStream(t, jetstream.StreamConfig{})
	ctx := t.Context()
	reject, err := r.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: r.name + "-bad", Subjects: []string{r.name + "-bad"}, Duplicates: time.Second,
	})
	require.NoError(t, err)
	defer func() { _ = r.js.DeleteStream(context.Background(), r.name+"-bad") }()
	sc := SourceConfig{Stream: r.name, Subject: r.name + ".>", RejectSubject: r.name + "-bad"}
	examine := func(sc SourceConfig) ([]broker.Finding, map[string]broker.Verdict) {
		found := Examine(ctx, r.config(), []SourceConfig{sc})
		return found, verdicts(found)
	}
	found, by := examine(sc)
	require.Equal(t, broker.Good, by["reachable"], "%v", found)
	require.Equal(t, broker.Good, by["jetstream"])
	require.Equal(t, broker.Good, by["source "+r.name], "%v", found)
	require.Equal(t, broker.Good, by["consumer cicada"], "%v", found)
	require.Equal(t, broker.Good, by["reject subject "+r.name+"-bad"], "%v", found)
	require.Equal(t, broker.Warn, by["duplicate windows"], "%v", found)
	require.Equal(t, broker.Good, by["clock"], "%v", found)
	state, err := reject.Info(ctx)
	require.NoError(t, err)
	require.Zero(t, state.State.Msgs, "it left a record")
	_, err = r.stream.Consumer(ctx, DefaultConsumer)
	require.ErrorIs(t, err, jetstream.ErrConsumerNotFound, "it made a consumer")

	other := sc
	other.Stream, other.RejectSubject = "gone", "nobody.takes.it"
	_, by = examine(other)
	require.Equal(t, broker.Bad, by["source gone"])
	other = sc
	other.Subject, other.RejectSubject = "elsewhere.>", "nobody.takes.it"
	found, by = examine(other)
	require.Equal(t, broker.Bad, by["source "+r.name])
	require.Equal(t, broker.Bad, by["reject subject nobody.takes.it"], "%v", found)
	require.True(t, says(found, broker.Bad, "no record of it can be on subject"), "%v", found)

	for name, c := range map[string]jetstream.ConsumerConfig{
		"unacknowledged": {AckPolicy: jetstream.AckNonePolicy, FilterSubject: sc.Subject},
		"paused":         {FilterSubject: sc.Subject, PauseUntil: new(time.Now().Add(time.Hour))},
		"right":          {FilterSubject: sc.Subject, AckPolicy: jetstream.AckExplicitPolicy},
		"narrow":         {FilterSubject: r.name + ".a", AckPolicy: jetstream.AckExplicitPolicy},
	} {
		c.Durable = name
		_, err := r.stream.CreateConsumer(ctx, c)
		require.NoError(t, err)
		other := sc
		other.Consumer = name
		want := broker.Bad
		switch name {
		case "right":
			want = broker.Good
		case "narrow":
			want = broker.Note
		}
		found, by := examine(other)
		require.Equal(t, want, by["consumer "+name], "%v", found)
	}
	other = sc
	other.Consumer = "pushing"
	_, err = r.js.CreatePushConsumer(ctx, r.name, jetstream.ConsumerConfig{
		Durable: "pushing", DeliverSubject: "x", AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	found, by = examine(other)
	require.Equal(t, broker.Bad, by["consumer pushing"], "%v", found)
}

// Each setting of a stream that costs requests must be named.
func TestRealExamineStreams(t *testing.T) {
	for text, c := range map[string]jetstream.StreamConfig{
		"max_age=1h":         {MaxAge: time.Hour},
		"drops the oldest":   {MaxMsgs: 100},
		"max_msgs_per_subj":  {MaxMsgsPerSubject: 1},
		"storage=memory":     {Storage: jetstream.MemoryStorage},
		"allow_msg_schedule": {AllowMsgSchedules: true},
		"use commit: tier":   {Retention: jetstream.WorkQueuePolicy},
	} {
		r := realStream(t, c)
		found := Examine(t.Context(), r.config(), []SourceConfig{{Stream: r.name, RejectSubject: "x"}})
		require.True(t, says(found, broker.Warn, text), "%s: %v", text, found)
	}
	x := &examiner{}
	x.stream("s", &SourceConfig{Tier: true}, &jetstream.StreamConfig{Retention: jetstream.InterestPolicy})
	require.True(t, says(x.found, broker.Bad, "2.14"))
}
