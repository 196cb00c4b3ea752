// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
)

// withKafka is a cluster in memory and a client that knows nothing of Cicada.
func withKafka(t *testing.T, topics ...string) (seeds []string, client *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topics...))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err = kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...),
		kgo.ConsumeTopics("out", "bad"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return cluster.ListenAddrs(), client
}

func request(headers map[string]string, value string) *kgo.Record {
	r := &kgo.Record{Topic: "in", Value: []byte(value)}
	for name, v := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(v)})
	}
	return r
}

// consume reads n records, by topic.
func consume(t *testing.T, client *kgo.Client, n int) map[string][]*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(map[string][]*kgo.Record)
	for seen := 0; seen < n; {
		fetches := client.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "%d of %d came", seen, n)
		fetches.EachRecord(func(r *kgo.Record) {
			got[r.Topic] = append(got[r.Topic], r)
			seen++
		})
	}
	return got
}

// A client that writes to a topic and reads from another must find its messages there when they are
// due, whatever the mode, and what can be no request in the reject topic, across restarts (B4, B6).
func TestKafkaToKafka(t *testing.T) {
	for _, exact := range []bool{false, true} {
		t.Run(fmt.Sprintf("exact=%t", exact), func(t *testing.T) {
			seeds, client := withKafka(t, "in", "out", "bad")
			cfg := conf(t, t.TempDir(), nil)
			cfg.Brokers = []config.Broker{{Name: "main", Kind: "kafka", Kafka: &config.Kafka{
				Seeds: seeds, Sink: config.KafkaSink{ExactlyOnce: exact},
				Sources: []config.KafkaSource{{
					Topic: "in", Group: "cicada", RejectTopic: "bad", Tier: exact,
				}},
			}}}
			d, stop := start(t, cfg)
			sent := time.Now()
			require.NoError(t, client.ProduceSync(t.Context(),
				request(map[string]string{
					"cicada-target": "kafka:main/out", "cicada-delay": "300ms", "cicada-key": "k", "mine": "x",
				}, "first"),
				request(map[string]string{"cicada-target": "kafka:nobody/out", "cicada-delay": "1ms"}, "poison"),
				request(map[string]string{
					"cicada-target": "kafka:main/out", "cicada-delay": "1h", "cicada-id": "later",
				}, "cancelled"),
			).FirstErr())
			got := consume(t, client, 2)
			require.GreaterOrEqual(t, time.Since(sent), 300*time.Millisecond)
			require.Len(t, got["bad"], 1)
			require.Equal(t, "poison", string(got["bad"][0].Value))
			require.Equal(t, "first", string(got["out"][0].Value))
			require.Equal(t, "k", string(got["out"][0].Key))
			mode := "exactly_once"
			code := 400
			if exact {
				code = 200
			}
			call(t, d, "POST", "/v1/messages", `{"id":"api","target":"kafka:main/out","delay":"1ms","mode":"`+
				mode+`"}`, code)
			if exact {
				require.Len(t, consume(t, client, 1)["out"], 1)
			}
			require.NoError(t, stop())
			require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{
				Topic: "in", Headers: []kgo.RecordHeader{{Key: "cicada-id", Value: []byte("later")}},
			}, request(map[string]string{
				"cicada-target": "kafka:main/out", "cicada-delay": "1ms",
			}, "second")).FirstErr())
			d, _ = start(t, cfg)
			require.Equal(t, "second", string(consume(t, client, 1)["out"][0].Value))
			require.Equal(t, "cancelled", call(t, d, "GET", "/v1/messages/later", "", 200)["state"])
		})
	}
}

// A source that waits for the bucket can never acknowledge anything without one (rule R16).
func TestTierSourceNeedsABucket(t *testing.T) {
	cfg := conf(t, t.TempDir(), map[string]string{"bucket": "none"})
	cfg.Brokers = []config.Broker{{Name: "main", Kind: "kafka", Line: 3, Kafka: &config.Kafka{
		Seeds: []string{"localhost:1"}, Sources: []config.KafkaSource{{Topic: "in", Group: "g", Tier: true}},
	}}}
	_, err := Open(t.Context(), cfg, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, delay.ErrInvalid)
	require.ErrorContains(t, err, "brokers.main (line 3): sources: commit: tier needs a bucket")
}
