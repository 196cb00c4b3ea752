// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/scheduler"
)

const fakeNow = delay.Due(1_800_000_000_000)

// fakeShard remembers what it is asked and answers what it is told.
type fakeShard struct {
	mu       sync.Mutex
	stored   []delay.Draft
	batches  []int // sizes of accepted batches
	changes  []scheduler.ChangeRequest
	settled  []scheduler.SettleRequest
	filters  []scheduler.Filter
	paused   map[delay.Target]bool
	limits   map[delay.Target]delay.Limit
	pulled   chan struct{} // closed when the first pull waits
	leases   []scheduler.Lease
	infos    []scheduler.Info
	verdict  scheduler.ChangeResult
	err      error             // of every call
	itemErr  error             // of every receipt
	receipt  scheduler.Receipt // what every receipt says beside
	accepts  func(n int) error
	boom     bool
	status   scheduler.Status
	acceptOf chan int // told the size of each batch
}

func newFake() *fakeShard {
	return &fakeShard{paused: map[delay.Target]bool{},
		limits: map[delay.Target]delay.Limit{}, pulled: make(chan struct{}),
		status: scheduler.Status{Accepting: true, ClusterID: "c1", Epoch: 3,
			LastFlush: time.UnixMilli(int64(fakeNow)), Books: delay.Books{Accepted: 5, Pending: 5}}}
}

func (f *fakeShard) Now() delay.Due { return fakeNow }

func (f *fakeShard) Accept(_ context.Context, drafts []delay.Draft, receipts []scheduler.Receipt) error {
	if f.boom {
		panic("boom")
	}
	if f.accepts != nil {
		if err := f.accepts(len(drafts)); err != nil {
			return err
		}
	}
	if f.err != nil {
		return f.err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches = append(f.batches, len(drafts))
	for i := range drafts {
		d := drafts[i]
		rec := delay.AppendRecord(nil, &d.Message) // a deep copy, like a store's
		m, err := delay.DecodeRecord(rec)
		if err != nil {
			return err
		}
		f.stored = append(f.stored, delay.Draft{Message: m, Replace: d.Replace,
			RefuseCrowded: d.RefuseCrowded})
		id := m.ID
		if id == "" {
			id = delay.ID(fmt.Sprintf("srv-%d", len(f.stored)))
		}
		receipts[i] = scheduler.Receipt{ID: id, Due: m.Due, Durability: m.Durability, Generation: 1,
			Err: f.itemErr, Crowded: f.receipt.Crowded, Suggested: f.receipt.Suggested}
	}
	if f.acceptOf != nil {
		f.acceptOf <- len(drafts)
	}
	return nil
}

func (f *fakeShard) messages() []delay.Draft {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stored
}

func (f *fakeShard) Reserve(_ context.Context, n int) ([]delay.ID, error) {
	ids := make([]delay.ID, n)
	for i := range ids {
		ids[i] = delay.ID(fmt.Sprint("r", i))
	}
	return ids, f.err
}

func (f *fakeShard) Get(_ context.Context, id delay.ID, body bool) (scheduler.Info, error) {
	info := scheduler.Info{ID: id, Known: true, Target: "log:", Size: 1, Generation: 1}
	if body {
		info.Body = []byte("b")
	}
	return info, f.err
}

func (f *fakeShard) List(_ context.Context, fl scheduler.Filter, _ int, _ string) ([]scheduler.Info, string, error) {
	f.filters = append(f.filters, fl)
	return f.infos, "next", f.err
}

func (f *fakeShard) Change(_ context.Context, reqs []scheduler.ChangeRequest, res []scheduler.ChangeResult) error {
	f.changes = append(f.changes, reqs...)
	res[0] = f.verdict
	return f.err
}

func (f *fakeShard) Count(_ context.Context, fl scheduler.Filter) (int64, error) {
	f.filters = append(f.filters, fl)
	return 7, f.err
}

func (f *fakeShard) Histogram(context.Context, time.Duration, scheduler.Filter) ([]scheduler.Bar, error) {
	return []scheduler.Bar{{From: fakeNow, Count: 1, Bytes: 2, Hot: 3, Warm: 4, Cold: 5}}, f.err
}

func (f *fakeShard) Firings(_ context.Context, _ time.Duration, fl scheduler.Filter) ([]scheduler.Bar, error) {
	f.filters = append(f.filters, fl)
	return []scheduler.Bar{{From: fakeNow, Count: 9, Recurring: 8}}, f.err
}

func (f *fakeShard) Next(context.Context, int) ([]scheduler.Info, error) { return f.infos, f.err }

func (f *fakeShard) Purge(
	_ context.Context, fl scheduler.Filter, dryRun bool,
) (scheduler.PurgeResult, error) {
	f.filters = append(f.filters, fl)
	return scheduler.PurgeResult{Count: 7, Cancelling: !dryRun, Durability: delay.Tier}, f.err
}

func (f *fakeShard) Pull(ctx context.Context, _ string, _ int, wait, _ time.Duration) ([]scheduler.Lease, error) {
	if f.err != nil || len(f.leases) > 0 || wait == 0 {
		return f.leases, f.err
	}
	close(f.pulled)
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fakeShard) Settle(_ context.Context, req scheduler.SettleRequest, results []scheduler.SettleResult) error {
	req.Receipts = append([]string(nil), req.Receipts...)
	for i, r := range req.Receipts {
		req.Receipts[i] = string(bytes.Clone([]byte(r)))
		results[i] = scheduler.Acked + scheduler.SettleResult(req.Settlement)
	}
	f.settled = append(f.settled, req)
	return f.err
}

func (f *fakeShard) DeadLetters(_ context.Context, fl scheduler.Filter, _ int, _ string) ([]scheduler.Info, string, error) {
	f.filters = append(f.filters, fl)
	return f.infos, "", f.err
}

func (f *fakeShard) RetryDead(_ context.Context, id delay.ID) (scheduler.Receipt, error) {
	return scheduler.Receipt{ID: id, Due: fakeNow, Generation: 1}, f.err
}

func (f *fakeShard) DeleteDead(context.Context, delay.ID) error { return f.err }

func (f *fakeShard) Targets(context.Context) ([]scheduler.TargetStatus, error) {
	return []scheduler.TargetStatus{{Target: "pull:a", InFlight: 1, Backlog: 2, Rate: 1.5, Paused: true,
		Limit: delay.Limit{PerHour: 360_000, Burst: 200}}}, f.err
}

func (f *fakeShard) SetPaused(_ context.Context, t delay.Target, paused bool) error {
	f.paused[t] = paused
	return f.err
}

func (f *fakeShard) SetLimit(_ context.Context, t delay.Target, l delay.Limit) error {
	f.limits[t] = l
	return f.err
}

func (f *fakeShard) Status() scheduler.Status { return f.status }

func (f *fakeShard) ConfirmClock() { f.status.Clock.Held = false }

var _ access.Shard = (*fakeShard)(nil)
var _ access.Shard = (*scheduler.Shard)(nil)
