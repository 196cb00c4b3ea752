// SPDX-License-Identifier: Apache-2.0

package calls

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// Who closes waits for every call that began before, and for none that was refused.
func TestCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Count
		c.Wait()
		require.NoError(t, c.Begin())
		require.NoError(t, c.Begin())
		require.True(t, c.Close())
		require.False(t, c.Close())
		require.ErrorIs(t, c.Begin(), delay.ErrClosed)
		waited := false
		go func() {
			c.Wait()
			waited = true
		}()
		c.End()
		synctest.Wait()
		require.False(t, waited)
		c.End()
		synctest.Wait()
		require.True(t, waited)
	})
}
