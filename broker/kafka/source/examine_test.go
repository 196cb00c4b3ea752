// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/internal/client"
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

// What could go wrong: a topic that is missing, forbidden or set to lose requests is found by the
// first message that is lost.
func TestExamine(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, w *world) {
		w.requests(3, 5)
		_, stop := w.run(w.options(), newShard(t))
		w.until("it is committed", func() bool { return w.committed(0) == 5 })
		stop()
		o := w.options()
		require.Equal(t, map[string]broker.Verdict{
			"reachable": broker.Good, "source schedule": broker.Good, "group cicada": broker.Good,
			"reject topic schedule.rejected": broker.Good,
		}, verdicts(Examine(t.Context(), o.Config, []Options{o})))

		missing := o
		missing.Topic, missing.RejectTopic, missing.Group = "gone", "", "other"
		require.Equal(t, map[string]broker.Verdict{
			"reachable": broker.Good, "source gone": broker.Bad, "group other": broker.Good,
		}, verdicts(Examine(t.Context(), o.Config, []Options{missing})))

		_, err := w.adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{
			{Op: kadm.SetConfig, Name: "cleanup.policy", Value: new("compact")},
		}, inTopic)
		require.NoError(t, err)
		found := Examine(t.Context(), o.Config, []Options{o})
		require.Equal(t, broker.Warn, verdicts(found)["source schedule"])

		away := o.Config
		away.Seeds = []string{"127.0.0.1:1"}
		require.Equal(t, map[string]broker.Verdict{"reachable": broker.Bad},
			verdicts(Examine(t.Context(), away, []Options{o})))
	})
}

// What could go wrong: somebody who may not read is told that all is well.
func TestExaminePermissions(t *testing.T) {
	admin := kfake.Superuser("PLAIN", "admin", "a")
	user := kfake.User("PLAIN", "u", "p", kfake.ACL{
		Resource: kmsg.ACLResourceTypeTopic, Name: inTopic, Pattern: kmsg.ACLResourcePatternTypeLiteral,
		Operation: kmsg.ACLOperationDescribe, Allow: true,
	})
	cluster, err := kfake.NewCluster(kfake.SeedTopics(1, inTopic), kfake.EnableSASL(), kfake.EnableACLs(),
		admin, user)
	require.NoError(t, err)
	defer cluster.Close()
	cfg := Config{
		Broker: "main", Seeds: cluster.ListenAddrs(),
		SASL: client.SASL{Mechanism: client.Plain, User: "u", Password: "p"},
	}
	found := verdicts(Examine(t.Context(), cfg, []Options{{Topic: inTopic, Group: "g"}}))
	require.Equal(t, broker.Good, found["reachable"])
	require.Equal(t, broker.Bad, found["source schedule"])
	require.Equal(t, broker.Bad, found["group g"])
	cfg.SASL.User, cfg.SASL.Password = "admin", "a"
	found = verdicts(Examine(t.Context(), cfg, []Options{{Topic: inTopic, Group: "g"}}))
	require.Equal(t, broker.Good, found["group g"])
	cfg.SASL.Password = "wrong"
	require.Equal(t, map[string]broker.Verdict{"reachable": broker.Bad},
		verdicts(Examine(t.Context(), cfg, nil)))
}

// What could go wrong: a cluster without transactions, or whose clock is off, is found by the first
// message that must be delivered once.
func TestExamineTransactions(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		cfg := w.options().Config
		require.Equal(t, map[string]broker.Verdict{
			"ledger " + rejectTopic: broker.Good, "transactions": broker.Good, "clock": broker.Good,
		}, verdicts(ExamineTransactions(t.Context(), cfg, rejectTopic)))
		require.Equal(t, map[string]broker.Verdict{"ledger gone": broker.Note},
			verdicts(ExamineTransactions(t.Context(), cfg, "gone")))
		for off, want := range map[time.Duration]broker.Verdict{
			time.Second: broker.Warn, -time.Minute: broker.Bad,
		} {
			cfg.Now = func() time.Time { return time.Now().Add(off) }
			require.Equal(t, want, verdicts(ExamineTransactions(t.Context(), cfg, rejectTopic))["clock"])
		}
		cfg.Now = nil
		w.cluster.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Count: -1,
			Err: kerr.TransactionalIDAuthorizationFailed,
		})
		require.Equal(t, broker.Bad,
			verdicts(ExamineTransactions(t.Context(), cfg, rejectTopic))["transactions"])
		require.Empty(t, committedRecords(w))
	})
}

// What could go wrong: a sink that is configured for more than its brokers take finds that out with
// the first large message, and one for less makes dead letters of what would fit.
func TestExamineSize(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		cfg := w.options().Config
		for most, want := range map[int64]broker.Verdict{
			1_000_012: broker.Good, sizeUnlessConfigured: broker.Good, 2 << 20: broker.Warn,
		} {
			found := ExamineSize(t.Context(), cfg, most)
			require.Equal(t, want, found.Verdict, "%d: %v", most, found)
		}
		_, err := w.adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{
			{Op: kadm.SetConfig, Name: "message.max.bytes", Value: new("8388608")},
		})
		require.NoError(t, err)
		require.Equal(t, broker.Note, ExamineSize(t.Context(), cfg, 2<<20).Verdict)
		require.Equal(t, broker.Good, ExamineSize(t.Context(), cfg, 8<<20).Verdict)
		cfg.Seeds = []string{"127.0.0.1:1"}
		require.Equal(t, broker.Note, ExamineSize(t.Context(), cfg, 2<<20).Verdict)
	})
}

// committedRecords are those of the reject topic that readers of committed records see.
func committedRecords(w *world) []*kgo.Record {
	cl := w.plain(kgo.ConsumeTopics(rejectTopic), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return cl.PollFetches(ctx).Records()
}
