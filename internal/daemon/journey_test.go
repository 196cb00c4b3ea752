// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker/brokertest/realtest"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// journey is a way through the real program: what clients of a broker ask for, and what those of a
// broker see. Its clients know nothing of Cicada but the headers.
type journey struct {
	t      *testing.T
	p      *process
	send   func(id string, headers map[string]string) // returns when the broker has it
	read   func(seen func(id string, at time.Time))   // what came since the last call
	broker []realtest.Broker                          // to be killed, the last one first

	due   map[string]int64
	seen  map[string]int
	early []string
}

// look reads for a while.
func (j *journey) look(d time.Duration) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		j.read(func(id string, at time.Time) {
			j.seen[id]++
			if at.UnixMilli() < j.due[id] {
				j.early = append(j.early, id)
			}
		})
	}
}

// travel sends n requests while the program, its disk and the brokers are lost, and waits until as
// many messages were seen. It returns how many came once more, and how often the program was killed.
func (j *journey) travel(n int) (again, kills int) {
	j.t.Helper()
	j.due, j.seen = make(map[string]int64, n), make(map[string]int, n)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
	j.p.run()
	defer func() { j.p.kill() }()
	kill := func() {
		kills++
		j.p.kill()
	}
	const rounds = 4
	for round := range rounds {
		for i := range n / rounds {
			id := fmt.Sprintf("%d-%d", round, i)
			due := time.Now().Add(time.Duration(rng.IntN(5000)) * time.Millisecond).UnixMilli()
			j.due[id] = due
			j.send(id, map[string]string{
				"cicada-id": id, "cicada-deliver-at": strconv.FormatInt(due, 10),
			})
		}
		j.look(time.Duration(500+rng.IntN(2000)) * time.Millisecond)
		switch round {
		case 0:
			kill()
			j.p.run()
		case 1:
			for _, b := range slices.Backward(j.broker) {
				b.Kill(j.t)
			}
			for _, b := range j.broker {
				b.Start(j.t)
			}
		case 2:
			kill()
			j.p.loseDisk()
			j.p.run()
		}
	}
	for deadline := time.Now().Add(90 * time.Second); len(j.seen) < n; {
		require.True(j.t, time.Now().Before(deadline), "%d of %d\n%s", len(j.seen), n, j.p.tail())
		j.look(200 * time.Millisecond)
	}
	j.look(2 * time.Second)
	require.Empty(j.t, j.early, "early")
	for id, times := range j.seen {
		require.Contains(j.t, j.due, id)
		again += times - 1
	}
	require.Len(j.t, j.seen, n)
	j.t.Logf("%d messages, %d times killed, %d came again", n, kills, again)
	return again, kills
}

// natsClient is a client of a real server.
type natsClient struct {
	realtest.Broker
	js jetstream.JetStream
}

func newNATSClient(t *testing.T) natsClient {
	t.Helper()
	c := natsClient{Broker: realtest.NATS(t)}
	nc, err := nats.Connect(c.Addr, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	c.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(time.Second))
	require.NoError(t, err)
	return c
}

func (c natsClient) stream(t *testing.T, name string) jetstream.Stream {
	t.Helper()
	s, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"},
	})
	require.NoError(t, err)
	return s
}

// reader reads a stream, one record after the other. The instants are those of the server.
func (c natsClient) reader(t *testing.T, s jetstream.Stream) func(seen func(string, time.Time)) {
	next := uint64(1)
	return func(seen func(string, time.Time)) {
		info, err := s.Info(t.Context())
		for err == nil && next <= info.State.LastSeq {
			var m *jetstream.RawStreamMsg
			if m, err = s.GetMsg(t.Context(), next); err == nil {
				seen(m.Header.Get("cicada-id"), m.Time)
				next++
			}
		}
	}
}

// What is asked for on a stream must come to another one once and never early, while the program,
// its disk and the server are lost: what is sent again is told by its Nats-Msg-Id (N3).
func TestRealNATSToNATS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c := newNATSClient(t)
	in, out := realtest.Name(t)+"-in", realtest.Name(t)+"-out"
	c.stream(t, in)
	p := newProcess(t, fmt.Sprintf(`tier: {flush_interval: 200ms, min_wait: 1s}
brokers:
  n1:
    kind: nats
    urls: ["%s"]
    sources: [{stream: %s, subject: "%s.>", commit: tier}]
`, c.Addr, in, in))
	j := &journey{
		t: t, p: p, broker: []realtest.Broker{c.Broker}, read: c.reader(t, c.stream(t, out)),
		send: func(id string, headers map[string]string) {
			m := nats.NewMsg(in + ".a")
			m.Header.Set("cicada-target", "nats:n1/"+out+".b")
			for name, value := range headers {
				m.Header.Set(name, value)
			}
			require.Eventually(t, func() bool {
				_, err := c.js.PublishMsg(t.Context(), m)
				return err == nil
			}, 20*time.Second, time.Millisecond, id)
		},
	}
	again, _ := j.travel(2000)
	require.Zero(t, again, p.tail())
}

// One program between two kinds of brokers must carry what neither can alone.
func TestRealKafkaToNATS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	k, c := realtest.Kafka(t), newNATSClient(t)
	in, out := realtest.Name(t)+".in", realtest.Name(t)+"-out"
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr), kgo.DefaultProduceTopic(in))
	require.NoError(t, err)
	defer client.Close()
	_, err = kadm.NewClient(client).CreateTopic(t.Context(), 3, 1, nil, in)
	require.NoError(t, err)
	p := newProcess(t, fmt.Sprintf(`tier: {flush_interval: 200ms, min_wait: 1s}
brokers:
  main:
    kind: kafka
    seeds: ["%s"]
    sources: [{topic: %s, group: %s, commit: tier}]
  n1: {kind: nats, urls: ["%s"]}
`, k.Addr, in, in, c.Addr))
	j := &journey{
		t: t, p: p, broker: []realtest.Broker{k, c.Broker}, read: c.reader(t, c.stream(t, out)),
		send: func(_ string, headers map[string]string) {
			r := &kgo.Record{Value: []byte("x"), Headers: []kgo.RecordHeader{
				{Key: "cicada-target", Value: []byte("nats:n1/" + out + ".b")},
			}}
			for name, value := range headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
			}
			client.Produce(t.Context(), r, nil)
		},
	}
	defer func() { require.NoError(t, client.Flush(t.Context())) }()
	again, _ := j.travel(2000)
	require.Zero(t, again, p.tail())
}

// rocketClient is a client of a real broker.
type rocketClient struct {
	*remoting.Client
	addr string
	t    *testing.T
}

func (c rocketClient) topic(name string) string {
	require.NoError(c.t, c.CreateTopic(c.t.Context(), c.addr, name, 2))
	require.Eventually(c.t, func() bool {
		route, err := c.Refresh(c.t.Context(), name)
		return err == nil && len(route.Writable()) == 2
	}, 30*time.Second, 20*time.Millisecond)
	return name
}

// reader reads a topic. The instants are those of the broker.
func (c rocketClient) reader(topic string) func(seen func(string, time.Time)) {
	var next [2]int64
	return func(seen func(string, time.Time)) {
		for q := range next {
			for {
				p, err := c.Pull(c.t.Context(), c.addr, remoting.Pull{
					Group: "reader", Topic: topic, Queue: int32(q), Offset: next[q],
				})
				if err != nil || p.Status != remoting.PullFound {
					break
				}
				for i := range p.Messages {
					seen(p.Messages[i].Properties.Value("cicada-id"), p.Messages[i].Stored.Time())
				}
				next[q] = p.Next
			}
		}
	}
}

// RocketMQ's owner mode must lose nothing and deliver nothing early. RocketMQ drops no duplicates:
// after a crash what was in flight and what was not synced yet comes again, and after the loss of
// the disk what was delivered since the last manifest (S6), never more.
func TestRealRocketMQToRocketMQ(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ns, b := realtest.RocketMQ(t)
	raw, err := remoting.New(remoting.Config{NameServers: []string{ns.Addr}})
	require.NoError(t, err)
	defer func() { require.NoError(t, raw.Close()) }()
	c := rocketClient{Client: raw, t: t}
	route, err := raw.Route(t.Context(), remoting.TopicSchedule)
	require.NoError(t, err)
	c.addr = route.Master(route.Brokers[0].Name)
	in, out := c.topic(realtest.Name(t)+"-in"), c.topic(realtest.Name(t)+"-out")
	p := newProcess(t, fmt.Sprintf(`tier: {flush_interval: 200ms, min_wait: 1s}
brokers:
  rmq:
    kind: rocketmq
    name_servers: ["%s"]
    sources: [{topic: %s, group: %s, commit: tier}]
`, ns.Addr, in, in))
	j := &journey{
		t: t, p: p, broker: []realtest.Broker{b}, read: c.reader(out),
		send: func(id string, headers map[string]string) {
			m := remoting.Outgoing{Body: []byte(id), Born: delay.Due(time.Now().UnixMilli())}
			m.Properties = remoting.Properties{{Name: "cicada-target", Value: "rocketmq:rmq/" + out}}
			for name, value := range headers {
				m.Properties = append(m.Properties, remoting.Property{Name: name, Value: value})
			}
			require.Eventually(t, func() bool {
				_, err := c.SendBatch(t.Context(), c.addr, in, int32(len(id)%2), []remoting.Outgoing{m})
				return err == nil
			}, 40*time.Second, 5*time.Millisecond, id)
		},
	}
	const n, group = 1200, 1000 // outcomes that are synced at once
	again, kills := j.travel(n)
	require.LessOrEqual(t, again, kills*group, p.tail())
}
