// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/find"
)

// Fate is what the shard knows of something that a ledger lists.
type Fate uint8

// The fates.
const (
	Doubtful Fate = iota // not to be said now: ids are being restored
	Pending              // it waits to be delivered: its attempt is answered from the ledger
	Settled              // it has ended, or another generation took its place
	Unheard              // nobody knows it
)

// FateOf asks the local store.
func FateOf(finder *find.Finder, ids delay.IDMaker, d broker.Done) Fate {
	loc, err := finder.Locate(d.ID)
	kind, _, _ := ids.Parse(d.ID)
	there, generation := loc.Place != find.PlaceNone, max(1, loc.Rec.Generation)
	switch {
	case err != nil:
		return Doubtful
	case there && generation <= d.Generation:
		return Pending
	case there, loc.Known && generation >= d.Generation:
		return Settled
	case kind == delay.ServerID:
		return Settled // nobody brings it again
	default:
		return Unheard
	}
}
