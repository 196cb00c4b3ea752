// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// View is the shard as the caller may see it.
func (c *Caller) View(shard Shard) Shard {
	if c.Targets == nil {
		return shard
	}
	return &view{shard: shard, may: c.Targets}
}

// view shows the messages and lanes of some targets only. It names every method itself, so that a
// new one does not pass unrestricted (V1).
type view struct {
	shard Shard
	may   *delay.TargetSet
}

func foreign() error {
	return fmt.Errorf("%w: the target is none of the caller's", ErrDenied)
}

func noMessage(id delay.ID) error { return fmt.Errorf("message %s: %w", id, delay.ErrNotFound) }

func (v *view) Now() delay.Due { return v.shard.Now() }

func (v *view) Reserve(ctx context.Context, n int) ([]delay.ID, error) {
	return v.shard.Reserve(ctx, n)
}

// Accept stores the drafts of the caller's targets. A replace must not reach a message of another
// target: where the id names none of the caller's messages, the draft is sent as a fresh one, which
// a taken id refuses.
func (v *view) Accept(
	ctx context.Context, drafts []delay.Draft, receipts []scheduler.Receipt,
) error {
	var own []delay.Draft
	var at []int
	for i := range drafts {
		if !v.may.Has(drafts[i].Target) {
			receipts[i] = scheduler.Receipt{Err: foreign()}
			continue
		}
		d := drafts[i]
		if d.Replace {
			has, err := v.has(ctx, d.ID)
			if err != nil {
				return err
			}
			d.Replace = has
		}
		own, at = append(own, d), append(at, i)
	}
	if len(own) == 0 {
		return nil
	}
	answers := make([]scheduler.Receipt, len(own))
	if err := v.shard.Accept(ctx, own, answers); err != nil {
		return err
	}
	for n, i := range at {
		receipts[i] = answers[n]
	}
	return nil
}

// has reports whether id names a message of the caller's targets, as far as that is known.
func (v *view) has(ctx context.Context, id delay.ID) (bool, error) {
	info, err := v.shard.Get(ctx, id, false)
	if errors.Is(err, delay.ErrNotFound) {
		return false, nil
	}
	return err == nil && v.may.Has(info.Target), err
}

// must refuses an id that names none of the caller's messages, in the words of an unknown one (V2).
func (v *view) must(ctx context.Context, id delay.ID) error {
	has, err := v.has(ctx, id)
	if err == nil && !has {
		return noMessage(id)
	}
	return err
}

func (v *view) Get(ctx context.Context, id delay.ID, withBody bool) (scheduler.Info, error) {
	info, err := v.shard.Get(ctx, id, withBody)
	if errors.Is(err, delay.ErrNotFound) || err == nil && !v.may.Has(info.Target) {
		return scheduler.Info{}, noMessage(id) // V2
	}
	return info, err
}

func (v *view) List(
	ctx context.Context, f scheduler.Filter, limit int, token string,
) ([]scheduler.Info, string, error) {
	f.Only = v.may
	return v.shard.List(ctx, f, limit, token)
}

func (v *view) DeadLetters(
	ctx context.Context, f scheduler.Filter, limit int, token string,
) ([]scheduler.Info, string, error) {
	f.Only = v.may
	return v.shard.DeadLetters(ctx, f, limit, token)
}

func (v *view) Count(ctx context.Context, f scheduler.Filter) (int64, error) {
	f.Only = v.may
	return v.shard.Count(ctx, f)
}

func (v *view) Histogram(
	ctx context.Context, bucket time.Duration, f scheduler.Filter,
) ([]scheduler.Bar, error) {
	f.Only = v.may
	return v.shard.Histogram(ctx, bucket, f)
}

func (v *view) Firings(
	ctx context.Context, bucket time.Duration, f scheduler.Filter,
) ([]scheduler.Bar, error) {
	f.Only = v.may
	return v.shard.Firings(ctx, bucket, f)
}

func (v *view) Next(ctx context.Context, limit int) ([]scheduler.Info, error) {
	infos, _, err := v.List(ctx, scheduler.Filter{}, limit, "")
	return infos, err
}

// Change changes the caller's messages; the others are not found (V2). Whose a message is does not
// change while its id names it, but by a replace of a caller that may see both targets.
func (v *view) Change(
	ctx context.Context, requests []scheduler.ChangeRequest, results []scheduler.ChangeResult,
) error {
	var own []scheduler.ChangeRequest
	var at []int
	for i, req := range requests {
		has, err := v.has(ctx, req.ID)
		if err != nil {
			return err
		}
		if !has {
			results[i] = scheduler.ChangeResult{Verdict: scheduler.NotFound}
			continue
		}
		own, at = append(own, req), append(at, i)
	}
	if len(own) == 0 {
		return nil
	}
	answers := make([]scheduler.ChangeResult, len(own))
	err := v.shard.Change(ctx, own, answers)
	for n, i := range at {
		results[i] = answers[n]
	}
	return err
}

// Purge needs the name of one target: a bulk cancel cannot say patterns.
func (v *view) Purge(
	ctx context.Context, f scheduler.Filter, dryRun bool,
) (scheduler.PurgeResult, error) {
	switch {
	case f.Target == "":
		return scheduler.PurgeResult{}, delay.Invalid("target",
			"the caller is limited to targets: name one")
	case !v.may.Has(f.Target):
		return scheduler.PurgeResult{}, foreign()
	}
	return v.shard.Purge(ctx, f, dryRun)
}

func (v *view) mayPull(queue string) bool { return v.may.Has(delay.Target("pull:" + queue)) }

func (v *view) Pull(
	ctx context.Context, queue string, most int, wait, lease time.Duration,
) ([]scheduler.Lease, error) {
	if !v.mayPull(queue) {
		return nil, foreign()
	}
	return v.shard.Pull(ctx, queue, most, wait, lease)
}

func (v *view) Settle(
	ctx context.Context, req scheduler.SettleRequest, results []scheduler.SettleResult,
) error {
	if !v.mayPull(req.Queue) {
		return foreign()
	}
	return v.shard.Settle(ctx, req, results)
}

func (v *view) RetryDead(ctx context.Context, id delay.ID) (scheduler.Receipt, error) {
	if err := v.must(ctx, id); err != nil {
		return scheduler.Receipt{}, err
	}
	receipt, err := v.shard.RetryDead(ctx, id)
	if errors.Is(err, delay.ErrNotFound) {
		err = noMessage(id)
	}
	return receipt, err
}

func (v *view) DeleteDead(ctx context.Context, id delay.ID) error {
	if err := v.must(ctx, id); err != nil {
		return err
	}
	err := v.shard.DeleteDead(ctx, id)
	if errors.Is(err, delay.ErrNotFound) {
		err = noMessage(id)
	}
	return err
}

func (v *view) Targets(ctx context.Context) ([]scheduler.TargetStatus, error) {
	all, err := v.shard.Targets(ctx)
	return slices.DeleteFunc(slices.Clone(all), func(t scheduler.TargetStatus) bool {
		return !v.may.Has(t.Target)
	}), err
}

func (v *view) SetPaused(ctx context.Context, target delay.Target, paused bool) error {
	if !v.may.Has(target) {
		return foreign()
	}
	return v.shard.SetPaused(ctx, target, paused)
}

func (v *view) SetLimit(ctx context.Context, target delay.Target, limit delay.Limit) error {
	if !v.may.Has(target) {
		return foreign()
	}
	return v.shard.SetLimit(ctx, target, limit)
}

// Status is about the whole instance: the gate does not let it come to this.
func (v *view) Status() scheduler.Status { return scheduler.Status{} }

// ConfirmClock likewise.
func (v *view) ConfirmClock() {}
