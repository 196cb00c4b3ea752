// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/integration/ports"
)

// valve is the way to a store: it can be shut, as when the network or the store is gone.
type valve struct {
	t     testing.TB
	ports *ports.Ports
	addr  string
	to    string

	mu     sync.Mutex
	listen net.Listener
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

func newValve(t testing.TB, endpoint string) *valve {
	t.Helper()
	at, err := ports.Reserve(1) // its own while it is shut, too
	require.NoError(t, err)
	v := &valve{
		t: t, ports: at, addr: at.Addr(0), to: strings.TrimPrefix(endpoint, "http://"),
		conns: map[net.Conn]bool{},
	}
	v.open()
	t.Cleanup(func() {
		v.shut()
		v.wg.Wait()
		v.ports.Release()
	})
	return v
}

func (v *valve) open() {
	v.t.Helper()
	l, err := net.Listen("tcp", v.addr)
	require.NoError(v.t, err)
	v.mu.Lock()
	v.listen = l
	v.mu.Unlock()
	v.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			v.wg.Go(func() { v.join(conn) })
		}
	})
}

func (v *valve) join(conn net.Conn) {
	defer conn.Close()
	far, err := net.Dial("tcp", v.to)
	if err != nil {
		return
	}
	defer far.Close()
	v.mu.Lock()
	v.conns[conn], v.conns[far] = true, true
	v.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, conn); far.Close() })
	_, _ = io.Copy(conn, far)
	conn.Close()
	wg.Wait()
	v.mu.Lock()
	delete(v.conns, conn)
	delete(v.conns, far)
	v.mu.Unlock()
}

func (v *valve) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listen != nil {
		_ = v.listen.Close()
	}
	for c := range v.conns {
		_ = c.Close()
	}
}

// metric reads one value of /metrics.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	r := d.call("GET", "/metrics", nil)
	for line := range strings.Lines(string(r.body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			require.NoError(d.t, err)
			return v
		}
	}
	require.FailNow(d.t, "no metric "+name)
	return 0
}

// onTime sends messages due soon, pulls them, and gives the worst lateness.
func onTime(t *testing.T, d *daemon, n int) (late time.Duration) {
	t.Helper()
	q := queue(t)
	batch := make([]obj, n) // at once, or the first waits for the others to be sent
	for i := range batch {
		batch[i] = obj{"target": "pull:" + q, "delay": "300ms"}
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	for got := 0; got < n; {
		for _, m := range d.pull(q, obj{"max": n, "wait": "10s"}) {
			late = max(late, time.Since(time.UnixMilli(num(t, m, "due_ms"))))
			d.ack(q, text(m, "receipt"))
			got++
		}
	}
	return late
}

// generous bounds the lateness on a machine that does many other things. Whoever waits for a store
// that does not answer waits half a minute.
const generous = 10 * time.Second

// The store is gone for half a minute while messages come and go: accepting and delivery go on,
// one line of the log and a metric say so, a promise of the tier is not given; afterwards what has
// piled up is uploaded beside the delivery, and nothing is lost, not even with the disk.
func TestOutage(t *testing.T) {
	t.Parallel()
	p := need(t, gatewayStore).bucket()
	v := newValve(t, p.endpoint)
	d := serve(t, append([]string{"--bucket", p.through("http://" + v.addr).url()}, quick...)...)
	d.send(obj{"id": "before", "target": "pull:far", "delay": "1h", "durability": "tier"})
	v.shut()
	began := time.Now()
	answer := make(chan reply, 1)
	go func() {
		answer <- d.try("POST", "/v1/messages", obj{
			"id": "promise", "target": "pull:far", "delay": "1h", "durability": "tier",
		})
	}()
	sent := 0
	for len(answer) == 0 {
		require.Less(t, onTime(t, d, 20), generous)
		for range 20 {
			d.send(obj{"id": fmt.Sprint("during-", sent), "target": "pull:far", "delay": "1h"})
			sent++
		}
		require.Less(t, time.Since(began), time.Minute)
		time.Sleep(100 * time.Millisecond)
	}
	(<-answer).refused(t, http.StatusServiceUnavailable, "unavailable", "")
	require.GreaterOrEqual(t, time.Since(began), 25*time.Second)
	require.Equal(t, http.StatusOK, d.call("GET", "/readyz", nil).status)
	require.Greater(t, d.metric("cicada_oldest_not_uploaded_seconds"), 15.0)
	require.NotEmpty(t, text(d.call("GET", "/v1/status", nil).ok(t), "last_flush_error"))
	require.Equal(t, 1, d.lines("bucket does not answer"), tail(d.logFrom(0)))

	v.open()
	eventually(t, "it is uploaded", func() bool {
		st := d.call("GET", "/v1/status", nil).ok(t)
		return text(st, "last_flush_error") == "" && d.metric("cicada_oldest_not_uploaded_seconds") < 3
	})
	require.Less(t, onTime(t, d, 20), generous)
	require.Equal(t, 1, d.lines("bucket does not answer"), tail(d.logFrom(0)))
	d.logged("bucket answers again")
	require.Equal(t, 1, d.lines("bucket answers again"))
	d.send(obj{"id": "after", "target": "pull:far", "delay": "1h", "durability": "tier"})
	d.kill()
	d.loseDisk()
	d.start()
	require.EqualValues(t, sent+3, d.count("target=pull:far"), "the promise was kept all the same")
	balanced(t, d.books())
	d.stop() // a flush would come between the two lists that are compared
	tierIsWhole(t, p)
}

// A daemon that is started again while its store is gone goes on with what its disk holds, and
// takes the shard when the store is back. A new data directory is refused.
func TestStartWithoutStore(t *testing.T) {
	t.Parallel()
	p := need(t, gatewayStore).bucket()
	v := newValve(t, p.endpoint)
	args := append([]string{"--bucket", p.through("http://" + v.addr).url()}, quick...)
	d := serve(t, args...)
	status := func() obj { return d.call("GET", "/v1/status", nil).ok(t) }
	ids := map[string]bool{}
	for range 20 {
		ids[text(d.send(obj{"target": "pull:far", "delay": "1h"}), "id")] = true
	}
	epoch := num(t, status(), "epoch")
	v.shut()
	for range 2 {
		d.kill()
		d.start()
		require.Equal(t, http.StatusOK, d.call("GET", "/readyz", nil).status)
		require.Equal(t, true, status()["isolated"])
		require.Equal(t, epoch, num(t, status(), "epoch"))
		require.Less(t, onTime(t, d, 10), generous)
		for range 20 {
			id := text(d.send(obj{"target": "pull:far", "delay": "1h"}), "id")
			require.False(t, ids[id], "an id was given twice")
			ids[id] = true
		}
	}
	require.Contains(t, d.logged("starting on the last epoch"), "epoch")
	fresh := newDaemon(t, args...)
	fails(t, fresh, v.addr)
	stop := newDaemon(t, append(args, "--tier-isolated", "stop")...)
	stop.data = d.data
	d.kill()
	fails(t, stop, "does not answer")
	d.start()

	v.open()
	eventually(t, "the shard is taken", func() bool { return status()["isolated"] == false })
	require.Greater(t, num(t, status(), "epoch"), epoch)
	d.send(obj{"id": "last", "target": "pull:far", "delay": "1h", "durability": "tier"})
	d.kill()
	d.loseDisk()
	d.start()
	require.EqualValues(t, len(ids)+1, d.count("target=pull:far"))
	balanced(t, d.books())
	d.stop() // a flush would come between the two lists that are compared
	tierIsWhole(t, p)
}

// The directory of a bucket that is moved away, as when a disk is mounted no longer, is an outage:
// nothing is written in its place, and all goes on when it is back.
func TestBucketDirectoryGone(t *testing.T) {
	t.Parallel()
	bucket := filepath.Join(t.TempDir(), "bucket")
	d := serve(t, append([]string{"--bucket", "file://" + bucket}, quick...)...)
	d.send(obj{"id": "before", "target": "pull:far", "delay": "1h", "durability": "tier"})
	require.NoError(t, os.Rename(bucket, bucket+".away"))
	for i := range 20 {
		d.send(obj{"id": fmt.Sprint(i), "target": "pull:far", "delay": "1h"})
	}
	require.Less(t, onTime(t, d, 20), generous)
	eventually(t, "it is told", func() bool { return d.lines("bucket does not answer") == 1 })
	require.NoDirExists(t, bucket)
	require.NoError(t, os.Rename(bucket+".away", bucket))
	d.send(obj{"id": "after", "target": "pull:far", "delay": "1h", "durability": "tier"})
	d.kill()
	d.loseDisk()
	d.start()
	require.EqualValues(t, 22, d.count("target=pull:far"))
	balanced(t, d.books())
}
