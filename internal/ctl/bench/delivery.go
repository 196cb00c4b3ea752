// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// Lateness are quantiles of received minus due in milliseconds.
type Lateness struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// DeliveryReport is what a Spike or a Steady found.
type DeliveryReport struct {
	Mode       string   `json:"mode"`
	Messages   int64    `json:"messages"`
	Accepted   int64    `json:"accepted"`
	Received   int64    `json:"received"` // pulled, repeats included
	LatenessMS Lateness `json:"lateness_ms"`
	Early      int64    `json:"early"`
	Lost       int64    `json:"lost"`
	Duplicates int64    `json:"duplicates"`
	// Unexpected counts ids that came although no reply had named them: requests with an unknown
	// outcome, or what was in the queue before.
	Unexpected int64 `json:"unexpected"`
	NotAcked   int64 `json:"not_acked"`
	// SentAfterDue is true when sending took until after the due: the lateness is then the
	// sender's.
	SentAfterDue bool     `json:"sent_after_due"`
	RatePerS     float64  `json:"rate_per_s,omitempty"`
	DrainMS      float64  `json:"drain_ms,omitempty"` // from due to the last message, of a spike
	Seconds      float64  `json:"seconds"`
	Pullers      int      `json:"pullers"`
	Encoding     string   `json:"encoding"`
	FirstFailure string   `json:"first_failure,omitempty"`
	RSSMB        *float64 `json:"rss_mb"`
	DiskMB       *float64 `json:"disk_mb"`
	BucketMB     *float64 `json:"bucket_mb,omitempty"`
}

// pullClient names the client of deliveries (N4).
const pullClient = "json, hand-written decoder"

// Delivery is a measurement of lateness: a spike when In is set, else a steady rate.
type Delivery struct {
	Messages int64
	Size     int
	In       time.Duration // spike: all due at start + In
	Rate     float64       // steady: messages a second
	Batch    int
	Queue    string
	Seed     uint64
	Quiet    time.Duration // give up when nothing came for this long after the last due
	Now      func() time.Time
}

// The parameters of the sender that nobody needs to choose.
const (
	spikeConnections = 8
	// steadyLead is how long before its due a message of a steady run is sent.
	steadyLead = 2 * time.Second
	steadyTick = 10 * time.Millisecond
	// settle is how long the pullers go on when everything has come, to see duplicates.
	settle = 500 * time.Millisecond
)

// Run sends, pulls, compares and reports.
func (o Delivery) Run(ctx context.Context, c *client.Client, progress Progress) (DeliveryReport,
	error,
) {
	k := newConsumer(c, o.Queue, o.Now)
	pulling, stop := context.WithCancel(ctx)
	defer stop()
	start := o.Now()
	k.lastSeen.Store(start.UnixNano())
	r := DeliveryReport{
		Mode: "steady", Messages: o.Messages, RatePerS: o.Rate, Pullers: pullerCount,
		Encoding: pullClient,
	}
	var pullers sync.WaitGroup
	for range pullerCount {
		pullers.Go(func() { k.pull(pulling) })
	}
	ids, lastDue := o.send(ctx, c, progress, &r)
	o.wait(ctx, k, int64(len(ids)), lastDue, progress)
	stop()
	pullers.Wait()
	k.compare(ids, &r)
	last := time.Unix(0, k.lastSeen.Load())
	if o.In > 0 {
		r.DrainMS = milliseconds(max(0, last.Sub(lastDue)))
	}
	r.Seconds = last.Sub(start).Seconds()
	return r, ctx.Err()
}

// send sends everything and returns the accepted ids and the last due.
func (o Delivery) send(ctx context.Context, c *client.Client, progress Progress,
	r *DeliveryReport,
) (ids []string, lastDue time.Time) {
	if o.In <= 0 {
		return o.sendSteady(ctx, c, progress, r)
	}
	r.Mode = "spike"
	var mu sync.Mutex
	start := o.Now()
	sender := Ingest{
		Messages: o.Messages, Size: o.Size, Batch: o.Batch, DueFrom: o.In, DueTo: o.In,
		Connections: spikeConnections, Encoding: JSON, Queue: o.Queue, Seed: o.Seed, Now: o.Now,
		begin: start,
		accepted: func(batch []string) {
			mu.Lock()
			ids = append(ids, batch...)
			mu.Unlock()
		},
	}
	report, _ := sender.Run(ctx, c, progress)
	r.FirstFailure = report.FirstFailure
	lastDue = start.Add(o.In)
	r.SentAfterDue = o.Now().After(lastDue)
	return ids, lastDue
}

// sendSteady sends message i steadyLead before its due, start + lead + i/rate.
func (o Delivery) sendSteady(ctx context.Context, c *client.Client, progress Progress,
	r *DeliveryReport,
) (ids []string, lastDue time.Time) {
	e := encoder{target: "pull:" + o.Queue, encoding: JSON}
	path, kind := e.path()
	bodies := makeBodies(o.Size, o.Seed)
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	start := o.Now()
	due := func(i int64) time.Time {
		return start.Add(steadyLead + time.Duration(float64(i)/o.Rate*float64(time.Second)))
	}
	tick := time.NewTicker(steadyTick)
	defer tick.Stop()
	var reply []byte
	for sent := int64(0); sent < o.Messages && ctx.Err() == nil; {
		should := int64(o.Now().Sub(start).Seconds() * o.Rate)
		n := min(should, o.Messages, sent+int64(o.Batch)) - sent
		if n <= 0 {
			progress("steady", sent, o.Messages)
			<-tick.C
			continue
		}
		e.begin()
		for i := range n {
			e.add(message{due: due(sent + i).UnixMilli(), body: bodies[rng.IntN(len(bodies))]})
		}
		body := e.end()
		var err error
		reply, err = c.Raw(ctx, http.MethodPost, path, kind, body, reply[:0])
		if err == nil {
			_, err = tally(JSON, false, reply, int(n), &ids)
		}
		if err != nil && r.FirstFailure == "" {
			r.FirstFailure = err.Error()
		}
		r.SentAfterDue = r.SentAfterDue || o.Now().After(due(sent))
		sent += n
	}
	return ids, due(o.Messages)
}

// wait returns when every accepted id has come and a moment has passed, or nothing has come for
// Quiet after the last due.
func (o Delivery) wait(ctx context.Context, k *consumer, accepted int64, lastDue time.Time,
	progress Progress,
) {
	tick := time.NewTicker(progressEvery / 2)
	defer tick.Stop()
	var complete time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, got := o.Now(), k.unique.Load()
		progress("receiving", got, accepted)
		if got >= accepted && complete.IsZero() {
			complete = now
		}
		if !complete.IsZero() && now.Sub(complete) >= settle {
			return
		}
		quietSince := time.Unix(0, k.lastSeen.Load())
		if lastDue.After(quietSince) {
			quietSince = lastDue
		}
		if now.Sub(quietSince) >= o.Quiet {
			return
		}
	}
}
