// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The causes of duplicates that only a real process, its signals and its command line show. The
// rest of the thirteen, and these once more in virtual time, are in package scheduler.

// ndjson sends lines and returns one reply a line.
func (d *daemon) ndjson(t *testing.T, lines ...string) []obj {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, *d.base.Load()+"/v1/messages",
		strings.NewReader(strings.Join(lines, "\n")+"\n"))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	return jsonLines(t, string(d.do(req).body))
}

// A producer that was killed, or whose server was, sends its whole stream again: what was stored is
// answered as a duplicate, line for line, and a bad line among them changes nothing for the others.
func TestDuplicateSendRetry(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	var lines []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf(
			`{"id":"o-%d","target":"pull:q","deliver_at":"2040-01-01T00:00:00Z"}`, i))
	}
	lines[77] = `{"id":"o-77","target":"nowhere:"}`
	for try := range 3 {
		replies := d.ndjson(t, lines...)
		require.Len(t, replies, len(lines))
		for i, r := range replies {
			if i == 77 {
				require.NotNil(t, r["error"], "%v", r)
				continue
			}
			require.Equal(t, fmt.Sprint("o-", i), r["id"])
			require.Equal(t, try > 0, r["duplicate"])
		}
		d.kill()
		d.start()
	}
	require.EqualValues(t, 199, d.books()["accepted"])
	require.EqualValues(t, 199, d.books()["pending"])
}

// SIGTERM while a receiver works: what it has taken is noted before the process ends, so that
// nothing comes twice, restart after restart (S6). Without a bucket the last outcomes have no upload
// to wait for.
func TestDuplicateCleanShutdown(t *testing.T) {
	t.Parallel()
	t.Run("bucket", func(t *testing.T) { t.Parallel(); cleanShutdown(t) })
	t.Run("none", func(t *testing.T) { t.Parallel(); cleanShutdown(t, "--bucket", "none") })
}

func cleanShutdown(t *testing.T, args ...string) {
	r := receive(t)
	args = append(args, "--webhook-allow", r.host())
	d := serve(t, append(args, quick...)...)
	const each, restarts = 60, 5
	for n := range restarts {
		var batch []obj
		for i := range each {
			batch = append(batch, obj{
				"id": fmt.Sprintf("m-%d-%d", n, i), "target": r.URL + "/hook", "delay": 10 * i,
				"body": fmt.Sprintf("m-%d-%d", n, i),
			})
		}
		d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
		time.Sleep(time.Duration(100+60*n) * time.Millisecond)
		d.stop()
		d.start()
	}
	eventually(t, "everything is delivered", func() bool {
		return d.books()["delivered"] == each*restarts
	})
	times := make(map[string]int)
	for _, p := range r.posts("/hook") {
		times[p.body]++
	}
	require.Len(t, times, each*restarts)
	for body, n := range times {
		require.Equal(t, 1, n, body)
	}
}

// Consumers come and go while the daemon is killed: what one holds under a lease is given to no
// other before it ends, and of many that lease at once each message has one holder.
func TestDuplicateRebalance(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	const n = 400
	var batch []obj
	for i := range n {
		batch = append(batch, obj{"id": fmt.Sprint(i), "target": "pull:q", "delay": 0})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	var mu sync.Mutex
	held, short := make(map[string]int), make(map[string]bool)
	var receipts []string
	take := func(lease string) {
		for _, m := range d.pull("q", obj{"max": 25, "wait": "2s", "lease": lease}) {
			mu.Lock()
			held[text(m, "id")]++
			if lease == "15s" {
				short[text(m, "id")] = true
			} else {
				receipts = append(receipts, text(m, "receipt"))
			}
			mu.Unlock()
		}
	}
	start := time.Now()
	var g sync.WaitGroup
	for i := range 16 {
		g.Go(func() { take([]string{"15s", "1h"}[i%2]) })
	}
	g.Wait()
	d.kill()
	d.start()
	for range 16 {
		g.Go(func() { take("1h") })
	}
	g.Wait()
	if time.Since(start) < 15*time.Second {
		for id, times := range held {
			require.Equal(t, 1, times, id)
		}
	}
	eventually(t, "what those who left held comes back", func() bool {
		take("1h")
		mu.Lock()
		defer mu.Unlock()
		return len(receipts) >= n
	})
	require.Len(t, held, n)
	for id, times := range held {
		if short[id] {
			require.Equal(t, 2, times, id)
		} else {
			require.Equal(t, 1, times, id)
		}
	}
	for receipt, result := range d.ack("q", receipts...) {
		require.Equal(t, "ACKED", result, receipt)
	}
	require.Zero(t, d.books()["pending"])
}

// An ack that is refused shows: in the answer, in the exit status and words of the command line,
// and in a metric.
func TestDuplicateHiddenFailedAck(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	c := cli(t, d)
	d.send(obj{"id": "a", "target": "pull:q", "delay": 0})
	late := text(d.pullOne("q", obj{"lease": "1s"}), "receipt")
	good := text(d.pullOne("q", obj{"lease": "1h"}), "receipt")
	r := c.exit(5, "ack", "q", late)
	require.Contains(t, r.err, late+": SUPERSEDED")
	require.Contains(t, r.err, "1 of 1 not acked")
	require.Contains(t, c.exit(3, "ack", "q", "garbage").err, "garbage: NOT_FOUND")
	r = c.exit(5, "ack", "q", good, late)
	require.Contains(t, r.err, "1 of 2 not acked")
	require.Equal(t, "delivered", d.state("a"))
	require.EqualValues(t, 2,
		d.metric(`cicada_settled_total{kind="ack",lane="pull:q",result="superseded"}`))
	require.EqualValues(t, 1,
		d.metric(`cicada_settled_total{kind="ack",lane="pull:q",result="not_found"}`))

	d.send(obj{"id": "b", "target": "pull:q", "delay": 0})
	require.Contains(t, c.ok("pull", "q", "--wait", "20s", "--ack", "-o", "jsonl"), `"b"`)
	require.Equal(t, "delivered", d.state("b"))

	// Whoever reads what pull --ack prints is slower than the lease: the message goes to another, and
	// the ack, which comes after the printing, is refused.
	d.send(obj{"id": "c", "target": "pull:q", "delay": 0, "body": strings.Repeat("x", 1<<20)})
	cmd := exec.Command(program, "pull", "q", "--wait", "20s", "--lease", "1s", "--ack", "-o", "jsonl")
	cmd.Env = append(cleanEnv(), "CICADA_SERVER="+strings.TrimPrefix(*d.base.Load(), "http://"),
		"HOME="+c.dir, "XDG_CONFIG_HOME="+c.dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill() }()
	eventually(t, "it is pulled", func() bool { return d.state("c") == "claimed" })
	receipt := text(d.pullOne("q", obj{"lease": "1h"}), "receipt")
	printed, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Contains(t, string(printed), `"c"`)
	require.Error(t, cmd.Wait())
	require.Equal(t, 5, cmd.ProcessState.ExitCode())
	require.Contains(t, errs.String(), "SUPERSEDED")
	require.Contains(t, errs.String(), "1 of 1 not acked")
	require.Equal(t, "ACKED", d.ack("q", receipt)[receipt])
}

// Leases are bounded as the contract says, and receipts are of one queue of one cluster.
func TestLeaseLimits(t *testing.T) {
	t.Parallel()
	a, b := serve(t, quick...), serve(t, quick...)
	at := time.Now().Add(500 * time.Millisecond).UnixMilli()
	for _, d := range []*daemon{a, b} {
		d.call("POST", "/v1/messages", obj{"messages": []obj{
			{"target": "pull:q", "deliver_at": at}, {"target": "pull:q", "deliver_at": at},
		}}).ok(t)
	}
	for lease, ok := range map[string]bool{
		"1s": true, "12h": true, "12h1ms": false, "13h": false, "999ms": false, "0s": false,
		"-1s": false,
	} {
		r := a.call("POST", "/v1/queues/none/pull", obj{"lease": lease})
		e := a.call("POST", "/v1/queues/none/extend", obj{"lease": lease, "receipts": []string{"x"}})
		if ok {
			r.ok(t)
			e.ok(t)
			continue
		}
		r.refused(t, http.StatusBadRequest, "invalid_argument", "lease")
		e.refused(t, http.StatusBadRequest, "invalid_argument", "lease")
	}
	var ours, theirs []string
	for len(ours) < 2 || len(theirs) < 2 {
		for _, m := range a.pull("q", obj{"wait": "5s", "lease": "12h"}) {
			ours = append(ours, text(m, "receipt"))
		}
		for _, m := range b.pull("q", obj{"wait": "5s", "lease": "12h"}) {
			theirs = append(theirs, text(m, "receipt"))
		}
	}
	for _, what := range []string{"ack", "nack", "extend"} {
		for receipt, result := range b.settle("q", what, obj{"receipts": ours}) {
			require.Equal(t, "NOT_FOUND", result, receipt)
		}
	}
	for receipt, result := range b.ack("q", theirs...) {
		require.Equal(t, "ACKED", result, receipt)
	}
	for receipt, result := range b.ack("q", ours...) {
		require.Equal(t, "NOT_FOUND", result, receipt)
	}
	for receipt, result := range a.ack("q", ours...) {
		require.Equal(t, "ACKED", result, receipt)
	}
}
