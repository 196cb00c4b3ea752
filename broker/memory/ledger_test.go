// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
)

// The ledger that tests of the shard stand on must keep what every ledger promises, also when the
// end of a transaction is not told.
func TestLedgerConformance(t *testing.T) {
	brokertest.RunLedger(t, func(*testing.T) brokertest.LedgerSubject {
		log := NewLog()
		var crashed *atomic.Bool
		return brokertest.LedgerSubject{
			Open: func(*testing.T) brokertest.ExactSink {
				dead := &atomic.Bool{}
				crashed = dead
				return NewExact(log, ExactOptions{Script: func(n int, _ []broker.Delivery) Commit {
					<-time.After(2 * time.Millisecond) // long enough to crash in
					told := !dead.Load()
					return Commit{Applied: told || n%2 == 0, Told: told}
				}})
			},
			Target:  "kafka:main/t",
			Visible: func(*testing.T) []broker.Done { return log.Visible() },
			Crash:   func(*testing.T, brokertest.ExactSink) { crashed.Store(true) },
			Drop:    func(_ *testing.T, entry uint64) { log.Drop(entry) },
		}
	})
}

// Exact is a sink as others are.
func TestExactConformance(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Subject {
		s := NewExact(NewLog(), ExactOptions{})
		require.NoError(t, s.Recover(t.Context(), 0, nil))
		return brokertest.Subject{Sink: s, Target: "kafka:main/t"}
	})
}

// A transaction that ended unheard must be looked up: sent again, its messages are there twice, and
// taken for done, they may be nowhere (R17).
func TestUnheardTransactions(t *testing.T) {
	for _, applied := range []bool{true, false} {
		log := NewLog()
		s := NewExact(log, ExactOptions{Script: func(n int, _ []broker.Delivery) Commit {
			return Commit{Applied: applied || n > 0, Told: n > 0}
		}})
		require.NoError(t, s.Recover(t.Context(), 0, nil))
		batch := []broker.Delivery{{ID: "a", Generation: 1}, {ID: "b", Generation: 1}}
		results := make([]broker.Result, 2)
		s.Deliver(t.Context(), batch, results)
		require.Equal(t, broker.Unknown, results[0].Outcome)
		s.Deliver(t.Context(), batch, results)
		require.Equal(t, broker.Delivered, results[0].Outcome)
		require.Equal(t, broker.Delivered, results[1].Outcome)
		require.Equal(t, []broker.Done{{ID: "a", Generation: 1}, {ID: "b", Generation: 1}},
			log.Visible())

		batch[0].Generation = 2 // another message under the same id
		s.Deliver(t.Context(), batch[:1], results[:1])
		require.Len(t, log.Visible(), 3)
	}
}
