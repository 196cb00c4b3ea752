// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Shard is what the front end needs of a *scheduler.Shard; see there for the meaning.
type Shard interface {
	Intake
	Reader
	Changer
	Consumer
	Keeper
}

// Intake accepts messages.
type Intake interface {
	Now() delay.Due
	Accept(ctx context.Context, drafts []delay.Draft, receipts []scheduler.Receipt) error
	Reserve(ctx context.Context, n int) ([]delay.ID, error)
}

// Reader looks at messages.
type Reader interface {
	Get(ctx context.Context, id delay.ID, withBody bool) (scheduler.Info, error)
	List(ctx context.Context, f scheduler.Filter, limit int, token string) (
		[]scheduler.Info, string, error)
	Count(ctx context.Context, f scheduler.Filter) (int64, error)
	Histogram(ctx context.Context, bucket time.Duration, f scheduler.Filter) (
		[]scheduler.Bar, error)
	Firings(ctx context.Context, bucket time.Duration, f scheduler.Filter) ([]scheduler.Bar, error)
	Next(ctx context.Context, limit int) ([]scheduler.Info, error)
}

// Changer changes messages that wait.
type Changer interface {
	Change(ctx context.Context, requests []scheduler.ChangeRequest,
		results []scheduler.ChangeResult) error
	Purge(ctx context.Context, f scheduler.Filter, dryRun bool) (scheduler.PurgeResult, error)
}

// Consumer hands messages to pullers.
type Consumer interface {
	Pull(ctx context.Context, queue string, most int, wait, lease time.Duration) (
		[]scheduler.Lease, error)
	Settle(ctx context.Context, req scheduler.SettleRequest,
		results []scheduler.SettleResult) error
	DeadLetters(ctx context.Context, f scheduler.Filter, limit int, token string) (
		[]scheduler.Info, string, error)
	RetryDead(ctx context.Context, id delay.ID) (scheduler.Receipt, error)
	DeleteDead(ctx context.Context, id delay.ID) error
}

// Keeper is for operators.
type Keeper interface {
	Targets(ctx context.Context) ([]scheduler.TargetStatus, error)
	SetPaused(ctx context.Context, target delay.Target, paused bool) error
	SetLimit(ctx context.Context, target delay.Target, limit delay.Limit) error
	Status() scheduler.Status
	ConfirmClock()
}
