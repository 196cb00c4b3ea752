// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What could go wrong: requests out of order, twice, under another identity, offsets committed
// before the shard has them, or never.
func TestSourceTakesInOrderAndCommits(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, w *world) {
		w.requests(3, 2500)
		sh := newShard(t)
		src, stop := w.run(w.options(), sh)
		w.until("all are taken", func() bool { return sh.count() == 7500 })
		sh.complete(3, 2500)
		w.until("all are committed", func() bool { return w.committed(2) == 2500 })
		require.Equal(t, int64(2500), sh.cursors[w.name(0)])
		first := sh.got[w.name(1)][0]
		require.Equal(t, string(w.name(1))+"/0", string(first.Draft.ID))
		require.Equal(t, "1/0", string(first.Draft.Body))
		st := src.Stats()
		require.Equal(t, 3, st.Partitions)
		require.Zero(t, st.Lag)
		require.Equal(t, int64(7500), st.Taken)
		stop()
		require.Zero(t, src.Stats().Partitions)
	})
}

// What could go wrong: a cancel is taken for a message without a body.
func TestSourceCancels(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.produce(request(0, "o-1", "x"), &kgo.Record{
			Topic: inTopic, Headers: []kgo.RecordHeader{{Key: "cicada-id", Value: []byte("o-1")}},
		})
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.until("both are taken", func() bool { return sh.count() == 2 })
		stop()
		items := sh.got[w.name(0)]
		require.Equal(t, "o-1", string(items[0].Draft.ID))
		require.Equal(t, "o-1", string(items[1].Cancel))
	})
}

// What could go wrong: the rest of a commit interval is lost when the source stops.
func TestSourceCommitsWhenItStops(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.requests(1, 10)
		sh := newShard(t)
		opts := w.options()
		opts.CommitInterval = time.Hour
		_, stop := w.run(opts, sh)
		w.until("all are taken", func() bool { return sh.count() == 10 })
		require.Equal(t, int64(-1), w.committed(0))
		stop()
		require.Equal(t, int64(10), w.committed(0))
	})
}

// What could go wrong: an empty body is taken for a null value and cancels.
func TestSourceKeepsAnEmptyBody(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		r := request(0, "o-1", "")
		r.Value = []byte{}
		w.produce(r)
		sh := newShard(t)
		_, stop := w.run(w.options(), sh)
		w.until("it is taken", func() bool { return sh.count() == 1 })
		stop()
		require.Empty(t, sh.got[w.name(0)][0].Cancel)
	})
}
