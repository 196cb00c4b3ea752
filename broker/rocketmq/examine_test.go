// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
)

// What is wrong must be found before a message depends on it, and what is well not be called ill.
func TestExamine(t *testing.T) {
	c := fake(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	c.CreateTopic(requests, 2)
	c.CreateTopic(rejects, 2)
	verdicts := func(cfg Config) map[string]broker.Verdict {
		out := map[string]broker.Verdict{}
		for _, f := range Examine(t.Context(), cfg, []SourceConfig{
			{Topic: requests, RejectTopic: rejects}, {Topic: "nowhere"},
		}) {
			require.NotEmpty(t, f.Detail)
			out[f.Check] = f.Verdict
		}
		return out
	}
	require.Equal(t, map[string]broker.Verdict{
		"broker a": broker.Good, "broker b": broker.Good,
		"retention of a": broker.Good, "retention of b": broker.Good,
		"source requests": broker.Good, "reject topic rejects": broker.Good,
		"source nowhere": broker.Bad,
	}, verdicts(config(c)))
	for i := range 2 {
		c.Broker(i).SetPermission(rejects, remoting.PermissionRead)
	}
	require.Equal(t, broker.Bad, verdicts(config(c))["reject topic rejects"])
	c.Broker(1).Stop()
	require.Equal(t, broker.Bad, verdicts(config(c))["broker b"])
	c.StopNameServer()
	require.Equal(t, map[string]broker.Verdict{"reachable": broker.Bad}, verdicts(config(c)))
	require.Equal(t, map[string]broker.Verdict{"configured": broker.Bad}, verdicts(Config{}))
}

// The loss this project began with: a delay that outlives the commit log.
func TestLongestDelay(t *testing.T) {
	config := map[string]string{"messageDelayLevel": "1s 5s 2h 1d"}
	longest, what := longestDelay(config)
	require.Equal(t, 24*time.Hour, longest)
	require.Equal(t, "delay levels", what)
	config["timerRollWindowSlot"], config["timerPrecisionMs"] = "172800", "1000"
	config["timerMaxDelaySec"] = "259200"
	longest, what = longestDelay(config)
	require.Equal(t, 48*time.Hour, longest)
	require.Equal(t, "timers", what)
	config["timerMaxDelaySec"] = "3600"
	longest, _ = longestDelay(config)
	require.Equal(t, 24*time.Hour, longest)
}
