// SPDX-License-Identifier: Apache-2.0

package fakebroker_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// That it agrees with a real broker where both can be asked is tested by package remoting; here is
// what only a fake one does.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "orders"

type world struct {
	*fakebroker.Cluster
	*remoting.Client
	now  atomic.Int64
	addr string
}

func start(t *testing.T, opts fakebroker.Options) *world {
	t.Helper()
	w := &world{}
	w.now.Store(1_800_000_000_000)
	opts.Now = func() time.Time { return time.UnixMilli(w.now.Load()) }
	var err error
	w.Cluster, err = fakebroker.Start(t.Context(), opts)
	require.NoError(t, err)
	t.Cleanup(w.Cluster.Close)
	w.Cluster.CreateTopic(topic, 4)
	w.Client, err = remoting.New(remoting.Config{
		NameServers: []string{w.NameServer()},
		AccessKey:   opts.AccessKey, SecretKey: opts.SecretKey,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Client.Close()) })
	w.addr = w.Broker(0).Addr()
	return w
}

func (w *world) pass(d time.Duration) {
	w.now.Add(d.Milliseconds())
	w.Deliver()
}

func (w *world) send(t *testing.T, key string, p ...remoting.Property) remoting.Sent {
	t.Helper()
	s, err := w.Send(t.Context(), w.addr, topic, 2, &remoting.Outgoing{
		Body:       []byte(key),
		Properties: append(p, remoting.Property{Name: remoting.PropertyUniqueKey, Value: key}),
	})
	require.NoError(t, err)
	return s
}

func at(due int64) remoting.Property {
	return remoting.Property{Name: remoting.PropertyDeliverAt, Value: fmt.Sprint(due)}
}

func level(n int) remoting.Property {
	return remoting.Property{Name: remoting.PropertyDelayLevel, Value: fmt.Sprint(n)}
}

func (w *world) delivered() (keys []string) {
	for _, m := range w.Messages(topic) {
		keys = append(keys, string(m.Body))
	}
	return keys
}

// Without faults every delay must arrive, once, when it is due, as it was.
func TestDelaysArrive(t *testing.T) {
	w := start(t, fakebroker.Options{RollWindow: time.Hour})
	w.send(t, "level", level(5))
	w.send(t, "timer", at(w.now.Load()+90_000))
	w.send(t, "rolled", at(w.now.Load()+150*60_000))
	recalled := w.send(t, "recalled", at(w.now.Load()+90_000))
	h, err := remoting.ParseRecallHandle(recalled.Recall)
	require.NoError(t, err)
	require.NoError(t, w.Recall(t.Context(), w.addr, h))
	w.pass(time.Minute - time.Millisecond)
	require.Empty(t, w.delivered())
	w.pass(time.Millisecond)
	require.Equal(t, []string{"level"}, w.delivered())
	w.pass(31 * time.Second)
	require.Equal(t, []string{"level", "timer"}, w.delivered())
	for range 200 {
		w.pass(time.Minute)
	}
	require.Equal(t, []string{"level", "timer", "rolled"}, w.delivered())
	for _, m := range w.Messages(topic) {
		require.EqualValues(t, 2, m.Queue)
		require.Empty(t, m.Properties.Value(remoting.PropertyDelayLevel))
		require.Empty(t, m.Properties.Value(remoting.PropertyDeliverAt))
	}
	require.Equal(t, "2", w.Messages(topic)[2].Properties.Value(remoting.PropertyTimerRolls))
}

// The losses this project is about: the commit log goes before the delay is over, or an entry is
// passed over, and nothing says so.
func TestDelaysAreLost(t *testing.T) {
	w := start(t, fakebroker.Options{})
	w.send(t, "level", level(5))
	w.send(t, "timer", at(w.now.Load()+60_000))
	w.pass(0) // the wheel has read the timer: its body is still in the commit log alone
	_, high := w.Broker(0).CommitLog()
	w.send(t, "later level", level(5))
	w.send(t, "skipped", level(6))
	w.send(t, "not skipped", level(6))
	w.Broker(0).Expire(high)
	w.Broker(0).Skip(6, 1)
	w.pass(10 * time.Minute)
	require.Equal(t, []string{"later level", "not skipped"}, w.delivered())
	info, err := w.RuntimeInfo(t.Context(), w.addr)
	require.NoError(t, err)
	low, _, err := info.CommitLog()
	require.NoError(t, err)
	require.Equal(t, high, low)
	delivered, end, ok := info.Level(5)
	require.True(t, ok)
	require.Equal(t, []int64{2, 2}, []int64{delivered, end})
	least, err := w.MinOffset(t.Context(), w.addr, remoting.TopicSchedule, 4)
	require.NoError(t, err)
	require.EqualValues(t, 1, least)
}

// Each fault must look to a client as it would on the wire.
func TestFaults(t *testing.T) {
	w := start(t, fakebroker.Options{AccessKey: "ak", SecretKey: "sk"})
	b := w.Broker(0)
	wait := make(chan struct{}) // for ever
	for name, c := range map[string]struct {
		fault  fakebroker.Fault
		want   remoting.Outcome
		stored bool
	}{
		"refused":  {fakebroker.Fault{Refuse: remoting.SystemBusy}, remoting.No, false},
		"answered": {fakebroker.Fault{Answer: remoting.FlushDiskTimeout}, remoting.Unknown, true},
		"lost":     {fakebroker.Fault{Lose: true}, remoting.Unknown, true},
		"cut":      {fakebroker.Fault{Cut: 5}, remoting.Unknown, true},
		"closed":   {fakebroker.Fault{Cut: -1}, remoting.Unknown, true},
		"slow":     {fakebroker.Fault{Wait: wait}, remoting.Unknown, false},
	} {
		before := len(w.Messages(topic))
		b.OnRequest(func(*remoting.Command) fakebroker.Fault { return c.fault })
		client, err := remoting.New(remoting.Config{ // a connection that ends is not made again at once
			AccessKey: "ak", SecretKey: "sk", Timeout: time.Second,
		})
		require.NoError(t, err)
		_, err = client.Send(t.Context(), w.addr, topic, 0, &remoting.Outgoing{Body: []byte("b")})
		require.NoError(t, client.Close())
		var e *remoting.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, c.want, e.Outcome, "%s: %v", name, err)
		require.Equal(t, c.stored, len(w.Messages(topic)) > before, name)
		b.OnRequest(nil)
	}
	w.send(t, "fine")
	b.SetPermission(topic, remoting.PermissionRead)
	_, err := w.Send(t.Context(), w.addr, topic, 0, &remoting.Outgoing{Body: []byte("b")})
	require.ErrorContains(t, err, "answer 16")
	other, err := remoting.New(remoting.Config{AccessKey: "ak", SecretKey: "wrong"})
	require.NoError(t, err)
	defer other.Close()
	_, err = other.MaxOffset(t.Context(), w.addr, topic, 0)
	require.ErrorContains(t, err, "signature")
}

// A broker that went must be out of the route, and be back with what it had.
func TestStopAndStart(t *testing.T) {
	w := start(t, fakebroker.Options{Brokers: []string{"a", "b"}})
	r, err := w.Refresh(t.Context(), topic)
	require.NoError(t, err)
	require.Len(t, r.Writable(), 8)
	w.send(t, "before")
	w.Broker(0).Stop()
	_, err = w.MaxOffset(t.Context(), w.addr, topic, 2)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	r, err = w.Refresh(t.Context(), topic)
	require.NoError(t, err)
	require.Len(t, r.Writable(), 4)
	require.NoError(t, w.Broker(0).Start(t.Context()))
	require.Eventually(t, func() bool {
		high, err := w.MaxOffset(t.Context(), w.addr, topic, 2)
		return err == nil && high == 1
	}, 10*time.Second, 10*time.Millisecond)
	w.Broker(0).Truncate(topic, 2, 1)
	high, err := w.MaxOffset(t.Context(), w.addr, topic, 2)
	require.NoError(t, err)
	require.Zero(t, high)
	w.DeleteTopic(topic)
	_, err = w.Refresh(t.Context(), topic)
	require.ErrorIs(t, err, delay.ErrNotFound)
	w.StopNameServer()
	_, err = w.Refresh(t.Context(), topic)
	require.ErrorIs(t, err, delay.ErrUnavailable)
	require.NoError(t, w.StartNameServer(t.Context()))
}
