// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// The source that tests of the shard stand on must keep what every source promises.
func TestSourceConformance(t *testing.T) {
	brokertest.RunSource(t, func(_ *testing.T, tier bool) brokertest.SourceSubject {
		topic := NewTopic("requests", 3)
		return brokertest.SourceSubject{
			Open: func(*testing.T) broker.Source {
				return NewSource(topic, SourceOptions{Tier: tier, Batch: 7})
			},
			Append: func(_ *testing.T, partition int, sent ...brokertest.Sent) {
				records := make([]intake.Record, len(sent))
				for i, s := range sent {
					records[i].Value, records[i].Stored = s.Value, delay.Due(time.Now().UnixMilli())
					for _, h := range s.Headers {
						records[i].Headers = append(records[i].Headers,
							intake.Header{Name: h.Name, Value: []byte(h.Value)})
					}
				}
				topic.Append(partition, records...)
			},
			Partitions:   3,
			Acknowledged: func(_ *testing.T, p int) int64 { return topic.Acknowledged(p) },
			Rejected: func(*testing.T) []brokertest.Reject {
				var out []brokertest.Reject
				for _, r := range topic.Rejected() {
					out = append(out, brokertest.Reject{Value: r.Value, Error: r.Reason})
				}
				return out
			},
			Shares: true,
		}
	})
}

// An empty topic, and one with fewer records than a cursor says, must be no failure.
func TestCursorBeyondTheEnd(t *testing.T) {
	topic := NewTopic("short", 1)
	r := &reader{source: NewSource(topic, SourceOptions{}), in: ahead{brokertest.NewIntake()}}
	require.Empty(t, r.next())
	topic.Append(0, intake.Record{Value: []byte("x")})
	require.Empty(t, r.next())
}

// ahead has a cursor that no record reached.
type ahead struct{ *brokertest.Intake }

func (ahead) Cursor(broker.Partition) (int64, bool) { return 100, true }
