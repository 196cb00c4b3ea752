// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objio"
)

// Health is how the requests of one class do.
type Health = objio.Health

// Stats are what a Tier has done since it was opened.
type Stats struct {
	Since           time.Time        // when it was opened
	Accepted        int64            // messages since the shard was taken, by the committed books
	ManifestBytes   int64            // size of the manifest; 0: unknown
	Health          []Health         // the most urgent class first; nil when nothing is limited
	Requests        map[string]int64 // by "op/code", see Events.Request
	BytesIn         int64            // read from the bucket
	BytesOut        int64            // written to it
	Commits         int64            // manifests written
	LastCommit      time.Time        // the last success, "unchanged" included; zero: none
	LastCommitError string           // of the last Commit; empty when it succeeded
}

// meter counts for Stats.
type meter struct {
	mu    sync.Mutex
	stats Stats
}

func (m *meter) request(op, code string, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stats.Requests == nil {
		m.stats.Requests = make(map[string]int64)
	}
	m.stats.Requests[op+"/"+code]++
	if op == "put" || op == "put_if" {
		m.stats.BytesOut += bytes
	} else {
		m.stats.BytesIn += bytes
	}
}

func (m *meter) committed(now time.Time, written bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.stats.LastCommitError = err.Error()
		return
	}
	m.stats.LastCommit, m.stats.LastCommitError = now, ""
	if written {
		m.stats.Commits++
	}
}

func (m *meter) read() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Requests = maps.Clone(s.Requests)
	return s
}

// commitResult is the word for Events.Commit.
func commitResult(written bool, err error) string {
	switch {
	case err == nil && written:
		return "ok"
	case err == nil:
		return "unchanged"
	case errors.Is(err, delay.ErrFenced):
		return "fenced"
	case errors.Is(err, delay.ErrUnavailable):
		return "unavailable"
	default:
		return "error"
	}
}
