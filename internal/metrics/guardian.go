// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Guardian is how the guardian of a broker does. The counts are since its process began.
type Guardian struct {
	Lag        time.Duration     // of the mirror
	AtRisk     uint64            // pending messages in the oldest file of a commit log, or lost
	Endangered int               // queues that expiry is about to overtake
	Rescued    uint64            // released
	Uncertain  uint64            // of these, what the broker may have delivered
	Suppressed map[string]uint64 // by reason
	Missed     uint64            // expired before they were read
	Unguarded  uint64            // cannot be guarded
}

// guarded are the metrics of the guardians: name, help. The label is the broker.
var guarded = [...][2]string{
	{"rocketmq_mirror_lag_seconds", "How far the mirror of a broker's delays is behind in time."},
	{"rocketmq_at_risk_messages", "Pending delays whose copy is in the oldest file of a commit " +
		"log, or gone; of what was read since the start."},
	{"rocketmq_endangered_queues", "Queues whose entries are about to expire unread."},
	{"rocketmq_rescued_total", "Delays delivered because their broker had lost them."},
	{"rocketmq_uncertain_total", "Delays delivered that their broker may have delivered, too."},
	{"rocketmq_missed_total", "Delays that expired before they were read."},
	{"rocketmq_unguarded_total", "Delays that cannot be guarded."},
}

const suppressedName = "rocketmq_suppressed_total"

// guardianDescs describes the metrics of the guardians.
func guardianDescs() map[string]*prometheus.Desc {
	descs := make(map[string]*prometheus.Desc, len(guarded)+1)
	for _, m := range guarded {
		descs[m[0]] = prometheus.NewDesc(namespace+"_"+m[0], m[1], []string{"broker"}, nil)
	}
	descs[suppressedName] = prometheus.NewDesc(namespace+"_"+suppressedName,
		"Guarded messages that were not delivered here, by why.", []string{"broker", "reason"}, nil)
	return descs
}

// collectGuardian tells of the guardian of one broker.
func collectGuardian(
	ch chan<- prometheus.Metric, descs map[string]*prometheus.Desc, broker string, g *Guardian,
) {
	values := [...]float64{
		g.Lag.Seconds(), float64(g.AtRisk), float64(g.Endangered), float64(g.Rescued),
		float64(g.Uncertain), float64(g.Missed), float64(g.Unguarded),
	}
	for i, m := range guarded {
		kind := prometheus.GaugeValue
		if i > 2 {
			kind = prometheus.CounterValue
		}
		ch <- prometheus.MustNewConstMetric(descs[m[0]], kind, values[i], broker)
	}
	for reason, n := range g.Suppressed {
		ch <- prometheus.MustNewConstMetric(descs[suppressedName], prometheus.CounterValue, float64(n),
			broker, reason)
	}
}
