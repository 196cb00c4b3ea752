// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ownersFlush is the flush interval of these tests, and ownersPause how long a new owner waits for
// one that may still live.
const (
	ownersFlush = time.Second
	ownersPause = 3 * ownersFlush
)

// owners are two daemons for one bucket, each with a data directory of its own. Neither runs yet.
func owners(t *testing.T, args ...string) (a, b *daemon) {
	t.Helper()
	args = append([]string{
		"--bucket", objectStore(t), "--tier-flush-interval", ownersFlush.String(),
		"--tier-min-wait", "500ms", "--local-hot-window", "2s",
	}, args...)
	a, b = newDaemon(t, args...), newDaemon(t, args...)
	t.Cleanup(a.kill)
	t.Cleanup(b.kill)
	return a, b
}

// logged waits for a line of the log with this message, and gives the line.
func (d *daemon) logged(message string) string {
	d.t.Helper()
	found := ""
	eventually(d.t, "the log says "+message, func() bool {
		for line := range strings.Lines(d.logFrom(0)) {
			if strings.Contains(line, message) {
				found = line
				return true
			}
		}
		return false
	})
	return found
}

// lines counts the lines of the log with this message.
func (d *daemon) lines(message string) int {
	n := 0
	for line := range strings.Lines(d.logFrom(0)) {
		if strings.Contains(line, `"msg":"`+message) {
			n++
		}
	}
	return n
}

// consumer pulls and acks from one daemon after the other and writes down when it was told ACKED.
type consumer struct {
	mu    sync.Mutex
	acked map[string][]time.Time // by id
	first map[*daemon]time.Time  // when a daemon gave its first message
	wg    sync.WaitGroup
	stop  chan struct{}
}

func consume(t *testing.T, daemons ...*daemon) *consumer {
	c := &consumer{
		acked: map[string][]time.Time{}, first: map[*daemon]time.Time{}, stop: make(chan struct{}),
	}
	for _, d := range daemons {
		c.wg.Go(func() { c.run(t, d) })
	}
	return c
}

func (c *consumer) run(t *testing.T, d *daemon) {
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(pollEvery):
		}
		if d.base.Load() == nil {
			continue // not started yet
		}
		// What is leased when its daemon ends comes again soon.
		r := d.try("POST", "/v1/queues/q/pull", obj{"max": 50, "wait": "1s", "lease": "5s"})
		now := time.Now()
		if r.err != nil || r.status != http.StatusOK {
			continue
		}
		got := list(t, r.object(t), "messages")
		var receipts []any
		ids := map[string]string{}
		for _, m := range got {
			receipts = append(receipts, m["receipt"])
			ids[text(m, "receipt")] = text(m, "id")
		}
		if len(got) == 0 {
			continue
		}
		c.mu.Lock()
		if c.first[d].IsZero() {
			c.first[d] = now
		}
		c.mu.Unlock()
		r = d.try("POST", "/v1/queues/q/ack", obj{"receipts": receipts})
		if r.err != nil || r.status != http.StatusOK {
			continue
		}
		c.mu.Lock()
		for _, res := range list(t, r.object(t), "results") {
			if text(res, "result") == "ACKED" {
				id := ids[text(res, "receipt")]
				c.acked[id] = append(c.acked[id], time.Now())
			}
		}
		c.mu.Unlock()
	}
}

func (c *consumer) end() {
	close(c.stop)
	c.wg.Wait()
}

func (c *consumer) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

// A second owner takes the shard from one that lives and delivers: the first notices within a flush
// interval, gives nothing more and ends with status 1 and the other's epoch; the second gives
// nothing for three intervals. Nothing uploaded is lost, and what comes twice was acked after the
// last manifest of the first (S6, R11, R12).
func TestTakeoverUnderLoad(t *testing.T) {
	t.Parallel()
	a, b := owners(t)
	a.start()
	const n, fresh = 600, 20
	var batch []obj
	for i := range n {
		batch = append(batch, obj{
			"id": fmt.Sprint("m", i), "target": "pull:q", "durability": "tier",
			"delay": fmt.Sprintf("%dms", 1500+i*15), // for nine seconds
		})
	}
	a.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	c := consume(t, a, b)
	eventually(t, "the first delivers", func() bool { return c.count() > n/6 })
	covered := time.Now() // what was acked before is in a manifest of the first
	a.flushed()
	asked := time.Now()
	b.start()
	// Due at once, so that what is measured is the pause, however long the start took.
	for i := range fresh {
		b.send(obj{"id": fmt.Sprint("fresh", i), "target": "pull:q", "delay": 0})
	}
	taken := time.Now()
	require.Equal(t, 1, a.wait(), "%s", tail(a.logFrom(0)))
	require.Less(t, time.Since(taken), 20*ownersFlush, "it looks every interval")
	require.Contains(t, a.logFrom(0), "epoch 2")
	require.Contains(t, a.logFrom(0), "another daemon has taken over")
	eventually(t, "everything is delivered", func() bool { return c.count() == n+fresh })
	c.end()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.GreaterOrEqual(t, c.first[b].Sub(asked), ownersPause, "the new owner waits")
	for id, times := range c.acked {
		require.LessOrEqual(t, len(times), 2, id)
		if len(times) == 2 {
			require.True(t, times[0].After(covered), "%s came again, and a manifest had its end", id)
		}
	}
	eventually(t, "the books say so", func() bool { return b.books()["delivered"] == n+fresh })
	balanced(t, b.books())
}

// A daemon that stood still while another took the shard gives nothing when it goes on: it looks
// before it claims. With isolated: stop it need not even reach the bucket.
func TestZombie(t *testing.T) {
	t.Parallel()
	for _, isolated := range []string{"deliver", "stop"} {
		t.Run(isolated, func(t *testing.T) {
			t.Parallel()
			hooks := receive(t)
			// With stop, who does not get to run for three intervals ends itself: rather six seconds.
			a, b := owners(t, "--tier-isolated", isolated, "--webhook-allow", hooks.host(),
				"--tier-flush-interval", "2s")
			a.start()
			var batch []obj
			for i := range 20 {
				batch = append(batch, obj{
					"id": fmt.Sprint(i), "target": hooks.URL + "/hook", "durability": "tier",
					"delay": fmt.Sprintf("%dms", 8000+i*100),
				})
			}
			a.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
			require.NoError(t, a.cmd.Process.Signal(syscall.SIGSTOP))
			require.Empty(t, hooks.posts("/hook"), "this machine stood still: the first one delivered")
			b.start()
			eventually(t, "the second delivers", func() bool { return len(hooks.posts("/hook")) == 20 })
			require.NoError(t, a.cmd.Process.Signal(syscall.SIGCONT))
			require.Equal(t, 1, a.wait(), "%s", tail(a.logFrom(0)))
			seen := map[string]int{}
			for _, p := range hooks.posts("/hook") {
				seen[p.header.Get("cicada-id")]++
			}
			require.Len(t, seen, 20)
			for id, times := range seen {
				require.Equal(t, 1, times, id)
			}
			b.stop()
		})
	}
}

// A daemon that was stopped in order leaves the shard free: the next one need not wait.
func TestHandover(t *testing.T) {
	t.Parallel()
	a, b := owners(t, "--tier-flush-interval", "10s")
	a.start()
	for i := range 10 {
		a.send(obj{"id": fmt.Sprint(i), "target": "pull:q", "delay": "1s"})
	}
	a.stop()
	b.start()
	began := time.Now()
	got := map[string]bool{}
	for len(got) < 10 {
		for _, m := range b.pull("q", obj{"max": 10, "wait": "5s"}) {
			require.False(t, got[text(m, "id")])
			got[text(m, "id")] = true
			b.ack("q", text(m, "receipt"))
		}
		// For one that may still live it would wait half a minute.
		require.Less(t, time.Since(began), 20*time.Second, "waits as if the other still lived")
	}
	balanced(t, b.books())
	b.stop()
}

// A bucket of another cluster is refused with both names, and nothing is changed on either side.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	a, _ := owners(t)
	other, _ := owners(t)
	ids := map[*daemon]string{}
	for _, d := range []*daemon{a, other} {
		d.start()
		d.send(obj{"id": "mine", "target": "pull:q", "delay": "1h", "durability": "tier"})
		ids[d] = text(d.call("GET", "/v1/status", nil).ok(t), "cluster")
		d.stop()
	}
	own := a.args
	a.args = other.args
	fails(t, a, ids[a], ids[other])
	aside, err := filepath.Glob(filepath.Join(a.data, "*set-aside*"))
	require.NoError(t, err)
	require.Empty(t, aside, "the store was set aside for another cluster's bucket")
	a.args = own
	for _, d := range []*daemon{a, other} {
		d.start()
		require.Equal(t, "scheduled", d.state("mine"))
		d.stop()
	}
}

// A manifest, or a whole bucket, that has vanished is refused and not made anew; when it is back,
// all goes on.
func TestVanishedBucket(t *testing.T) {
	t.Parallel()
	bucket := filepath.Join(t.TempDir(), "bucket")
	d := serve(t, append([]string{"--bucket", "file://" + bucket}, quick...)...)
	d.send(obj{"id": "a", "target": "pull:q", "delay": "1h", "durability": "tier"})
	d.stop()
	manifest := ""
	require.NoError(t, filepath.WalkDir(bucket, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "manifest" {
			manifest = p
		}
		return err
	}))
	require.NoError(t, os.Rename(manifest, manifest+".away"))
	fails(t, d, "vanished", bucket)
	require.NoFileExists(t, manifest)
	require.NoError(t, os.Rename(manifest+".away", manifest))

	require.NoError(t, os.Rename(bucket, bucket+".away"))
	fails(t, d, bucket)
	require.NoDirExists(t, bucket)
	require.NoError(t, os.Mkdir(bucket, 0o755)) // a mount point without its disk
	fails(t, d, "vanished", bucket)
	require.NoDirExists(t, filepath.Join(bucket, "v1"))
	require.NoError(t, os.RemoveAll(bucket))
	require.NoError(t, os.Rename(bucket+".away", bucket))
	d.start()
	require.Equal(t, "scheduled", d.state("a"))
}

// An old data directory that comes back is set aside, with its new name in the log. What it alone
// had is accepted again on request, and what the bucket had is recognised.
func TestSetAsideAndImport(t *testing.T) {
	t.Parallel()
	a, b := owners(t, "--tier-flush-interval", "30s", "--tier-min-wait", "30s")
	a.start()
	a.send(obj{"id": "shared", "target": "pull:q", "delay": "1h", "durability": "tier", "body": "s"})
	a.send(obj{"id": "local", "target": "pull:q", "delay": "1h", "body": "l"})
	made := text(a.send(obj{"target": "pull:q", "delay": "2h", "body": "made"}), "id")
	a.kill()
	b.start()
	require.EqualValues(t, 1, b.count(""))
	b.stop()
	a.start()
	aside, err := filepath.Glob(filepath.Join(a.data, "*set-aside*"))
	require.NoError(t, err)
	require.Len(t, aside, 1)
	require.Contains(t, a.logged("local store set aside"), aside[0])
	require.EqualValues(t, 1, a.count(""))
	eventually(t, "ids are restored", func() bool {
		return a.call("GET", path("shared"), nil).status == http.StatusOK
	})
	run := cliRun{env: []string{"CICADA_SERVER=" + *a.base.Load()}}
	r := run.run(t, "store", "import", aside[0], "--dry-run", "-o", "json")
	require.Zero(t, r.code, "%s", r)
	require.EqualValues(t, 1, a.count(""), "a dry run changes nothing")
	for range 2 { // the second time the client's ids are known
		r = run.run(t, "store", "import", aside[0], "--yes", "-o", "json")
		require.Zero(t, r.code, "%s", r)
	}
	require.Equal(t, "l", a.call("GET", path("local")+"?body=true", nil).ok(t)["body"])
	require.NotEqual(t, "scheduled", a.state(made), "a made id is not taken over")
	require.EqualValues(t, 4, a.count(""), "shared, local, and made by two imports")
	balanced(t, a.books())
}
