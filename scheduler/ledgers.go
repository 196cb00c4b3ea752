// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/ledger"
)

// openLedgers makes the keepers of the ledgers.
func (s *Shard) openLedgers(restored bool) {
	s.ledgers = make(ledger.Keepers, len(s.parts.Ledgers))
	for prefix, sink := range s.parts.Ledgers {
		name := "ledger:" + prefix
		s.ledgers[prefix] = ledger.New(ledger.Config{
			Name: name, Sink: sink, Restored: restored, Log: s.log.With(zap.String("ledger", prefix)),
			Read: s.positions.Read, Covered: s.positions.Covered,
			Fate: func(d broker.Done) ledger.Fate { return ledger.FateOf(s.find, s.ids, d) },
			Sync: s.syncOutcomes,
			Note: func(next int64, unheard []broker.Done, known []bool) error {
				done := make(chan error, 1)
				err := s.do(commit.NoteLedger(name, next, unheard, known, done), 0, done)
				if err == nil && next > 0 {
					s.positions.SetRead(name, next)
				}
				return err
			},
		})
	}
}

// hand makes one attempt at each of batch. What it returns is to be called when the core was told
// of the results.
func (s *Shard) hand(
	ctx context.Context, sink broker.Sink, batch []broker.Delivery, results []broker.Result,
) func() {
	if k := s.ledgers.Of(batch[0].Target); k != nil {
		return k.Deliver(ctx, batch, results)
	}
	sink.Deliver(ctx, batch, results)
	return func() {}
}

// postpone has claims come again while their ledger is being read: nothing was tried.
func (s *Shard) postpone(a core.ActDeliver) {
	outcomes := make([]core.Outcome, len(a.Claims))
	for i := range outcomes {
		outcomes[i] = again(a.Claims[i].Ref.Key, ledger.NotReady)
	}
	s.post(core.EvOutcomes{Lane: a.Lane, Outcomes: outcomes})
}

// syncOutcomes returns when the outcomes that the core was told of are on the disk.
func (s *Shard) syncOutcomes(ctx context.Context) error {
	handed := make(chan struct{})
	s.post(core.EvSync{Done: handed})
	select {
	case <-handed:
	case <-s.closed:
		return delay.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	done := make(chan error, 1)
	return s.do(commit.Fence(done), 0, done)
}
