// SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/objstoretest"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
	"github.com/cicadamq/cicada/tiered/objstore/s3/realtest"
)

// What a stand-in does and a real store does not would be found in production: the whole suite
// again, against the store that the environment names.
func TestRealStore(t *testing.T) {
	objstoretest.Run(t, func(t *testing.T) objstore.Bucket { return realtest.Open(t) })
}

// A store that we call fit must pass the probe in everything, checksums too.
func TestRealStoreProbe(t *testing.T) {
	verdict, err := probe.Probe(t.Context(), realtest.Open(t))
	require.NoError(t, err)
	require.Equal(t, probe.Verdict{
		Conditions: true, Races: true, Ranges: true, Lists: true, Checksums: true,
	}, verdict)
}

// A list of more than one page, and a delete of more than one request, must be whole: both end at
// 1,000 keys in real stores.
func TestRealStorePages(t *testing.T) {
	const n, writers = 1003, 17
	b := realtest.Open(t)
	keys := make([]string, n)
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += writers {
				keys[i] = fmt.Sprintf("l0/%07d.seg", i)
				_, errs[w] = b.Put(t.Context(), keys[i], []byte("x"), objstore.Condition{})
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	list := func() (got []string) {
		require.NoError(t, b.List(t.Context(), "l0/", func(i objstore.Info) bool {
			got = append(got, i.Key)
			return true
		}))
		return got
	}
	require.Equal(t, keys, list())
	require.NoError(t, b.Delete(t.Context(), slices.Concat(keys, []string{"l0/none"})...))
	require.Empty(t, list())
}
