// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/segment"
)

// everything in the bucket, by name.
func (w *world) everything() map[string]string {
	out := map[string]string{}
	require.NoError(w.t, w.bucket.List(w.t.Context(), "", func(i objstore.Info) bool {
		body, info, err := w.bucket.Get(w.t.Context(), i.Key)
		require.NoError(w.t, err)
		out[i.Key] = info.ETag + string(body)
		return true
	}))
	return out
}

// newerManifest, newerSegment and newerMarks make an object one that needs another version.
func newerManifest(b []byte) []byte {
	b[8], b[9] = 100, 100
	binary.BigEndian.PutUint32(b[len(b)-4:], codec.CRC(b[:len(b)-4]))
	return b
}

func newerSegment(b []byte) []byte {
	foot := b[len(b)-segment.FooterSize:]
	foot[0], foot[1] = 100, 100
	at := segment.FooterSize - 8 - 4
	binary.BigEndian.PutUint32(foot[at:], codec.CRC(foot[:at]))
	return b
}

func newerMarks(b []byte) []byte {
	b[8], b[9] = 100, 100
	end := len(b) - segment.MarksFooterSize
	binary.BigEndian.PutUint32(b[end:], codec.CRC(b[:end]))
	return b
}

// A program that is set back after an upgrade must refuse what the newer one wrote, say which
// version is needed, and change nothing in the bucket: not take the shard, not compact away, not
// collect, not make a manifest anew.
func TestNewerBucket(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		change func(w *world, s *State)
		says   string
	}{
		"format": {func(w *world, _ *State) {
			_, err := w.bucket.Put(ctx, formatKey, []byte(formatStart+"2\nshards 9\n"), objstore.Condition{})
			require.NoError(t, err)
		}, `of format "2", this program knows 1`},
		"manifest": {func(w *world, _ *State) { w.spoil(manifestKey, newerManifest) },
			"needs a reader of version 100, this is one of version 3"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			s := w.commit(Cut{Rows: rowsOf(0, 10)})
			c.change(w, &s)
			before := w.everything()
			tier, err := Open(ctx, w.bucket, Options{RetryBase: -1})
			if err == nil {
				_, err = tier.Load(ctx)
				for _, expectNone := range []bool{false, true} {
					_, take := tier.Take(ctx, [16]byte{7}, expectNone)
					require.ErrorIs(t, take, ErrVersion)
				}
			}
			require.ErrorIs(t, err, ErrVersion)
			require.ErrorIs(t, err, delay.ErrCorrupt)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, before, w.everything())
		})
	}
	t.Run("objects", func(t *testing.T) {
		w := newWorld(t, Options{})
		var s State
		for i := range 6 {
			s = w.commit(Cut{
				Rows: rowsOf(i*10, i*10+10), Kept: []delay.Kept{keptOf(100+i, 1)},
				Marks: []delay.Mark{markOf(i)}, Uploaded: delay.MakeSeq(1, uint64(i*10+10)),
			})
		}
		marks, _, err := w.bucket.Get(ctx, w.tier.Prefix()+s.Marks[0].Name)
		require.NoError(t, err)
		_, err = segment.DecodeMarks(w.tier.z, newerMarks(marks), func(delay.Mark) bool { return true })
		require.ErrorIs(t, err, ErrVersion)
		for _, info := range append(s.Segments, s.Kept...) {
			w.spoil(info.Name, newerSegment)
		}
		owner := w.open(w.bucket, Options{})
		_, err = owner.Load(ctx)
		require.NoError(t, err)
		_, err = owner.Take(ctx, [16]byte{9}, false)
		require.NoError(t, err)
		before := w.everything()
		r := w.open(w.bucket, Options{ReadOnly: true})
		_, err = r.Load(ctx)
		require.NoError(t, err)
		all := func(delay.Key, []byte) bool { return true }
		for _, err := range []error{
			r.Scan(ctx, key(0), key(99), all),
			r.ScanKept(ctx, func(delay.Kept) bool { return true }),
		} {
			require.ErrorIs(t, err, ErrVersion)
			require.ErrorContains(t, err, "needs a reader of version 100, this is one of version 1")
		}
		u := smallAt(key(0).Due - 1000)
		u.Limits.TargetBytes = 16 << 10
		_, err = owner.Compact(ctx, u)
		require.ErrorIs(t, err, ErrVersion)
		report, err := r.Verify(ctx, nil)
		require.NoError(t, err)
		require.Len(t, report.Problems, 12)
		require.Equal(t, before, w.everything())
	})
}
