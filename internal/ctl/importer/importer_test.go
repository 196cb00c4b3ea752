// SPDX-License-Identifier: Apache-2.0

package importer

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
)

// Only what no bucket holds is imported: rows that wait too briefly for an upload, rows accepted
// after the last one, and parked rows of either kind.
func TestEach(t *testing.T) {
	s, err := localstore.Open(vfs.NewMem(), "s", localstore.Options{Simulated: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	row := func(name string, cold bool) []byte {
		return delay.AppendRecord(nil, &delay.Message{
			ID: delay.ID(name), Target: "pull:q", Due: 2000, AcceptedAt: 1, Cold: cold,
			Body: []byte{0xff},
		})
	}
	key := func(n uint64) delay.Key { return delay.Key{Due: 2000, Seq: delay.MakeSeq(1, n)} }
	b := s.NewBatch()
	b.PutRow(key(1), row("uploaded", true))
	b.PutRow(key(2), row("brief", false))
	b.PutRow(key(9), row("late", true))
	b.PutParked(delay.Target("pull:q").Hash(), key(3), false, row("parked", false))
	b.SetMeta(localstore.Meta{Epoch: 1, Uploaded: delay.MakeSeq(1, 5)})
	pending, err := s.Apply(b)
	require.NoError(t, err)
	_, err = pending.Wait()
	require.NoError(t, err)
	var got []string
	require.NoError(t, Each(s, func(m delay.Message) error {
		r := Request(&m)
		require.Equal(t, "/w==", r["body_base64"])
		require.EqualValues(t, 2000, r["deliver_at"])
		got = append(got, r["id"].(string))
		return nil
	}))
	require.Equal(t, []string{"brief", "late", "parked"}, got)
}
