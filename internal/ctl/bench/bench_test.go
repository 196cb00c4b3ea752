// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// liar is a small daemon that loses, repeats and hurries as it is told.
type liar struct {
	mu                     sync.Mutex
	n, acked               int
	pending                []map[string]any
	loseEvery, repeatEvery int
	hurry                  time.Duration
	refuseEvery            int
}

func (d *liar) accept(m map[string]any) map[string]any {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if d.refuseEvery > 0 && d.n%d.refuseEvery == 0 {
		return map[string]any{"error": map[string]any{"code": "invalid_argument"}}
	}
	id := fmt.Sprintf("m%d", d.n)
	due := int64(m["deliver_at"].(float64))
	got := map[string]any{"id": id, "receipt": "r" + id, "attempt": 1, "due_ms": due,
		"body": m["body"]}
	if d.loseEvery == 0 || d.n%d.loseEvery != 0 {
		d.pending = append(d.pending, got)
	}
	if d.repeatEvery > 0 && d.n%d.repeatEvery == 0 {
		d.pending = append(d.pending, got)
	}
	return map[string]any{"id": id, "due_ms": due, "state": "scheduled"}
}

func (d *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := json.NewEncoder(w)
	switch {
	case strings.HasSuffix(r.URL.Path, "/pull"):
		d.pull(w, r)
	case strings.HasSuffix(r.URL.Path, "/ack"):
		var req struct{ Receipts []string }
		_ = json.NewDecoder(r.Body).Decode(&req)
		d.mu.Lock()
		d.acked += len(req.Receipts)
		d.mu.Unlock()
		_ = out.Encode(map[string]any{"results": []any{}})
	case r.Header.Get("Content-Type") == "application/x-ndjson":
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			var m map[string]any
			_ = json.Unmarshal(lines.Bytes(), &m)
			_ = out.Encode(d.accept(m))
			_ = rc.Flush()
		}
	case r.Header.Get("Content-Type") == "application/proto":
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte{0x0a, 2, 0x0a, 0, 0x0a, 2, 0x0a, 0, 0x0a, 2, 0x12, 0})
	default:
		var req map[string]any
		_ = json.NewDecoder(r.Body).Decode(&req)
		all, many := req["messages"].([]any)
		if !many {
			_ = out.Encode(d.accept(req))
			return
		}
		var results []any
		for _, m := range all {
			results = append(results, d.accept(m.(map[string]any)))
		}
		_ = out.Encode(map[string]any{"results": results})
	}
}

func (d *liar) pull(w http.ResponseWriter, r *http.Request) {
	for range 100 {
		d.mu.Lock()
		var due []map[string]any
		now := time.Now().Add(d.hurry).UnixMilli()
		d.pending = slices.DeleteFunc(d.pending, func(m map[string]any) bool {
			if m["due_ms"].(int64) <= now && len(due) < 50 {
				due = append(due, m)
				return true
			}
			return false
		})
		d.mu.Unlock()
		if len(due) > 0 {
			_ = json.NewEncoder(w).Encode(map[string]any{"messages": due})
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, _ = io.WriteString(w, `{"messages":[]}`)
}

func start(t *testing.T, d *liar) *client.Client {
	t.Helper()
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL, client.Options{Connections: 8})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func quiet(string, int64, int64) {}

// someTime is longer than a busy machine stands still, and is waited for once.
const someTime = 3 * time.Second

// A bench that hides loss, repeats or early messages is worse than none: plant each and look (N2,
// N3, N4).
func TestSpikeTellsTheTruth(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		d     *liar
		want  DeliveryReport
		quiet time.Duration // what is not lost ends it, so it may be long
	}{
		"good":   {&liar{}, DeliveryReport{Received: 200}, time.Minute},
		"loses":  {&liar{loseEvery: 10}, DeliveryReport{Received: 180, Lost: 20}, someTime},
		"repeat": {&liar{repeatEvery: 5}, DeliveryReport{Received: 240, Duplicates: 40}, time.Minute},
		"hurry":  {&liar{hurry: time.Hour}, DeliveryReport{Received: 200, Early: 200}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := Delivery{Messages: 200, Size: 50, In: 800 * time.Millisecond, Batch: 20,
				Queue: "q", Quiet: tc.quiet, Now: time.Now}.Run(t.Context(),
				start(t, tc.d), quiet)
			require.NoError(t, err)
			require.Equal(t, int64(200), r.Accepted)
			require.Zero(t, r.Unexpected+r.NotAcked)
			require.Equal(t, tc.want, DeliveryReport{Received: r.Received, Lost: r.Lost,
				Duplicates: r.Duplicates, Early: r.Early})
		})
	}
}

// The steady sender must send everything before its due and count like the spike.
func TestSteady(t *testing.T) {
	t.Parallel()
	d := &liar{loseEvery: 50}
	r, err := Delivery{Messages: 100, Size: 20, Rate: 400, Batch: 50, Queue: "q",
		Quiet: someTime, Now: time.Now}.Run(t.Context(), start(t, d), quiet)
	require.NoError(t, err)
	require.EqualValues(t, 100, r.Accepted)
	require.EqualValues(t, 2, r.Lost)
	require.False(t, r.SentAfterDue)
	require.Zero(t, r.Early)
}

// Every encoding must count what was refused as not accepted (N1).
func TestIngestCounts(t *testing.T) {
	t.Parallel()
	for _, o := range []Ingest{
		{Encoding: JSON, Batch: 10, Connections: 3},
		{Encoding: JSON, Single: true, Connections: 3},
		{Encoding: NDJSON, Batch: 7, Connections: 3, InOrder: true},
	} {
		o.Messages, o.Size, o.Queue, o.Now = 100, 30, "q", time.Now
		o.DueFrom, o.DueTo = time.Hour, 2*time.Hour
		r, err := o.Run(t.Context(), start(t, &liar{refuseEvery: 10}), quiet)
		require.NoError(t, err)
		require.EqualValues(t, 90, r.Accepted, o.Encoding)
		require.EqualValues(t, 10, r.Failed, o.Encoding)
		require.NotEmpty(t, r.FirstFailure)
		require.Positive(t, r.CallMS.P50)
	}
	r, err := Ingest{Messages: 3, Batch: 3, Connections: 1, Encoding: Protobuf, Now: time.Now}.
		Run(t.Context(), start(t, &liar{}), quiet)
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Accepted)
	require.EqualValues(t, 1, r.Failed)
}

// A daemon that is gone must give failures and an end, not a hang.
func TestIngestWithoutDaemon(t *testing.T) {
	for _, e := range []Encoding{JSON, NDJSON} {
		c, err := client.New("127.0.0.1:1", client.Options{})
		require.NoError(t, err)
		r, err := Ingest{Messages: 100, Batch: 3, Connections: 2, Encoding: e, Now: time.Now}.
			Run(t.Context(), c, quiet)
		require.NoError(t, err)
		require.Zero(t, r.Accepted)
		require.Positive(t, r.Failed, e)
	}
}

// A quantile that is off by more than the stated 2 % would make the figures worthless.
func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var a, b histogram
	var all []time.Duration
	for i := range 10000 {
		d := time.Duration(rng.ExpFloat64() * float64(20*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999, 1} {
		want := milliseconds(all[int(q*float64(len(all)))-1])
		require.InEpsilon(t, want+0.001, a.quantile(q)+0.001, 0.02, "q=%v", q)
	}
	for us := uint64(0); us < 1<<40; us = us*9/8 + 1 {
		require.GreaterOrEqual(t, upper(bucketOf(us)), us)
		require.LessOrEqual(t, float64(upper(bucketOf(us))), float64(us)*1.02+1)
	}
	a.add(1<<63 - 1) // must not leave the array
}
