// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// A harness that loses data at a kill, or calls a node ready that is not, would make every test on
// it lie: each kind of broker must take messages as soon as it is started, keep them over kill -9
// and an orderly stop at the same address, and be silent while it is paused.
func TestKafkaKeepsItsPromises(t *testing.T) {
	t.Parallel()
	k := Need(t, func() (*Kafka, error) { return StartKafka(t.TempDir()) })
	defer func() { require.NoError(t, k.Kill()) }()
	c, err := kgo.NewClient(kgo.SeedBrokers(k.Addr), kgo.ConsumeTopics("t"),
		kgo.DefaultProduceTopic("t"), kgo.MetadataMinAge(250*time.Millisecond))
	require.NoError(t, err)
	defer c.Close()
	_, err = kadm.NewClient(c).CreateTopic(t.Context(), 1, 1, nil, "t")
	require.NoError(t, err)
	promises(t, k.Process, func(ctx context.Context, text string) error {
		return c.ProduceSync(ctx, kgo.StringRecord(text)).FirstErr()
	})
	for n := 0; n < 3; {
		fetches := c.PollFetches(within(t))
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			require.Equal(t, fmt.Sprint(n), string(r.Value))
			n++
		})
	}
}

func TestNATSKeepsItsPromises(t *testing.T) {
	t.Parallel()
	n := Need(t, func() (*NATS, error) { return StartNATS(t.TempDir()) })
	defer func() { require.NoError(t, n.Kill()) }()
	c, err := nats.Connect(n.URL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	defer c.Close()
	js, err := jetstream.New(c)
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "S", Subjects: []string{"t"},
	})
	require.NoError(t, err)
	promises(t, n.Process, func(ctx context.Context, text string) error {
		for {
			_, err := js.Publish(ctx, "t", []byte(text), jetstream.WithMsgID(text))
			if err == nil || ctx.Err() != nil {
				return err
			}
			time.Sleep(pollEvery) // it connects again
		}
	})
	s, err := js.Stream(within(t), "S")
	require.NoError(t, err)
	info, err := s.Info(within(t))
	require.NoError(t, err)
	require.EqualValues(t, 3, info.State.Msgs)
}

func TestRocketMQKeepsItsPromises(t *testing.T) {
	t.Parallel()
	r := Need(t, func() (*RocketMQ, error) {
		return StartRocketMQ(t.TempDir(), RocketMQOptions{
			Proxy: true, Tiered: true, Settings: []string{"brokerName=broker-of-the-test"},
		})
	})
	defer func() { require.NoError(t, r.Kill()) }()
	out, err := r.Admin("updateTopic", "-b", r.BrokerAddr, "-t", "T")
	require.NoError(t, err, out)
	require.NoError(t, r.Kill())
	require.False(t, hasRoute(r.NameAddr))
	require.NoError(t, r.Start())
	out, err = r.Admin("topicRoute", "-t", "T")
	require.NoError(t, err, out)
	require.Contains(t, out, r.BrokerAddr)
	require.Contains(t, out, "broker-of-the-test")
}

// promises sends 0, 1 and 2 around an end of each kind.
func promises(t *testing.T, p *Process, send func(ctx context.Context, text string) error) {
	t.Helper()
	require.NoError(t, send(within(t), "0"))
	require.NoError(t, p.Kill())
	require.NoError(t, p.Start())
	require.NoError(t, send(within(t), "1"))

	require.NoError(t, p.Pause())
	sent := make(chan error, 1)
	go func() { sent <- send(within(t), "2") }()
	select {
	case err := <-sent:
		require.FailNow(t, "it answered while it was paused", "%v", err)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, p.Continue())
	require.NoError(t, <-sent)
	require.NoError(t, p.Stop())
	require.NoError(t, p.Start())
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Tests in other processes must get the same broker, learn what went wrong, and not hang.
func TestParkOverHTTP(t *testing.T) {
	t.Parallel()
	park := NewPark(t.TempDir())
	defer park.Close()
	s := httptest.NewServer(park)
	defer s.Close()
	call := func(method, path string) (int, string) {
		req := httptest.NewRequestWithContext(within(t), method, s.URL+path, nil)
		w := httptest.NewRecorder()
		park.ServeHTTP(w, req)
		return w.Code, w.Body.String()
	}
	code, addr := call("GET", "/nats")
	require.Equal(t, 200, code, addr)
	require.True(t, strings.HasPrefix(addr, "nats://"), addr)
	for _, do := range []string{"pause", "continue", "kill", "start", "stop", "start"} {
		code, text := call("POST", "/nats/"+do)
		require.Equal(t, 200, code, text)
	}
	_, again := call("GET", "/nats")
	require.Equal(t, addr, again)
	code, text := call("POST", "/nats/explode")
	require.Equal(t, 500, code, text)
	code, text = call("GET", "/pulsar")
	require.Equal(t, 500, code, text)
}
