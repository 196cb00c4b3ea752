// SPDX-License-Identifier: Apache-2.0

package query

import (
	"errors"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Settled answers a receipt of target of which the core knows nothing: the message is finished, or
// its lease was lost with the process before it was durable.
func (q *Reader) Settled(
	kind core.Settlement, target delay.Target, r core.SettleKey,
) core.SettleResult {
	if r.Key.Seq.Counter() == 0 || r.Key.Seq > q.store.LastSeq() {
		return core.SettleNotFound
	}
	if _, err := q.store.Row(r.Key); err == nil {
		return core.Superseded
	}
	if _, _, err := q.store.Parked(target.Hash(), r.Key); err == nil {
		return core.Superseded
	}
	if _, _, err := q.store.Dead(r.Key); !errors.Is(err, delay.ErrNotFound) {
		return core.Superseded
	}
	if !r.Key.Less(q.store.Meta().Boundary) && q.tier != nil {
		// After a restore the message may wait in the bucket, to be delivered again.
		if _, marked, err := q.store.Mark(r.Key); err != nil || !marked {
			return core.Superseded
		}
	}
	if q.endedOtherwise(r) || kind != core.Ack {
		return core.Superseded
	}
	return core.Acked
}

// endedOtherwise reports whether the message of r is known to have ended by another attempt, or in
// another way, than by this receipt.
func (q *Reader) endedOtherwise(r core.SettleKey) bool {
	rec, ok, err := q.store.LookupID(string(q.ids.Make(q.shard, r.Key)))
	if err != nil || !ok {
		return false
	}
	this := rec.State == delay.Delivered && rec.Key == r.Key && rec.Attempts == r.Attempt
	return !this && !planted.Is(planted.LateAckBelieved)
}
