// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

var seeds = flag.Int("seeds", 5, "worlds of each kind in the model tests")

// kind is what goes wrong in a world.
type kind struct {
	name    string
	keeps   time.Duration // the commit log keeps so much; 0: everything
	skip    bool          // entries of levels are passed over
	crash   bool          // the guardian's process ends
	away    bool          // brokers go and come back, and forget their index
	answers bool          // answers to sends are lost
	brokers []string
}

// sentMessage is what a world knows of a message.
type sentMessage struct {
	key      string
	due      delay.Due
	recalled bool
}

// model is one world with its messages.
type model struct {
	*world
	k    kind
	r    *rand.Rand
	sent []sentMessage
	back map[int]delay.Due // when a broker came back
}

// Broker and guardian together: every message arrives; exactly once where nothing crashes and every
// answer comes, whatever expires; never before its due. What may come twice is what was released
// as uncertain (G3).
func TestModel(t *testing.T) {
	for _, k := range []kind{
		{name: "no faults", brokers: []string{"a"}},
		{name: "expiry", keeps: 15 * time.Second, brokers: []string{"a", "b"}},
		{name: "skips", skip: true, brokers: []string{"a"}},
		{name: "crashes", keeps: 15 * time.Second, skip: true, crash: true, brokers: []string{"a"}},
		{name: "answers", keeps: 15 * time.Second, answers: true, brokers: []string{"a", "b"}},
		{
			name: "everything", keeps: 20 * time.Second, skip: true, crash: true, away: true,
			answers: true, brokers: []string{"a", "b"},
		},
	} {
		t.Run(k.name, func(t *testing.T) {
			for seed := range *seeds {
				synctest.Test(t, func(t *testing.T) {
					defer func() {
						if t.Failed() {
							t.Logf("kind %q, seed %d", k.name, seed)
						}
					}()
					runModel(t, k, uint64(seed))
				})
			}
		})
	}
}

func runModel(t *testing.T, k kind, seed uint64) {
	t.Helper()
	w := newWorld(t, fakebroker.Options{
		Brokers: k.brokers, RollWindow: 25 * time.Second, FileSize: 4096,
	}, all())
	defer w.close()
	if seed%2 == 1 { // keys are looked for in the topic's queues, not one by one
		w.few = 1
		w.crash()
	}
	m := &model{world: w, k: k, back: map[int]delay.Due{}, r: rand.New(rand.NewPCG(seed, 1))}
	w.pass(time.Second)
	for range 60 {
		m.do()
		w.pass(time.Duration(m.r.IntN(15)) * 100 * time.Millisecond)
		if m.k.keeps > 0 && m.r.IntN(4) == 0 {
			m.expireOld()
		}
	}
	m.quiet()
	for range 300 {
		if len(w.shard.pending()) == 0 && w.now() > m.last() {
			break
		}
		w.pass(time.Second)
		if m.k.keeps > 0 {
			m.expireOld()
		}
	}
	require.Empty(t, w.shard.pending())
	m.check()
}

// do sends something, or something goes wrong.
func (m *model) do() {
	b := m.r.IntN(len(m.k.brokers))
	stopped := m.cluster.Broker(b).Stopped()
	switch n := m.r.IntN(20); {
	case n == 0 && m.k.skip:
		if lvl := 2 + m.r.IntN(3); m.canSkip(b, lvl) {
			m.cluster.Broker(b).Skip(lvl, 1)
		}
	case n == 1 && m.k.crash:
		m.world.crash()
	case n == 2 && m.k.away && !stopped:
		m.cluster.Broker(b).Stop()
	case n == 3 && m.k.away && stopped:
		m.start(b)
	case n == 4 && m.k.answers:
		m.loseAnswers(b, m.r.IntN(3))
	case stopped:
	case n < 12:
		lvl := 1 + m.r.IntN(4) // up to 30 s
		key := m.key()
		m.world.send(b, int32(m.r.IntN(4)), key, level(lvl))
		m.sent = append(m.sent, sentMessage{key: key, due: m.now().Add(fakebroker.Level(lvl))})
	default:
		due := m.now().Add(time.Duration(1000+m.r.IntN(60_000)) * time.Millisecond)
		key := m.key()
		sent := m.world.send(b, int32(m.r.IntN(4)), key, timerAt(due))
		one := sentMessage{key: key, due: due}
		if m.k.keeps == 0 && due < m.now().Add(20*time.Second) && due > m.now().Add(5*time.Second) &&
			m.r.IntN(3) == 0 {
			h, err := remoting.ParseRecallHandle(sent.Recall)
			require.NoError(m.t, err)
			require.NoError(m.t, m.client.Recall(m.t.Context(), m.cluster.Broker(b).Addr(), h))
			one.recalled = true
		}
		m.sent = append(m.sent, one)
	}
}

func (m *model) key() string { return fmt.Sprintf("key-%d", len(m.sent)) }

// canSkip reports whether a level has an entry that waits.
func (m *model) canSkip(b, lvl int) bool {
	info, err := m.client.RuntimeInfo(m.t.Context(), m.cluster.Broker(b).Addr())
	if err != nil {
		return false
	}
	delivered, end, ok := info.Level(lvl)
	return ok && delivered < end
}

func (m *model) start(b int) {
	require.NoError(m.t, m.cluster.Broker(b).Start(m.t.Context()))
	m.cluster.Broker(b).Reboot()
	m.back[b] = m.now()
}

// loseAnswers has the next sends of a broker stored and not answered.
func (m *model) loseAnswers(b, n int) {
	broker := m.cluster.Broker(b)
	broker.OnRequest(func(c *remoting.Command) fakebroker.Fault {
		m.mu.Lock()
		defer m.mu.Unlock()
		ours := c.Code == remoting.RequestSend && c.Fields["a"] == "cicada" && c.Fields["h"] == "5" &&
			remoting.ParseProperties(c.Fields["i"]).Value(PropertyRescued) != ""
		if !ours || n == 0 {
			return fakebroker.Fault{}
		}
		n--
		return fakebroker.Fault{Lose: true}
	})
}

// quiet ends all faults.
func (m *model) quiet() {
	for b := range m.k.brokers {
		if m.cluster.Broker(b).Stopped() {
			m.start(b)
		}
	}
}

// unseen is how long a mirror may need to see a broker again: what expires before is missed.
const unseen = 15 * time.Second

// expireOld loses what is older than the commit log keeps.
func (m *model) expireOld() {
	for b := range m.k.brokers {
		if !m.cluster.Broker(b).Stopped() && m.now().Sub(m.back[b]) > unseen {
			m.world.send(b, 0, "filler") // a commit log is never empty
			m.cluster.Broker(b).ExpireBefore(m.now().Add(-m.k.keeps))
		}
	}
}

func (m *model) last() (at delay.Due) {
	for _, s := range m.sent {
		at = max(at, s.due)
	}
	return at.Add(10 * time.Second)
}

// check looks at what consumers saw.
func (m *model) check() {
	twice, rescued := 0, 0
	for _, s := range m.sent {
		got := m.copies(s.key)
		switch {
		case s.recalled && !m.k.crash:
			require.Empty(m.t, got, "%s was recalled", s.key)
			continue
		case s.recalled:
			continue
		}
		require.NotEmpty(m.t, got, "%s is lost", s.key)
		twice += len(got) - 1
		for i := range got {
			require.GreaterOrEqual(m.t, got[i].Stored, s.due, "%s came early", s.key)
			if got[i].Properties.Value(PropertyRescued) != "" {
				rescued++
				if latest := s.due.Add(2*all().Grace + 3*time.Second); !m.k.crash && !m.k.away &&
					!m.k.answers {
					require.LessOrEqual(m.t, got[i].Stored, latest, s.key)
				}
			}
		}
	}
	require.LessOrEqual(m.t, twice, m.uncertain())
	if !m.k.away {
		require.Zero(m.t, m.uncertain())
	}
	if m.k.keeps == 0 && !m.k.skip {
		require.Zero(m.t, rescued)
	}
	m.t.Logf("%d sent, %d rescued, %d twice, %d uncertain", len(m.sent), rescued, twice, m.uncertain())
}
