// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/ctl/child"
)

// patience is for what a loaded machine does in its time.
const patience = time.Minute

// actAs lets the test program be cicada.
const actAs = "CICADA_TEST_ACT_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(actAs) != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func program(t *testing.T) string {
	t.Helper()
	t.Setenv(actAs, "1")
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// cicada runs one command line.
func cicada(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// The thirty seconds of the README: they are what everybody tries first, and the exit statuses are
// what scripts rely on (Q1).
func TestFirstSteps(t *testing.T) {
	dir := t.TempDir()
	p, err := child.Start(t.Context(), child.Options{
		Program: program(t), LogFile: filepath.Join(dir, "log"), Now: time.Now,
		Args: []string{"--data-dir", filepath.Join(dir, "data"), "--tier-min-wait", "100ms",
			"--tier-flush-interval", "100ms"},
	})
	require.NoError(t, err)
	t.Setenv("CICADA_SERVER", p.Server())
	out, _, status := cicada(t, "send", "--target", "pull:orders", "--delay", "100ms", "--id", "o-1",
		"body")
	require.Equal(t, "o-1\n", out)
	require.Zero(t, status)
	out, errs, status := cicada(t, "pull", "orders", "--wait", "30s", "--ack", "-o", "jsonl")
	require.Zero(t, status, errs)
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(out), &m))
	require.Equal(t, "body", m["body"])
	_, _, status = cicada(t, "cancel", "o-1")
	require.Equal(t, 5, status)
	_, _, status = cicada(t, "get", "nobody")
	require.Equal(t, 3, status)
	out, errs, status = cicada(t, "doctor")
	require.Zero(t, status, out+errs)

	_, _, status = cicada(t, "send", "--target", "log:", "--delay", "1h", "--id", "far",
		"--durability", "tier", "x")
	require.Zero(t, status)
	_, errs, status = cicada(t, "serve", "--data-dir", filepath.Join(dir, "data"), "--listen",
		"127.0.0.1:0")
	require.Equal(t, 1, status)
	require.Contains(t, errs, "another process uses the data directory")
	require.NoError(t, p.Stop(), "SIGTERM must give exit status 0")

	log, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(log), `"msg":"ready"`))
	require.Equal(t, 1, strings.Count(string(log), "survives no disk loss"))
	flag := "--data-dir=" + filepath.Join(dir, "data")
	out, errs, status = cicada(t, "store", "check", flag)
	require.Zero(t, status, out+errs)
	out, errs, status = cicada(t, "tier", "dump", flag, "-o", "id")
	require.Zero(t, status, errs)
	require.Equal(t, "far\n", out)
	_, errs, status = cicada(t, "tier", "ls", "--bucket", "file:///nonexistent/bucket")
	require.Equal(t, 1, status)
	require.Contains(t, errs, "/nonexistent/bucket")
}

// A second signal must end a daemon that does not end by itself (Q2): here it waits for a lease.
func TestSecondSignal(t *testing.T) {
	dir := t.TempDir()
	addr, err := child.FreeAddress(t.Context())
	require.NoError(t, err)
	cmd := exec.Command(program(t), "serve", "--listen", addr, "--data-dir", dir, "--bucket", "none",
		"--shutdown-timeout", "1h")
	require.NoError(t, cmd.Start())
	t.Setenv("CICADA_SERVER", addr)
	require.Eventually(t, func() bool {
		_, _, status := cicada(t, "send", "--target", "pull:q", "--delay", "0s", "x")
		return status == 0
	}, patience, 10*time.Millisecond)
	out, _, _ := cicada(t, "pull", "q", "--wait", "30s", "--lease", "1h", "-o", "id")
	require.NotEmpty(t, out)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool {
		_, _, status := cicada(t, "send", "--target", "pull:q", "--delay", "0s", "x")
		return status == 1
	}, patience, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.True(t, state.Signaled())
}

// The file's mistakes must come with their places, and serve must refuse the same file.
func TestConfigCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(file, []byte("tier:\n  min_wait: 5\nlisten: x\n"), 0o600))
	_, errs, status := cicada(t, "config", "check", file)
	require.Equal(t, 1, status)
	require.Contains(t, errs, file+":2: tier.min_wait: ")
	require.Contains(t, errs, file+":3: listen: unknown key")
	_, errs, status = cicada(t, "serve", "--config", file)
	require.Equal(t, 2, status)
	require.Contains(t, errs, file+":2: tier.min_wait: ")
	t.Setenv("CICADA_LOCAL_HORIZON", "2d")
	out, _, status := cicada(t, "config", "print", "--tier-flush-interval", "2s")
	require.Zero(t, status)
	require.Contains(t, out, "flush_interval: 2s")
	require.Contains(t, out, "horizon: 2d")
	_, errs, status = cicada(t, "serve", "--listen", "0.0.0.0:0")
	require.Equal(t, 2, status)
	require.Contains(t, errs, "--insecure-open")
}

// The bench must run on its own daemon, tell the truth on one line, and leave nothing behind.
func TestBench(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, args := range [][]string{
		{"--messages", "2000", "--json"},
		{"--messages", "2000", "--encoding", "protobuf"},
		{"--messages", "2000", "--encoding", "ndjson", "--order", "in-order", "--ids", "client"},
		{"--messages", "200", "--single"},
		{"--spike", "500", "--in", "1s", "--json"},
	} {
		out, errs, status := cicada(t, append([]string{"bench"}, args...)...)
		require.Zero(t, status, "%v: %s%s", args, out, errs)
		require.Equal(t, 1, strings.Count(out, "\n"))
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(out), &r))
		require.Equal(t, r["messages"], r["accepted"], out)
		require.NotEmpty(t, r["encoding"])
		require.Positive(t, r["rss_mb"])
		if r["mode"] == "spike" {
			require.Zero(t, r["lost"].(float64)+r["early"].(float64)+r["duplicates"].(float64), out)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)
}
