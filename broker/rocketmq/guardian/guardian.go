// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/queue"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// Defaults and limits of a Guardian.
const (
	DefaultGrace = 5 * time.Second
	// Group is the consumer group that pulls are made for. It commits no offsets.
	Group = "cicada-guardian"

	maxQueries = 16 // keys that a call asks one cluster for at a time
	maxSends   = 64 // messages that a call sends at a time
)

// Options say what is guarded.
type Options struct {
	// Grace is how long a broker may be late before it is looked whether it has lost a message, and
	// how long lies between the two looks. 0: DefaultGrace.
	Grace time.Duration
	// DelayLevels and Timers: what is mirrored.
	DelayLevels, Timers bool
	// ConsumerRetries mirrors the delay levels of consumers that gave a message back, too.
	ConsumerRetries bool
	// Retired are names of brokers that will not come back. What they held is ours: it may be
	// changed, and is released when due, as uncertain. One that a name server knows is not retired.
	Retired []string
}

// Guardian mirrors and judges the delayed messages of one cluster.
type Guardian struct {
	cfg    rocketmq.Config
	o      Options
	client *remoting.Client
	quiet  *queue.Quiet
	n      counters
	counts queue.Counts // of the mirrored queues
	marks  *marks
	risk   *risk
	few    int // keys of a topic below which each is asked for

	recalled *recent // timers that were recalled

	mu      sync.Mutex
	started delay.Due // of Run; 0 before
	brokers map[string]*shared
	mirror  map[place]*mirrored
}

// place is a queue of a broker's own.
type place struct {
	broker, topic string
	number        int32
}

// counters count since the Guardian was made.
type counters struct {
	delivered, recalled, rescued, uncertain, unguarded atomic.Uint64
}

var (
	_ broker.Guardian = (*Guardian)(nil)
	_ broker.Source   = (*Guardian)(nil)
)

// New checks the configuration; what is wrong with it wraps delay.ErrInvalid. It connects nowhere
// yet.
func New(cfg rocketmq.Config, o Options) (*Guardian, error) {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	switch field := "brokers." + cfg.Broker + ".guardian"; {
	case o.Grace < time.Second:
		return nil, delay.Invalid(field+".grace", "less than 1s: brokers deliver by the second")
	case !o.DelayLevels && !o.Timers:
		return nil, delay.Invalid(field, "guards neither delay levels nor timers")
	}
	cfg, client, err := cfg.Open()
	if err != nil {
		return nil, err
	}
	return &Guardian{
		cfg: cfg, o: o, client: client, quiet: queue.NewQuiet(cfg.Now), marks: newMarks(&o),
		risk: newRisk(), few: fewKeys, recalled: newRecent(maxRecalled),
		brokers: map[string]*shared{}, mirror: map[place]*mirrored{},
	}, nil
}

// Name is the beginning of the lanes it judges: "guard:" and the cluster's name here.
func (g *Guardian) Name() string { return delay.Guards + g.cfg.Broker }

// Close ends the connections. It may be called twice.
func (g *Guardian) Close() error { return g.client.Close() }

func (g *Guardian) now() delay.Due { return delay.InstantOf(g.cfg.Now()) }

// lane is where the messages of a broker wait.
func (g *Guardian) lane(broker string) delay.Target {
	return delay.Target(g.Name() + "/" + broker)
}

// brokerOf is the broker whose lane this is.
func (g *Guardian) brokerOf(lane delay.Target) (string, error) {
	name, ok := strings.CutPrefix(string(lane), g.Name()+"/")
	if !ok || name == "" {
		return "", fmt.Errorf("%w: lane %q is not of %s", delay.ErrInvalid, lane, g.Name())
	}
	return name, nil
}

// master is the address of a broker.
func (g *Guardian) master(ctx context.Context, name string) (string, error) {
	route, err := g.client.Route(ctx, remoting.TopicSchedule)
	if err != nil {
		return "", err
	}
	if addr := route.Master(name); addr != "" {
		return addr, nil
	}
	g.client.Doubt(remoting.TopicSchedule)
	return "", fmt.Errorf("%w: broker %s has no master", delay.ErrUnavailable, name)
}

// isRetired reports whether a broker will not come back: so it was said, and there is none of that
// name.
func (g *Guardian) isRetired(ctx context.Context, name string) bool {
	if !slices.Contains(g.o.Retired, name) {
		return false
	}
	route, err := g.client.Refresh(ctx, remoting.TopicSchedule)
	if errors.Is(err, delay.ErrNotFound) { // no broker is there that has delay levels
		return true
	}
	return err == nil && route.Master(name) == ""
}

// log is the logger for what goes wrong again and again: once in a while it logs.
func (g *Guardian) log() *zap.Logger {
	if g.quiet.May() {
		return g.cfg.Logger
	}
	return zap.NewNop()
}

// pool calls do for 0 to n-1, limit at a time, and waits.
func pool(n, limit int, do func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			do(i)
		}
	}
	var wg sync.WaitGroup
	for range min(n, limit) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// Bounds of what is remembered.
const (
	maxMarks    = 1 << 18 // of each of two generations
	maxRecalled = 1 << 16 // likewise
)

// mark is what was seen of a message in earlier looks.
type mark struct {
	lost      delay.Due // when it was first seen lost, with everything else known; 0 is never
	undecided delay.Due // when it could first not be decided; 0 is never
	absences  int64     // of the broker, by then: while it is away nothing counts
}

// marks remember what Judge needs between two looks, of what was looked at lately: two generations,
// of which the older is dropped after a while. What is forgotten has its looks begin again.
type marks struct {
	seed   maphash.Seed
	rotate time.Duration

	mu         sync.Mutex
	young, old map[uint64]mark
	since      delay.Due
}

func newMarks(o *Options) *marks {
	return &marks{
		seed: maphash.MakeSeed(), rotate: max(10*o.Grace, time.Minute), young: map[uint64]mark{},
	}
}

// key is a message with its entry: another entry is looked at anew.
func (k *marks) key(id delay.ID, entry string) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	h.WriteString(string(id))
	h.WriteByte(0)
	h.WriteString(entry)
	return h.Sum64()
}

// note changes the mark of a message and returns it.
func (k *marks) note(key uint64, now delay.Due, change func(m *mark)) mark {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.since) > k.rotate || len(k.young) >= maxMarks {
		k.young, k.old, k.since = map[uint64]mark{}, k.young, now
	}
	m, ok := k.young[key]
	if !ok {
		m = k.old[key]
		delete(k.old, key)
	}
	change(&m)
	if m == (mark{}) {
		delete(k.young, key)
		return m
	}
	k.young[key] = m
	return m
}

// forget drops a mark: the message is decided.
func (k *marks) forget(key uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.young, key)
	delete(k.old, key)
}

// recent is a bounded set of ids, the latest of which it has.
type recent struct {
	mu         sync.Mutex
	most       int
	young, old map[delay.ID]struct{}
}

func newRecent(most int) *recent { return &recent{most: most, young: map[delay.ID]struct{}{}} }

func (r *recent) add(id delay.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= r.most {
		r.young, r.old = map[delay.ID]struct{}{}, r.young
	}
	r.young[id] = struct{}{}
}

func (r *recent) has(id delay.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, young := r.young[id]
	_, old := r.old[id]
	return young || old
}
