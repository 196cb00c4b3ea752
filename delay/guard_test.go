// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A guarded message waits in the lane of its broker, where nothing is delivered unasked; by its
// target it is found. A roll, which moves its copy, must not look like a repeated request.
func TestGuard(t *testing.T) {
	m := goldenGuarded()
	require.Equal(t, Target("guard:rmq/broker-a"), m.Lane())
	require.True(t, m.Lane().IsGuard())
	require.False(t, m.Target.IsGuard())
	require.NoError(t, m.Guard.Invalid())
	before := IdentityOf(Key{}, &m)
	require.True(t, before.Guarded)
	rolled := *m.Guard
	rolled.Entry = "offset=8"
	m.Guard = &rolled
	require.False(t, before.SameContent(IdentityOf(Key{}, &m)))
	for _, bad := range []Guard{
		{Lane: "guard:", Entry: "x"}, {Lane: "rocketmq:a/b", Entry: "x"}, {Lane: "guard:a/b"},
		{Lane: "guard:a/b", Entry: strings.Repeat("x", MaxGuardBytes+1)},
		{Lane: Target("guard:" + strings.Repeat("x", MaxGuardBytes)), Entry: "x"},
	} {
		require.ErrorIs(t, bad.Invalid(), ErrInvalid)
	}
}
