// SPDX-License-Identifier: Apache-2.0

// Package intake is the side of a shard that sources see: it checks what they bring, hands it to
// the committer with the position that it reaches, and tells how far they were read.
//
//	source --Batch--> Take: check, fetch what is cold --> commit.TakeOp --synced--> position.Table
//	       <--Refused: never taken-- once copied, again --/
//	       <--error of the call: not all of it, try again --
//
// # Concurrency
//
// An Intake is safe for concurrent use; one partition is taken from by one goroutine at a time.
//
// # Failure
//
// What was taken and the position are one batch of the store: a source that goes on from Cursor
// after a crash reads nothing twice, and one that goes on from before it brings ids that are known
// (rules R16, R17). The position passes what is refused only after the source has copied it: a
// crash before that brings it again (B6).
package intake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/position"
)

// Records are the records of cold messages that may be changed.
type Records = map[delay.Key][]byte

// Config is what an Intake works with. All but Check and the Events must be set.
type Config struct {
	Positions *position.Table
	Tiered    bool // there is a bucket
	Now       func() delay.Due
	Accepting func() error               // why nothing is taken now
	Begin     func(*delay.Message) error // makes a schedule of a message that recurs
	Check     func(*delay.Draft) error   // refuses what can never be delivered; may be nil
	// Fetch reads the records that changes need, and Replaced those that replacing ids needs.
	Fetch    func(context.Context, []commit.ChangeRequest) (Records, error)
	Replaced func(context.Context, []delay.ID) (Records, error)
	Do       func(o commit.Op, weight int64, done chan error) error
	Events   Events
}

// Events tell what was taken, for metrics. Every func may be nil. A source is the kind and name of
// its broker.
type Events struct {
	Accepted  func(source string, n int)
	Duplicate func(source string, n int)
	Rejected  func(source, code string, n int)
	Cancelled func(n int)
}

// Intake takes from the sources of one shard.
type Intake struct{ c Config }

// New makes an Intake.
func New(c Config) *Intake { return &Intake{c: c} }

// Now is the guarded clock (rule R21).
func (in *Intake) Now() delay.Due { return in.c.Now() }

// Cursor is how far p was read; see broker.Intake.
func (in *Intake) Cursor(p broker.Partition) (int64, bool) {
	return in.c.Positions.Read(string(p))
}

// Covered is how far a committed manifest stands for p; see broker.Intake.
func (in *Intake) Covered(p broker.Partition) (int64, bool) {
	return in.c.Positions.Covered(string(p))
}

// Take stores a batch; see broker.Intake. The error of a batch that can never be taken is
// delay.ErrInvalid.
func (in *Intake) Take(ctx context.Context, b *broker.Batch) error {
	if err := in.c.Accepting(); err != nil {
		return err
	}
	switch {
	case len(b.Items) > broker.MaxBatch:
		return fmt.Errorf("%w: take %d items from %s, at most %d", delay.ErrInvalid, len(b.Items),
			b.Partition, broker.MaxBatch)
	case b.Tier && !in.c.Tiered:
		return fmt.Errorf("%w: take from %s for the tier: there is no bucket", delay.ErrInvalid,
			b.Partition)
	}
	for moved := false; ; {
		weight := in.prepare(b)
		if err := in.copyRefused(ctx, b); err != nil {
			return err
		}
		err := in.try(ctx, b, weight)
		switch {
		case errors.Is(err, commit.ErrUncopied): // each time another one, so it ends
			if err := in.copyRefused(ctx, b); err != nil {
				return err
			}
		case errors.Is(err, commit.ErrRefetch) && !moved:
			moved = true
		case errors.Is(err, commit.ErrRefetch):
			return fmt.Errorf("%w: take from %s: a message moves between tiers",
				delay.ErrUnavailable, b.Partition)
		default:
			return err
		}
	}
}

// copyRefused has what is refused copied before the position passes it (B6).
func (in *Intake) copyRefused(ctx context.Context, b *broker.Batch) error {
	from, _ := in.Cursor(b.Partition)
	return b.CopyRefused(ctx, from)
}

// prepare checks the drafts and returns what they weigh. What was taken before is left alone, with
// the error that it may have.
func (in *Intake) prepare(b *broker.Batch) (weight int64) {
	from, known := in.Cursor(b.Partition)
	for i := range b.Items {
		it := &b.Items[i]
		if known && it.Offset < from {
			continue
		}
		if it.Err = nil; it.Cancel != "" {
			continue
		}
		if it.Draft.ID == "" {
			it.Err = delay.Invalid("id", "a message of a source needs one")
			continue
		}
		if it.Err = in.check(&it.Draft); it.Err == nil {
			it.Draft.Cold = b.Tier
			weight += commit.Weight(&it.Draft)
		}
	}
	return weight
}

// check completes a draft, or says why it can never be stored.
func (in *Intake) check(d *delay.Draft) error {
	if in.c.Check != nil {
		if err := in.c.Check(d); err != nil {
			return err
		}
	}
	if d.Durability == delay.Tier && !in.c.Tiered {
		return delay.Invalid("durability", "tier needs a bucket (--bucket none)")
	}
	if d.Guard != nil {
		return checkGuarded(&d.Message)
	}
	if d.Recurrence != nil {
		return in.c.Begin(&d.Message)
	}
	return nil
}

// checkGuarded refuses what a guarded message cannot have: it ends by a judgment alone.
func checkGuarded(m *delay.Message) error {
	switch {
	case m.Recurrence != nil:
		return delay.Invalid("schedule", "a guarded message has none")
	case m.Expires() > 0:
		return delay.Invalid("ttl", "a guarded message does not expire")
	case m.Mode != delay.AtLeastOnce:
		return delay.Invalid("mode", "a guarded message is released at least once")
	default:
		return m.Guard.Invalid()
	}
}

// try stores what is not stored yet.
func (in *Intake) try(ctx context.Context, b *broker.Batch, weight int64) error {
	o := &commit.TakeOp{
		Batch: b, Took: make([]commit.Taken, len(b.Items)), Done: make(chan error, 1),
	}
	from, known := in.Cursor(b.Partition)
	var changes []commit.ChangeRequest
	var replaced []delay.ID
	for i := range b.Items {
		switch it := &b.Items[i]; {
		case known && it.Offset < from:
		case it.Err != nil:
			o.Took[i] = commit.TakenRefused
		case it.Cancel != "":
			changes = append(changes, commit.ChangeRequest{ID: it.Cancel, Change: commit.Cancel})
		case it.Draft.Replace:
			replaced = append(replaced, it.Draft.ID)
		}
	}
	var err error
	if o.Records, err = in.records(ctx, changes, replaced); err != nil {
		return err
	}
	err = in.c.Do(o, weight, o.Done)
	if o.Stored && (err == nil || o.Next > 0) { // else the partition was never read, and is not now
		in.c.Positions.SetRead(string(b.Partition), o.Next)
		in.count(o)
	}
	return err
}

// records reads what the committer needs of cold messages.
func (in *Intake) records(
	ctx context.Context, changes []commit.ChangeRequest, replaced []delay.ID,
) (records Records, err error) {
	if len(changes) > 0 {
		if records, err = in.c.Fetch(ctx, changes); err != nil {
			return nil, err
		}
	}
	if len(replaced) == 0 {
		return records, nil
	}
	more, err := in.c.Replaced(ctx, replaced)
	if err != nil || records == nil {
		return more, err
	}
	maps.Copy(records, more)
	return records, nil
}

// count tells the metrics of what was stored.
func (in *Intake) count(o *commit.TakeOp) {
	source, _, _ := strings.Cut(string(o.Batch.Partition), "/")
	var n [commit.TakenRefused + 1]int
	for i, took := range o.Took {
		it := &o.Batch.Items[i]
		if it.Offset >= o.Next { // not reached
			continue
		}
		n[took]++
		if took == commit.TakenRefused && in.c.Events.Rejected != nil {
			in.c.Events.Rejected(source, KindOf(it.Err), 1)
		}
	}
	tell := func(fn func(string, int), n int) {
		if fn != nil && n > 0 {
			fn(source, n)
		}
	}
	tell(in.c.Events.Accepted, n[commit.TakenNew])
	tell(in.c.Events.Duplicate, n[commit.TakenRepeated])
	if k := n[commit.TakenCancelled]; k > 0 && in.c.Events.Cancelled != nil {
		in.c.Events.Cancelled(k)
	}
}

// KindOf is the label of the error of a Receipt in metrics.
func KindOf(err error) string {
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrExists, delay.ErrTooLate, delay.ErrUnavailable,
		delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrUnimplemented, delay.ErrPrecondition,
		delay.ErrCrowded,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "internal"
}
