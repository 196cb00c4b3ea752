// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

func putIDs(t testing.TB, s *Store, prefix string, from, n int) {
	t.Helper()
	for at := from; at < from+n; at += 1000 {
		commit(t, s, func(b *Batch) {
			for i := at; i < min(at+1000, from+n); i++ {
				b.PutID(fmt.Sprint(prefix, i), IDRecord{Identity: delay.Identity{Key: key(5, 5)}})
			}
		})
	}
}

func fresh(t testing.TB, s *Store, n int) {
	t.Helper()
	for i := range n {
		_, ok, err := s.LookupID(fmt.Sprint("fresh-", i))
		require.NoError(t, err)
		require.False(t, ok)
	}
}

// A fresh id must cost no read of the store, before and after a clean restart: else intake is five
// times slower. After a crash it may, until the filter is rebuilt, and is never denied (L5).
func TestFreshIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		s := open(t, mem)
		putIDs(t, s, "id-", 0, 20_000)
		fresh(t, s, 10_000)
		require.Less(t, s.Metrics().IDReads, int64(100))
		require.NoError(t, s.Close())

		s = open(t, mem)
		require.True(t, s.IDsKnown())
		fresh(t, s, 10_000)
		require.Less(t, s.Metrics().IDReads, int64(100))
		putIDs(t, s, "id-", 20_000, 5000)
		clone := mem.CrashClone(vfs.CrashCloneCfg{})
		require.NoError(t, s.Close())

		s = open(t, clone)
		putIDs(t, s, "new-", 0, 1000) // while it is rebuilt
		synctest.Wait()
		require.True(t, s.IDsKnown())
		before := s.Metrics().IDReads
		fresh(t, s, 10_000)
		require.Less(t, s.Metrics().IDReads-before, int64(100))
		for i := range 25_000 {
			_, ok, err := s.LookupID(fmt.Sprint("id-", i))
			require.NoError(t, err)
			require.True(t, ok)
		}
		for i := range 1000 {
			_, ok, err := s.LookupID(fmt.Sprint("new-", i))
			require.NoError(t, err)
			require.True(t, ok)
		}
		require.NoError(t, s.Close())
	})
}

// Ids are forgotten after their window; a filter that never shrinks would fill memory and doubt
// everything in the end.
func TestFilterIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, vfs.NewMem())
		const n = 140_000
		putIDs(t, s, "old-", 0, n)
		bytes := s.Metrics().IDFilterBytes
		for at := 0; at < n; at += 1000 {
			commit(t, s, func(b *Batch) {
				for i := at; i < at+1000; i++ {
					b.DeleteID(fmt.Sprint("old-", i))
				}
			})
		}
		synctest.Wait()
		commit(t, s, func(b *Batch) { b.DeleteID("none") })
		synctest.Wait()
		require.Less(t, s.filter.current.Load().IDs(), int64(n/2+1000))
		require.LessOrEqual(t, s.Metrics().IDFilterBytes, bytes)
		before := s.Metrics().IDReads
		gone := 0
		for i := range n {
			if !s.filter.maybe(fmt.Sprint("old-", i)) {
				gone++
			}
		}
		require.Greater(t, gone, n/3)
		require.Equal(t, before, s.Metrics().IDReads)
		require.NoError(t, s.Close())
	})
}

// Closing while the filter is rebuilt must wait for it, and leave the next start to rebuild.
func TestCloseWhileRebuilding(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := open(t, mem)
	putIDs(t, s, "id-", 0, 20_000)
	clone := mem.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	for range 5 {
		s = open(t, clone)
		require.NoError(t, s.Close())
	}
	s = open(t, clone)
	_, ok, err := s.LookupID("id-7")
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, s.Close())
}
