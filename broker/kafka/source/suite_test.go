// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
)

// topic is a topic, its reject topic and a group, on any cluster; for the suite.
type topic struct {
	seeds               []string
	name, reject, group string
	client              *kgo.Client
	restart             func(t *testing.T)
}

const suitePartitions = 3

// subject is what the suite tries out.
func (c *topic) subject(tier bool) brokertest.SourceSubject {
	return brokertest.SourceSubject{
		Partitions: suitePartitions, Shares: true, Restart: c.restart,
		Open: func(t *testing.T) broker.Source {
			t.Helper()
			src, err := New(Options{
				Config: Config{Broker: "main", Seeds: c.seeds}, Topic: c.name, Group: c.group,
				RejectTopic: c.reject, Tier: tier, CommitInterval: 20 * time.Millisecond,
				SessionTimeout: 6 * time.Second,
			})
			require.NoError(t, err)
			return src
		},
		Append: func(t *testing.T, partition int, sent ...brokertest.Sent) {
			t.Helper()
			records := make([]*kgo.Record, len(sent))
			for i, s := range sent {
				r := &kgo.Record{Topic: c.name, Partition: int32(partition), Value: s.Value}
				for _, h := range s.Headers {
					r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Name, Value: []byte(h.Value)})
				}
				records[i] = r
			}
			require.NoError(t, c.client.ProduceSync(t.Context(), records...).FirstErr())
		},
		Acknowledged: func(t *testing.T, partition int) int64 {
			t.Helper()
			all, err := kadm.NewClient(c.client).FetchOffsets(t.Context(), c.group)
			if err != nil {
				return 0
			}
			o, _ := all.Lookup(c.name, int32(partition))
			return max(o.At, 0)
		},
		Rejected: c.rejected,
	}
}

// rejected reads the reject topic from its start to its end.
func (c *topic) rejected(t *testing.T) (out []brokertest.Reject) {
	t.Helper()
	ends, err := kadm.NewClient(c.client).ListEndOffsets(t.Context(), c.reject)
	require.NoError(t, err)
	end, _ := ends.Lookup(c.reject, 0)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.seeds...), kgo.ConsumeTopics(c.reject))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for int64(len(out)) < end.Offset && ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			out = append(out, brokertest.Reject{Value: r.Value, Error: header(r, headerError)})
		}
	}
	return out
}

func newTopicClient(t *testing.T, seeds []string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// The suite for sources.
func TestSourceSuite(t *testing.T) {
	brokertest.RunSource(t, func(t *testing.T, tier bool) brokertest.SourceSubject {
		t.Helper()
		cluster, err := kfake.NewCluster(kfake.NumBrokers(2),
			kfake.SeedTopics(suitePartitions, inTopic), kfake.SeedTopics(1, rejectTopic))
		require.NoError(t, err)
		t.Cleanup(cluster.Close)
		c := &topic{
			seeds: cluster.ListenAddrs(), name: inTopic, reject: rejectTopic, group: testGroup,
			client: newTopicClient(t, cluster.ListenAddrs()),
			restart: func(*testing.T) {
				var cut atomic.Int64
				cluster.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
					if cut.Add(1) < 30 {
						cluster.KeepControl()
						return nil, errors.New("cut"), true
					}
					cluster.DropControl()
					return nil, nil, false
				})
			},
		}
		return c.subject(tier)
	})
}
