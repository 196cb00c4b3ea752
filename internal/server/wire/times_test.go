// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// The hand-made calendar must agree with the library's on every kind of day.
func TestAppendDue(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 200_000 {
		due := delay.Due(rng.Int64N(int64(delay.MaxDue) + 1))
		if i < 30_000 { // every day of 82 years
			due = delay.Due(int64(i)*86_400_000 + rng.Int64N(86_400_000))
		}
		if got := AppendDue(nil, due); string(got) != due.String() {
			require.Equal(t, due.String(), string(got))
		}
	}
	require.Equal(t, delay.MaxDue.String(), string(AppendDue(nil, delay.MaxDue)))
}
