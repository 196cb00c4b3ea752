// SPDX-License-Identifier: Apache-2.0

// Package guard asks guardians about the messages that belong to their brokers: at their due, what
// becomes of them (rule R18), and when a user wants to change one, whether it is ours already
// (rule R19).
//
//	due:    parcels --Judge--> guardian --> Held: again later | GuardOp --> ended, if its row stands
//	change: requests --Mark--> guardian --> Lost: may be changed | held: refused, or recalled
//
// # Invariants
//
//	U1  A message is ended only by a judgment that was made after its due, and only while its row
//	    stands: what its source recalled or moved meanwhile is left alone.
//	U2  What cannot be decided stays: no guardian, no readable copy, no answer of the broker.
//	U3  A user's change is applied only to the row whose copy was found lost.
//
// It keeps nothing, and is safe for concurrent use. A crash between a judgment and its commit has
// the message judged again; a guardian that released it finds its own copy then.
package guard

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/core"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/parcel"
	"github.com/cicadamq/cicada/tiered"
)

const (
	// askAgain is the pause after a judgment that names none.
	askAgain = time.Second
	// noCopy is the pause before a message is looked at again whose copy here cannot be read.
	noCopy = 30 * time.Second
)

// Keepers are the guardians of a shard, by the part of a lane before its slash: "guard:rmq".
type Keepers map[string]broker.Guardian

// Of is the guardian of a lane, or nil.
func (k Keepers) Of(lane delay.Target) broker.Guardian {
	prefix, _, _ := strings.Cut(string(lane), "/")
	return k[prefix]
}

// Judge asks about what is due in a lane. outcomes[i] has parcels[i] come again, unless items, of
// the parcels at, end it or find it gone.
func (k Keepers) Judge(
	ctx context.Context, lane delay.Target, parcels []parcel.Parcel, now delay.Due,
) (items []commit.GuardItem, at []int, outcomes []core.Outcome) {
	outcomes = make([]core.Outcome, len(parcels))
	batch := make([]broker.Delivery, 0, len(parcels))
	asked := make([]int, 0, len(parcels))
	for i := range parcels {
		p := &parcels[i]
		outcomes[i] = core.Outcome{Key: p.Ref.Key, Untried: true, After: noCopy}
		if !p.Found || p.Msg.Guard == nil {
			items = append(items, commit.GuardItem{Key: p.Ref.Key}) // recalled meanwhile, or damaged
			at = append(at, i)
			continue
		}
		asked = append(asked, i)
		batch = append(batch, broker.Delivery{
			ID: p.ID, Generation: max(1, p.Msg.Generation), Target: p.Msg.Target, Due: p.Msg.Due,
			Attempt: 1, FiredAt: now, RoutingKey: p.Msg.RoutingKey, Headers: p.Msg.Headers,
			Body: p.Msg.Body, Guard: p.Msg.Guard,
		})
	}
	judgments := make([]broker.Judgment, len(batch))
	if g := k.Of(lane); g != nil && len(batch) > 0 {
		g.Judge(ctx, batch, judgments)
	}
	for n, i := range asked {
		p, j := &parcels[i], judgments[n]
		if j.Fate == broker.Held && !planted.Is(planted.HeldReleased) {
			if outcomes[i].After = j.After; j.After <= 0 {
				outcomes[i].After = askAgain
			}
			continue
		}
		p.Msg.ID = p.ID
		items = append(items, commit.GuardItem{
			Key: p.Ref.Key, Message: &p.Msg, Fate: max(j.Fate, broker.Suppressed), Reason: j.Reason,
		})
		at = append(at, i)
	}
	return items, at, outcomes
}

// Change is a change of guarded messages under way.
type Change struct {
	// Requests are those that were asked for, with Lost set where the broker has lost the copy.
	Requests []commit.ChangeRequest
	recalled []int // those that a broker was asked for
	failed   []error
}

// Mark looks at the guarded messages among requests: which of them were lost by their broker, and
// asks for the recall of the others where that is wanted. Without a guarded one it returns requests
// as they are.
func (k Keepers) Mark(
	ctx context.Context, finder *find.Finder, tier *tiered.Tier, requests []commit.ChangeRequest,
) (Change, error) {
	c := Change{Requests: requests}
	if len(k) == 0 {
		return c, nil
	}
	found, err := guardedOf(ctx, finder, tier, requests)
	if err != nil || len(found) == 0 {
		return c, err
	}
	c.Requests = slices.Clone(requests)
	for len(found) > 0 {
		lane := found[0].msg.Guard.Lane
		some := slices.Clone(found)
		some = slices.DeleteFunc(some, func(f guarded) bool { return f.msg.Guard.Lane != lane })
		found = slices.DeleteFunc(found, func(f guarded) bool { return f.msg.Guard.Lane == lane })
		if g := k.Of(lane); g != nil {
			c.mark(ctx, g, some)
		}
	}
	return c, nil
}

func (c *Change) mark(ctx context.Context, g broker.Guardian, some []guarded) {
	guards := make([]*delay.Guard, len(some))
	for i := range some {
		guards[i] = some[i].msg.Guard
	}
	for i, lost := range g.Lost(ctx, guards) {
		f, q := &some[i], &c.Requests[some[i].at]
		switch {
		case lost:
			q.Lost = f.key
		case q.Recall && q.Change <= commit.StopRetrying:
			err := g.Recall(ctx, &broker.Delivery{
				ID: q.ID, Target: f.msg.Target, Due: f.msg.Due, Headers: f.msg.Headers,
				Guard: f.msg.Guard,
			})
			c.recalled, c.failed = append(c.recalled, f.at), append(c.failed, err)
		}
	}
}

// Answer corrects the results of what a broker was asked for.
func (c *Change) Answer(results []commit.ChangeResult) {
	for n, i := range c.recalled {
		if c.failed[n] != nil {
			results[i] = commit.ChangeResult{Err: c.failed[n]}
		} else if results[i].Err != nil { // still there, and its broker's
			results[i] = commit.ChangeResult{Verdict: commit.Requested}
		}
	}
}

// guarded is a guarded message that is to be changed: requests[at].
type guarded struct {
	at  int
	key delay.Key
	msg delay.Message
}

// guardedOf reads the guarded messages among requests.
func guardedOf(
	ctx context.Context, finder *find.Finder, tier *tiered.Tier, requests []commit.ChangeRequest,
) (found []guarded, err error) {
	var cold []guarded
	for i := range requests {
		loc, err := finder.Locate(requests[i].ID)
		switch {
		case err != nil || loc.Place == find.PlaceNone: // the committer says why
		case delay.RecordGuarded(loc.Record):
			if m, err := delay.DecodeRecord(loc.Record); err == nil {
				found = append(found, guarded{at: i, key: loc.Key, msg: m})
			}
		case loc.Place == find.PlaceCold && (loc.Rec.Guarded || !loc.Known):
			cold = append(cold, guarded{at: i, key: loc.Key})
		}
	}
	if len(cold) == 0 || tier == nil {
		return found, nil
	}
	keys := make([]delay.Key, len(cold))
	for i := range cold {
		keys[i] = cold[i].key
	}
	err = tier.Fetch(ctx, keys, func(i int, rec []byte, err error) {
		if err == nil && delay.RecordGuarded(rec) {
			if m, err := delay.DecodeRecord(slices.Clone(rec)); err == nil {
				cold[i].msg = m
				found = append(found, cold[i])
			}
		}
	})
	return found, err
}
