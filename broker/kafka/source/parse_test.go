// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A target that is refused must be refused each time, also behind one that may be used.
func TestTargetsAreRememberedOnlyWhenGood(t *testing.T) {
	var asked []delay.Target
	check := remember(func(target delay.Target) error {
		asked = append(asked, target)
		if target == "bad" {
			return delay.ErrInvalid
		}
		return nil
	})
	for _, target := range []delay.Target{"a", "a", "bad", "bad", "a", "b", "b", "a"} {
		require.Equal(t, target == "bad", check(target) != nil, "%s", target)
	}
	require.Equal(t, []delay.Target{"a", "bad", "bad", "b", "a"}, asked)
	require.Nil(t, remember(nil))
}
