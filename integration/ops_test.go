// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fails starts a daemon that must end by itself, with this exit status and a message that says
// all of want.
func fails(t *testing.T, d *daemon, want ...string) string {
	t.Helper()
	from := d.logSize()
	d.launch()
	code := d.wait()
	log := d.logFrom(from)
	require.Contains(t, []int{1, 2}, code, "exit status; log:\n%s", log)
	for _, w := range want {
		require.Contains(t, log, w)
	}
	require.NotContains(t, log, "panic:")
	require.NotContains(t, log, "goroutine ")
	return log
}

// Two daemons on one data directory would destroy each other's files.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	d.send(obj{"id": "a", "target": "pull:q", "delay": "1h"})
	second := newDaemon(t, quick...)
	second.data = d.data
	fails(t, second, d.data)
	require.Equal(t, "scheduled", d.state("a"))
	d.send(obj{"id": "b", "target": "pull:q", "delay": "1h"})
	d.stop()
	d.start()
	require.EqualValues(t, 2, d.count(""))
}

// Two daemons on one bucket: the newer owns it, the older ends with exit status 1 and says why, and
// what was uploaded is with the newer. The older disk is then not trusted any more.
func TestTwoDaemonsOneBucket(t *testing.T) {
	t.Parallel()
	bucket := "file://" + filepath.Join(t.TempDir(), "bucket")
	args := append([]string{"--bucket", bucket}, quick...)
	first := serve(t, args...)
	for i := range 20 {
		first.send(obj{
			"id": fmt.Sprint(i), "target": "pull:q", "delay": "1h", "durability": "tier", "body": "b",
		})
	}
	second := serve(t, args...)
	require.Equal(t, 1, first.wait(), "%s", first.logFrom(0))
	require.Contains(t, strings.ToLower(first.logFrom(0)), "owner")
	eventually(t, "the newer has them", func() bool { return second.count("") == 20 })
	require.Equal(t, "b", second.call("GET", path("7")+"?body=true", nil).ok(t)["body"])
	eventually(t, "the newer may cancel", func() bool {
		r := second.call("DELETE", path("7"), nil)
		return r.status == http.StatusOK
	})
	second.send(obj{"id": "new", "target": "pull:q", "delay": "1h", "durability": "tier"})
	second.stop()

	// The old directory again: set aside, never read, and still there.
	first.start()
	eventually(t, "all of the bucket", func() bool { return first.count("") == 20 })
	require.Equal(t, "scheduled", first.state("new"))
	require.Contains(t, []string{"cancelled", "not_found"}, first.state("7"))
	aside, err := filepath.Glob(filepath.Join(first.data, "*set-aside*"))
	require.NoError(t, err)
	require.Len(t, aside, 1)
	balanced(t, first.books())
}

// An empty data directory beside a bucket starts from the bucket (restore).
func TestRestore(t *testing.T) {
	t.Parallel()
	d := serve(t, tortured...)
	const n = 500
	var batch []obj
	for i := range n {
		batch = append(batch, obj{
			"id": fmt.Sprint(i), "target": "pull:q", "delay": fmt.Sprintf("%dms", 4000+i*4),
			"durability": "tier", "body": fmt.Sprint("b", i),
		})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	require.Equal(t, "CANCELLED", d.call("DELETE", path("3"), nil).ok(t)["result"])
	moved := d.call("PATCH", path("4"), obj{"delay": "6s"}).ok(t)
	require.Equal(t, "tier", moved["durability"])
	d.kill()
	d.loseDisk()
	d.start()
	got := map[string]int64{}
	for deadline := time.Now().Add(40 * time.Second); len(got) < n-1 && time.Now().Before(deadline); {
		for _, m := range d.pull("q", obj{"wait": "3s", "max": 100}) {
			id := text(m, "id")
			require.LessOrEqual(t, num(t, m, "due_ms"), time.Now().UnixMilli(), "early")
			require.Equal(t, "b"+id, m["body"])
			require.NotContains(t, got, id)
			got[id] = num(t, m, "due_ms")
			d.ack("q", text(m, "receipt"))
		}
	}
	require.Len(t, got, n-1)
	require.NotContains(t, got, "3", "CANCELLED, and delivered after the loss of the disk")
	require.Equal(t, num(t, moved, "due_ms"), got["4"])
	require.Equal(t, true, d.send(batch[5])["duplicate"], "ids are known from the bucket")
	balanced(t, d.books())
}

// A bucket that cannot be written must be told at once, with its path, before anything is taken.
func TestUnreadableBucket(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		bucket := filepath.Join(t.TempDir(), "bucket")
		require.NoError(t, os.Mkdir(bucket, 0o500))
		fails(t, newDaemon(t, "--bucket", "file://"+bucket), bucket)
		return
	}
	// Root may do anything: the daemon runs as somebody else.
	dir, err := os.MkdirTemp("", "cicada-nobody-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777))
	for name, mode := range map[string]fs.FileMode{"readable": 0o755, "closed": 0o700} {
		bucket := filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(bucket, mode))
		d := newDaemon(t, "--bucket", "file://"+bucket)
		d.data, d.log = filepath.Join(dir, "data-"+name), filepath.Join(dir, "log-"+name)
		d.attr = asNobody
		fails(t, d, bucket, "permission denied")
	}
	// The same for the data directory.
	d := newDaemon(t, "--bucket", "none")
	d.data, d.log = filepath.Join(dir, "closed", "data"), filepath.Join(dir, "log-data")
	d.attr = asNobody
	fails(t, d, d.data, "permission denied")
}

// A full disk refuses new messages with 503, loses nothing, stays ready, and recovers.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "320m")
	d := newDaemon(t, "--bucket", "none", "--local-reserve", "64MiB")
	d.data = filepath.Join(disk, "data")
	d.start()
	t.Cleanup(d.kill)
	d.send(obj{"id": "before", "target": "pull:q", "delay": 0, "body": "b"})
	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	var r reply
	for i := 0; r.status == 0 || r.status == http.StatusOK; i++ { // the disk is looked at now and then
		r = d.call("POST", "/v1/messages", obj{"target": "pull:q", "delay": "1h"})
		time.Sleep(pollEvery)
		require.Less(t, i, 3000)
	}
	r.refused(t, http.StatusServiceUnavailable, "unavailable", "")
	require.Equal(t, http.StatusOK, d.call("GET", "/readyz", nil).status)
	m := d.pullOne("q", obj{})
	require.Equal(t, "b", m["body"])
	require.Equal(t, "ACKED", d.ack("q", text(m, "receipt"))[text(m, "receipt")])
	require.NoError(t, os.Remove(filler))
	eventually(t, "there is room again", func() bool {
		return d.call("POST", "/v1/messages", obj{"id": "room", "target": "pull:q", "delay": "1h"}).
			status == http.StatusOK
	})
	require.Equal(t, "delivered", d.state("before"))
	balanced(t, d.books())
	d.kill()

	// A start without any room works, or says so and ends; it does neither hang nor lose.
	fill(t, filler)
	from := d.logSize()
	if err := d.tryStart(); err == nil {
		require.Equal(t, "delivered", d.state("before"))
		d.kill()
	} else {
		require.NotZero(t, d.wait())
		require.Contains(t, d.logFrom(from), d.data)
		require.Contains(t, d.logFrom(from), "no space left")
	}
	require.Less(t, d.logSize()-from, int64(1<<20), "a flood in the log")
	require.NoError(t, os.Remove(filler))
	d.start()
	require.Equal(t, "delivered", d.state("before"))
	require.Equal(t, "scheduled", d.state("room"))

	empty := newDaemon(t, "--bucket", "none", "--local-reserve", "64MiB")
	empty.data = filepath.Join(smallDisk(t, "1m"), "data")
	fails(t, empty, empty.data)
}

// fill leaves nearly no room.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 1<<20)
	for range 400 {
		if _, err := f.Write(block); err != nil {
			return // full
		}
	}
}

// A data directory of another version must not be touched.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	d.send(obj{"id": "a", "target": "pull:q", "delay": "1h"})
	d.stop()
	changed := 0
	require.NoError(t, filepath.WalkDir(d.data, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(strings.ToLower(e.Name()), "format-version") {
			return err
		}
		changed++
		return os.Rename(p, p[:len(p)-3]+"999") // Pebble's marker: the name holds the version
	}))
	require.NotZero(t, changed, "no marker of the format's version found")
	fails(t, d, filepath.Join(d.data, "store"))
}

// What is wrong in a configuration is said with file, line and key, for each mistake, and nothing
// starts.
func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("tier:\n  flush_intervall: 5s\n  min_wait: 5\n"+
		"local:\n  horizon: never\nwebhook:\n  allow: []\n"), 0o600))
	run := cliRun{dir: dir}
	for _, args := range [][]string{
		{"config", "check", file}, {"serve", "--config", file, "--data-dir", filepath.Join(dir, "data")},
	} {
		r := run.run(t, args...)
		require.Contains(t, []int{1, 2}, r.code, "%s", r)
		for _, want := range []string{
			"c.yaml:2: tier.flush_intervall", "c.yaml:3: tier.min_wait", "c.yaml:5: local.horizon",
			"c.yaml:6: webhook",
		} {
			require.Contains(t, r.out+r.err, want, "%v", args)
		}
	}
	require.NoDirExists(t, filepath.Join(dir, "data"))
	require.NoError(t, os.WriteFile(file, []byte("tier:\n  flush_interval: 5s\n"), 0o600))
	r := run.run(t, "config", "check", file)
	require.Equal(t, 0, r.code, "%s", r)
	for _, args := range [][]string{
		{"serve", "--tier-flush-intervall", "5s"}, {"serve", "--tier-flush-interval", "5"},
		{"serve", "--local-horizon", "-1h"}, {"serve", "--durability-default", "cloud"},
		{"serve", "--bucket", "ftp://x"}, {"serve", "--bucket", "file://relative"},
		{"serve", "--listen", "nowhere"}, {"serve", "extra"}, {"serve", "--config", "/none.yaml"},
		{"serve", "--listen", "0.0.0.0:0"}, {"serve", "--listen", ":0"}, {"serve", "--listen", "[::]:0"},
	} {
		r := run.run(t, append(args, "--data-dir", filepath.Join(dir, "data"))...)
		require.Contains(t, []int{1, 2}, r.code, "%v: %s", args, r)
		require.NotEmpty(t, r.err, "%v", args)
		require.NoDirExists(t, filepath.Join(dir, "data"), "%v", args)
	}
	r = cliRun{dir: dir, env: []string{"CICADA_TIER_FLUSH_INTERVAL=soon"}}.run(t, "config", "print")
	require.Contains(t, []int{1, 2}, r.code)
	require.Contains(t, r.err, "CICADA_TIER_FLUSH_INTERVAL")
}

// Flags win over variables, variables over the file, and secrets are masked wherever they show.
func TestConfigPrint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	const secret, token = "topsecret-0123456789abcdef", "tokensecret-0123456789"
	require.NoError(t, os.WriteFile(file, []byte("tier:\n  flush_interval: 1s\n  min_wait: 2s\n"+
		"local: {horizon: 3h}\nwebhooks:\n  secrets:\n    - {id: k1, key: \""+secret+"\"}\n"+
		"api:\n  tokens:\n    - {name: app, token: \""+token+"\", scopes: [read]}\n"), 0o600))
	run := cliRun{dir: dir, env: []string{
		"CICADA_TIER_FLUSH_INTERVAL=4s", "CICADA_TIER_MIN_WAIT=5s", "AWS_SECRET_ACCESS_KEY=awssecret",
	}}
	r := run.run(t, "config", "print", "--config", file, "--tier-flush-interval", "6s")
	require.Equal(t, 0, r.code, "%s", r)
	require.Contains(t, r.out, "flush_interval: 6s")
	require.Contains(t, r.out, "min_wait: 5s")
	require.Contains(t, r.out, "horizon: 3h")
	for _, s := range []string{secret, token, "awssecret"} {
		require.NotContains(t, r.out+r.err, s)
	}

	d := newDaemon(t, "--config", file, "--log-level", "debug")
	d.env = run.env
	d.launch()
	t.Cleanup(d.kill)
	addr := ""
	eventually(t, "it listens", func() bool { addr = d.readyLine(0); return addr != "" })
	base := "http://" + addr
	d.base.Store(&base)
	r401 := d.call("GET", "/v1/status", nil)
	r401.refused(t, http.StatusUnauthorized, "unauthenticated", "")
	cli := cliRun{dir: dir}
	require.Equal(t, 4, cli.run(t, "status", "--server", addr).code)
	require.Equal(t, 0, cli.run(t, "status", "--server", addr, "--token", token).code)
	require.Equal(t, 4, cli.run(t, "send", "--target", "pull:q", "--delay", "1h", "--server", addr,
		"--token", token, "x").code, "a token to read may not send")
	for _, s := range []string{secret, token, "awssecret"} {
		require.NotContains(t, d.logFrom(0), s)
	}
}

// Without a bucket a promise of one must be refused, not broken.
func TestNoBucket(t *testing.T) {
	t.Parallel()
	d := serve(t, "--bucket", "none")
	d.call("POST", "/v1/messages", obj{"target": "pull:q", "delay": "1h", "durability": "tier"}).
		refused(t, http.StatusBadRequest, "invalid_argument", "durability")
	d.send(obj{"id": "a", "target": "pull:q", "delay": "1h"})
	d.kill()
	d.start()
	require.Equal(t, "scheduled", d.state("a"))
	r := cliRun{}.run(t, "serve", "--bucket", "none", "--durability-default", "tier", "--data-dir",
		filepath.Join(t.TempDir(), "x"), "--listen", "127.0.0.1:0")
	require.Contains(t, []int{1, 2}, r.code, "%s", r)
}

// A tier reply means that the message is in the bucket, within the coalesced flush and not the
// interval; a bucket that has gone answers unavailable, or takes over again when it is back.
func TestTierDurability(t *testing.T) {
	t.Parallel()
	d := serve(t, "--tier-flush-interval", "30s", "--tier-min-wait", "30s")
	began := time.Now()
	r := d.send(obj{"id": "a", "target": "pull:q", "delay": "1h", "durability": "tier", "body": "x"})
	require.Equal(t, "tier", r["durability"])
	require.Less(t, time.Since(began), 25*time.Second, "does not wait for the interval")
	r = d.call("PATCH", path("a"), obj{"delay": "2h"}).ok(t)
	require.Equal(t, "tier", r["durability"])
	d.send(obj{"id": "b", "target": "pull:q", "delay": "1h", "durability": "tier"})
	require.Equal(t, "tier", d.call("DELETE", path("b"), nil).ok(t)["durability"])
	d.kill()
	d.loseDisk()
	d.start()
	// Until the ids are read from the bucket, asking for one answers unavailable (R14).
	eventually(t, "ids are restored", func() bool { return d.call("GET", path("a"), nil).status == 200 })
	require.Equal(t, num(t, r, "due_ms"), num(t, d.get("a"), "due_ms"))
	require.NotEqual(t, "scheduled", d.state("b"))
}

// Every metric of the contract that this build has a source for, with help and type.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := receive(t)
	d := serve(t, append([]string{"--webhook-allow", r.host()}, quick...)...)
	id := text(d.send(obj{"target": r.URL + "/x", "delay": 0}), "id")
	d.send(obj{"id": "dup", "target": "pull:q", "delay": 0, "max_attempts": 1})
	d.send(obj{"id": "dup", "target": "pull:q", "delay": 0, "max_attempts": 1})
	d.send(obj{"id": "far", "target": "pull:q", "delay": "1h", "durability": "tier"})
	d.send(obj{"id": "gone", "target": "pull:q", "delay": "1h"})
	d.call("DELETE", path("gone"), nil)
	d.send(obj{"id": "late", "target": "pull:paused", "delay": 0, "ttl": "50ms"})
	d.call("POST", "/v1/messages", obj{"target": "nowhere", "delay": 0})
	m := d.pullOne("q", obj{})
	d.settle("q", "nack", obj{"receipts": []any{m["receipt"]}})
	eventually(t, "everything has happened", func() bool {
		b := d.books()
		return b["delivered"] == 1 && b["expired"] == 1 && b["dead"] == 1 && b["cancelled"] == 1
	})
	require.Equal(t, "delivered", d.state(id))
	names := strings.Fields(`accepted_total rejected_total delivered_total attempts_total
		cancelled_total expired_total dead_total duplicates_suppressed_total pending pending_bytes
		lateness_seconds due_lag_seconds low_watermark_seconds commit_seconds wal_sync_seconds
		offload_seconds hydrate_seconds hydrate_margin_seconds oldest_not_uploaded_seconds
		tier_fallback_reads_total tier_segments tier_requests_total tier_request_seconds
		tier_bytes_total manifest_commits_total lane_inflight lane_backlog disk_free_bytes
		clock_step_total clock_hold build_info`)
	wanted := []string{
		`cicada_accepted_total{source="`, `cicada_pending{tier="warm"}`, `lane="pull:q"`,
		"cicada_lateness_seconds_bucket{", "cicada_cancelled_total 1\n", "cicada_expired_total 1\n",
	}
	for _, name := range names {
		wanted = append(wanted, "\n# TYPE cicada_"+name+" ")
	}
	var text, missing string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		text, missing = string(d.call("GET", "/metrics", nil).body), ""
		for _, want := range wanted {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if missing == "" {
			break
		}
		time.Sleep(pollEvery)
	}
	require.Empty(t, missing)
	require.Contains(t, strings.ToLower(text), "pebble", "Pebble's own")
}
