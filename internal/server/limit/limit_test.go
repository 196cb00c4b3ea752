// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cicadamq/cicada/delay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Claims must not exceed the bound however they race, and a refused one must leave nothing behind
// (G1).
func TestBytes(t *testing.T) {
	b := NewBytes(1000, time.Now)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if err := b.Claim(300); err != nil {
					require.ErrorIs(t, err, delay.ErrOverloaded)
					continue
				}
				if b.Used() > 1000+8*300 { // claims that are being refused show for a moment
					t.Error("more than the bound is claimed")
				}
				b.Release(300)
			}
		})
	}
	wg.Wait()
	require.Zero(t, b.Used())
	require.NoError(t, b.Claim(1000))
	require.True(t, b.Full())
	require.Error(t, b.Claim(1))
	b.Release(1000)
	require.NoError(t, b.Claim(1))
}

// The pause must follow what is held and how quickly it goes (G2): a constant second would bring
// everybody back while nothing has moved.
func TestPause(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := NewBytes(1<<30, func() time.Time { return now })
	require.NoError(t, b.Claim(100_000))
	require.Equal(t, time.Second, b.Pause(), "nothing is known")
	b.Release(10_000)
	now = now.Add(time.Second)
	require.Equal(t, 9*time.Second, b.Pause(), "90,000 bytes at 10,000 a second")
	b.Release(45_000)
	now = now.Add(time.Second)
	require.Equal(t, time.Second, b.Pause(), "45,000 bytes at 45,000 a second")
	now = now.Add(time.Second)
	require.Equal(t, 30*time.Second, b.Pause(), "nothing moves")
	now = now.Add(time.Hour)
	require.Equal(t, time.Second, b.Pause(), "nobody has looked for long")
}

// Too many polls must be refused, and a close must end those that wait and refuse the others.
func TestPolls(t *testing.T) {
	p := NewPolls(2)
	first, end, err := p.Begin(t.Context())
	require.NoError(t, err)
	second, _, err := p.Begin(t.Context())
	require.NoError(t, err)
	_, _, err = p.Begin(t.Context())
	require.ErrorIs(t, err, delay.ErrOverloaded)
	end()
	require.Error(t, first.Err())
	third, _, err := p.Begin(t.Context())
	require.NoError(t, err)
	p.Close()
	p.Close()
	require.True(t, p.Closed())
	require.ErrorIs(t, second.Err(), context.Canceled)
	require.ErrorIs(t, third.Err(), context.Canceled)
	_, _, err = p.Begin(t.Context())
	require.ErrorIs(t, err, delay.ErrUnavailable)
}

// No more connections than the bound may be open, one that ends makes room, also when it is closed
// twice, and a close must end an Accept that waits for room.
func TestListener(t *testing.T) {
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := Listener(inner, 2)
	accepted := make(chan net.Conn, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	var clients []net.Conn
	for range 3 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		require.NoError(t, err)
		clients = append(clients, c)
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		require.Fail(t, "a third connection")
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, first.Close())
	require.Error(t, first.Close())
	third := <-accepted
	require.NoError(t, l.Close())
	require.Error(t, l.Close())
	wg.Wait()
	for _, c := range append(clients, second, third) {
		require.NoError(t, c.Close())
	}
}
