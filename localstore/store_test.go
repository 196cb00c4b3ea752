// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const testDir = "data/shard-0"

func open(t testing.TB, fs vfs.FS, change ...func(*Options)) *Store {
	t.Helper()
	opts := Options{Simulated: true, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	for _, c := range change {
		c(&opts)
	}
	s, err := Open(fs, testDir, opts)
	require.NoError(t, err)
	return s
}

func commit(t testing.TB, s *Store, fill func(b *Batch)) {
	t.Helper()
	b := s.NewBatch()
	fill(b)
	p, err := s.Apply(b)
	require.NoError(t, err)
	synced, err := p.Wait()
	require.NoError(t, err)
	require.True(t, synced.Valid())
}

func record(target delay.Target, due delay.Due, body string) []byte {
	return delay.AppendRecord(nil, &delay.Message{
		Target: target, Due: due, AcceptedAt: due - 1000, Body: []byte(body),
	})
}

func key(due delay.Due, n uint64) delay.Key {
	return delay.Key{Due: due, Seq: delay.MakeSeq(1, n)}
}

func check(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.Check(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, r.Problems)
}

// A store that forgets on a clean close, or counts differently afterwards, breaks everything else.
func TestReopen(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	due := delay.DueOf(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	rec := record("log:", due, "hello")
	for i := range uint64(600) {
		commit(t, s, func(b *Batch) {
			b.PutRow(key(due+delay.Due(i)*3_600_000, i+1), rec)
			b.PutID("id", IDRecord{Identity: delay.Identity{Key: key(due, 1)}})
			b.SetMeta(Meta{ClusterID: "c", LeaseNext: i})
		})
	}
	counts := s.Counts()
	require.Equal(t, Tally{Messages: 600, Bytes: 600 * int64(len(rec))}, counts.Warm)
	check(t, s)
	require.NoError(t, s.Close())
	s = open(t, fs)
	require.Equal(t, counts, s.Counts())
	require.Equal(t, delay.MakeSeq(1, 600), s.LastSeq())
	require.Equal(t, uint64(599), s.Meta().LeaseNext)
	require.True(t, s.IDsKnown())
	_, ok, err := s.LookupID("id")
	require.NoError(t, err)
	require.True(t, ok)
	check(t, s)
	require.NoError(t, s.Close())
}
