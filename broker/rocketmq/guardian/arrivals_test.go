// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// asked has keys looked for that are due at since, as Judge does after a look. It returns what was
// found of each, and whether the queues were read for it.
func (w *world) asked(since delay.Due, keys ...string) (hits []hit, read bool) {
	w.t.Helper()
	s, err := w.g.look(w.t.Context(), w.cluster.Broker(0).Name(), map[place]span{})
	require.NoError(w.t, err)
	ask := make([]*docket, len(keys))
	for i, key := range keys {
		ask[i] = &docket{
			d: &broker.Delivery{ID: delay.ID("id-" + key), Due: since},
			e: entry{RealTopic: orders, Unique: key, Due: since},
		}
	}
	rest := w.g.survey(w.t.Context(), s, ask)
	for _, c := range ask {
		hits = append(hits, c.hit)
	}
	return hits, len(rest) == 0
}

// put stores a message under a key in a queue of orders, as a broker does when it delivers.
func (w *world) put(queue int32, key string, p ...remoting.Property) {
	p = append(p, remoting.Property{Name: remoting.PropertyUniqueKey, Value: key})
	w.cluster.Broker(0).Put(&remoting.Message{
		Topic: orders, Queue: queue, Properties: p, Body: []byte("x"), Born: w.now(),
	})
}

// What a topic got is found in whatever queue it lies, and also when it came after others were
// looked for; what was stored before a due is no delivery (G2).
func TestArrivals(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.g.few = 1
		w.put(0, "early")
		w.pass(time.Minute)
		since := w.now()
		for q := range int32(4) {
			w.put(q, fmt.Sprint("k", q))
		}
		w.put(1, "k9", remoting.Property{Name: PropertyRescued, Value: "id-k9"})
		hits, read := w.asked(since, "k0", "k1", "k2", "k3", "k9", "early", "none")
		require.True(t, read)
		for i := range 4 {
			require.Equal(t, hit{found: true, whole: true}, hits[i], i)
		}
		require.Equal(t, hit{ours: true, whole: true}, hits[4])
		require.Equal(t, hit{whole: true}, hits[5])
		require.Equal(t, hit{whole: true}, hits[6])

		w.pass(time.Second)
		w.put(2, "none")
		hits, read = w.asked(since, "none", "k1")
		require.True(t, read)
		require.Equal(t, []hit{{found: true, whole: true}, {found: true, whole: true}}, hits)
		hits, read = w.asked(since.Add(-2*time.Minute), "early")
		require.True(t, read)
		require.Equal(t, []hit{{found: true, whole: true}}, hits, "of an earlier due")
	})
}

// A broker that starts again may have lost the end of a queue and filled it anew: what was read
// before says nothing about that.
func TestArrivalsOfAnotherRun(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.g.few = 1
		since := w.now()
		w.put(0, "a")
		w.put(0, "b")
		_, read := w.asked(since, "a", "b")
		require.True(t, read)
		w.pass(time.Second)
		w.cluster.Broker(0).Truncate(orders, 0, 1)
		hits, read := w.asked(since, "a", "b")
		require.True(t, read)
		require.Equal(t, []hit{{found: true, whole: true}, {whole: true}}, hits, "it is shorter")
		w.put(0, "b")
		_, read = w.asked(since, "b")
		require.True(t, read)
		w.pass(time.Second)
		w.cluster.Broker(0).Truncate(orders, 0, 1)
		w.cluster.Broker(0).Reboot()
		w.put(0, "c")
		w.pass(time.Second)
		hits, read = w.asked(since, "b", "c")
		require.True(t, read)
		require.Equal(t, []hit{{whole: true}, {found: true, whole: true}}, hits)
	})
}

// A busy topic is not read for a few keys, nor one that cannot be read: the index is asked. A key
// whose queue does not exist any more may lie there all the same.
func TestArrivalsThatAreNotRead(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.g.few = 2
		since := w.now()
		_, read := w.asked(since, "a")
		require.False(t, read, "too few keys")
		for i := range 2*worthwhile + 1 {
			w.put(int32(i%4), fmt.Sprint("k", i))
		}
		_, read = w.asked(since, "k0", "k1")
		require.False(t, read, "too many messages")
		hits, read := w.asked(since, "k0", "k1", "none")
		require.True(t, read)
		require.Equal(t, hit{found: true, whole: true}, hits[0])
		require.Equal(t, hit{whole: true}, hits[2])

		w.cluster.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code == remoting.RequestPull && c.Fields["queueId"] == "0" {
				return fakebroker.Fault{Refuse: remoting.NoPermission}
			}
			return fakebroker.Fault{}
		})
		w.put(0, "unseen")
		_, read = w.asked(since, "unseen", "k0")
		require.False(t, read, "it cannot be read")
		w.cluster.Broker(0).OnRequest(nil)
		hits, read = w.asked(since, "unseen", "k0")
		require.True(t, read)
		require.Equal(t, hit{found: true, whole: true}, hits[0])

		s, err := w.g.look(w.t.Context(), w.cluster.Broker(0).Name(), map[place]span{})
		require.NoError(t, err)
		far := &docket{
			d: &broker.Delivery{ID: "far", Due: since},
			e: entry{RealTopic: orders, Unique: "k0", RealQueue: 4, Due: since},
		}
		require.Len(t, w.g.survey(t.Context(), s, []*docket{far, far}), 2)
	})
}
