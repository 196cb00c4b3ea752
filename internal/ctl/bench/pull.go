// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// The pullers of a measurement, as the contract's spike has them.
const (
	pullerCount = 4
	pullMax     = 1000
	pullWait    = `{"max":1000,"wait":"5s"}`
	// ackQueue bounds the batches of one puller that wait for their ack.
	ackQueue = 8
	// pullPause is the pause after a pull that failed.
	pullPause = 50 * time.Millisecond
)

// consumer pulls one queue until its context ends, acks everything, and keeps the ground truth.
type consumer struct {
	c     *client.Client
	queue string
	now   func() time.Time

	unique   atomic.Int64 // ids seen, for progress
	lastSeen atomic.Int64 // unix nanoseconds of the last message that came
	mu       struct {
		sync.Mutex
		times    map[string]int // how often each id came
		lateness histogram
		early    int64
		pulled   int64
		notAcked int64
		why      error
	}
}

func newConsumer(c *client.Client, queue string, now func() time.Time) *consumer {
	k := &consumer{c: c, queue: queue, now: now}
	k.mu.times = make(map[string]int)
	return k
}

// batch is what one pull brought, copied out of the reply.
type batch struct {
	ids []string
	ack []byte // the request that acks it
}

// pull is one puller: it timestamps and passes on; its partner acks, so that an ack never delays
// the next pull.
func (k *consumer) pull(ctx context.Context) {
	acks := make(chan batch, ackQueue)
	var wg sync.WaitGroup
	wg.Go(func() { k.ackAll(ctx, acks) })
	var lateness histogram
	var early, pulled int64
	leases, buf := make([]client.Lease, 0, pullMax), []byte(nil)
	for ctx.Err() == nil {
		var err error
		leases, buf, err = k.c.PullFast(ctx, k.queue, []byte(pullWait), buf, leases)
		now := k.now()
		if err != nil {
			k.failed(ctx, err)
			continue
		}
		if len(leases) == 0 {
			continue
		}
		for _, l := range leases {
			late := now.Sub(time.UnixMilli(l.DueMS))
			if late < 0 {
				early++
			}
			lateness.add(late)
		}
		pulled += int64(len(leases))
		k.lastSeen.Store(now.UnixNano())
		acks <- copyBatch(leases)
	}
	close(acks)
	wg.Wait()
	k.mu.Lock()
	k.mu.lateness.merge(&lateness)
	k.mu.early += early
	k.mu.pulled += pulled
	k.mu.Unlock()
}

func (k *consumer) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	k.mu.why = err
	k.mu.Unlock()
	pause := time.NewTimer(pullPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
	case <-pause.C:
	}
}

func copyBatch(leases []client.Lease) batch {
	b := batch{ids: make([]string, len(leases))}
	b.ack = append(make([]byte, 0, len(leases)*48), `{"receipts":[`...)
	for i, l := range leases {
		b.ids[i] = string(l.ID)
		if i > 0 {
			b.ack = append(b.ack, ',')
		}
		b.ack = append(b.ack, '"')
		b.ack = append(b.ack, l.Receipt...)
		b.ack = append(b.ack, '"')
	}
	b.ack = append(b.ack, "]}"...)
	return b
}

func (k *consumer) ackAll(ctx context.Context, acks <-chan batch) {
	// The last acks are sent although the pulling has ended: the daemon is left clean.
	ctx = context.WithoutCancel(ctx)
	path := "/v1/queues/" + k.queue + "/ack"
	var reply []byte
	for b := range acks {
		k.mu.Lock()
		for _, id := range b.ids {
			k.mu.times[id]++
		}
		k.unique.Store(int64(len(k.mu.times)))
		k.mu.Unlock()
		var err error
		reply, err = k.c.Raw(ctx, http.MethodPost, path, "application/json", b.ack, reply[:0])
		if err != nil {
			k.mu.Lock()
			k.mu.notAcked += int64(len(b.ids))
			k.mu.why = err
			k.mu.Unlock()
		}
	}
}

// compare is the verdict on what came against what was accepted (N2).
func (k *consumer) compare(accepted []string, r *DeliveryReport) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := make(map[string]bool, len(accepted))
	for _, id := range accepted {
		known[id] = true
		if k.mu.times[id] == 0 {
			r.Lost++
		}
	}
	for id, n := range k.mu.times {
		r.Duplicates += int64(n - 1)
		if !known[id] {
			r.Unexpected++
		}
	}
	r.Accepted, r.Received, r.Early = int64(len(known)), k.mu.pulled, k.mu.early
	r.NotAcked = k.mu.notAcked
	h := &k.mu.lateness
	r.LatenessMS = Lateness{
		P50: h.quantile(0.5), P99: h.quantile(0.99), P999: h.quantile(0.999),
		Max: milliseconds(h.max),
	}
	if r.FirstFailure == "" && k.mu.why != nil {
		r.FirstFailure = k.mu.why.Error()
	}
}
