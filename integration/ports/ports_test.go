// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two servers that are given the same port while neither listens yet: one of them does not start,
// once in some hundred runs, and the test that fails is another each time.
func TestHeld(t *testing.T) {
	p, err := Reserve(3)
	require.NoError(t, err)
	again := &Ports{First: p.First}
	require.False(t, again.take(1), "given away twice")
	again.Release()
	for range 2 { // what it is for: a server, and the next one at its address
		l, err := net.Listen("tcp", p.Addr(0))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
	p.Release()
	require.True(t, again.take(3))
	again.Release()
}

// A port that somebody listens on without asking is not given either.
func TestTaken(t *testing.T) {
	p, err := Reserve(1)
	require.NoError(t, err)
	p.Release()
	l, err := net.Listen("tcp", p.Addr(0))
	require.NoError(t, err)
	defer l.Close()
	require.False(t, p.take(1))
	p.Release()
}
