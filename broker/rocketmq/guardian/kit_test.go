// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // package realtest asks over HTTP and keeps its connection
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

// row is a message that a shard holds.
type row struct {
	draft delay.Draft
	at    delay.Due // when its guardian is asked next
	busy  bool
}

// shard plays the shard: it keeps what the mirror brings, asks the guardian, and does what it says.
// What it holds outlives a Guardian, as a disk does.
type shard struct {
	mu      sync.Mutex
	cursors map[broker.Partition]int64
	rows    map[delay.ID]*row
	ended   map[delay.ID]broker.Fate
	now     func() delay.Due
	gate    chan struct{} // not nil: Take waits until it is closed
	asked   int
}

func newShard() *shard {
	return &shard{
		cursors: map[broker.Partition]int64{}, rows: map[delay.ID]*row{},
		ended: map[delay.ID]broker.Fate{}, now: func() delay.Due { return delay.InstantOf(time.Now()) },
	}
}

func (s *shard) Now() delay.Due { return s.now() }

func (s *shard) Cursor(p broker.Partition) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.cursors[p]
	return at, ok
}

func (s *shard) Covered(p broker.Partition) (int64, bool) { return s.Cursor(p) }

func (s *shard) Take(ctx context.Context, b *broker.Batch) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.cursors[b.Partition]
	for i := range b.Items {
		if b.Items[i].Offset >= from {
			s.take(&b.Items[i])
		}
	}
	s.cursors[b.Partition] = max(from, b.Next)
	return nil
}

func (s *shard) take(it *broker.Item) {
	if it.Cancel != "" {
		if s.rows[it.Cancel] != nil {
			delete(s.rows, it.Cancel)
			s.ended[it.Cancel] = broker.Suppressed
		}
		return
	}
	d := it.Draft
	_, ended := s.ended[d.ID]
	old := s.rows[d.ID]
	switch {
	case old != nil && *old.draft.Guard == *d.Guard:
	case !d.Replace && (old != nil || ended):
		it.Err = delay.ErrExists
	default:
		d.Body, d.Headers = slices.Clone(d.Body), slices.Clone(d.Headers)
		s.rows[d.ID] = &row{draft: d, at: d.Due}
	}
}

// due lists what is due, by lane.
func (s *shard) due() map[delay.Target][]broker.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[delay.Target][]broker.Delivery{}
	for _, id := range slices.SortedFunc(maps.Keys(s.rows), cmp.Compare[delay.ID]) {
		r := s.rows[id]
		if r.at > s.now() || r.busy {
			continue
		}
		r.busy = true
		d := &r.draft
		out[d.Guard.Lane] = append(out[d.Guard.Lane], broker.Delivery{
			ID: id, Generation: 1, Target: d.Target, Due: d.Due, Attempt: 1, FiredAt: s.now(),
			Headers: d.Headers, Body: d.Body, Guard: d.Guard,
		})
	}
	return out
}

// step asks the guardian about what is due. With crash, nothing of its answers is noted.
func (s *shard) step(ctx context.Context, g broker.Guardian, crash bool) {
	for _, batch := range s.due() {
		judgments := make([]broker.Judgment, len(batch))
		g.Judge(ctx, batch, judgments)
		s.mu.Lock()
		s.asked += len(batch)
		for i := range batch {
			r := s.rows[batch[i].ID]
			if r == nil {
				continue
			}
			r.busy = false
			if r.draft.Guard != batch[i].Guard || crash {
				continue // it moved meanwhile
			}
			if judgments[i].Fate == broker.Held {
				r.at = s.now().Add(cmp.Or(judgments[i].After, time.Second))
				continue
			}
			delete(s.rows, batch[i].ID)
			s.ended[batch[i].ID] = judgments[i].Fate
		}
		s.mu.Unlock()
	}
}

// close makes Take wait until the gate is closed.
func (s *shard) close() (gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
	return s.gate
}

// pending lists the ids that it holds.
func (s *shard) pending() []delay.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.rows))
}

// fates counts how messages ended.
func (s *shard) fates() map[broker.Fate]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[broker.Fate]int{}
	for _, f := range s.ended {
		out[f]++
	}
	return out
}

const orders = "orders"

// world is a fake cluster, a shard, and a guardian between them, in virtual time.
type world struct {
	t       *testing.T
	cluster *fakebroker.Cluster
	client  *remoting.Client
	shard   *shard
	g       *Guardian
	stop    func()
	options Options
	few     int // keys of a topic below which each is asked for; 0 is the default
	started []*Guardian
	held    bool // the brokers do not deliver

	mu     sync.Mutex
	stored map[string][]remoting.Message // by unique key: what a consumer of a real topic sees
}

func newWorld(t *testing.T, o fakebroker.Options, options Options) *world {
	t.Helper()
	w := &world{t: t, shard: newShard(), options: options, stored: map[string][]remoting.Message{}}
	o.Pipes = true
	o.Stored = func(_ string, m remoting.Message) {
		if m.Topic == remoting.TopicSchedule || m.Topic == remoting.TopicTimer {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		key := m.Properties.Value(remoting.PropertyUniqueKey)
		w.stored[key] = append(w.stored[key], m)
	}
	var err error
	w.cluster, err = fakebroker.Start(t.Context(), o)
	require.NoError(t, err)
	w.cluster.CreateTopic(orders, 4)
	w.client, err = remoting.New(remoting.Config{
		NameServers: []string{w.cluster.NameServer()}, Dial: w.cluster.Dial,
	})
	require.NoError(t, err)
	w.open()
	return w
}

func (w *world) config() rocketmq.Config {
	return rocketmq.Config{
		Broker: "rmq", NameServers: []string{w.cluster.NameServer()}, Dial: w.cluster.Dial,
		Timeout: time.Second, Logger: zaptest.NewLogger(w.t),
	}
}

func (*world) configOf(servers ...string) rocketmq.Config {
	return rocketmq.Config{Broker: "rmq", NameServers: servers}
}

// open starts a guardian.
func (w *world) open() {
	w.t.Helper()
	g, err := New(w.config(), w.options)
	require.NoError(w.t, err)
	g.few = cmp.Or(w.few, fewKeys)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, w.shard) }()
	w.g, w.started = g, append(w.started, g)
	w.stop = func() {
		cancel()
		require.NoError(w.t, <-done)
		require.NoError(w.t, g.Close())
	}
}

// crash ends the guardian and starts another, which remembers nothing.
func (w *world) crash() {
	w.stop()
	w.shard.mu.Lock()
	for _, r := range w.shard.rows {
		r.busy = false
		r.at = min(r.at, max(r.draft.Due, w.shard.now()))
	}
	w.shard.mu.Unlock()
	w.open()
}

func (w *world) close() {
	w.stop()
	require.NoError(w.t, w.client.Close())
	w.cluster.Close()
}

// uncertain is what all guardians released without knowing.
func (w *world) uncertain() (n int) {
	for _, g := range w.started {
		n += int(g.Stats().Uncertain)
	}
	return n
}

func (w *world) copies(key string) []remoting.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.stored[key])
}

// send stores a message at a broker.
func (w *world) send(b int, queue int32, key string, p ...remoting.Property) remoting.Sent {
	w.t.Helper()
	sent, err := w.client.Send(w.t.Context(), w.cluster.Broker(b).Addr(), orders, queue,
		&remoting.Outgoing{
			Body: []byte("body of " + key), Born: delay.InstantOf(time.Now()), Flag: 5,
			Properties: append(p, remoting.Property{Name: remoting.PropertyUniqueKey, Value: key},
				remoting.Property{Name: remoting.PropertyKeys, Value: "k-" + key},
				remoting.Property{Name: remoting.PropertyTags, Value: "t"},
				remoting.Property{Name: "user", Value: "ä " + key}),
		})
	require.NoError(w.t, err)
	return sent
}

func level(n int) remoting.Property {
	return remoting.Property{Name: remoting.PropertyDelayLevel, Value: strconv.Itoa(n)}
}

func timerAt(due delay.Due) remoting.Property {
	return remoting.Property{
		Name: remoting.PropertyDeliverAt, Value: strconv.FormatInt(int64(due), 10),
	}
}

func (w *world) now() delay.Due { return delay.InstantOf(time.Now()) }

// inWorld runs a test in virtual time.
func inWorld(
	t *testing.T, o fakebroker.Options, options Options, do func(t *testing.T, w *world),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o, options)
		defer w.close()
		w.pass(time.Second)
		do(t, w)
	})
}

// idle lets time pass in which no broker delivers and the shard asks for nothing.
func (w *world) idle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// pass lets time pass in steps: the brokers deliver, the shard asks.
func (w *world) pass(d time.Duration) {
	const tick = 100 * time.Millisecond
	for ; d > 0; d -= tick {
		time.Sleep(min(tick, d))
		for i := range w.brokers() {
			if b := w.cluster.Broker(i); !b.Stopped() && !w.held {
				b.Deliver()
			}
		}
		w.shard.step(w.t.Context(), w.g, false)
	}
}

// expireOld loses what lies before the last copy of a timer, as it is in the timer's queue.
func (w *world) expireOld(b int, key string) {
	at := int64(0)
	for _, m := range w.cluster.Broker(b).Messages(remoting.TopicTimer) {
		if m.Properties.Value(remoting.PropertyUniqueKey) == key {
			at = m.Physical
		}
	}
	w.cluster.Broker(b).Expire(at)
}

// count is how many messages are marked.
func (k *marks) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.young) + len(k.old)
}

func (w *world) brokers() int { return max(1, len(w.cluster.Names())) }

// guard is the guard of a pending message. The mirror takes meanwhile.
func (s *shard) guard(id delay.ID) *delay.Guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[id].draft.Guard
}

// target is where a pending message goes.
func (s *shard) target(id delay.ID) delay.Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rows[id]; r != nil {
		return r.draft.Target
	}
	return ""
}
