// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/integration/torture/history"
)

// receivers are the targets of pushes. Each path behaves in its own way until they are told to be
// calm, and then all say yes.
type receivers struct {
	server *httptest.Server
	log    *history.Log
	calm   atomic.Bool
	closed chan struct{}

	mu  sync.Mutex
	rng *rand.Rand
}

// What receivers do.
var hookPaths = []string{"/good", "/flaky", "/slow", "/cut", "/rude"}

func startReceivers(log *history.Log, seed uint64) *receivers {
	r := &receivers{
		log: log, rng: rand.New(rand.NewPCG(seed, 1<<34)), closed: make(chan struct{}),
	}
	r.server = httptest.NewServer(r)
	return r
}

func (r *receivers) stop() {
	close(r.closed)
	r.server.CloseClientConnections()
	r.server.Close()
}

func (r *receivers) host() string { return strings.TrimPrefix(r.server.URL, "http://") }

func (r *receivers) targets() []string {
	var all []string
	for _, p := range hookPaths {
		all = append(all, r.server.URL+p)
	}
	return all
}

func (r *receivers) draw(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.IntN(n)
}

// ServeHTTP implements http.Handler.
func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // cut before it was whole
	}
	e := history.Event{
		At: at.UnixNano(), What: history.Attempt, ID: req.Header.Get("Cicada-Id"),
		Target: r.server.URL + req.URL.Path, Body: string(body),
		Due: due(req.Header.Get("Cicada-Due")), Try: integer(req.Header.Get("Cicada-Attempt")),
		Fired: due(req.Header.Get("Cicada-Fired-At")), Answer: history.OK,
	}
	status := http.StatusNoContent
	n := r.draw(100)
	if r.calm.Load() {
		n = 99
	}
	switch req.URL.Path {
	case "/flaky":
		if n < 25 {
			status, e.Answer = http.StatusServiceUnavailable, "RETRY"
		}
	case "/slow":
		r.wait(time.Duration(r.draw(300)) * time.Millisecond)
		if n < 6 { // longer than the daemon waits
			r.wait(hookTimeout + time.Second)
			e.Answer = history.Unknown
		}
	case "/cut":
		if n < 20 {
			e.Answer = "RETRY"
			r.write(e, at)
			panic(http.ErrAbortHandler)
		}
	case "/rude":
		if n < 12 {
			status, e.Answer = http.StatusBadRequest, history.Refused
		}
	}
	if e.Answer != history.OK {
		r.write(e, at)
		w.WriteHeader(status)
		return
	}
	// The answer leaves before it is written down: what is written is a yes that was given.
	w.WriteHeader(status)
	if http.NewResponseController(w).Flush() != nil || req.Context().Err() != nil {
		e.Answer = history.Unknown
	}
	r.write(e, at)
}

// write writes an attempt down with how long it took.
func (r *receivers) write(e history.Event, began time.Time) {
	e.Lease = time.Since(began).Milliseconds() + 1
	_, _ = r.log.Write(e)
}

func (r *receivers) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.closed:
	}
}

func due(s string) int64 {
	if n := integer(s); n != 0 {
		return n
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}

func integer(s string) int64 {
	var n int64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
