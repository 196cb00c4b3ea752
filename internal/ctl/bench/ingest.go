// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// Progress is told, a few times a second and by one goroutine, how far a phase has come.
type Progress func(phase string, done, total int64)

// progressEvery is how often Progress is called.
const progressEvery = 200 * time.Millisecond

// Ingest is a measurement of intake.
type Ingest struct {
	Messages    int64
	Size        int // of a body
	Batch       int
	DueFrom     time.Duration // from the start
	DueTo       time.Duration
	Connections int
	Encoding    Encoding
	ClientIDs   bool // the client chooses the ids
	InOrder     bool // dues rise with the messages
	Single      bool // one message a request
	Queue       string
	Seed        uint64
	Now         func() time.Time

	begin    time.Time          // the base of dues; zero is the moment of Run
	accepted func(ids []string) // nil, or told the ids of each reply; called concurrently
}

// CallTimes are quantiles of the time from a request to its reply, in milliseconds.
type CallTimes struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

// IngestReport is what an Ingest found.
type IngestReport struct {
	Mode         string    `json:"mode"`
	Messages     int64     `json:"messages"`
	Accepted     int64     `json:"accepted"`
	Failed       int64     `json:"failed"`
	FirstFailure string    `json:"first_failure,omitempty"`
	Seconds      float64   `json:"seconds"`
	AcceptedPerS float64   `json:"accepted_per_s"`
	CallMS       CallTimes `json:"call_ms"`
	RSSMB        *float64  `json:"rss_mb"`  // null when the daemon is not ours to look at
	DiskMB       *float64  `json:"disk_mb"` // the local store, without a bucket below it
	BucketMB     *float64  `json:"bucket_mb,omitempty"`
	Encoding     string    `json:"encoding"`
	Batch        int       `json:"batch"`
	Size         int       `json:"size"`
	Connections  int       `json:"connections"`
	Order        string    `json:"order"`
	IDs          string    `json:"ids"`
}

// ingest is the state of a running Ingest, shared by its connections.
type ingest struct {
	Ingest
	c       *client.Client
	bodies  [][]byte
	start   time.Time
	dueBase time.Time    // what DueFrom and DueTo count from
	next    atomic.Int64 // the first message nobody has taken
	taken   atomic.Int64 // accepted
	failed  atomic.Int64
	mu      struct {
		sync.Mutex
		why   error
		calls histogram
	}
}

// Run sends everything and reports.
func (o Ingest) Run(ctx context.Context, c *client.Client, progress Progress) (IngestReport,
	error,
) {
	if o.Single {
		o.Batch = 1
	}
	in := &ingest{Ingest: o, c: c, bodies: makeBodies(o.Size, o.Seed), start: o.Now()}
	in.dueBase = in.start
	if !o.begin.IsZero() {
		in.dueBase = o.begin
	}
	work := in.requests
	if o.Encoding == NDJSON {
		work = in.stream
	}
	workers := parallel(ctx, o.Connections, func(i int) { work(ctx, uint64(i)) }, func() {
		progress("sending", in.taken.Load()+in.failed.Load(), o.Messages)
	})
	seconds := o.Now().Sub(in.start).Seconds()
	r := IngestReport{
		Mode: "ingest", Messages: o.Messages, Accepted: in.taken.Load(),
		Failed: in.failed.Load(), Seconds: seconds, Encoding: string(o.Encoding), Batch: o.Batch,
		Size: o.Size, Connections: workers, Order: "random", IDs: "server",
	}
	if seconds > 0 {
		r.AcceptedPerS = float64(int64(float64(r.Accepted) / seconds))
	}
	if o.InOrder {
		r.Order = "in-order"
	}
	if o.ClientIDs {
		r.IDs = "client"
	}
	if in.mu.why != nil {
		r.FirstFailure = in.mu.why.Error()
	}
	calls := &in.mu.calls
	r.CallMS = CallTimes{calls.quantile(0.5), calls.quantile(0.99), calls.quantile(0.999)}
	return r, ctx.Err()
}

// parallel runs n workers, calls tick until they are done, and returns n.
func parallel(ctx context.Context, n int, work func(i int), tick func()) int {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { work(i) })
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			tick()
			return n
		case <-ticker.C:
			if ctx.Err() == nil {
				tick()
			}
		}
	}
}

// take claims the next batch: [first, first+n).
func (in *ingest) take() (first int64, n int) {
	first = in.next.Add(int64(in.Batch)) - int64(in.Batch)
	return first, int(max(0, min(int64(in.Batch), in.Messages-first)))
}

func (in *ingest) message(i int64, rng *rand.Rand) message {
	span := max(int64(0), (in.DueTo - in.DueFrom).Milliseconds())
	due := in.dueBase.Add(in.DueFrom).UnixMilli()
	switch {
	case in.InOrder && span > 0:
		due += int64(float64(span) * float64(i) / float64(in.Messages))
	case span > 0:
		due += rng.Int64N(span + 1)
	}
	m := message{due: due, body: in.bodies[i%int64(len(in.bodies))]}
	if in.ClientIDs {
		m.id = "b" + strconv.FormatUint(in.Seed, 36) + "-" + strconv.FormatInt(i, 36)
	}
	return m
}

// requests sends one request after another over one connection.
func (in *ingest) requests(ctx context.Context, worker uint64) {
	rng := rand.New(rand.NewPCG(in.Seed, worker))
	e := encoder{target: "pull:" + in.Queue, encoding: in.Encoding, single: in.Single}
	path, kind := e.path()
	var calls histogram
	var reply []byte
	post := func(ctx context.Context, path, kind string, body, buf []byte) ([]byte, error) {
		return in.c.Raw(ctx, http.MethodPost, path, kind, body, buf)
	}
	if wire := in.c.Wire(in.Now); wire != nil {
		defer wire.Close()
		post = wire.Post
	}
	for ctx.Err() == nil {
		first, n := in.take()
		if n == 0 {
			break
		}
		e.begin()
		for i := range int64(n) {
			e.add(in.message(first+i, rng))
		}
		body := e.end()
		begun := in.Now()
		var err error
		reply, err = post(ctx, path, kind, body, reply[:0])
		calls.add(in.Now().Sub(begun))
		in.count(in.reply(reply, n, err))
	}
	in.finish(&calls)
}

// reply reads the answer to one request of n messages.
func (in *ingest) reply(body []byte, n int, err error) (accepted, of int, why error) {
	if err != nil {
		return 0, n, err
	}
	if in.accepted == nil {
		accepted, why = tally(in.Encoding, in.Single, body, n, nil)
		return accepted, n, why
	}
	ids := make([]string, 0, n)
	accepted, why = tally(in.Encoding, in.Single, body, n, &ids)
	in.accepted(ids)
	return accepted, n, why
}

func (in *ingest) count(accepted, n int, err error) {
	in.taken.Add(int64(accepted))
	in.failed.Add(int64(n - accepted))
	if err != nil {
		in.mu.Lock()
		if in.mu.why == nil {
			in.mu.why = err
		}
		in.mu.Unlock()
	}
}

func (in *ingest) finish(calls *histogram) {
	in.mu.Lock()
	in.mu.calls.merge(calls)
	in.mu.Unlock()
}

// streamWindow bounds the batches of one stream that wait for their replies.
const streamWindow = 4

// sent is a batch of a stream that waits for its replies.
type sent struct {
	n  int
	at time.Time
}

// stream sends its share as lines of one request and reads the replies while it writes.
func (in *ingest) stream(ctx context.Context, worker uint64) {
	out, pipe := io.Pipe()
	waiting := make(chan sent, streamWindow)
	var wg sync.WaitGroup
	wg.Go(func() { in.write(ctx, worker, pipe, waiting) })
	e := encoder{encoding: NDJSON}
	path, kind := e.path()
	var calls histogram
	replies, err := in.c.Stream(ctx, path, kind, out)
	if err == nil {
		err = in.read(replies, waiting, &calls)
		err = errors.Join(err, replies.Close())
	}
	out.CloseWithError(io.ErrClosedPipe) // ends the writer when the stream broke
	for s := range waiting {
		in.count(0, s.n, fmt.Errorf("stream ended without a reply: %w", err))
	}
	wg.Wait()
	in.finish(&calls)
}

// write sends batches until none is left, then ends the request. It closes waiting.
func (in *ingest) write(ctx context.Context, worker uint64, pipe *io.PipeWriter,
	waiting chan<- sent,
) {
	defer close(waiting)
	rng := rand.New(rand.NewPCG(in.Seed, worker))
	e := encoder{target: "pull:" + in.Queue, encoding: NDJSON}
	for ctx.Err() == nil {
		first, n := in.take()
		if n == 0 {
			break
		}
		e.begin()
		for i := range int64(n) {
			e.add(in.message(first+i, rng))
		}
		waiting <- sent{n: n, at: in.Now()}
		if _, err := pipe.Write(e.end()); err != nil {
			break
		}
	}
	_ = pipe.Close()
}

// read takes one line per message.
func (in *ingest) read(replies io.Reader, waiting <-chan sent, calls *histogram) error {
	lines := bufio.NewReaderSize(replies, 64<<10)
	for s := range waiting {
		accepted := 0
		var why error
		for i := range s.n {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				in.count(accepted, s.n, errors.Join(why, err))
				return fmt.Errorf("reply %d of a batch: %w", i, err)
			}
			if client.IsReceipt(line) {
				accepted++
			} else if why == nil {
				why = fmt.Errorf("refused: %.200s", line)
			}
		}
		calls.add(in.Now().Sub(s.at))
		in.count(accepted, s.n, why)
	}
	return nil
}
