// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// cliOf runs verbs against a daemon.
type cliOf struct {
	t   *testing.T
	d   *daemon
	dir string
}

func cli(t *testing.T, d *daemon) *cliOf { return &cliOf{t: t, d: d, dir: t.TempDir()} }

func (c *cliOf) in(stdin string, args ...string) cliResult {
	c.t.Helper()
	server := strings.TrimPrefix(*c.d.base.Load(), "http://")
	return cliRun{dir: c.dir, stdin: stdin, env: []string{"CICADA_SERVER=" + server}}.run(c.t, args...)
}

// ok runs a verb that must succeed and returns its output.
func (c *cliOf) ok(args ...string) string {
	c.t.Helper()
	r := c.in("", args...)
	require.Equal(c.t, 0, r.code, "%v: %s", args, r)
	return r.out
}

// exit runs a verb that must end with this status and a message on stderr.
func (c *cliOf) exit(code int, args ...string) cliResult {
	c.t.Helper()
	r := c.in("", args...)
	require.Equal(c.t, code, r.code, "%v: %s", args, r)
	return r
}

func jsonLines(t *testing.T, text string) []obj {
	t.Helper()
	var out []obj
	for line := range strings.Lines(text) {
		var o obj
		require.NoError(t, json.Unmarshal([]byte(line), &o), "%q", line)
		out = append(out, o)
	}
	return out
}

// A message's way through the command line, with the outputs that scripts read.
func TestCLIMessages(t *testing.T) {
	t.Parallel()
	c := cli(t, serve(t, quick...))
	require.Equal(t, "o-1\n", c.ok("send", "--target", "pull:orders", "--delay", "1h", "--id", "o-1",
		"--key", "k", "--header", "a=b", "body"))
	require.Equal(t, "o-1\n", c.ok("send", "--target", "pull:orders", "--delay", "1h", "--id", "o-1",
		"--key", "k", "--header", "a=b", "body"), "again")
	c.exit(5, "send", "--target", "pull:orders", "--delay", "1h", "--id", "o-1", "other")
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "body"), []byte("from a\nfile\x00"), 0o600))
	c.ok("send", "--target", "pull:orders", "--at", "2040-01-01T00:00:00Z", "--id", "o-2", "@body")
	r := c.in("from stdin", "send", "--target", "pull:orders", "--delay", "2h", "--id", "o-3", "-")
	require.Equal(t, 0, r.code, "%s", r)
	require.Equal(t, "from a\nfile\x00", c.ok("get", "o-2", "--body"))
	require.Equal(t, "from stdin", c.ok("get", "o-3", "--body"))
	var sent obj
	require.NoError(t, json.Unmarshal([]byte(c.ok("send", "--target", "pull:orders", "--delay", "1h", "x",
		"-o", "json")), &sent))
	hasKeys(t, sent, "id", "due", "due_ms", "durability", "duplicate", "generation", "state")

	lines := `{"id":"n-1","target":"pull:n","delay":"1h"}` + "\n" + `{"id":"n-2","target":"bad","delay":1}` +
		"\n" + `{"id":"n-3","target":"pull:n","delay":"1h"}` + "\n"
	r = c.in(lines, "send", "--ndjson", "-")
	require.Equal(t, 1, r.code, "%s", r)
	require.Contains(t, r.out, "n-1")
	require.Contains(t, r.out, "n-3")
	require.Contains(t, r.err, "target")
	require.EqualValues(t, 2, c.d.count("target=pull:n"))

	var got obj
	require.NoError(t, json.Unmarshal([]byte(c.ok("get", "o-1", "--json")), &got))
	require.Equal(t, "o-1", got["id"])
	require.Equal(t, obj{"a": "b"}, got["headers"])
	c.exit(3, "get", "none")

	// Piped output is separated by tabs, without colours or frames.
	rows := c.ok("ls", "--target", "pull:orders")
	require.Contains(t, rows, "o-1\t")
	require.NotContains(t, rows, "\x1b")
	require.NotContains(t, rows, "│")
	require.Equal(t, 4, len(strings.Split(strings.TrimSpace(c.ok("ls", "--target", "pull:orders", "-o",
		"id")), "\n")))
	require.Contains(t, c.ok("ls", "--target", "pull:orders", "-o", "id"), "o-3\n")
	require.Len(t, jsonLines(t, c.ok("ls", "--id-prefix", "o-", "-o", "jsonl")), 3)
	require.Contains(t, c.ok("ls", "--limit", "2", "--all", "-o", "id"), "n-3")
	require.Contains(t, c.ok("next"), "o-1")
	require.Equal(t, "6", strings.TrimSpace(strings.Split(c.ok("count", "-o", "table"), "\t")[0]))
	require.NotEmpty(t, c.ok("histogram"))

	require.Contains(t, c.ok("reschedule", "o-1", "--delay", "3h"), "RESCHEDULED")
	require.Contains(t, c.ok("fire", "o-1"), "FIRED")
	require.Contains(t, c.ok("cancel", "o-3"), "CANCELLED")
	require.Contains(t, c.exit(3, "cancel", "none").out, "NOT_FOUND")
	c.exit(3, "reschedule", "none", "--delay", "1h")
	c.exit(3, "fire", "none")

	// Each call is a process: a lease must outlast some starts on a busy machine.
	pulled := jsonLines(t, c.ok("pull", "orders", "--max", "10", "--wait", "20s", "--lease", "5m",
		"-o", "jsonl"))
	require.Len(t, pulled, 1)
	require.Equal(t, "body", pulled[0]["body"])
	require.Contains(t, c.exit(5, "cancel", "o-1").out, "TOO_LATE")
	receipt := text(pulled[0], "receipt")
	require.Contains(t, c.ok("extend", "orders", receipt, "--lease", "6m"), "EXTENDED")
	require.Contains(t, c.ok("nack", "orders", receipt, "--delay", "0s", "--reason", "no"), "NACKED")
	pulled = jsonLines(t, c.ok("pull", "orders", "--wait", "20s", "--lease", "5m", "-o", "jsonl"))
	require.Contains(t, c.exit(5, "ack", "orders", receipt).out, "SUPERSEDED")
	require.Contains(t, c.ok("ack", "orders", text(pulled[0], "receipt")), "ACKED")
	require.Equal(t, "delivered", c.d.state("o-1"))
	c.ok("send", "--target", "pull:orders", "--delay", "0s", "--id", "o-9", "x")
	pulled = jsonLines(t, c.ok("pull", "orders", "--max", "10", "--wait", "20s", "--ack", "-o", "jsonl"))
	require.Len(t, pulled, 1)
	require.Equal(t, "delivered", c.d.state("o-9"))
	require.Empty(t, c.ok("pull", "orders", "--ack", "-o", "jsonl"))
}

// Bulk changes print the count and do nothing without --yes.
func TestCLIPurge(t *testing.T) {
	t.Parallel()
	c := cli(t, serve(t, quick...))
	for i := range 5 {
		c.d.send(obj{"id": fmt.Sprint(i), "target": "pull:q", "delay": "1h"})
	}
	r := c.in("", "purge", "--target", "pull:q", "--dry-run")
	require.Equal(t, 0, r.code, "%s", r)
	require.Contains(t, r.out+r.err, "5")
	r = c.in("", "purge", "--target", "pull:q")
	require.NotEqual(t, 0, r.code, "%s", r)
	require.Contains(t, r.out+r.err, "5")
	require.Contains(t, r.err, "--yes")
	require.EqualValues(t, 5, c.d.count(""))
	c.ok("purge", "--target", "pull:q", "--yes")
	require.Zero(t, c.d.count(""))
}

// The verbs of operators.
func TestCLIOperate(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	c := cli(t, d)
	d.send(obj{"id": "dead", "target": "pull:q", "delay": 0, "max_attempts": 1})
	m := d.pullOne("q", obj{})
	d.settle("q", "nack", obj{"receipts": []any{m["receipt"]}, "reason": "broken"})
	eventually(t, "it is dead", func() bool { return d.state("dead") == "dead" })
	require.Contains(t, c.ok("dlq", "ls"), "dead")
	c.exit(3, "dlq", "retry", "none")
	c.ok("dlq", "retry", "dead")
	m = d.pullOne("q", obj{})
	d.settle("q", "nack", obj{"receipts": []any{m["receipt"]}})
	eventually(t, "it is dead", func() bool { return d.state("dead") == "dead" })
	c.ok("dlq", "rm", "dead")
	require.NotContains(t, c.ok("dlq", "ls", "-o", "id"), "dead")

	c.ok("pause", "pull:q")
	require.Contains(t, c.ok("targets", "-o", "jsonl"), `"paused":true`)
	c.ok("resume", "pull:q")
	require.NotContains(t, c.ok("targets", "-o", "jsonl"), `"paused":true`)
	var status obj
	require.NoError(t, json.Unmarshal([]byte(c.ok("status", "--json")), &status))
	hasKeys(t, status, "version", "epoch", "books")
	require.NotEmpty(t, c.ok("status"))
	require.NotEmpty(t, c.ok("tier", "status"))
	require.NotEmpty(t, c.ok("clock"))
	require.NotEmpty(t, c.ok("doctor"))
	require.NotEmpty(t, c.ok("version"))
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, c.ok("completion", shell), "cicada", shell)
	}

	// Contexts name daemons.
	server := strings.TrimPrefix(*d.base.Load(), "http://")
	run := cliRun{dir: c.dir}
	require.Equal(t, 1, run.run(t, "status").code, "nobody listens on the default address")
	require.Equal(t, 0, run.run(t, "context", "add", "here", "--server", server).code)
	require.Equal(t, 0, run.run(t, "context", "use", "here").code)
	require.Contains(t, run.run(t, "context", "ls").out, "here")
	r := run.run(t, "status")
	require.Equal(t, 0, r.code, "%s", r)

	// What is on the bucket and on the disk, without and after the daemon.
	d.send(obj{"id": "far", "target": "pull:q", "delay": "40h", "durability": "tier"})
	bucket := "file://" + filepath.Join(d.data, "bucket")
	require.NotEmpty(t, c.ok("tier", "ls", "--bucket", bucket))
	c.ok("tier", "verify", "--bucket", bucket)
	require.Contains(t, c.ok("tier", "dump", "--bucket", bucket, "-o", "jsonl"), `"far"`)
	c.ok("tier", "restore", "--dry-run", "--bucket", bucket)
	require.NotEqual(t, 0, c.in("", "store", "check", "--data-dir", d.data).code, "it is in use")
	d.stop()
	c.ok("store", "check", "--data-dir", d.data)
	c.exit(1, "status")
}

// A misspelt command line changes nothing and says what is wrong.
func TestCLIUsage(t *testing.T) {
	t.Parallel()
	c := cli(t, api(t))
	for _, args := range [][]string{
		{"sned"}, {"send", "--tarret", "x"}, {"send"}, {"send", "--target", "pull:q"},
		{"send", "--target", "pull:q", "--delay", "1h", "--at", "2040-01-01T00:00:00Z", "x"},
		{"get"}, {"get", "a", "b"}, {"cancel"}, {"reschedule", "a"}, {"pull"}, {"ack", "q"},
		{"pull", "q", "--max", "ten"}, {"ls", "-o", "xml"}, {"purge", "--yes", "--dry-run"},
		{"status", "extra"}, {"dlq", "nonsense"}, {"tier", "nonsense"}, {"context", "nonsense"},
	} {
		r := c.exit(2, args...)
		require.NotEmpty(t, r.err, "%v", args)
		require.Empty(t, r.out, "%v", args)
	}
	refused := c.in("", "send", "--target", "nowhere", "--delay", "1h", "x")
	require.Contains(t, []int{1, 2}, refused.code, "%s", refused)
	require.Contains(t, refused.err, "target")
	r := cliRun{env: []string{"CICADA_SERVER=127.0.0.1:1"}}.run(t, "status")
	require.Equal(t, 1, r.code, "%s", r)
	require.Contains(t, r.err, "127.0.0.1:1")
}

// The bench prints one line of JSON with what it promises, and a clean run loses nothing.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("the bench takes the whole machine")
	}
	run := cliRun{}
	r := run.run(t, "bench", "--messages", "2e4", "--size", "200", "--batch", "100", "--due", "1h..30d",
		"--json")
	require.Equal(t, 0, r.code, "%s", r)
	out := jsonLines(t, r.out)
	require.Len(t, out, 1)
	hasKeys(t, out[0], "accepted_per_s", "call_ms", "rss_mb", "disk_mb", "encoding")
	hasKeys(t, out[0]["call_ms"].(obj), "p50", "p99", "p999")
	r = run.run(t, "bench", "--spike", "5000", "--in", "3s", "--json")
	require.Equal(t, 0, r.code, "%s", r)
	out = jsonLines(t, r.out)
	require.Len(t, out, 1)
	hasKeys(t, out[0], "lateness_ms", "early", "lost", "duplicates")
	hasKeys(t, out[0]["lateness_ms"].(obj), "p50", "p99", "max")
	for _, key := range []string{"early", "lost", "duplicates"} {
		require.EqualValues(t, 0, out[0][key], key)
	}
}

// The demo's story is the promise of the product: it must be true each time.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("the demo takes the whole machine")
	}
	dir := t.TempDir()
	r := cliRun{dir: dir}.run(t, "demo", "--fast")
	require.Equal(t, 0, r.code, "%s", r)
	require.Contains(t, r.out, "0 lost")
	require.Contains(t, r.out, "0 early")
	require.NotContains(t, r.out, "\x1b", "no redrawing when piped")
	require.NoDirExists(t, filepath.Join(dir, "cicada-demo"))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "cicada-demo", "x"), 0o755))
	r = cliRun{dir: dir}.run(t, "demo", "--fast")
	require.NotEqual(t, 0, r.code, "a directory that is not empty: %s", r)
	require.DirExists(t, filepath.Join(dir, "cicada-demo", "x"))
}
