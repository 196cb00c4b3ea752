// SPDX-License-Identifier: Apache-2.0

package fakebroker

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// levels are the delays of the levels, from 1.
func levels() []time.Duration {
	return []time.Duration{
		time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
		2 * time.Minute, 3 * time.Minute, 4 * time.Minute, 5 * time.Minute, 6 * time.Minute,
		7 * time.Minute, 8 * time.Minute, 9 * time.Minute, 10 * time.Minute, 20 * time.Minute,
		30 * time.Minute, time.Hour, 2 * time.Hour,
	}
}

// Level is the delay of a level, from 1.
func Level(n int) time.Duration { return levels()[n-1] }

// Broker is one broker of a Cluster.
type Broker struct {
	cluster *Cluster
	name    string
	server  *server
	host    netip.AddrPort // what its messages say; set before the first

	mu        sync.Mutex
	topics    map[string]*topic
	groups    map[groupQueue]int64
	beats     map[string]int // heartbeats by client
	low, high int64          // of the commit log
	delivered map[int]int64  // by level: how far
	pending   []timer        // in the order in which they came
	read      int64          // how far the timer's queue was read
	wheel     delay.Due      // slots before it were delivered
	booted    delay.Due
	settings  string        // lines of its configuration beside the usual ones
	unindexed int64         // what lies below this offset of the commit log is not found by its key
	grown     chan struct{} // closed and made anew with every message
}

type topic struct {
	queues     []queue
	permission int
}

// queue holds what is there from low on.
type queue struct {
	low  int64
	list []remoting.Message
}

func (q *queue) high() int64 { return q.low + int64(len(q.list)) }

type groupQueue struct {
	group, topic string
	queue        int32
}

func newBroker(c *Cluster, name string) *Broker {
	b := &Broker{
		cluster: c, name: name, topics: map[string]*topic{}, groups: map[groupQueue]int64{},
		beats: map[string]int{}, delivered: map[int]int64{}, grown: make(chan struct{}),
	}
	b.booted, b.wheel = c.now(), c.now()
	b.server = &server{handle: b.handle, sign: c.signed, pipes: c.pipes}
	b.CreateTopic(remoting.TopicSchedule, len(levels()))
	b.CreateTopic(remoting.TopicTimer, 1)
	return b
}

// Name is what routes call it.
func (b *Broker) Name() string { return b.name }

// Addr is its address.
func (b *Broker) Addr() string { return b.server.address() }

// Stopped reports whether it is not there.
func (b *Broker) Stopped() bool { return b.server.stopped() }

// Stop ends all connections and takes no new ones. What was stored stays.
func (b *Broker) Stop() { b.server.stop() }

// Start is the reverse of Stop, at the same address.
func (b *Broker) Start(ctx context.Context) error { return b.server.start(ctx) }

// Cut ends all connections and takes new ones.
func (b *Broker) Cut() { b.server.cut() }

// OnRequest asks fault what goes wrong with each request; nil: nothing does. It may be called by
// many goroutines at once.
func (b *Broker) OnRequest(fault func(c *remoting.Command) Fault) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.server.fault = fault
}

// CreateTopic makes a topic, or changes the number of its queues.
func (b *Broker) CreateTopic(name string, queues int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.create(name, queues)
}

func (b *Broker) create(name string, queues int) *topic {
	t := b.topics[name]
	if t == nil {
		t = &topic{permission: remoting.PermissionRead | remoting.PermissionWrite}
		b.topics[name] = t
	}
	t.queues = append(t.queues, make([]queue, max(0, queues-len(t.queues)))...)[:queues]
	return t
}

// Configure sets lines of the configuration, which come after the usual ones. They change nothing
// that the broker does.
func (b *Broker) Configure(lines string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settings = lines
}

// SetPermission says whether a topic may be read and written.
func (b *Broker) SetPermission(name string, permission int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics[name].permission = permission
}

func (b *Broker) queues(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.topics[name]; t != nil {
		return len(t.queues)
	}
	return 0
}

func (b *Broker) permission(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t := b.topics[name]; t != nil {
		return t.permission
	}
	return 0
}

// Messages lists what a topic holds, queue by queue.
func (b *Broker) Messages(name string) []remoting.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []remoting.Message
	if t := b.topics[name]; t != nil {
		for _, q := range t.queues {
			all = append(all, q.list...)
		}
	}
	return all
}

// GroupOffset is the position that a group has committed, or -1.
func (b *Broker) GroupOffset(group, topic string, queue int32) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.groups[groupQueue{group, topic, queue}]; ok {
		return at
	}
	return -1
}

// Clients lists who sent heartbeats.
func (b *Broker) Clients() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.beats))
}

// CommitLog is the range of offsets the commit log holds.
func (b *Broker) CommitLog() (low, high int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.low, b.high
}

// Put stores a message as it is, as a broker does by itself.
func (b *Broker) Put(m *remoting.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.BornHost = b.address()
	b.store(m)
}

// Expire loses the commit log below an offset: every queue loses what lay there.
func (b *Broker) Expire(below int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.low = min(max(b.low, below), b.high)
	for _, t := range b.topics {
		for i := range t.queues {
			q := &t.queues[i]
			for len(q.list) > 0 && q.list[0].Physical < b.low {
				q.list, q.low = q.list[1:], q.low+1
			}
		}
	}
}

// ExpireBodies is Expire while the queues do not know of it yet: they are cleaned later.
func (b *Broker) ExpireBodies(below int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.low = min(max(b.low, below), b.high)
}

// ExpireBefore is Expire of what was stored before an instant.
func (b *Broker) ExpireBefore(at delay.Due) {
	b.mu.Lock()
	low := b.high
	for _, t := range b.topics {
		for i := range t.queues {
			for _, m := range t.queues[i].list {
				if m.Stored >= at {
					low = min(low, m.Physical)
					break
				}
			}
		}
	}
	b.mu.Unlock()
	b.Expire(low)
}

// Reboot forgets the index of keys, as a broker does that was killed: what was stored before is not
// found by its key any more.
func (b *Broker) Reboot() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.booted, b.unindexed = b.cluster.now(), b.high
}

// earliest is when the oldest message that is there was stored, or -1.
func (b *Broker) earliest() int64 {
	first := int64(-1)
	for _, t := range b.topics {
		for i := range t.queues {
			if q := &t.queues[i]; len(q.list) > 0 {
				if at := int64(q.list[0].Stored); first < 0 || at < first {
					first = at
				}
			}
		}
	}
	return first
}

// Skip passes over the next n entries of a delay level, from 1: they are never delivered.
func (b *Broker) Skip(level int, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delivered[level] += n
}

// DropTimers has the wheel forget the timers it holds: they stay in the commit log, and nobody
// delivers them.
func (b *Broker) DropTimers() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turnWheel(b.cluster.now())
	b.pending = nil
}

// Truncate loses the last n messages of a queue.
func (b *Broker) Truncate(name string, number, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := &b.topics[name].queues[number]
	q.list = slices.Clone(q.list[:len(q.list)-n])
}

// store appends m to the commit log and to a queue of its topic. The caller holds the lock.
func (b *Broker) store(m *remoting.Message) (offset int64) {
	t := b.topics[m.Topic]
	if t == nil {
		t = b.create(m.Topic, 8)
	}
	q := &t.queues[int(m.Queue)%len(t.queues)]
	m.Queue = int32(int(m.Queue) % len(t.queues))
	m.Stored = b.cluster.now()
	m.StoreHost = b.address()
	m.Offset, m.Physical = q.high(), b.high
	bytes, err := m.Append(nil)
	if err != nil {
		panic("BUG: fakebroker: stores what cannot be stored: " + err.Error())
	}
	m.Size = len(bytes)
	b.high += int64(len(bytes))
	q.list = append(q.list, *m)
	if b.cluster.opts.Stored != nil {
		b.cluster.opts.Stored(b.name, *m)
	}
	close(b.grown)
	b.grown = make(chan struct{})
	return m.Offset
}

func (b *Broker) address() netip.AddrPort {
	if !b.host.IsValid() {
		b.host, _ = netip.ParseAddrPort(b.Addr())
	}
	return b.host
}

// timer is a pending timer: an entry of the timer's queue, or the wish that one is not delivered.
type timer struct {
	at      delay.Due // when the wheel comes to it
	message remoting.Message
}

// Deliver moves what is due to the topics it is for.
func (b *Broker) Deliver() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.cluster.now()
	for level := 1; level <= len(levels()); level++ {
		b.deliverLevel(level, now)
	}
	b.deliverTimers(now)
}

func (b *Broker) deliverLevel(level int, now delay.Due) {
	q := &b.topics[remoting.TopicSchedule].queues[level-1]
	at := max(b.delivered[level], q.low) // what lay before is gone, and nobody says so
	for ; at < q.high(); at++ {
		m := q.list[at-q.low]
		if m.Stored.Add(Level(level)) > now {
			break
		}
		if m.Physical >= b.low { // else its body is gone, and nobody says so
			b.release(m)
		}
	}
	if at > 0 {
		b.delivered[level] = at
	}
}

// precision of the timer wheel, by which it is late.
const precision = time.Second

// turnWheel puts new entries of the timer's queue on the wheel.
func (b *Broker) turnWheel(now delay.Due) {
	q := &b.topics[remoting.TopicTimer].queues[0]
	for ; b.read < q.high(); b.read++ {
		if b.read < q.low {
			continue // gone before the wheel saw it
		}
		m := q.list[b.read-q.low]
		at := out(&m)
		if window := b.cluster.opts.RollWindow; at > now.Add(window) {
			at = now.Add(window)
		}
		b.pending = append(b.pending, timer{at: at, message: m})
	}
}

func (b *Broker) deliverTimers(now delay.Due) {
	b.turnWheel(now)
	b.wheel = now - now%delay.Due(precision.Milliseconds())
	var due, later []timer
	withdrawn := map[string]bool{}
	for _, t := range b.pending {
		switch {
		case t.at.Add(precision) > now:
			later = append(later, t)
		case t.message.Properties.Value(remoting.PropertyTimerDelete) != "":
			withdrawn[t.message.Properties.Value(remoting.PropertyTimerDelete)] = true
		default:
			due = append(due, t)
		}
	}
	b.pending = later
	for _, t := range due {
		m := t.message
		key := m.Properties.Value(remoting.PropertyRealTopic) + "+" +
			m.Properties.Value(remoting.PropertyUniqueKey)
		switch {
		case m.Physical < b.low: // its body is gone, and nobody says so
		case out(&m).Add(precision) > now:
			b.roll(m)
		case !withdrawn[key]:
			b.release(m)
		}
	}
}

// release stores a pending message under the topic it is for, without what made it wait.
func (b *Broker) release(m remoting.Message) {
	m.Topic = m.Properties.Value(remoting.PropertyRealTopic)
	m.Queue = int32(atoi(m.Properties.Value(remoting.PropertyRealQueue)))
	var kept remoting.Properties
	for _, p := range m.Properties {
		switch p.Name {
		case remoting.PropertyDelayLevel, remoting.PropertyDeliverAt, remoting.PropertyDelaySeconds,
			remoting.PropertyDelayMillis:
		case remoting.PropertyRealTopic, remoting.PropertyRealQueue:
			if _, timer := m.Properties.Get(remoting.PropertyTimerOut); !timer {
				kept = append(kept, p)
			}
		default:
			kept = append(kept, p)
		}
	}
	m.Properties = kept
	b.store(&m)
}

// roll writes a timer that is beyond the wheel's window anew.
func (b *Broker) roll(m remoting.Message) {
	rolls := atoi(m.Properties.Value(remoting.PropertyTimerRolls)) + 1
	m.Properties = slices.DeleteFunc(slices.Clone(m.Properties), func(p remoting.Property) bool {
		return p.Name == remoting.PropertyTimerRolls
	})
	m.Properties = append(m.Properties, remoting.Property{
		Name: remoting.PropertyTimerRolls, Value: itoa(rolls),
	})
	b.store(&m)
}

// out is when a timer is due.
func out(m *remoting.Message) delay.Due {
	return delay.Due(atoi(m.Properties.Value(remoting.PropertyTimerOut)))
}

func system(topic string) bool {
	return topic == remoting.TopicSchedule || strings.HasPrefix(topic, "rmq_sys_") &&
		topic != remoting.TopicTimer
}
