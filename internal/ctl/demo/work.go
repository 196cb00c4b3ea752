// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const (
	sendBatch = 500
	senders   = 4
	changers  = 64 // requests at the same time: each waits for the bucket
	pullers   = 4
	// pullRequest keeps a poll short, so that a dead daemon is noticed in the picture.
	pullRequest = `{"max":1000,"wait":"1s"}`
	// pullPause is the pause after a pull that failed.
	pullPause = 50 * time.Millisecond
)

// sendMessage is one message of POST /v1/messages.
type sendMessage struct {
	ID         string `json:"id"`
	Target     string `json:"target"`
	DeliverAt  int64  `json:"deliver_at"`
	Durability string `json:"durability"`
	Body       string `json:"body"`
}

// send sends everything, evenly over the dues.
func (s *story) send(ctx context.Context) error {
	span := s.lastDue - s.firstDue
	all := make([]sendMessage, s.messages)
	for i := range all {
		// A stride that has no factor in common with the count mixes near and far dues.
		at := span * time.Duration(i*7919%s.messages) / time.Duration(s.messages)
		all[i] = sendMessage{
			ID: fmt.Sprintf("demo-%05d", i), Target: "pull:" + queue,
			DeliverAt:  s.start.Add(s.firstDue + at).UnixMilli(),
			Durability: "tier", Body: fmt.Sprintf(`{"n":%d,"text":"see you later"}`, i),
		}
	}
	batches := (len(all) + sendBatch - 1) / sendBatch
	return s.each(ctx, senders, batches, func(i int) error {
		part := all[i*sendBatch : min((i+1)*sendBatch, len(all))]
		body, err := json.Marshal(map[string]any{"messages": part})
		if err != nil {
			return err
		}
		for _, m := range part {
			s.truth.sent(m.ID, m.DeliverAt)
		}
		reply, err := s.c.Raw(ctx, http.MethodPost, "/v1/messages", "application/json", body, nil)
		if err != nil {
			return err
		}
		n, bad, err := client.ScanReceipts(reply, nil)
		if err != nil || n != len(part) {
			return errors.Join(err, fmt.Errorf("%d of %d accepted: %s", n, len(part), bad))
		}
		s.truth.accepted.Add(int64(n))
		return nil
	})
}

// change cancels and moves messages of the far half: the near ones may be claimed already.
func (s *story) change(ctx context.Context) error {
	ids := s.truth.farthest(s.cancels + s.moves)
	newDue := s.start.Add((s.firstDue + s.lastDue) / 2)
	return s.each(ctx, changers, len(ids), func(i int) error {
		id := ids[i]
		if i < s.cancels {
			v, err := s.c.Cancel(ctx, id, "")
			if err != nil {
				return fmt.Errorf("cancel %s: %w", id, err)
			}
			if v.Result != "CANCELLED" || v.Durability != "tier" {
				return fmt.Errorf("cancel %s: %s, durability %s", id, v.Result, v.Durability)
			}
			s.truth.cancel(id)
			return nil
		}
		due := newDue.Add(time.Duration(i) * time.Millisecond).UnixMilli()
		v, err := s.c.Reschedule(ctx, id, map[string]any{"deliver_at": due})
		if err != nil {
			return fmt.Errorf("reschedule %s: %w", id, err)
		}
		if v.Result != "RESCHEDULED" {
			return fmt.Errorf("reschedule %s: %s", id, v.Result)
		}
		s.truth.move(id, due)
		return nil
	})
}

// each runs do for 0 … n-1 on a few goroutines and returns the first error.
func (s *story) each(ctx context.Context, workers, n int, do func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// pull takes messages until ctx is done, through the death of the daemon.
func (s *story) pull(ctx context.Context) {
	var leases []client.Lease
	var buf []byte
	for ctx.Err() == nil {
		var err error
		leases, buf, err = s.c.PullFast(ctx, queue, []byte(pullRequest), buf, leases)
		now := s.Now()
		if err != nil {
			pause := time.NewTimer(pullPause)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			continue
		}
		if len(leases) == 0 {
			continue
		}
		receipts := make([]string, len(leases))
		for i, l := range leases {
			receipts[i] = string(l.Receipt)
			s.truth.received(string(l.ID), now)
		}
		// An ack that is lost with the daemon gives a duplicate, which is counted.
		_, _ = s.c.Settle(context.WithoutCancel(ctx), queue, "ack", receipts, nil)
	}
}
