// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/inbox"
)

// batchOf is an intake op of n messages.
func batchOf(n int) *AcceptOp { return &AcceptOp{Drafts: make([]delay.Draft, n)} }

// Intake beyond either bound must be refused without a trace, what the shard asks for never, and a
// batch that is larger than a bound must not be refused for ever.
func TestInboxBounds(t *testing.T) {
	for _, c := range []struct {
		name   string
		weight int64
		n      int
		ok     bool
	}{
		{"fits", 500, 5, true}, {"to the byte", 900, 5, true}, {"a byte more", 901, 5, false},
		{"to the message", 500, 9, true}, {"a message more", 500, 10, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &Committer{inbox: inbox.New[Op](1000, 10)}
			require.NoError(t, q.Put(batchOf(1), 100))
			want := 3
			err := q.Put(batchOf(c.n), c.weight)
			if c.ok {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, delay.ErrOverloaded)
				want-- // without a trace
			}
			require.NoError(t, q.Put(Fence(nil), 0))
			ops, _ := q.inbox.Take(nil)
			require.Len(t, ops, want)
			require.NoError(t, q.Put(batchOf(11), 1001), "it finds the queue empty")
			require.ErrorIs(t, q.Put(batchOf(1), 1), delay.ErrOverloaded)
			require.ErrorIs(t, q.Put(&ReserveOp{N: 1}, 1), delay.ErrOverloaded)
		})
	}
}

// What a message takes is more than its body: headers alone can be 64 KiB of it.
func TestWeight(t *testing.T) {
	var d delay.Draft
	require.EqualValues(t, draftBytes, Weight(&d))
	d.Body, d.ID, d.Target, d.RoutingKey = make([]byte, 10), "1234", "pull:q", "key"
	d.Headers = []delay.Header{{Name: "a", Value: strings.Repeat("v", 1000)}}
	require.EqualValues(t, draftBytes+10+4+6+3+1001, Weight(&d))
}
