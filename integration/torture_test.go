// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// record is what the clients know about one message. Only its owner changes the message.
type record struct {
	id, queue string
	due       int64 // as sent
	tier      bool
	known     bool // the send was answered
	knownAt   time.Time
	answer    obj
	dues      map[int64]time.Time // dues it may have; since when one is impossible, if it is
	leases    []lease
	acked     int64 // attempt whose ack was answered with ACKED
	ackedAt   time.Time
	maybeAck  bool // an ack without an answer
	cancelled bool
	doneAt    time.Time // when the cancel was answered
	maybeGone bool      // a cancel without an answer
}

// lease is one attempt that a client saw.
type lease struct {
	attempt int64
	until   time.Time // no other may have it before
	given   bool      // given back, perhaps
}

// torture is one history: clients at work while the daemon dies and comes back.
type torture struct {
	t    *testing.T
	d    *daemon
	seed uint64
	loss bool // some crashes take the disk with them
	// Of tests that trouble more than the daemon:
	starts  int    // attempts at a start; 0 is one
	clients int    // more than four, where answers take longer
	calm    func() // ends the trouble, before what is left is consumed

	mu      sync.Mutex
	records map[string]*record
	lost    []time.Time // when the disk was
	faults  []string
	stop    chan struct{}
}

const queues = 3

// fault remembers a violation; the lock is held.
func (x *torture) fault(format string, args ...any) {
	if len(x.faults) < 20 {
		x.faults = append(x.faults, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
	}
}

// worker is one client.
type worker struct {
	*torture
	no   int
	rng  *rand.Rand
	own  []*record
	calm bool // only pulls and acks
}

func (x *torture) work(no int) {
	w := &worker{torture: x, no: no, rng: rand.New(rand.NewPCG(x.seed, uint64(no)))}
	for {
		select {
		case <-x.stop:
			return
		default:
		}
		switch n := w.rng.IntN(100); {
		case n < 30:
			w.send()
		case n < 40:
			w.change("DELETE")
		case n < 50:
			w.change("PATCH")
		default:
			w.pull()
		}
	}
}

// lostAnswer waits a little before the next call: the daemon is down, and longer where its start
// takes longer.
func (x *torture) lostAnswer() { time.Sleep(time.Duration(5+5*x.starts) * time.Millisecond) }

func message(r *record) obj {
	m := obj{
		"id": r.id, "target": "pull:" + r.queue, "deliver_at": r.due, "body": "body of " + r.id,
		"backoff": "10ms",
	}
	if r.tier {
		m["durability"] = "tier"
	}
	return m
}

func (w *worker) send() {
	var batch []obj
	var recs []*record
	tier := w.loss || w.rng.IntN(10) == 0
	w.mu.Lock()
	for range 1 + w.rng.IntN(10) {
		r := &record{
			id:    fmt.Sprintf("w%d-%d", w.no, len(w.own)),
			queue: fmt.Sprint("q", w.rng.IntN(queues)),
			due:   time.Now().UnixMilli() + w.rng.Int64N(5000),
			tier:  tier,
		}
		r.dues = map[int64]time.Time{r.due: {}}
		w.records[r.id] = r
		w.own = append(w.own, r)
		recs, batch = append(recs, r), append(batch, message(r))
	}
	w.mu.Unlock()
	w.sent(recs, w.d.try("POST", "/v1/messages", obj{"messages": batch}))
}

// sent notes what the answer to a send says.
func (x *torture) sent(recs []*record, r reply) {
	if r.err != nil || r.status != http.StatusOK {
		if r.err == nil && r.status != http.StatusServiceUnavailable &&
			r.status != http.StatusTooManyRequests {
			x.mu.Lock()
			x.fault("send: %s", r)
			x.mu.Unlock()
		}
		x.lostAnswer()
		return
	}
	results := list(x.t, r.object(x.t), "results")
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, res := range results {
		if e, bad := res["error"].(obj); bad {
			if e["code"] != "unavailable" && e["code"] != "resource_exhausted" {
				x.fault("send %s: %v", recs[i].id, e)
			}
			continue
		}
		recs[i].known, recs[i].knownAt, recs[i].answer = true, time.Now(), res
		if text(res, "id") != recs[i].id || num(x.t, res, "due_ms") != recs[i].due &&
			res["duplicate"] != true {
			x.fault("send %s: answered with another id or due: %v", recs[i].id, res)
		}
	}
}

// change cancels or reschedules one of the worker's own messages.
func (w *worker) change(method string) {
	if len(w.own) == 0 {
		return
	}
	recent := w.own[max(0, len(w.own)-100):]
	rec := recent[w.rng.IntN(len(recent))]
	due := time.Now().UnixMilli() + w.rng.Int64N(4000)
	var body any
	w.mu.Lock()
	if !rec.known {
		w.mu.Unlock()
		return
	}
	if method == "PATCH" {
		body = obj{"deliver_at": due}
		if _, old := rec.dues[due]; old {
			w.mu.Unlock()
			return
		}
		rec.dues[due] = time.Time{}
	}
	w.mu.Unlock()
	r := w.d.try(method, path(rec.id), body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.err != nil || r.status == http.StatusServiceUnavailable {
		rec.maybeGone = rec.maybeGone || method == "DELETE"
		return
	}
	o := r.object(w.t)
	switch o["result"] {
	case "CANCELLED":
		if !rec.cancelled {
			rec.cancelled, rec.doneAt = true, time.Now()
		}
	case "RESCHEDULED":
		if rec.cancelled {
			w.fault("%s: rescheduled after its cancel", rec.id)
		}
		now := time.Now()
		for d, gone := range rec.dues {
			if d != due && gone.IsZero() {
				rec.dues[d] = now
			}
		}
	case "TOO_LATE":
		if method == "DELETE" && rec.cancelled {
			w.fault("%s: cancelled, then too late", rec.id)
		}
		if method == "PATCH" {
			rec.dues[due] = time.Now()
		}
	default:
		w.fault("%s %s: %s", method, rec.id, r)
	}
}

func (w *worker) pull() {
	q := fmt.Sprint("q", w.rng.IntN(queues))
	length := time.Duration(1000+w.rng.IntN(2000)) * time.Millisecond
	asked := time.Now()
	r := w.d.try("POST", "/v1/queues/"+q+"/pull", obj{
		"max": 1 + w.rng.IntN(50), "wait": w.rng.IntN(300), "lease": length.Milliseconds(),
	})
	if r.err != nil || r.status != http.StatusOK {
		w.lostAnswer()
		return
	}
	now := time.Now()
	var ack, nack []any
	got := list(w.t, r.object(w.t), "messages")
	w.mu.Lock()
	for _, m := range got {
		w.leased(q, m, asked, now, length)
		switch n := w.rng.IntN(100); {
		case n < 85 || w.calm:
			ack = append(ack, m["receipt"])
		case n < 95:
			nack = append(nack, m["receipt"])
			w.last(m).given = true
		}
	}
	w.mu.Unlock()
	if len(nack) > 0 {
		w.d.try("POST", "/v1/queues/"+q+"/nack", obj{"receipts": nack, "delay": w.rng.IntN(500)})
	}
	if len(ack) > 0 {
		w.acks(q, got, ack)
	}
}

func (w *worker) last(m obj) *lease {
	r := w.records[text(m, "id")]
	if r == nil || len(r.leases) == 0 {
		return &lease{}
	}
	return &r.leases[len(r.leases)-1]
}

// leased checks one message that was pulled; the lock is held.
func (w *worker) leased(q string, m obj, asked, now time.Time, length time.Duration) {
	id, due, attempt := text(m, "id"), num(w.t, m, "due_ms"), num(w.t, m, "attempt")
	rec := w.records[id]
	if rec == nil {
		w.fault("%s: nobody sent it", id)
		return
	}
	if due > now.UnixMilli() {
		w.fault("%s: EARLY by %d ms", id, due-now.UnixMilli())
	}
	if gone, may := rec.dues[due]; !may || !gone.IsZero() && asked.After(gone) {
		w.fault("%s: delivered with due %d, which it has not (any more)", id, due)
	}
	if rec.cancelled {
		w.fault("%s: delivered after CANCELLED", id)
	}
	if rec.queue != q || text(m, "body") != "body of "+id {
		w.fault("%s: other content: %v", id, m)
	}
	if rec.acked != 0 && (attempt > rec.acked || w.loss) && !w.lostSince(rec.ackedAt) {
		w.fault("%s: came back after its ack, attempt %d after %d", id, attempt, rec.acked)
	}
	for _, l := range rec.leases {
		switch {
		case w.loss:
		case l.attempt == attempt:
			w.fault("%s: attempt %d was given twice", id, attempt)
		case attempt > l.attempt && !l.given && now.Before(l.until):
			w.fault("%s: attempt %d while attempt %d was leased for another %s", id, attempt, l.attempt,
				l.until.Sub(now))
		}
	}
	rec.leases = append(rec.leases, lease{attempt: attempt, until: asked.Add(length)})
}

// lostSince reports whether the disk was lost at most so long after then that a machine which is
// busy may not have uploaded it: what was acked shortly before may come again.
func (x *torture) lostSince(then time.Time) bool {
	return slices.ContainsFunc(x.lost, func(at time.Time) bool {
		return at.After(then) && at.Before(then.Add(20*time.Second))
	})
}

func (w *worker) acks(q string, got []obj, receipts []any) {
	by := map[string]obj{}
	for _, m := range got {
		by[text(m, "receipt")] = m
	}
	r := w.d.try("POST", "/v1/queues/"+q+"/ack", obj{"receipts": receipts})
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.err != nil || r.status != http.StatusOK {
		for _, receipt := range receipts {
			if rec := w.records[text(by[receipt.(string)], "id")]; rec != nil {
				rec.maybeAck = true
			}
		}
		return
	}
	for _, res := range list(w.t, r.object(w.t), "results") {
		m := by[text(res, "receipt")]
		rec := w.records[text(m, "id")]
		if rec == nil {
			continue
		}
		switch res["result"] {
		case "ACKED":
			rec.acked, rec.ackedAt = num(w.t, m, "attempt"), time.Now()
		case "UNKNOWN":
			rec.maybeAck = true
		case "SUPERSEDED", "NOT_FOUND":
		default:
			w.fault("ack %s: %v", rec.id, res)
		}
	}
}

// run keeps the clients busy and the daemon dying, then checks what is left.
func (x *torture) run(length time.Duration, end func(rng *rand.Rand)) {
	rng := rand.New(rand.NewPCG(x.seed, 1<<32))
	x.records, x.stop = map[string]*record{}, make(chan struct{})
	var wg sync.WaitGroup
	for no := range max(4, x.clients) {
		wg.Go(func() { x.work(no) })
	}
	for deadline := time.Now().Add(length); time.Now().Before(deadline); {
		select {
		case <-time.After(time.Duration(300+rng.IntN(1700)) * time.Millisecond):
			end(rng)
		case <-x.d.gone():
			if x.starts == 0 {
				x.mu.Lock()
				x.fault("the daemon ended by itself: %s", tail(x.d.logFrom(0)))
				x.mu.Unlock()
			}
		}
		if err := x.start(); err != nil {
			x.mu.Lock()
			x.fault("start: %v", err)
			x.mu.Unlock()
			break
		}
	}
	time.Sleep(500 * time.Millisecond)
	close(x.stop)
	wg.Wait()
	if x.calm != nil {
		x.calm()
	}
	x.settle()
	x.judge()
	if x.t.Failed() {
		x.t.Logf("seed %d: CICADA_SEED=%d go test -run %s .", x.seed, x.seed, x.t.Name())
	}
}

// start starts the daemon, as often as it takes and may take.
func (x *torture) start() (err error) {
	for range max(1, x.starts) {
		if err = x.d.tryStart(); err == nil {
			return nil
		}
		x.d.kill()
	}
	return err
}

// settle finds out what became of calls without an answer, and consumes the rest.
func (x *torture) settle() {
	var open []*record
	for _, r := range x.records {
		if !r.known {
			open = append(open, r)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); len(open) > 0 && time.Now().Before(deadline); {
		for part := range slices.Chunk(open, 500) {
			var batch []obj
			for _, r := range part {
				batch = append(batch, message(r))
			}
			x.sent(part, x.d.try("POST", "/v1/messages", obj{"messages": batch}))
		}
		open = slices.DeleteFunc(open, func(r *record) bool { return r.known })
	}
	w := &worker{torture: x, no: 99, rng: rand.New(rand.NewPCG(x.seed, 99)), calm: true}
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if x.d.count("") == 0 {
			return
		}
		w.pull()
	}
	x.fault("messages stay pending: %s", x.d.call("GET", "/v1/messages?limit=5", nil))
}

// judge compares the daemon's word on each message with the clients'.
func (x *torture) judge() {
	acked, cancelled, repeats := 0, 0, 0
	for _, r := range x.records {
		state := x.d.state(r.id)
		if r.acked != 0 {
			acked++
		}
		if len(r.leases) > 1 {
			repeats++
		}
		switch {
		case !r.known:
			x.fault("%s: never answered", r.id)
		case r.cancelled && len(r.leases) > 0:
			x.fault("%s: CANCELLED, and delivered; disk lost %v; %+v", r.id, x.lost, *r)
		case r.cancelled && state != "cancelled":
			x.fault("%s: CANCELLED, and %s", r.id, state)
		case r.cancelled:
			cancelled++
		case state == "cancelled" && r.maybeGone && r.acked == 0:
		case state == "delivered" && (r.acked != 0 || r.maybeAck):
		default:
			x.fault("%s: LOST or wrong: %s; acked %d, perhaps %v; cancel perhaps %v; leases %v; answered %s %v; "+
				"dues %v; %s", r.id, state, r.acked, r.maybeAck, r.maybeGone, r.leases,
				r.knownAt.Format("05.000"), r.answer, r.dues, x.d.call("GET", path(r.id), nil))
		}
	}
	b := x.d.books()
	balanced(x.t, b)
	if len(x.faults) > 0 {
		x.t.Logf("disk lost %v; books %v; log:\n%s", x.lost, b, x.d.logFrom(0))
	}
	if !x.loss {
		if b["accepted"] != int64(len(x.records)) || b["pending"] != 0 || b["dead"] != 0 {
			x.fault("books %v of %d messages", b, len(x.records))
		}
	}
	x.t.Logf("%d messages, %d acked, %d cancelled, %d attempted again", len(x.records), acked,
		cancelled, repeats)
	require.Empty(x.t, x.faults, "seed %d", x.seed)
	require.NotZero(x.t, acked)
}

// seed is the history to run, and length how long.
func seedAndLength(t *testing.T, usual uint64) (uint64, time.Duration) {
	t.Helper()
	length := 6 * time.Second
	if v := os.Getenv("CICADA_TORTURE"); v != "" {
		var err error
		length, err = time.ParseDuration(v)
		require.NoError(t, err)
		usual = uint64(time.Now().UnixNano())
	}
	if v := os.Getenv("CICADA_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
		usual = n
	}
	return usual, length
}

var tortured = []string{
	"--tier-flush-interval", "300ms", "--tier-min-wait", "200ms", "--local-hot-window", "1s",
	"--local-horizon", "2s", "--local-drop-lag", "200ms",
}

// kill -9 at any moment: never early, never lost, an ack and a CANCELLED hold, leases hold.
func TestTortureKill(t *testing.T) {
	t.Parallel()
	seed, length := seedAndLength(t, 1)
	x := &torture{t: t, d: serve(t, tortured...), seed: seed}
	x.run(length, func(*rand.Rand) { x.d.kill() })
}

// The same, and sometimes the local disk goes too: everything comes back from the bucket.
func TestTortureDiskLoss(t *testing.T) {
	t.Parallel()
	seed, length := seedAndLength(t, 2)
	x := &torture{t: t, d: serve(t, tortured...), seed: seed, loss: true}
	x.run(length, func(rng *rand.Rand) {
		x.mu.Lock()
		lost := rng.IntN(2) == 0 || len(x.lost) == 0
		x.mu.Unlock()
		x.d.kill()
		if lost {
			x.d.loseDisk()
			x.mu.Lock()
			x.lost = append(x.lost, time.Now())
			x.mu.Unlock()
		}
	})
}

// SIGTERM under load: exit 0 in time, and nothing is repeated.
func TestTortureDrain(t *testing.T) {
	t.Parallel()
	seed, length := seedAndLength(t, 3)
	x := &torture{t: t, d: serve(t, append(slices.Clone(tortured), "--shutdown-timeout", "5s")...),
		seed: seed}
	x.run(length, func(*rand.Rand) {
		began := time.Now()
		x.d.term()
		code := x.d.wait()
		x.mu.Lock()
		defer x.mu.Unlock()
		if took := time.Since(began); code != 0 || took > 30*time.Second { // of which the drain has 5
			x.fault("SIGTERM: exit status %d after %s: %s", code, took, tail(x.d.logFrom(0)))
		}
	})
}

// A push target sees each message once across SIGTERM, and across kill -9 again at most what was
// in flight and not yet recorded (S6).
func TestPushOverRestarts(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"term", "kill"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := receive(t)
			const n, window = 3000, 50
			d := serve(t, "--webhook-allow", r.host(), "--tier-flush-interval", "300ms",
				"--delivery-window", strconv.Itoa(window))
			var batch []obj
			for i := range n {
				batch = append(batch, obj{
					"id": strconv.Itoa(i), "target": r.URL + "/hook", "delay": 50 + i/4,
				})
			}
			d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
			for _, part := range []int{n / 4, n / 2} {
				eventually(t, "some are delivered", func() bool { return len(r.posts("/hook")) > part })
				if how == "term" {
					d.stop()
				} else {
					d.kill()
				}
				d.start()
			}
			eventually(t, "all are delivered", func() bool { return d.count("") == 0 })
			times := map[string]int{}
			for _, p := range r.posts("/hook") {
				times[p.header.Get("Idempotency-Key")]++
			}
			require.Len(t, times, n, "lost")
			again := len(r.posts("/hook")) - n
			if how == "term" {
				require.Zero(t, again, "duplicates across SIGTERM")
			}
			require.LessOrEqual(t, again, 2*(window+1000), "duplicates across two crashes")
			t.Logf("%d of %d posted again", again, n)
			b := d.books()
			require.EqualValues(t, n, b["delivered"])
			balanced(t, b)
		})
	}
}
