// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// A disk that does not answer holds whoever waits for it. The process must end all the same once
// the store has said so, and must wait for the others in every other case.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, failed := &errgroup.Group{}, make(chan error, 1)
		hang := make(chan struct{})
		g.Go(func() error {
			<-hang
			return nil
		})
		begun := time.Now()
		time.AfterFunc(time.Hour, func() { failed <- errFatal })
		require.ErrorIs(t, await(g, failed), errFatal)
		require.Equal(t, time.Hour+closeWithin, time.Since(begun))
		close(hang)

		other := errors.New("other")
		g, failed = &errgroup.Group{}, make(chan error, 1)
		g.Go(func() error {
			time.Sleep(time.Hour)
			return other
		})
		require.ErrorIs(t, await(g, failed), other)
	})
}
