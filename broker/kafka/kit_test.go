// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// world is a cluster in a bubble.
type world struct {
	t       *testing.T
	net     *kfake.VirtualNetwork
	cluster *kfake.Cluster
	client  *kgo.Client
	adm     *kadm.Client
}

// inBubble runs test with a cluster, in virtual time: no test waits, and a goroutine that does not
// end fails its test.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: new(kfake.VirtualNetwork)}
		cluster, err := kfake.NewCluster(
			kfake.NumBrokers(2), kfake.Ports(9001, 9002), kfake.ListenFn(w.net.Listen))
		require.NoError(t, err)
		defer cluster.Close()
		w.cluster = cluster
		w.client = w.plain(kgo.RecordPartitioner(kgo.ManualPartitioner()))
		defer w.client.Close()
		w.adm = kadm.NewClient(w.client)
		test(t, w)
	})
}

// plain is a client that knows nothing of us.
func (w *world) plain(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(w.cluster.ListenAddrs()...), kgo.Dialer(w.net.DialContext),
		kgo.MetadataMinAge(10 * time.Millisecond),
	}, opts...)...)
	require.NoError(w.t, err)
	return cl
}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	require.NoError(w.t, w.client.ProduceSync(w.t.Context(), records...).FirstErr())
}
