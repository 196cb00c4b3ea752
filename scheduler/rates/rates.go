// SPDX-License-Identifier: Apache-2.0

// Package rates measures how fast lanes deliver.
package rates

import (
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Meter turns totals into rates between two looks at least a second apart.
type Meter struct {
	mu   sync.Mutex
	last map[delay.Target]rated
}

type rated struct {
	at    time.Time
	total int64
	rate  float64
}

// Take returns the rates of lanes.
func (m *Meter) Take(lanes []core.LaneStatus, now time.Time) []float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	rates := make([]float64, len(lanes))
	next := make(map[delay.Target]rated, len(lanes))
	for i := range lanes {
		t := &lanes[i]
		r, ok := m.last[t.Target]
		if since := now.Sub(r.at); !ok || since >= time.Second {
			if ok {
				r.rate = float64(t.Delivered-r.total) / since.Seconds()
			}
			r.at, r.total = now, t.Delivered
		}
		rates[i], next[t.Target] = r.rate, r
	}
	m.last = next
	return rates
}
