// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var errLost = errors.New("connection reset")

// The cache must stay within its bytes, drop the oldest, not keep errors, and not let one caller's
// impatience fail another.
func TestCache(t *testing.T) {
	ctx := t.Context()
	c := New[int, string](100)
	size := func(string) int64 { return 40 }
	loads := 0
	get := func(k int) string {
		v, err := c.Get(ctx, k, func(context.Context) (string, error) {
			loads++
			return fmt.Sprint(k), nil
		}, size)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, "1", get(1))
	require.Equal(t, "2", get(2))
	require.Equal(t, "1", get(1))
	require.Equal(t, 2, loads)
	get(3) // drops 2
	get(1)
	require.Equal(t, 3, loads)
	get(2)
	require.Equal(t, 4, loads)
	require.LessOrEqual(t, c.used, int64(100))
	_, err := c.Get(ctx, 9, func(context.Context) (string, error) { return "", errLost }, size)
	require.ErrorIs(t, err, errLost)
	require.Equal(t, "9", get(9))

	impatient, cancel := context.WithCancel(ctx)
	flying := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Get(impatient, 7, func(ctx context.Context) (string, error) {
			close(flying)
			<-ctx.Done()
			return "", ctx.Err()
		}, size)
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-flying
	wg.Go(func() {
		v, err := c.Get(ctx, 7, func(context.Context) (string, error) { return "seven", nil }, size)
		if v != "seven" || err != nil {
			t.Error(v, err)
		}
	})
	cancel()
	wg.Wait()
}
