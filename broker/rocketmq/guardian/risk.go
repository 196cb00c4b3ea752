// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
)

// risk counts the pending entries that the mirror has read, by the file of the commit log that
// holds their copy and by the minute they are due in. It is rebuilt as far as the mirror reads, so
// after a restart what was read before is not counted; a timer that was written anew counts for
// each of its copies until it is due.
type risk struct {
	mu     sync.Mutex
	counts map[riskKey]uint32
}

type riskKey struct {
	broker string
	file   int64 // where it begins
	minute int64 // of the due
}

const (
	maxRisk  = 1 << 17 // keys; what would need more is not counted
	minuteMS = 60_000
)

func newRisk() *risk { return &risk{counts: map[riskKey]uint32{}} }

func (r *risk) add(broker string, fileSize int64, e *entry) {
	if fileSize <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := riskKey{broker, e.Physical - e.Physical%fileSize, int64(e.Due) / minuteMS}
	if _, ok := r.counts[k]; ok || len(r.counts) < maxRisk {
		r.counts[k]++
	}
}

// expire forgets what was due.
func (r *risk) expire(now delay.Due) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.counts {
		if k.minute < int64(now)/minuteMS {
			delete(r.counts, k)
		}
	}
}

// count tells how many copies of a broker lie in the oldest file of its commit log, and how many in
// files that are gone.
func (r *risk) count(broker string, low, fileSize int64) (oldest, lost uint64) {
	if fileSize <= 0 {
		return 0, 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, n := range r.counts {
		switch {
		case k.broker != broker:
		case k.file+fileSize <= low:
			lost += uint64(n)
		case k.file <= low:
			oldest += uint64(n)
		}
	}
	return oldest, lost
}

// Stats tell how it goes. The counts are since the Guardian was made.
type Stats struct {
	Rescued   uint64 // released because the broker had lost them
	Uncertain uint64 // of these, how many the broker may have delivered
	Delivered uint64 // suppressed, because the broker delivered them
	Recalled  uint64 // suppressed, because the broker took a recall
	Missed    uint64 // entries that expired before they were read
	Unguarded uint64 // entries that cannot be guarded
	AtRisk    uint64 // pending entries in the oldest file of a commit log, or in one that is gone
	// Lag is how long ago the oldest entry was stored that is not read yet, at most: the last one
	// that was read is older. Behind is how many are not read, as was known at most 10 s ago.
	Lag    time.Duration
	Behind uint64
	Queues int // that are read
	// Endangered is how many queues are so far behind that expiry is about to overtake the mirror.
	Endangered int
}

// Stats tells how it goes. It is safe to ask at any time.
func (g *Guardian) Stats() Stats {
	st := Stats{
		Rescued: g.n.rescued.Load(), Uncertain: g.n.uncertain.Load(),
		Delivered: g.n.delivered.Load(), Recalled: g.n.recalled.Load(),
		Missed: g.counts.Missed.Load(), Unguarded: g.n.unguarded.Load(),
	}
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	st.Queues = len(g.mirror)
	for _, m := range g.mirror {
		st.Behind += m.Lag()
		st.Lag = max(st.Lag, m.lag(now, g.started))
		if m.endangered() {
			st.Endangered++
		}
	}
	for name, s := range g.brokers {
		oldest, lost := g.risk.count(name, s.low.Load(), s.fileSize.Load())
		st.AtRisk += oldest + lost
	}
	return st
}

// lag is how far the mirror is behind in time.
func (m *mirrored) lag(now, started delay.Due) time.Duration {
	if m.Lag() == 0 {
		return 0
	}
	at := delay.Due(m.seenAt.Load())
	if at == 0 {
		at = started
	}
	return max(0, now.Sub(at))
}

// endangered reports whether what is read next lies in the oldest file of the commit log, while
// there is more to read than a moment's.
func (m *mirrored) endangered() bool {
	size, low := m.shared.fileSize.Load(), m.shared.low.Load()
	return m.Lag() > endangeredLag && size > 0 && low > 0 && m.seen.Load() < low-low%size+size
}

// endangeredLag is how many entries a mirror is always allowed to be behind.
const endangeredLag = 1000

// alarm asks how far each queue reaches, and tells of those whose entries are about to expire
// unread.
func (g *Guardian) alarm(ctx context.Context) {
	g.risk.expire(g.now())
	g.mu.Lock()
	all := slices.Collect(maps.Values(g.mirror))
	g.mu.Unlock()
	pool(len(all), maxQueries, func(i int) {
		m := all[i]
		addr, err := m.Master(ctx)
		if err != nil {
			return // the reader says so
		}
		end, err := g.client.MaxOffset(ctx, addr, m.topic, m.at.Number)
		if err == nil {
			m.Ends(end)
		}
	})
	for _, m := range all {
		if !m.endangered() {
			continue
		}
		g.cfg.Logger.Error("rocketmq guardian is about to be overtaken by expiry",
			zap.String("partition", string(m.partition)), zap.Uint64("behind", m.Lag()),
			zap.Int64("read_to", m.seen.Load()), zap.Int64("commit_log_begins", m.shared.low.Load()))
	}
}
