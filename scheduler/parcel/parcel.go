// SPDX-License-Identifier: Apache-2.0

// Package parcel reads the messages of claims: local rows with one iterator, parked rows one by
// one, and what is missing locally from the tier.
//
//	claims --keys--> rows --missing--> parked rows --missing--> bucket --> parcels, in their order
//
// It writes nothing: a crash at any line leaves nothing behind.
package parcel

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/lanes"
	"github.com/cicadamq/cicada/tiered"
)

// fetchTimeout bounds the fallback read of one batch of bodies.
const fetchTimeout = 10 * time.Second

// Parcel is a claim with its message.
type Parcel struct {
	core.Claim
	Msg   delay.Message
	ID    delay.ID
	Found bool
	Err   error // why it was not found
}

// HandedOver is the outcome of an at-most-once message, written before it leaves.
func (p *Parcel) HandedOver() core.FinishItem {
	return core.FinishItem{
		Ref: p.Ref, Parked: p.Parked, Parking: true, State: delay.Delivered, Attempts: p.Attempt,
	}
}

// Reader reads messages. Fallback is told of bodies that are fetched from the tier; it and Tier may
// be nil. It is safe for concurrent use.
type Reader struct {
	Store    *localstore.Store
	Tier     *tiered.Tier
	Bulk     *find.Bulk
	IDs      delay.IDMaker
	Shard    delay.Shard
	Lanes    *lanes.Table
	Log      *zap.Logger
	Fallback func(n int)
}

// open decodes rec into the parcel; rec must not change afterwards.
func (r *Reader) open(p *Parcel, rec []byte) {
	p.Msg, p.Err = delay.DecodeRecord(rec)
	p.Found = p.Err == nil
	p.ID = p.Msg.ID
	if p.ID == "" {
		p.ID = r.IDs.Make(r.Shard, p.Ref.Key)
	}
	if p.Attempt > 1 && planted.Is(planted.RetryRenamed) {
		p.ID = r.IDs.Make(r.Shard, p.Ref.Key.Next())
	}
}

// Read reads the messages of claims of a lane. The result is in the order of the claims.
func (r *Reader) Read(ctx context.Context, lane uint32, claims []core.Claim) []Parcel {
	out := make([]Parcel, len(claims))
	order := make([]int, 0, len(claims))
	keys := make([]delay.Key, 0, len(claims))
	bytes := 0
	for i := range claims {
		out[i].Claim = claims[i]
		if !claims[i].Parked {
			order = append(order, i)
			bytes += claims[i].Ref.Size()
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return claims[a].Ref.Key.Compare(claims[b].Ref.Key)
	})
	for _, i := range order {
		keys = append(keys, claims[i].Ref.Key)
	}
	buf := make([]byte, 0, bytes)
	err := r.Store.ReadRows(keys, func(n int, rec []byte) {
		if rec == nil {
			return
		}
		at := len(buf)
		buf = append(buf, rec...)
		r.open(&out[order[n]], buf[at:len(buf):len(buf)])
	})
	if err != nil {
		r.Log.Error("bodies unreadable", zap.Error(err))
	}
	r.parked(lane, out)
	r.cold(ctx, out)
	return out
}

// parked reads what is parked, or was parked since the claim.
func (r *Reader) parked(lane uint32, out []Parcel) {
	var at []int
	for i := range out {
		if !out[i].Found {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return
	}
	slices.SortFunc(at, func(a, b int) int { return out[a].Ref.Key.Compare(out[b].Ref.Key) })
	keys := make([]delay.Key, len(at))
	for n, i := range at {
		keys[n] = out[i].Ref.Key
	}
	hash := r.Lanes.Target(lane).Hash()
	err := r.Store.ReadParked(hash, keys, func(n int, _ bool, rec []byte) {
		if rec != nil {
			out[at[n]].Parked = true
			r.open(&out[at[n]], slices.Clone(rec))
		}
	})
	if err != nil {
		r.Log.Error("parked bodies unreadable", zap.Error(err))
	}
}

// cold fetches from the tier what has no local copy (design: local, else tier).
func (r *Reader) cold(ctx context.Context, out []Parcel) {
	var keys []delay.Key
	var at []int
	for i := range out {
		if !out[i].Found {
			at = append(at, i)
		}
	}
	if len(at) == 0 || r.Tier == nil {
		return
	}
	slices.SortFunc(at, func(a, b int) int { return out[a].Ref.Key.Compare(out[b].Ref.Key) })
	for _, i := range at {
		keys = append(keys, out[i].Ref.Key)
	}
	if r.Fallback != nil {
		r.Fallback(len(keys))
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err := r.Tier.Fetch(ctx, keys, func(n int, rec []byte, err error) {
		p := &out[at[n]]
		if err == nil && r.Bulk.Covers(keys[n], rec) {
			err = fmt.Errorf("cancelled in bulk: %w", delay.ErrNotFound) // C16
		}
		if err != nil {
			p.Err = err
			return
		}
		r.open(p, slices.Clone(rec))
	})
	if err != nil {
		r.Log.Error("fallback read failed", zap.Int("messages", len(keys)), zap.Error(err))
	}
}
